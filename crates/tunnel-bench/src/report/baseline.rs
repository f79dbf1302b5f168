//! The baseline of each variant.
//!
//! Invariant: no variant is, directly or through others, its own baseline.

pub(crate) const PLAIN: &str = "plain tonic";
pub(crate) const TUNED: &str = "tuned tonic";
pub(crate) const PLAIN_GO: &str = "plain go";
pub(crate) const GO: &str = "go in go";
pub(crate) const GO_REVERSE: &str = "go in go reverse";

/// The variants that use this library's tunnels at both ends.
pub(crate) const TUNNELS: [&str; 4] = [
    "forward tunnel",
    "reverse tunnel",
    "forward inline",
    "reverse inline",
];

/// The variants with the Go program at one end of a tunnel.
pub(crate) const WITH_GO: [&str; 4] = [
    "rust calls go",
    "go calls rust",
    "rust calls go reverse",
    "go calls rust reverse",
];

/// The root baseline of a workload. On a long link this is tonic with large windows: with its
/// default windows tonic mostly waits.
pub(crate) fn root(workload: &str) -> &'static str {
    match is_long_link(workload) {
        true => TUNED,
        false => PLAIN,
    }
}

/// The baseline of a variant; `None` for the [`root`].
pub(crate) fn of(workload: &str, variant: &str) -> Option<&'static str> {
    let base = match variant {
        GO | GO_REVERSE => PLAIN_GO,
        "rust calls go" | "go calls rust" => GO,
        "rust calls go reverse" | "go calls rust reverse" => GO_REVERSE,
        _ => root(workload),
    };
    (base != variant).then_some(base)
}

fn is_long_link(workload: &str) -> bool {
    workload.starts_with("50 ms each way")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_go_pairing_is_compared_with_go_on_both_ends_in_its_own_direction() {
        for variant in WITH_GO {
            let expected = match variant.ends_with("reverse") {
                true => GO_REVERSE,
                false => GO,
            };
            assert_eq!(of("unary 16 B x 1", variant), Some(expected));
        }
        assert_eq!(of("unary 16 B x 1", GO), Some(PLAIN_GO));
    }

    #[test]
    fn on_a_long_link_tuned_tonic_is_the_baseline_of_all_and_of_plain_tonic_too() {
        let workload = "50 ms each way: download 1 MiB x 1";
        assert_eq!(of(workload, TUNED), None);
        assert_eq!(of(workload, PLAIN), Some(TUNED));
        assert_eq!(of(workload, "reverse inline"), Some(TUNED));
        assert_eq!(of("download 1 MiB x 1", PLAIN), None);
    }
}
