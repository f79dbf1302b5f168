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
            $crate::__every_case!(__cases { $($need: $why,)* });
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
    (raised_limits) => {};
}

/// Makes a test of each entry of the table. An entry is
/// `name [feature]: module::function(arguments);`.
#[doc(hidden)]
#[macro_export]
macro_rules! __cases {
    ($lacks:tt $(
        $name:ident $([$need:ident])?: $module:ident::$case:ident($($argument:expr),*);
    )*) => {$(
        $crate::__case! {
            $lacks [$($need)?] $name ($crate::cases::$module::$case) ($($argument),*)
        }
    )*};
}

/// Makes a test of one case. The test is ignored, with the reason, if the path lacks the feature
/// that the case needs.
#[doc(hidden)]
#[macro_export]
macro_rules! __case {
    ({$($lacks:tt)*} [] $($case:tt)*) => { $crate::__test! { [] $($case)* } };
    ({} [$need:ident] $($case:tt)*) => { $crate::__test! { [] $($case)* } };
    ({deadlines: $why:literal, $($rest:tt)*} [deadlines] $($case:tt)*) => {
        $crate::__test! { [#[ignore = $why]] $($case)* }
    };
    ({panics: $why:literal, $($rest:tt)*} [panics] $($case:tt)*) => {
        $crate::__test! { [#[ignore = $why]] $($case)* }
    };
    ({loss: $why:literal, $($rest:tt)*} [loss] $($case:tt)*) => {
        $crate::__test! { [#[ignore = $why]] $($case)* }
    };
    ({windows: $why:literal, $($rest:tt)*} [windows] $($case:tt)*) => {
        $crate::__test! { [#[ignore = $why]] $($case)* }
    };
    ({isolation: $why:literal, $($rest:tt)*} [isolation] $($case:tt)*) => {
        $crate::__test! { [#[ignore = $why]] $($case)* }
    };
    ({responses_alone: $why:literal, $($rest:tt)*} [responses_alone] $($case:tt)*) => {
        $crate::__test! { [#[ignore = $why]] $($case)* }
    };
    ({cancellation_handle: $why:literal, $($rest:tt)*} [cancellation_handle] $($case:tt)*) => {
        $crate::__test! { [#[ignore = $why]] $($case)* }
    };
    ({cut_uploads: $why:literal, $($rest:tt)*} [cut_uploads] $($case:tt)*) => {
        $crate::__test! { [#[ignore = $why]] $($case)* }
    };
    ({detached: $why:literal, $($rest:tt)*} [detached] $($case:tt)*) => {
        $crate::__test! { [#[ignore = $why]] $($case)* }
    };
    ({any_details: $why:literal, $($rest:tt)*} [any_details] $($case:tt)*) => {
        $crate::__test! { [#[ignore = $why]] $($case)* }
    };
    ({early_ends: $why:literal, $($rest:tt)*} [early_ends] $($case:tt)*) => {
        $crate::__test! { [#[ignore = $why]] $($case)* }
    };
    ({unusual_metadata: $why:literal, $($rest:tt)*} [unusual_metadata] $($case:tt)*) => {
        $crate::__test! { [#[ignore = $why]] $($case)* }
    };
    ({raised_limits: $why:literal, $($rest:tt)*} [raised_limits] $($case:tt)*) => {
        $crate::__test! { [#[ignore = $why]] $($case)* }
    };
    ({$other:ident: $why:literal, $($rest:tt)*} [$need:ident] $($case:tt)*) => {
        $crate::__case! { {$($rest)*} [$need] $($case)* }
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
