//! Which calls may fail, and how soon a device must be reachable again.

use std::collections::BTreeMap;
use std::time::Duration;

use super::Call;

/// How soon the next call of each key must succeed after a fault.
const NEXT_CALL: Duration = Duration::from_secs(2);

/// A fault, and what it may cost.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Fault {
    pub(crate) at: Duration,
    /// When it was over. Calls at the faulty gateway may fail until then.
    pub(crate) until: Duration,
    /// The gateway that has the fault. Callers there cannot be helped by another gateway.
    pub(crate) gateway: Option<usize>,
    pub(crate) allowed: Allowed,
}

/// The calls that may fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Allowed {
    /// None.
    Nothing,
    /// For each caller the call in flight, and one more.
    InFlightAndOneMore,
    /// For each caller two calls that began at most this time after the fault. Those at the faulty gateway may begin later.
    BegunWithin(Duration),
}

/// What has become of the calls of a row.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Judgement {
    pub(crate) calls: usize,
    pub(crate) failed: usize,
    /// The longest time until the next call of a key has succeeded, after any of the faults.
    pub(crate) longest: Duration,
    /// The median over all keys, of the worst fault.
    pub(crate) median: Duration,
    /// What was against the rules.
    pub(crate) problems: Vec<String>,
}

/// Compares the calls with what the faults may cost. Without a fault no call may fail.
pub(crate) fn judge(calls: &[Call], faults: &[Fault], median: Option<Duration>) -> Judgement {
    let mut judgement = Judgement {
        calls: calls.len(),
        failed: calls.iter().filter(|call| call.has_failed()).count(),
        ..Judgement::default()
    };
    if calls.is_empty() {
        judgement.problems.push("no call was made".into());
    }
    let mut excess: Vec<&Call> = calls.iter().filter(|call| call.has_failed()).collect();
    for (index, fault) in faults.iter().enumerate() {
        let next = faults
            .get(index + 1)
            .map_or(Duration::MAX, |fault| fault.at);
        excuse(&mut excess, fault, next);
    }
    if let Some(first) = excess.first() {
        let error = first.outcome.as_ref().err().map_or("", String::as_str);
        judgement.problems.push(format!(
            "{} calls failed that must not; the first, of device-{} at {:.2?} to {:.2?}, with: {error}",
            excess.len(),
            first.key,
            first.begun,
            first.ended,
        ));
    }
    for fault in faults {
        let times = next_calls(calls, fault, &mut judgement.problems);
        let middle = times.get(times.len() / 2).copied().unwrap_or_default();
        let longest = times.last().copied().unwrap_or_default();
        judgement.longest = judgement.longest.max(longest);
        judgement.median = judgement.median.max(middle);
    }
    if judgement.longest > NEXT_CALL {
        judgement.problems.push(format!(
            "the next call of a key took {:.2?}, more than {NEXT_CALL:?}",
            judgement.longest
        ));
    }
    if let Some(most) = median
        && judgement.median > most
    {
        judgement.problems.push(format!(
            "the median of the next calls was {:.0?}, more than {most:?}",
            judgement.median
        ));
    }
    judgement
}

/// Removes the failures that a fault explains: those that ended after it, and began before the next one.
fn excuse(excess: &mut Vec<&Call>, fault: &Fault, next: Duration) {
    let window = match fault.allowed {
        Allowed::Nothing => return,
        Allowed::InFlightAndOneMore => None,
        Allowed::BegunWithin(window) => Some(fault.at + window),
    };
    let mut used: BTreeMap<usize, usize> = BTreeMap::new();
    excess.sort_by_key(|call| call.begun);
    excess.retain(|call| {
        let here = call.gateway.is_some() && call.gateway == fault.gateway;
        let in_time = match window {
            _ if here => call.begun <= fault.until,
            Some(window) => call.begun <= window,
            None => true,
        };
        let caused = call.ended >= fault.at && call.begun < next;
        let used = used.entry(call.caller).or_default();
        if caused && in_time && *used < 2 {
            *used += 1;
            return false;
        }
        true
    });
}

/// For each key that was called after the fault was to be noticed, at another gateway: the time from the beginning of its
/// first call until one has succeeded. Sorted.
fn next_calls(calls: &[Call], fault: &Fault, problems: &mut Vec<String>) -> Vec<Duration> {
    let mut keys: BTreeMap<usize, (Duration, Option<Duration>)> = BTreeMap::new();
    let elsewhere = |call: &&Call| call.gateway.is_none() || call.gateway != fault.gateway;
    let noticed = match fault.allowed {
        Allowed::BegunWithin(window) => fault.at + window,
        _ => fault.at,
    };
    let after = calls.iter().filter(|call| call.begun >= noticed);
    for call in after.filter(elsewhere) {
        let (first, success) = keys.entry(call.key).or_insert((call.begun, None));
        *first = call.begun.min(*first);
        if !call.has_failed() {
            let ended = call.ended.saturating_sub(call.wait);
            *success = Some(success.map_or(ended, |success| success.min(ended)));
        }
    }
    let mut times = Vec::new();
    for (key, (first, success)) in keys {
        match success {
            Some(success) => times.push(success.saturating_sub(first)),
            None => problems.push(format!("no call of device-{key} succeeded after the fault")),
        }
    }
    times.sort_unstable();
    times
}

