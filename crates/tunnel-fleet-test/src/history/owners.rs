//! Exclusive keys: once a device has taken a key, the one before it answers no more.

use std::time::Duration;

use super::Call;

/// What the answers of an exclusive key tell of its owners. Sessions are numbers: each takes the key from the one before.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Staleness {
    /// Answers by a device that had lost the key before the call began.
    pub(crate) stale: usize,
    /// The longest time from the first answer of a new owner to the beginning of a call that an older one answers.
    pub(crate) longest: Duration,
    /// The number of owners that have answered.
    pub(crate) owners: usize,
}

/// Looks for answers by devices that had lost the key. The calls are of one key.
pub(crate) fn staleness(calls: &[Call]) -> Staleness {
    let session = |call: &Call| call.outcome.as_ref().ok()?.parse::<u64>().ok();
    let mut answers: Vec<_> = calls
        .iter()
        .filter_map(|call| Some((session(call)?, call.begun, call.ended)))
        .collect();
    // The first answer of each owner, and of any later one.
    let mut first: Vec<(u64, Duration)> = Vec::new();
    answers.sort_unstable_by_key(|(session, _, ended)| (*session, *ended));
    for (session, _, ended) in &answers {
        if first.last().is_none_or(|(last, _)| last != session) {
            first.push((*session, *ended));
        }
    }
    let owners = first.len();
    let mut staleness = Staleness {
        owners,
        ..Staleness::default()
    };
    for (session, begun, _) in answers {
        let newer = first.iter().filter(|(newer, _)| *newer > session);
        let lost = newer.map(|(_, ended)| *ended).min();
        if let Some(lost) = lost
            && begun > lost
        {
            staleness.stale += 1;
            staleness.longest = staleness.longest.max(begun - lost);
        }
    }
    staleness
}

#[cfg(test)]
mod tests {
    use super::super::call;
    use super::*;

    fn answered(session: &str, begun: u64, ended: u64) -> Call {
        Call {
            outcome: Ok(session.into()),
            ..call(1, 0, begun, ended)
        }
    }

    #[test]
    fn owners_that_follow_each_other_are_as_they_should_be() {
        let calls = [
            answered("1", 0, 10),
            // In flight while the key was taken.
            answered("1", 15, 40),
            answered("2", 12, 20),
            answered("3", 50, 60),
        ];
        let expected = Staleness {
            owners: 3,
            ..Staleness::default()
        };
        assert_eq!(staleness(&calls), expected);
        assert_eq!(staleness(&[]), Staleness::default());
    }

    #[test]
    fn an_answer_of_a_device_that_had_lost_the_key_is_found() {
        let calls = [
            answered("2", 12, 20),
            answered("1", 21, 40),
            answered("3", 30, 35),
            answered("2", 95, 99),
        ];
        let expected = Staleness {
            stale: 2,
            longest: Duration::from_millis(60),
            owners: 3,
        };
        assert_eq!(staleness(&calls), expected);
    }
}
