//! One-sided confidence bounds: how large the true value may be, given what was seen, at a stated level.

/// How sure a bound is.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Level {
    /// Probability that the bound is too low.
    alpha: f64,
    /// The standard normal quantile above which that lies.
    pub(crate) z: f64,
}

/// 95 %.
pub const WHOLE: Level = Level { alpha: 0.05, z: 1.6449 };

/// Least probability that a look may spend.
const LEAST: f64 = 1e-7;

impl Level {
    /// The level of the `look`-th bound taken of the same held-back samples, from 1 on: one that ends at the first bound
    /// that suffices is wrong in at most 5 % of all cases, as the looks' probabilities halve and their sum is 5 %.
    pub fn look(look: u32) -> Level {
        let alpha = (0.05 * 0.5f64.powi(look.clamp(1, 64) as i32)).max(LEAST);
        let (mut low, mut high) = (0.0, 9.0);
        for _ in 0..60 {
            let middle = 0.5 * (low + high);
            if tail(middle) > alpha { low = middle } else { high = middle }
        }
        Level { alpha, z: high }
    }
}

/// The looks that one search takes of its held-back samples, whatever it looks at: all of them are wrong in at most 5 % of
/// all cases.
#[derive(Debug, Clone, Copy, Default)]
pub struct Looks(u32);

impl Looks {
    /// The level of one more look, or of one more sequence that ends at its first failure.
    pub fn spend(&mut self) -> Level {
        self.0 = self.0.saturating_add(1);
        Level::look(self.0)
    }
}

/// P(Z > z) of a standard normal variable (Abramowitz & Stegun 26.2.17, |ε| < 7.5e-8).
pub fn tail(z: f64) -> f64 {
    if z < 0.0 {
        return 1.0 - tail(-z);
    }
    let t = 1.0 / (1.0 + 0.2316419 * z);
    let p = t * (0.319381530 + t * (-0.356563782 + t * (1.781477937 + t * (-1.821255978 + t * 1.330274429))));
    (-z * z / 2.0).exp() / (2.0 * std::f64::consts::PI).sqrt() * p
}

/// Upper bound of the mean behind `values` (Student's t): for paired differences of a continuous quality.
/// Infinite below two values.
pub fn mean(values: &[f64], level: Level) -> f64 {
    let n = values.len() as f64;
    if values.len() < 2 {
        return f64::INFINITY;
    }
    let mean = values.iter().sum::<f64>() / n;
    let variance = values.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / (n - 1.0);
    mean + student(values.len() - 1, level) * (variance / n).sqrt()
}

/// Degrees of freedom that the expectation of a usual spread counts for.
const USUAL: f64 = 4.0;

/// As [`mean`] for losses of which a few were seen: a few that agree say little of how much others differ, so their variance
/// is mixed with that of losses which vary as much as they are large (that of an exponential variable), as if so many more
/// degrees of freedom had shown it.
pub fn mean_of_few(values: &[f64], level: Level) -> f64 {
    let n = values.len() as f64;
    if values.len() < 2 {
        return f64::INFINITY;
    }
    let (mean, size) = (values.iter().sum::<f64>() / n, values.iter().map(|v| v.abs()).sum::<f64>() / n);
    let squares = values.iter().map(|v| (v - mean).powi(2)).sum::<f64>();
    let (seen, mixed) = (squares / (n - 1.0), (squares + USUAL * size * size) / (n - 1.0 + USUAL));
    let bound = |degrees: usize, variance: f64| mean + student(degrees, level) * (variance / n).sqrt();
    bound(values.len() - 1, seen).max(bound(values.len() - 1 + USUAL as usize, mixed))
}

/// Upper bound of the net rate of losses among `n` pairs of which some were lost and some gained: Wilson's interval of
/// each rate, combined (Newcombe 1998, method 10, without the correlation). With no gains and no losses it is exact.
pub fn net_losses(losses: usize, gains: usize, n: usize, level: Level) -> f64 {
    if losses == 0 && gains == 0 {
        return unseen(n, level);
    }
    let n = n.max(1) as f64;
    let (lost, gained) = (losses as f64 / n, gains as f64 / n);
    let (up, down) = (wilson(lost, n, level.z) - lost, gained - wilson(gained, n, -level.z));
    lost - gained + (up * up + down * down).sqrt()
}

/// The rate that `n` samples without a loss still allow.
pub fn unseen(n: usize, level: Level) -> f64 {
    if n == 0 { 1.0 } else { 1.0 - level.alpha.powf(1.0 / n as f64) }
}

/// Samples without a loss that are needed to promise `rate`.
pub fn needed(rate: f64, level: Level) -> f64 {
    if rate <= 0.0 { f64::INFINITY } else { (level.alpha.ln() / (-rate.min(0.95)).ln_1p()).ceil() }
}

