//! The cases as data, for programs that run the suite outside of `cargo test`.

use std::fmt;

use futures::future::LocalBoxFuture;

use crate::Kind::{Bidi, ClientStream, ServerStream, Unary};
use crate::Path;

/// A case of the suite.
#[derive(Clone, Copy)]
#[non_exhaustive]
pub struct Case {
    /// The name, which says what the case proves.
    pub name: &'static str,
    /// The feature that the path must have, if the case needs one.
    pub needs: Option<&'static str>,
    run: for<'a> fn(&'a dyn Path) -> LocalBoxFuture<'a, ()>,
}

impl Case {
    /// Runs the case over a path. It panics if the case fails, and needs a tokio runtime with all
    /// drivers.
    pub async fn run(&self, path: &dyn Path) {
        (self.run)(path).await;
    }
}

impl fmt::Debug for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

/// Makes a list of the entries of the table.
#[doc(hidden)]
#[macro_export]
macro_rules! __list {
    ($list:ident $(
        $name:ident $([$need:ident])?: $module:ident::$case:ident($($argument:expr),*);
    )*) => {
        /// All cases, in the order of the table.
        pub const $list: &[Case] = &[$(Case {
            name: stringify!($name),
            needs: [$(Some(stringify!($need)),)? None][0],
            run: |path| Box::pin($crate::cases::$module::$case(path, $($argument),*)),
        }),*];
    };
}
crate::__every_case!(__list CASES);
