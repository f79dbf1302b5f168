//! How often each call was served.

use std::collections::HashMap;

use super::Call;

/// What the devices of the whole run have served, and what the callers have made.
#[derive(Debug, Default)]
pub(crate) struct Served {
    counts: HashMap<u64, u32>,
    /// Whether each call that was made has succeeded.
    made: HashMap<u64, bool>,
}

impl Served {
    /// Notes the calls that callers have made.
    pub(crate) fn made(&mut self, calls: &[Call]) {
        let calls = calls.iter();
        self.made
            .extend(calls.map(|call| (call.id, !call.has_failed())));
    }

    /// Notes that devices have served these calls.
    pub(crate) fn served(&mut self, ids: impl IntoIterator<Item = u64>) {
        for id in ids {
            *self.counts.entry(id).or_default() += 1;
        }
    }

    /// The number of calls that were made.
    pub(crate) fn len(&self) -> usize {
        self.made.len()
    }

    /// The number of calls that have failed.
    pub(crate) fn failed(&self) -> usize {
        self.made.values().filter(|succeeded| !**succeeded).count()
    }

    /// What is wrong: calls that were served twice, that were answered and not served, or that nobody has made.
    pub(crate) fn problems(&self) -> Vec<String> {
        let served = |id: &u64| self.counts.get(id).copied().unwrap_or_default();
        let twice = self.counts.values().filter(|count| **count > 1).count();
        let made = self.made.iter();
        let invented = made
            .filter(|(id, succeeded)| **succeeded && served(id) == 0)
            .count();
        let unknown = self.counts.keys();
        let unknown = unknown.filter(|id| !self.made.contains_key(id)).count();
        [
            (twice, "were served more than once"),
            (invented, "were answered, but no device has served them"),
            (unknown, "were served, but nobody has made them"),
        ]
        .into_iter()
        .filter(|(count, _)| *count > 0)
        .map(|(count, what)| format!("{count} calls {what}"))
        .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::super::call;
    use super::*;

    #[test]
    fn each_call_is_served_once_or_failed() {
        let mut lost = call(3, 0, 0, 1);
        lost.outcome = Err("lost".into());
        let mut served = Served::default();
        served.made(&[call(1, 0, 0, 1), call(2, 0, 0, 1), lost]);
        served.served([1, 2]);
        assert_eq!(served.problems(), [""; 0]);
        // A failed call may have been served, once.
        served.served([3]);
        assert_eq!(served.problems(), [""; 0]);
        served.served([3]);
        assert_eq!(served.problems(), ["1 calls were served more than once"]);
        assert_eq!((served.len(), served.failed()), (3, 1));
    }

    #[test]
    fn calls_without_a_device_and_without_a_caller_are_found() {
        let mut served = Served::default();
        served.made(&[call(1, 0, 0, 1)]);
        served.served([2]);
        assert_eq!(
            served.problems(),
            [
                "1 calls were answered, but no device has served them",
                "1 calls were served, but nobody has made them"
            ]
        );
    }
}
