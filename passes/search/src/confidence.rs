//! One-sided confidence bounds: how large the true value may be, at 95 %, given what was seen.

/// Quantile of the standard normal distribution at 95 %.
const Z: f64 = 1.6449;

/// Upper bound of the mean behind `values` (Student's t): for paired differences of a continuous quality.
/// Infinite below two values.
pub fn mean(values: &[f64]) -> f64 {
    let n = values.len() as f64;
    if values.len() < 2 {
        return f64::INFINITY;
    }
    let mean = values.iter().sum::<f64>() / n;
    let variance = values.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / (n - 1.0);
    mean + student(values.len() - 1) * (variance / n).sqrt()
}

/// Upper bound of the net rate of losses among `n` pairs of which some were lost and some gained: Wilson's interval of
/// each rate, combined (Newcombe 1998, method 10, without the correlation). With no gains and no losses it is exact.
pub fn net_losses(losses: usize, gains: usize, n: usize) -> f64 {
    if losses == 0 && gains == 0 {
        return unseen(n);
    }
    let n = n.max(1) as f64;
    let (lost, gained) = (losses as f64 / n, gains as f64 / n);
    let (up, down) = (wilson(lost, n, Z) - lost, gained - wilson(gained, n, -Z));
    lost - gained + (up * up + down * down).sqrt()
}

/// The rate that `n` samples without a loss still allow.
pub fn unseen(n: usize) -> f64 {
    if n == 0 { 1.0 } else { 1.0 - 0.05f64.powf(1.0 / n as f64) }
}

/// Samples without a loss that are needed to promise `rate`.
pub fn needed(rate: f64) -> f64 {
    if rate <= 0.0 { f64::INFINITY } else { (0.05f64.ln() / (-rate.min(0.95)).ln_1p()).ceil() }
}

/// Upper bound of a sum of rare independent events with weights: `weights` of those seen, `largest` a weight can be
/// (Fay & Feuer 1997).
pub fn weighted_count(weights: &[f64], largest: f64) -> f64 {
    let (y, v): (f64, f64) = weights.iter().fold((0.0, 0.0), |(y, v), w| (y + w, v + w * w));
    let (y, v) = (y + largest, v + largest * largest);
    if y <= 0.0 { 0.0 } else { v / (2.0 * y) * chi_square(2.0 * y * y / v) }
}

fn wilson(p: f64, n: f64, z: f64) -> f64 {
    let square = z * z / n;
    let spread = (p * (1.0 - p) / n + square / (4.0 * n)).max(0.0).sqrt();
    (p + square / 2.0 + z * spread) / (1.0 + square)
}

/// 95 % quantile of χ² (Wilson & Hilferty 1931; within 1 % from two degrees of freedom on).
fn chi_square(degrees: f64) -> f64 {
    let a = 2.0 / (9.0 * degrees.max(1e-9));
    degrees * (1.0 - a + Z * a.sqrt()).max(0.0).powi(3)
}

/// 95 % quantile of Student's t: exact to three digits for few degrees, then by expansion (Abramowitz & Stegun 26.7.5).
fn student(degrees: usize) -> f64 {
    const FEW: [f64; 5] = [6.314, 2.920, 2.353, 2.132, 2.015];
    if let Some(t) = degrees.checked_sub(1).and_then(|i| FEW.get(i)) {
        return *t;
    }
    let d = degrees as f64;
    let (z3, z5) = (Z.powi(3), Z.powi(5));
    Z + (z3 + Z) / (4.0 * d) + (5.0 * z5 + 16.0 * z3 + 3.0 * Z) / (96.0 * d * d)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_match_the_tables() {
        for (d, t) in [(1, 6.314), (5, 2.015), (10, 1.812), (31, 1.696), (1000, 1.646)] {
            assert!((student(d) - t).abs() < 2e-3, "{d}");
        }
        for (d, x) in [(2.0, 5.991), (10.0, 18.307), (40.0, 55.758)] {
            assert!((chi_square(d) / x - 1.0).abs() < 1e-2, "{d}");
        }
    }

    #[test]
    fn no_loss_among_few_promises_little() {
        assert!((unseen(32) - 0.0894).abs() < 1e-3 && (unseen(299) - 0.01).abs() < 1e-4);
        assert_eq!(needed(0.01), 299.0);
        assert_eq!(unseen(0), 1.0);
    }

    #[test]
    fn gains_pay_for_losses_but_uncertainty_stays() {
        let (clean, even, lost) = (net_losses(0, 0, 500), net_losses(5, 5, 500), net_losses(5, 0, 500));
        assert!(clean < even && even < lost, "{clean} {even} {lost}");
        assert!(net_losses(5, 5, 500) > net_losses(50, 50, 5000));
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
        let covered = (0..2000).filter(|_| mean(&[(); 12].map(|()| uniform())) >= 0.5).count();
        assert!((1860..1940).contains(&covered), "{covered}");
        assert_eq!(mean(&[0.1]), f64::INFINITY);
    }

    #[test]
    fn weights_of_one_give_the_poisson_bound() {
        // Garwood: 0 events allow 2.996, 10 events 16.962.
        assert!((weighted_count(&[], 1.0) / 2.996 - 1.0).abs() < 1e-2);
        assert!((weighted_count(&[1.0; 10], 1.0) / 16.962 - 1.0).abs() < 1e-2);
        assert_eq!(weighted_count(&[], 0.0), 0.0);
    }
}
