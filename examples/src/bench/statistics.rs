//! What is said of several measurements of the same thing.

use serde::{Deserialize, Serialize};

/// A median and how far apart the measurements were.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct Spread {
    /// The middle one, or the mean of the middle two.
    pub median: f64,
    /// The lowest.
    pub lowest: f64,
    /// The highest.
    pub highest: f64,
}

impl Spread {
    /// Of all that are numbers; `None` if there are none.
    #[must_use]
    pub fn of(values: impl IntoIterator<Item = f64>) -> Option<Self> {
        let mut sorted: Vec<f64> = values.into_iter().filter(|value| value.is_finite()).collect();
        sorted.sort_unstable_by(f64::total_cmp);
        let (lowest, highest) = (*sorted.first()?, *sorted.last()?);
        let (low, high) = (sorted[(sorted.len() - 1) / 2], sorted[sorted.len() / 2]);
        Some(Self { median: low + (high - low) / 2.0, lowest, highest })
    }

    /// The same in another unit.
    #[must_use]
    pub fn times(self, factor: f64) -> Self {
        Self {
            median: self.median * factor,
            lowest: self.lowest * factor,
            highest: self.highest * factor,
        }
    }
}

/// From which size on something pays: `points` are sizes, ascending, and what it
/// costs there in relation to not doing it. `None` if it does not pay at the
/// largest size; otherwise the size from which on it always does, between two
/// points by a straight line over the logarithm of the size.
#[must_use]
pub fn crossover(points: &[(u64, f64)]) -> Option<u64> {
    let from = points.iter().rposition(|(_, ratio)| *ratio >= 1.0).map_or(0, |last| last + 1);
    let (size, ratio) = *points.get(from)?;
    let Some((below, too_much)) = from.checked_sub(1).map(|before| points[before]) else {
        return Some(size);
    };
    let part = (too_much - 1.0) / (too_much - ratio);
    let (low, high) = ((below as f64).ln(), (size as f64).ln());
    // Rounding must not lead out of the interval.
    Some(((low + (high - low) * part).exp().ceil() as u64).clamp(below, size))
}

/// A threshold for that crossover: the next power of two, so that what is at
/// the break-even is not done.
#[must_use]
pub fn threshold(crossover: u64) -> u64 {
    crossover.checked_next_power_of_two().unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn medians_of_few() {
        let of = |values: &[f64]| Spread::of(values.iter().copied());
        assert_eq!(of(&[]), None);
        assert_eq!(of(&[f64::NAN]), None);
        assert_eq!(of(&[3.0]), Some(Spread { median: 3.0, lowest: 3.0, highest: 3.0 }));
        assert_eq!(of(&[4.0, 1.0]), Some(Spread { median: 2.5, lowest: 1.0, highest: 4.0 }));
        assert_eq!(of(&[9.0, 1.0, 2.0]), Some(Spread { median: 2.0, lowest: 1.0, highest: 9.0 }));
    }

    #[test]
    fn where_it_begins_to_pay() {
        let k = 1024;
        assert_eq!(crossover(&[]), None);
        assert_eq!(crossover(&[(k, 1.5), (2 * k, 1.2)]), None, "never");
        assert_eq!(crossover(&[(k, 0.9), (2 * k, 0.8)]), Some(k), "always");
        assert_eq!(crossover(&[(k, 0.9), (2 * k, 1.1), (4 * k, 0.9)]), Some(2897), "a dip");
        assert_eq!(crossover(&[(k, 0.9), (2 * k, 1.1)]), None, "not at the largest");
        assert_eq!(threshold(2897), 4096);
        assert_eq!(threshold(4096), 4096);
        assert_eq!(threshold(u64::MAX), u64::MAX);
    }

    proptest! {
        #[test]
        fn a_spread_holds_its_median(values in prop::collection::vec(-1e9_f64..1e9, 1..50)) {
            let spread = Spread::of(values.iter().copied()).unwrap();
            prop_assert!(spread.lowest <= spread.median && spread.median <= spread.highest);
            let below = values.iter().filter(|value| **value < spread.median).count();
            let above = values.iter().filter(|value| **value > spread.median).count();
            prop_assert!(below <= values.len() / 2 && above <= values.len() / 2);
        }

        #[test]
        fn from_the_crossover_on_it_pays(ratios in prop::collection::vec(0.1_f64..3.0, 1..20)) {
            let points: Vec<_> =
                ratios.iter().enumerate().map(|(n, ratio)| (1024_u64 << n, *ratio)).collect();
            match crossover(&points) {
                None => prop_assert!(points[points.len() - 1].1 >= 1.0),
                Some(size) => {
                    for (at, ratio) in &points {
                        prop_assert!(*at < size || *ratio < 1.0 || *at == size);
                    }
                    let smaller = points.iter().rev().find(|(at, _)| *at < size);
                    prop_assert!(smaller.is_none_or(|(_, ratio)| *ratio >= 1.0) );
                }
            }
        }
    }
}
