//! Medians, spreads, and ratios of two variants.
//!
//! Invariant: a ratio divides values of the same round, so that noise on the machine affects both.

use crate::results::Cell;

/// The median and the spread of the values of several rounds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Summary {
    pub(crate) median: f64,
    pub(crate) low: f64,
    pub(crate) high: f64,
    /// The number of rounds with a value.
    pub(crate) rounds: usize,
}

/// Summarises values. `None` if there are none.
pub(crate) fn summary(values: impl IntoIterator<Item = f64>) -> Option<Summary> {
    let mut values: Vec<f64> = values.into_iter().filter(|v| v.is_finite()).collect();
    values.sort_by(f64::total_cmp);
    let (low, high) = (*values.first()?, *values.last()?);
    let middle = values.len() / 2;
    let median = match values.len() % 2 {
        0 => f64::midpoint(values[middle - 1], values[middle]),
        _ => values[middle],
    };
    Some(Summary {
        median,
        low,
        high,
        rounds: values.len(),
    })
}

/// The summary of a cell's values. `None` if most rounds did not finish: the others would not be
/// representative, and the cell's note says what happened.
pub(crate) fn value(cell: &Cell) -> Option<Summary> {
    let values = summary(cell.rounds.iter().flatten().copied())?;
    let mostly = 2 * values.rounds >= cell.rounds.len() || cell.note.is_none();
    mostly.then_some(values)
}

/// The ratio of two cells, over the rounds in which both have a value.
pub(crate) fn ratio(cell: &Cell, base: &Cell) -> Option<Summary> {
    value(cell).and(value(base))?;
    let pairs = cell.rounds.iter().zip(&base.rounds);
    summary(pairs.filter_map(|(ours, theirs)| Some((*ours)? / (*theirs)?)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cell(rounds: &[Option<f64>], note: Option<&str>) -> Cell {
        Cell {
            variant: String::new(),
            rounds: rounds.to_vec(),
            note: note.map(str::to_owned),
        }
    }

    #[test]
    fn the_median_is_the_middle_value_or_halfway_between_the_two() {
        let of = |values: &[f64]| summary(values.iter().copied()).map(|s| s.median);
        assert_eq!(of(&[3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(of(&[4.0, 1.0, 2.0, 3.0]), Some(2.5));
        assert_eq!(of(&[]), None);
    }

    #[test]
    fn the_spread_is_from_the_lowest_to_the_highest_round() {
        let s = summary([3.0, 1.0, 2.0]).expect("there are values");
        assert_eq!((s.low, s.high, s.rounds), (1.0, 3.0, 3));
    }

    #[test]
    fn a_ratio_is_formed_within_each_round() {
        // The machine was twice as fast in the second round, which the ratio cancels out.
        let ours = cell(&[Some(2.0), Some(4.0)], None);
        let base = cell(&[Some(1.0), Some(2.0)], None);
        let ratio = ratio(&ours, &base).expect("both have values");
        assert_eq!((ratio.low, ratio.median, ratio.high), (2.0, 2.0, 2.0));
    }

    #[test]
    fn a_round_that_one_side_lacks_is_left_out_of_the_ratio() {
        let ours = cell(&[Some(2.0), Some(9.0), Some(2.0)], None);
        let base = cell(&[Some(1.0), None, Some(1.0)], None);
        assert_eq!(
            ratio(&ours, &base).map(|r| (r.high, r.rounds)),
            Some((2.0, 2))
        );
    }

    #[test]
    fn a_variant_that_mostly_hangs_has_no_value() {
        let hangs = cell(&[Some(5.0), None, None], Some("hangs"));
        assert_eq!(value(&hangs), None);
        assert_eq!(ratio(&cell(&[Some(1.0)], None), &hangs), None);
    }

    #[test]
    fn a_division_by_zero_is_no_ratio() {
        assert_eq!(
            ratio(&cell(&[Some(1.0)], None), &cell(&[Some(0.0)], None)),
            None
        );
    }
}