/// Upper bound of a sum of rare independent events with weights: `weights` of those seen, `largest` a weight can be
/// (Fay & Feuer 1997).
pub fn weighted_count(weights: &[f64], largest: f64, level: Level) -> f64 {
    let (y, v): (f64, f64) = weights.iter().fold((0.0, 0.0), |(y, v), w| (y + w, v + w * w));
    let (y, v) = (y + largest, v + largest * largest);
    if y <= 0.0 { 0.0 } else { v / (2.0 * y) * chi_square(2.0 * y * y / v, level.z) }
}

/// Upper bound of a product of independent numbers, each given as (seen, upper bound): the distances of their logarithms add
/// up as standard deviations do (Zou & Donner 2008).
pub fn product(factors: [(f64, f64); 2]) -> f64 {
    let seen: f64 = factors.iter().map(|f| f.0).product();
    let most = factors.iter().map(|f| f.1).product::<f64>();
    let far = |f: &(f64, f64)| if f.0 > 0.0 { (f.1 / f.0).ln() } else { f64::INFINITY };
    let far = far(&factors[0]).hypot(far(&factors[1]));
    if far.is_finite() { seen * far.exp() } else { most }
}

/// P(X ≥ `seen`) of a Poisson variable.
pub fn at_least(seen: f64, mean: f64) -> f64 {
    let (mut term, mut below) = ((-mean).exp(), 0.0);
    for k in 0..seen.clamp(0.0, 1e6).ceil() as u32 {
        below += term;
        term *= mean / f64::from(k + 1);
    }
    (1.0 - below).clamp(0.0, 1.0)
}

/// The two-sided 95 % interval of a rate (Wilson) among `n` samples.
pub fn rate(p: f64, n: usize) -> (f64, f64) {
    let n = n.max(1) as f64;
    (wilson(p, n, -TWO_SIDED.z).max(0.0), wilson(p, n, TWO_SIDED.z).min(1.0))
}

/// The two-sided 95 % interval of the mean behind `values` (Student's t).
pub fn interval(values: &[f64]) -> (f64, f64) {
    let up = mean(values, TWO_SIDED);
    let middle = values.iter().sum::<f64>() / values.len().max(1) as f64;
    (2.0 * middle - up, up)
}

const TWO_SIDED: Level = Level { alpha: 0.025, z: 1.96 };

fn wilson(p: f64, n: f64, z: f64) -> f64 {
    let square = z * z / n;
    let spread = (p * (1.0 - p) / n + square / (4.0 * n)).max(0.0).sqrt();
    (p + square / 2.0 + z * spread) / (1.0 + square)
}

/// Quantile of χ² (Wilson & Hilferty 1931; within 1 % from two degrees of freedom on).
fn chi_square(degrees: f64, z: f64) -> f64 {
    let a = 2.0 / (9.0 * degrees.max(1e-9));
    degrees * (1.0 - a + z * a.sqrt()).max(0.0).powi(3)
}

