//! Makes tests of the cases.

use std::time::Duration;

/// The time after which a case counts as hanging. Most cases take a fraction of a second, and slow
/// ones a few seconds.
const GUARD: Duration = Duration::from_secs(120);

/// Runs a case, and panics with its name if it hangs.
pub async fn guard(name: &str, case: impl Future<Output = ()>) {
    if tokio::time::timeout(GUARD, Box::pin(case)).await.is_err() {
        panic!("{name} still waits after {} s", GUARD.as_secs());
    }
}

/// Makes a test module that runs the whole suite over one path, with a test for each case.
///
/// ```no_run
/// tunnel_conformance::suite! {
///     mod plain_tonic = tunnel_conformance::PlainTcpPath;
///     lacks {
///         deadlines: "n/a: tonic's own deadline stops at the headers",
///     }
/// }
/// ```
///
/// The features that a path can lack. The reason is shown in the list of tests:
///
/// - `deadlines`: an expired deadline ends a call with DEADLINE_EXCEEDED, at any stage.
/// - `panics`: a panic of a handler ends only its own call, with INTERNAL.
/// - `loss`: the server can be killed, and every call in flight then fails with UNAVAILABLE.
/// - `windows`: each stream has its own window, so a stream whose responses are not read does not
///   block the others.
/// - `isolation`: several such streams, or requests that a handler does not read, do not block the
///   others either.
/// - `responses_alone`: dropping the responses of a call whose requests are still open ends the
///   whole call.
/// - `cancellation_handle`: tonic's cancellation handle cancels a call on both sides.
/// - `cut_uploads`: a handler never sees a clean end of an upload that was cut short.
/// - `detached`: a request stream that outlives its handler also ends with an error when it is cut
///   short.
/// - `any_details`: status details may be any bytes, not only a `google.rpc.Status`.
/// - `early_ends`: a handler may end a call while its requests still come.
/// - `unusual_metadata`: text metadata may have bytes beyond ASCII, and keys may be gRPC's own.
/// - `compression`: messages may be compressed, and arrive so.
/// - `raised_limits`: the limit on message sizes can be raised to 64 MiB.
#[macro_export]
macro_rules! suite {
    (
        mod $module:ident = $path:expr;
        lacks { $($need:ident: $why:literal),* $(,)? }
    ) => {
        mod $module {
            #[allow(unused_imports)]
            use super::*;
            use $crate::Kind::{Bidi, ClientStream, ServerStream, Unary};

            fn path() -> impl $crate::Path {
                $path
            }

            $($crate::__need!($need);)*
            $crate::__define_case!([$] $($need: $why,)*);
            $crate::__every_case!(__cases __case);
        }
    };
}

/// Accepts the names of the features, so that a misspelt name does not compile.
#[doc(hidden)]
#[macro_export]
macro_rules! __need {
    (deadlines) => {};
    (panics) => {};
    (loss) => {};
    (windows) => {};
    (isolation) => {};
    (responses_alone) => {};
    (cancellation_handle) => {};
    (cut_uploads) => {};
    (detached) => {};
    (any_details) => {};
    (early_ends) => {};
    (unusual_metadata) => {};
    (compression) => {};
    (raised_limits) => {};
}

/// Makes a test of each entry of the table with a macro for one case. An entry is
/// `name [feature]: module::function(arguments);`.
#[doc(hidden)]
#[macro_export]
macro_rules! __cases {
    ($make_test:ident $(
        $name:ident $([$need:ident])?: $module:ident::$case:ident($($argument:expr),*);
    )*) => {$(
        $make_test! {
            [$($need)?] $name ($crate::cases::$module::$case) ($($argument),*)
        }
    )*};
}

/// Defines the macro that makes a test of one case. The test is ignored, with the reason, if the
/// path lacks the feature that the case needs. The first argument is a dollar sign, for the
/// variables of the macro that is defined.
#[doc(hidden)]
#[macro_export]
macro_rules! __define_case {
    ([$d:tt] $($lacked:ident: $why:literal,)*) => {
        macro_rules! __case {
            $(([$lacked] $d($d case:tt)*) => {
                $crate::__test! { [#[ignore = $why]] $d($d case)* }
            };)*
            ([$d($d need:ident)?] $d($d case:tt)*) => {
                $crate::__test! { [] $d($d case)* }
            };
        }
    };
}

/// Makes the test function.
#[doc(hidden)]
#[macro_export]
macro_rules! __test {
    ([$(#[$attribute:meta])?] $name:ident ($case:path) ($($argument:expr),*)) => {
        #[tokio::test(flavor = "multi_thread")]
        $(#[$attribute])?
        async fn $name() {
            let path = path();
            let case = $case(&path, $($argument),*);
            $crate::harness::guard(stringify!($name), case).await;
        }
    };
}
