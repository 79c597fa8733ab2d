//! How sure one can be that a share is above a threshold.

/// The error that a one-sided 95 % bound admits.
const ALPHA: f64 = 0.05;
/// Terms smaller than this share of the sum change nothing any more.
const NEGLIGIBLE: f64 = 1e-15;

/// Whether the exact one-sided lower bound (Clopper and Pearson, 95 %) of `bad / total` is above `threshold`.
///
/// The bound is the share at which seeing `bad` or more would still have a chance of 5 %. It lies above the
/// threshold exactly when, were the threshold the truth, that chance would be less than 5 %; so the upper tail
/// of the binomial distribution answers, and no root has to be searched.
#[must_use]
#[expect(
    clippy::cast_precision_loss,
    reason = "counts beyond 2^53 lose nothing that a probability could show"
)]
pub fn lower_bound_exceeds(bad: u64, total: u64, threshold: f64) -> bool {
    if bad == 0 || bad > total || threshold >= 1.0 {
        return false;
    }
    if threshold <= 0.0 {
        return true;
    }
    let (k, n) = (bad as f64, total as f64);
    if k <= n * threshold {
        return false;
    }
    upper_tail(k, n, threshold) < ALPHA
}

/// The chance of at least `k` of `n` when each has the chance `p`, for `k` above the mean.
fn upper_tail(k: f64, n: f64, p: f64) -> f64 {
    let odds = p / (1.0 - p);
    let first = ln_choose(n, k) + k * p.ln() + (n - k) * (-p).ln_1p();
    // Above the mean each term is smaller than the one before, so the sum ends soon.
    let (mut sum, mut term, mut i) = (1.0, 1.0, k);
    while i < n {
        term *= (n - i) / (i + 1.0) * odds;
        sum += term;
        i += 1.0;
        if term < sum * NEGLIGIBLE {
            break;
        }
    }
    (first + f64::ln(sum)).exp()
}

fn ln_choose(n: f64, k: f64) -> f64 {
    ln_factorial(n) - ln_factorial(k) - ln_factorial(n - k)
}

/// Exact logarithms for small numbers, Stirling's series from 16 on, where its error is below 1e-13.
fn ln_factorial(n: f64) -> f64 {
    if n < 16.0 {
        let mut product = 1.0;
        let mut i = 2.0;
        while i <= n {
            product *= i;
            i += 1.0;
        }
        return f64::ln(product);
    }
    let inverse = 1.0 / n;
    let square = inverse * inverse;
    let correction =
        inverse * (1.0 / 12.0 - square * (1.0 / 360.0 - square * (1.0 / 1_260.0 - square / 1_680.0)));
    n * n.ln() - n + 0.5 * (std::f64::consts::TAU * n).ln() + correction
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The bound itself, by bisection over tails that are summed term by term.
    #[expect(clippy::cast_precision_loss, reason = "small numbers")]
    fn lower_bound(bad: u64, total: u64) -> f64 {
        let tail = |p: f64| -> f64 {
            (bad..=total)
                .map(|i| {
                    let choose: f64 = (0..i).map(|j| (total - j) as f64 / (i - j) as f64).product();
                    choose * p.powf(i as f64) * (1.0 - p).powf((total - i) as f64)
                })
                .sum()
        };
        let (mut low, mut high) = (0.0, 1.0);
        for _ in 0..100 {
            let middle = f64::midpoint(low, high);
            if tail(middle) < ALPHA { low = middle } else { high = middle }
        }
        low
    }

    #[test]
    fn published_bounds_are_met() {
        // Clopper-Pearson one-sided 95 % bounds: 1 of n is 1 - 0.95^(1/n), n of n is 0.05^(1/n).
        for (bad, total, bound) in [
            (1, 1, 0.05),
            (1, 20, 0.002_561),
            (3, 3, 0.368_403),
            (3, 5, 0.189_256),
            (5, 10, 0.222_441),
            (10, 100, 0.055_262),
        ] {
            assert!(
                (lower_bound(bad, total) - bound).abs() < 1e-5,
                "{bad} of {total}: {}",
                lower_bound(bad, total)
            );
            assert!(lower_bound_exceeds(bad, total, bound - 1e-5), "{bad} of {total}");
            assert!(!lower_bound_exceeds(bad, total, bound + 1e-5), "{bad} of {total}");
        }
    }

    #[test]
    fn large_counts_are_decided_and_come_close_to_the_normal_bound() {
        // 1.44 % of a billion, plus z = 1.645 standard deviations of 3767 events.
        let (total, mean, deviation) = (1_000_000_000_u64, 14_400_000_u64, 3_767_u64);
        assert!(!lower_bound_exceeds(mean + deviation * 160 / 100, total, 0.0144));
        assert!(lower_bound_exceeds(mean + deviation * 170 / 100, total, 0.0144));
    }

    #[test]
    fn nothing_bad_and_nonsense_never_exceed() {
        for (bad, total, threshold) in [(0, 0, 0.1), (0, 9, 0.0), (5, 3, 0.1), (9, 9, 1.0)] {
            assert!(!lower_bound_exceeds(bad, total, threshold), "{bad} of {total} over {threshold}");
        }
    }

    proptest! {
        #[test]
        fn the_tail_decides_as_the_bound_does(
            total in 1_u64..60, share in 0.0_f64..=1.0, threshold in 0.001_f64..0.9
        ) {
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss, reason = "small")]
            let bad = (total as f64 * share) as u64;
            let bound = lower_bound(bad, total);
            prop_assume!((bound - threshold).abs() > 1e-9);
            prop_assert_eq!(lower_bound_exceeds(bad, total, threshold), bad > 0 && bound > threshold);
        }
    }
}
