//! Smallest, middle and largest of a figure over the rounds, and the ratio of two middles.

use serde::Serialize;

/// The spread of one figure over the rounds of one broker.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(crate) struct Spread {
    pub(crate) min: f64,
    pub(crate) median: f64,
    pub(crate) max: f64,
}

impl Spread {
    /// The spread of `values`; `None` without any. The median of an even number is the mean of the middle two.
    pub(crate) fn of(values: &[f64]) -> Option<Self> {
        let mut sorted = values.to_vec();
        sorted.sort_by(f64::total_cmp);
        let (min, max) = (*sorted.first()?, *sorted.last()?);
        let upper = *sorted.get(sorted.len() / 2)?;
        let lower = *sorted.get((sorted.len() - 1) / 2)?;
        Some(Self { min, median: f64::midpoint(lower, upper), max })
    }
}

/// `ours ÷ theirs`; `None` where that says nothing.
pub(crate) fn ratio(ours: f64, theirs: f64) -> Option<f64> {
    let ratio = ours / theirs;
    (ratio.is_finite() && theirs > 0.0).then_some(ratio)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians_of_odd_and_even_counts() {
        for (values, expected) in [
            (&[3.0][..], Some((3.0, 3.0, 3.0))),
            (&[3.0, 1.0], Some((1.0, 2.0, 3.0))),
            (&[9.0, 1.0, 2.0], Some((1.0, 2.0, 9.0))),
            (&[4.0, 1.0, 2.0, 100.0], Some((1.0, 3.0, 100.0))),
            (&[], None),
        ] {
            let found = Spread::of(values).map(|spread| (spread.min, spread.median, spread.max));
            assert_eq!(found, expected, "{values:?}");
        }
    }

    #[test]
    fn a_ratio_against_nothing_is_none() {
        assert_eq!(ratio(1.0, 4.0), Some(0.25));
        assert_eq!(ratio(1.0, 0.0), None);
        assert_eq!(ratio(f64::NAN, 1.0), None);
        assert_eq!(ratio(0.0, 2.0), Some(0.0));
    }
}
