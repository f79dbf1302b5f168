//! The books: for each call number, how often the call reached a handler, and how it ended.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

/// The largest number of calls, enough for hours. The memory is allocated at the start, so that the
/// books do not look like a leak.
const PAGES: usize = 1 << 24;

/// The outcome of a call.
#[derive(Clone, Debug)]
pub(crate) enum Fate {
    /// The call was answered correctly.
    Answered,
    /// The caller dropped the call, or its deadline expired, as planned.
    GivenUp,
    /// The call failed in a way that is allowed during a fault.
    Failed(String),
    /// The call was answered incorrectly, or failed in a way that no fault explains.
    Wrong(String),
    /// The call did not end by its deadline.
    Hanging,
}

/// The books of a run.
pub(crate) struct Books {
    reached: Vec<AtomicU8>,
    last: AtomicU64,
    /// Counts the beginnings and ends of faults: odd during a fault.
    fault: AtomicU64,
    totals: Mutex<Totals>,
}

/// A call in flight.
pub(crate) struct Entry {
    pub(crate) number: u64,
    fault: u64,
}

/// The number of calls by outcome.
#[derive(Clone, Debug, Default)]
pub(crate) struct Totals {
    pub(crate) made: u64,
    pub(crate) answered: u64,
    pub(crate) given_up: u64,
    /// Calls that failed during a fault, by reason.
    pub(crate) failed: BTreeMap<String, u64>,
    /// Calls that failed outside a fault or ended wrongly at any time, by reason.
    pub(crate) lost: BTreeMap<String, u64>,
    pub(crate) doubled: u64,
    pub(crate) hanging: u64,
}

impl Books {
    pub(crate) fn new() -> Self {
        Self {
            reached: (0..PAGES).map(|_| AtomicU8::new(0)).collect(),
            last: AtomicU64::new(0),
            fault: AtomicU64::new(0),
            totals: Mutex::default(),
        }
    }

    /// Records that a call has reached a handler.
    pub(crate) fn reached(&self, number: u64) {
        let page = usize::try_from(number)
            .ok()
            .and_then(|n| self.reached.get(n));
        if let Some(page) = page {
            page.fetch_add(1, Ordering::Relaxed);
        }
    }

    pub(crate) fn fault_begins(&self) {
        self.fault.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn fault_ends(&self) {
        self.fault.fetch_add(1, Ordering::Relaxed);
    }

    /// Begins a call. `None` if the books are full.
    pub(crate) fn begin(&self) -> Option<Entry> {
        let number = self.last.fetch_add(1, Ordering::Relaxed);
        (usize::try_from(number).ok()? < PAGES).then(|| Entry {
            number,
            fault: self.fault.load(Ordering::Relaxed),
        })
    }

    /// Records the outcome of a call.
    pub(crate) fn end(&self, entry: &Entry, fate: Fate) {
        let fault = self.fault.load(Ordering::Relaxed);
        let all_was_well = entry.fault == fault && fault.is_multiple_of(2);
        let mut totals = self.totals.lock().unwrap_or_else(PoisonError::into_inner);
        totals.made += 1;
        match fate {
            Fate::Answered => totals.answered += 1,
            Fate::GivenUp => totals.given_up += 1,
            Fate::Hanging => totals.hanging += 1,
            Fate::Wrong(why) => *totals.lost.entry(why).or_default() += 1,
            Fate::Failed(why) => {
                let book = match all_was_well {
                    true => &mut totals.lost,
                    false => &mut totals.failed,
                };
                *book.entry(why).or_default() += 1;
            }
        }
    }

    /// The totals so far.
    pub(crate) fn totals(&self) -> Totals {
        let totals = self.totals.lock().unwrap_or_else(PoisonError::into_inner);
        let mut totals = totals.clone();
        let last = usize::try_from(self.last.load(Ordering::Relaxed)).unwrap_or(PAGES);
        let pages = &self.reached[..last.min(PAGES)];
        let doubled = pages.iter().filter(|page| page.load(Ordering::Relaxed) > 1);
        totals.doubled = doubled.count() as u64;
        totals
    }
}

impl Totals {
    pub(crate) fn line(&self) -> String {
        format!(
            "{} calls: {} answered, {} given up, {} failed, {} lost, {} doubled, {} hanging",
            self.made,
            self.answered,
            self.given_up,
            self.failed.values().sum::<u64>(),
            self.lost.values().sum::<u64>(),
            self.doubled,
            self.hanging
        )
    }

    /// The reasons why the run fails.
    pub(crate) fn wrong(&self) -> Vec<String> {
        let lost = self
            .lost
            .iter()
            .map(|(why, count)| format!("{count} lost: {why}"));
        let mut wrong: Vec<_> = lost.collect();
        for (count, what) in [(self.doubled, "doubled"), (self.hanging, "hanging")] {
            if count > 0 {
                wrong.push(format!("{count} calls {what}"));
            }
        }
        if self.answered == 0 {
            wrong.push("no call was answered".to_owned());
        }
        wrong
    }
}

#[cfg(test)]
mod tests {
    use super::{Books, Fate};

    #[test]
    fn a_failure_is_excused_only_while_something_is_wrong() {
        let books = Books::new();
        let failed = || Fate::Failed("gone".to_owned());
        let well = books.begin().expect("empty books");
        books.end(&well, failed());
        let before = books.begin().expect("empty books");
        books.fault_begins();
        let during = books.begin().expect("empty books");
        books.end(&before, failed());
        books.fault_ends();
        books.end(&during, failed());
        let totals = books.totals();
        assert_eq!(totals.lost.values().sum::<u64>(), 1);
        assert_eq!(totals.failed.values().sum::<u64>(), 2);
    }

    #[test]
    fn a_call_that_reaches_two_handlers_is_doubled_however_late() {
        let books = Books::new();
        let entry = books.begin().expect("empty books");
        books.reached(entry.number);
        books.end(&entry, Fate::Answered);
        assert!(books.totals().wrong().is_empty());
        books.reached(entry.number);
        assert_eq!(books.totals().wrong(), ["1 calls doubled"]);
    }
}