/// Quantile of Student's t: exact for one and two degrees, then Hill's expansion (1970, algorithm 396 of the ACM).
fn student(degrees: usize, level: Level) -> f64 {
    let (n, p) = (degrees as f64, 2.0 * level.alpha);
    match degrees {
        0 => return f64::INFINITY,
        1 => return 1.0 / (p * std::f64::consts::FRAC_PI_2).tan(),
        2 => return (2.0 / (p * (2.0 - p)) - 2.0).sqrt(),
        _ => {}
    }
    let a = 1.0 / (n - 0.5);
    let b = 48.0 / (a * a);
    let mut c = ((20700.0 * a / b - 98.0) * a - 16.0) * a + 96.36;
    let d = ((94.5 / (b + c) - 3.0) / b + 1.0) * (a * std::f64::consts::FRAC_PI_2).sqrt() * n;
    let mut y = (d * p).powf(2.0 / n);
    if y > 0.05 + a {
        let x = -level.z;
        y = x * x;
        if degrees < 5 {
            c += 0.3 * (n - 4.5) * (x + 0.6);
        }
        c += (((0.05 * d * x - 5.0) * x - 7.0) * x - 2.0) * x + b;
        let e = (((((0.4 * y + 6.3) * y + 36.0) * y + 94.5) / c - y - 3.0) / b + 1.0) * x;
        y = (a * e * e).exp_m1();
    } else {
        let f = (n + 6.0) / (n * y) - 0.089 * d - 0.822;
        y = ((1.0 / (f * (n + 2.0) * 3.0) + 0.5 / (n + 4.0)) * y - 1.0) * (n + 1.0) / (n + 2.0) + 1.0 / y;
    }
    (n * y).sqrt()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_looks_of_a_search_are_wrong_in_at_most_one_case_of_twenty() {
        let mut looks = Looks::default();
        let spent: Vec<f64> = (0..200).map(|_| looks.spend().alpha).collect();
        assert!(spent.iter().sum::<f64>() <= 0.05 * 1.001 && spent[0] == 0.025);
        let mut later = looks;
        assert!(later.spend().alpha <= spent[7]);
    }

    #[test]
    fn quantiles_match_the_tables() {
        for (d, t) in
            [(1, 6.314), (2, 2.920), (3, 2.353), (5, 2.015), (10, 1.812), (31, 1.696), (1000, 1.646)]
        {
            assert!((student(d, WHOLE) - t).abs() < 2e-3, "{d} {}", student(d, WHOLE));
        }
        for (d, t) in [(1, 12.706), (2, 4.303), (3, 3.182), (4, 2.776), (9, 2.262), (60, 2.000)] {
            assert!((student(d, Level::look(1)) - t).abs() < 3e-3, "{d} {}", student(d, Level::look(1)));
        }
        for (d, x) in [(2.0, 5.991), (10.0, 18.307), (40.0, 55.758)] {
            assert!((chi_square(d, WHOLE.z) / x - 1.0).abs() < 1e-2, "{d}");
        }
        for (look, z) in [(1, 1.95996), (2, 2.24140), (5, 2.95516)] {
            assert!((Level::look(look).z - z).abs() < 1e-3, "{look} {:?}", Level::look(look));
        }
        assert!((tail(1.96) - 0.025).abs() < 1e-4 && (tail(-1.0) - 0.8413).abs() < 1e-4);
    }

    #[test]
    fn looks_spend_one_in_twenty_together() {
        let spent: f64 = (1..=24).map(|i| Level::look(i).alpha).sum();
        assert!(spent <= 0.05 + 24.0 * LEAST && spent > 0.049, "{spent}");
    }

    #[test]
    fn no_loss_among_few_promises_little() {
        assert!((unseen(32, WHOLE) - 0.0894).abs() < 1e-3 && (unseen(299, WHOLE) - 0.01).abs() < 1e-4);
        assert_eq!(needed(0.01, WHOLE), 299.0);
        assert_eq!(unseen(0, WHOLE), 1.0);
    }

    #[test]
    fn gains_pay_for_losses_but_uncertainty_stays() {
        let (clean, even, lost) =
            (net_losses(0, 0, 500, WHOLE), net_losses(5, 5, 500, WHOLE), net_losses(5, 0, 500, WHOLE));
        assert!(clean < even && even < lost, "{clean} {even} {lost}");
        assert!(net_losses(5, 5, 500, WHOLE) > net_losses(50, 50, 5000, WHOLE));
        // Wilson's upper limit for 5 of 500 is 2.1 %.
        assert!((lost - 0.0208).abs() < 1e-3, "{lost}");
    }

    #[test]
    fn the_mean_bound_covers_in_nineteen_of_twenty() {
        // SplitMix64 uniforms have mean 1/2.
        let mut state = 5u64;
        let mut uniform = || {
            state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let z = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            ((z ^ (z >> 31)) >> 11) as f64 / (1u64 << 53) as f64
        };
        let covered = (0..2000).filter(|_| mean(&[(); 12].map(|()| uniform()), WHOLE) >= 0.5).count();
        assert!((1860..1940).contains(&covered), "{covered}");
        assert_eq!(mean(&[0.1], WHOLE), f64::INFINITY);
    }

    #[test]
    fn a_few_losses_that_agree_promise_little() {
        let of = |n: usize, spread: f64| {
            let values: Vec<f64> = (0..n).map(|i| 1.0 + if i % 2 == 0 { spread } else { -spread }).collect();
            (mean(&values, WHOLE), mean_of_few(&values, WHOLE))
        };
        let (few, many, wild) = (of(4, 0.02), of(400, 0.02), of(6, 2.0));
        assert!(few.0 < 1.05 && few.1 > 1.5, "{few:?}");
        assert!(many.1 < 1.02 && wild.0 == wild.1, "{many:?} {wild:?}");
        assert_eq!(mean_of_few(&[0.0; 5], WHOLE), 0.0);
    }

    #[test]
    fn weights_of_one_give_the_poisson_bound() {
        // Garwood: 0 events allow 2.996, 10 events 16.962.
        assert!((weighted_count(&[], 1.0, WHOLE) / 2.996 - 1.0).abs() < 1e-2);
        assert!((weighted_count(&[1.0; 10], 1.0, WHOLE) / 16.962 - 1.0).abs() < 1e-2);
        assert_eq!(weighted_count(&[], 0.0, WHOLE), 0.0);
    }

    #[test]
    fn counts_as_high_as_expected_are_no_surprise() {
        // Tables of the Poisson distribution: P(X ≥ 2 | 0.8) = 0.1912, P(X ≥ 10 | 5) = 0.0318.
        assert!((at_least(2.0, 0.8) - 0.1912).abs() < 1e-4 && (at_least(10.0, 5.0) - 0.0318).abs() < 1e-4);
        assert_eq!((at_least(0.0, 0.3), at_least(1.0, 0.0)), (1.0, 0.0));
    }

    #[test]
    fn intervals_hold_what_was_seen() {
        let (low, high) = rate(0.9, 100);
        assert!((low - 0.826).abs() < 2e-3 && (high - 0.945).abs() < 2e-3, "{low} {high}");
        let (low, high) = interval(&[1.0, 2.0, 3.0]);
        assert!((low + high - 4.0).abs() < 1e-12 && (high - 2.0 - 4.303 / 3f64.sqrt()).abs() < 1e-2);
    }
}
