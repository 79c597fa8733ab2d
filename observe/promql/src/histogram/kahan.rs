//! Summation that keeps what plain addition loses (Kahan's, in Neumaier's form).

/// A running sum with its compensation.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Kahan {
    sum: f64,
    lost: f64,
}

impl Kahan {
    pub(crate) fn add(&mut self, value: f64) {
        let total = self.sum + value;
        if total.is_infinite() {
            self.lost = 0.0;
        } else if self.sum.abs() >= value.abs() {
            self.lost += (self.sum - total) + value;
        } else {
            self.lost += (value - total) + self.sum;
        }
        self.sum = total;
    }

    /// Adds another running sum.
    pub(crate) fn merge(&mut self, other: Kahan) {
        self.add(other.sum);
        self.lost += other.lost;
    }

    pub(crate) fn total(self) -> f64 {
        if self.sum.is_infinite() { self.sum } else { self.sum + self.lost }
    }
}

impl FromIterator<f64> for Kahan {
    fn from_iter<I: IntoIterator<Item = f64>>(values: I) -> Kahan {
        let mut kahan = Kahan::default();
        for value in values {
            kahan.add(value);
        }
        kahan
    }
}

/// The mean of some values. Where their sum overflows although they are finite, each is divided first.
pub(crate) fn mean(values: impl Iterator<Item = f64> + Clone) -> f64 {
    let count = values.clone().count() as f64;
    let total = values.clone().collect::<Kahan>().total();
    if total.is_finite() || values.clone().any(|value| !value.is_finite()) {
        return total / count;
    }
    values.map(|value| value / count).collect::<Kahan>().total()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_values_survive_large_ones() {
        assert_eq!([1.0, 1e100, 1.0, -1e100].into_iter().collect::<Kahan>().total(), 2.0);
        assert_eq!(mean([1e308, 1e308, 1e308].into_iter()), 1e308);
        assert_eq!(mean([1.0, f64::INFINITY].into_iter()), f64::INFINITY);
        assert!(mean([f64::NEG_INFINITY, f64::INFINITY].into_iter()).is_nan());
    }
}