#[cfg(test)]
mod tests {
    use super::super::call;
    use super::*;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    fn failed(call: Call) -> Call {
        let outcome = Err("lost".into());
        Call { outcome, ..call }
    }

    fn fault(allowed: Allowed) -> Fault {
        Fault {
            at: ms(100),
            until: ms(1000),
            gateway: Some(1),
            allowed,
        }
    }

    #[test]
    fn without_a_fault_no_call_may_fail() {
        let calls = [call(1, 0, 0, 10), call(2, 1, 0, 10)];
        assert_eq!(judge(&calls, &[], None).problems, [""; 0]);
        let calls = [call(1, 0, 0, 10), failed(call(2, 1, 0, 10))];
        let judgement = judge(&calls, &[], None);
        assert_eq!((judgement.calls, judgement.failed), (2, 1));
        assert_eq!(judgement.problems.len(), 1);
        assert_eq!(judge(&[], &[], None).problems, ["no call was made"]);
    }

    #[test]
    fn a_fault_excuses_the_call_in_flight_and_one_more_of_each_caller() {
        let fault = fault(Allowed::InFlightAndOneMore);
        let mut calls = vec![
            failed(call(1, 0, 90, 110)),
            failed(call(2, 0, 110, 120)),
            call(3, 0, 120, 130),
        ];
        let judgement = judge(&calls, &[fault], None);
        assert_eq!(judgement.problems, [""; 0]);
        assert_eq!(judgement.longest, ms(20));
        calls.push(failed(call(4, 0, 130, 140)));
        assert_eq!(judge(&calls, &[fault], None).problems.len(), 1);
        calls[3].caller = 1;
        assert_eq!(judge(&calls, &[fault], None).problems, [""; 0]);
        // It failed before the fault.
        calls.push(failed(call(5, 0, 10, 20)));
        assert_eq!(judge(&calls, &[fault], None).problems.len(), 1);
    }

    #[test]
    fn a_silent_gateway_excuses_calls_for_a_time_and_those_that_are_made_there_for_longer() {
        let fault = fault(Allowed::BegunWithin(ms(200)));
        let mut late = failed(call(1, 0, 400, 500));
        let good = call(2, 0, 400, 410);
        assert_eq!(
            judge(&[late.clone(), good.clone()], &[fault], None)
                .problems
                .len(),
            1
        );
        late.gateway = Some(1);
        assert_eq!(judge(&[late, good], &[fault], None).problems, [""; 0]);
    }

    #[test]
    fn the_next_call_after_a_silent_fault_begins_when_it_was_to_be_noticed() {
        let fault = fault(Allowed::BegunWithin(ms(200)));
        let calls = [
            failed(call(1, 0, 110, 2900)),
            call(2, 0, 3000, 3010),
            call(3, 1, 350, 370),
        ];
        let judgement = judge(&calls, &[fault], None);
        assert_eq!(judgement.longest, ms(20));
        assert_eq!(judgement.problems, [""; 0]);
    }

    #[test]
    fn the_next_call_of_each_key_counts_from_its_first_attempt_and_without_what_the_device_takes() {
        let fault = fault(Allowed::InFlightAndOneMore);
        let mut slow = call(3, 1, 500, 800);
        slow.wait = ms(250);
        let calls = [
            failed(call(1, 0, 200, 210)),
            call(2, 0, 300, 310),
            slow,
            call(4, 2, 120, 125),
        ];
        let judgement = judge(&calls, &[fault], Some(ms(50)));
        assert_eq!((judgement.longest, judgement.median), (ms(110), ms(50)));
        assert_eq!(judgement.problems, [""; 0]);
        assert_eq!(judge(&calls, &[fault], Some(ms(49))).problems.len(), 1);
        let never = [failed(call(1, 0, 200, 210)), call(2, 1, 0, 10)];
        assert_eq!(
            judge(&never, &[fault], None).problems,
            ["no call of device-0 succeeded after the fault"]
        );
        let late = [failed(call(1, 0, 200, 210)), call(2, 0, 2300, 2310)];
        assert_eq!(judge(&late, &[fault], None).problems.len(), 1);
    }
}
