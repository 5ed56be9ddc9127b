//! Exact weighted k-means in one dimension by dynamic programming over sorted values.
//!
//! The cost of a cluster is a function of prefix sums and satisfies the quadrangle inequality, so the best split moves
//! monotonically and each layer of the table takes O(n log n) (divide and conquer). Large inputs are binned first.

/// More values than so many for each centre, and at least so many, are merged into bins of equal width before the exact
/// algorithm.
const EACH: usize = 16;
const EXACT: usize = 1024;

/// A value with its weight.
type Point = (f64, f64);

/// Centres (ascending, at most `k`) that minimise `Σ wᵢ·min_c (xᵢ − c)²`. Non-finite values are ignored.
pub fn centres(values: &[f32], weights: Option<&[f32]>, k: usize) -> Vec<f32> {
    let mut points: Vec<Point> = values
        .iter()
        .enumerate()
        .map(|(i, &x)| (f64::from(x), weights.and_then(|w| w.get(i)).map_or(1.0, |&w| f64::from(w))))
        .filter(|p| p.0.is_finite() && p.1.is_finite() && p.1 > 0.0)
        .collect();
    if points.is_empty() || k == 0 {
        return Vec::new();
    }
    let exact = EXACT.max(EACH * k);
    if points.len() > exact {
        points = binned(&points, exact);
    }
    points.sort_by(|a, b| a.0.total_cmp(&b.0));
    Table::new(&points).centres(k)
}

/// Sum of weighted squared distances to the nearest of sorted `centres`.
pub fn cost(values: &[f32], weights: Option<&[f32]>, centres: &[f32]) -> f64 {
    let weight = |i: usize| weights.and_then(|w| w.get(i)).map_or(1.0, |&w| f64::from(w));
    values
        .iter()
        .enumerate()
        .map(|(i, &x)| {
            weight(i) * f64::from(x - centres.get(nearest(centres, x)).copied().unwrap_or(0.0)).powi(2)
        })
        .sum()
}

/// Index of the nearest of sorted `centres`; ties go to the lower one. 0 when there are none.
pub fn nearest(centres: &[f32], x: f32) -> usize {
    let above = centres.partition_point(|&c| c < x);
    if above == 0 {
        return 0;
    }
    if above == centres.len() {
        return above - 1;
    }
    if x - centres[above - 1] <= centres[above] - x { above - 1 } else { above }
}

fn binned(points: &[Point], count: usize) -> Vec<Point> {
    let (lo, hi) = points.iter().fold((f64::MAX, f64::MIN), |(a, b), p| (a.min(p.0), b.max(p.0)));
    let step = (hi - lo) / count as f64;
    if step <= 0.0 {
        return vec![(lo, points.iter().map(|p| p.1).sum())];
    }
    let mut bins = vec![(0.0f64, 0.0f64); count];
    for p in points {
        let b = &mut bins[(((p.0 - lo) / step) as usize).min(count - 1)];
        b.0 += p.0 * p.1;
        b.1 += p.1;
    }
    bins.into_iter().filter(|b| b.1 > 0.0).map(|b| (b.0 / b.1, b.1)).collect()
}

struct Table {
    n: usize,
    weight: Vec<f64>,
    first: Vec<f64>,
    second: Vec<f64>,
    shift: f64,
}

impl Table {
    fn new(points: &[Point]) -> Table {
        // Values around their middle keep the prefix sums well conditioned.
        let shift = points[points.len() / 2].0;
        let (mut weight, mut first, mut second) = (vec![0.0], vec![0.0], vec![0.0]);
        for (i, p) in points.iter().enumerate() {
            let x = p.0 - shift;
            weight.push(weight[i] + p.1);
            first.push(first[i] + p.1 * x);
            second.push(second[i] + p.1 * x * x);
        }
        Table { n: points.len(), weight, first, second, shift }
    }

    /// Cost of one cluster of points `i..j`.
    fn cluster(&self, i: usize, j: usize) -> f64 {
        let w = self.weight[j] - self.weight[i];
        if w <= 0.0 {
            return 0.0;
        }
        let f = self.first[j] - self.first[i];
        (self.second[j] - self.second[i] - f * f / w).max(0.0)
    }

    fn centres(&self, k: usize) -> Vec<f32> {
        let k = k.min(self.n);
        let mut best: Vec<f64> = (0..=self.n).map(|j| self.cluster(0, j)).collect();
        let mut splits: Vec<Vec<u32>> = Vec::with_capacity(k);
        for c in 1..k {
            let (mut next, mut split) = (vec![f64::MAX; self.n + 1], vec![0u32; self.n + 1]);
            self.layer(&best, &mut next, &mut split, (c + 1, self.n), (c, self.n));
            best = next;
            splits.push(split);
        }
        let (mut end, mut out) = (self.n, Vec::with_capacity(k));
        for split in splits.iter().rev() {
            let start = split[end] as usize;
            out.push(self.centre(start, end));
            end = start;
        }
        out.push(self.centre(0, end));
        out.reverse();
        out.dedup();
        out
    }

    fn centre(&self, i: usize, j: usize) -> f32 {
        let w = self.weight[j] - self.weight[i];
        (self.shift + if w > 0.0 { (self.first[j] - self.first[i]) / w } else { 0.0 }) as f32
    }

    /// Fills `next[lo..=hi]`, whose splits lie in `from..=to`.
    fn layer(
        &self,
        prev: &[f64],
        next: &mut [f64],
        split: &mut [u32],
        (lo, hi): (usize, usize),
        (from, to): (usize, usize),
    ) {
        if lo > hi {
            return;
        }
        let mid = (lo + hi) / 2;
        let mut at = from;
        for i in from..=to.min(mid - 1) {
            let v = prev[i] + self.cluster(i, mid);
            if v < next[mid] {
                next[mid] = v;
                at = i;
            }
        }
        split[mid] = at as u32;
        self.layer(prev, next, split, (lo, mid - 1), (from, at));
        self.layer(prev, next, split, (mid + 1, hi), (at, to));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Every way to cut sorted points into at most `k` runs.
    fn brute(points: &[Point], k: usize) -> f64 {
        let t = Table::new(points);
        fn go(t: &Table, i: usize, k: usize) -> f64 {
            if i == t.n {
                return 0.0;
            }
            if k == 0 {
                return f64::MAX;
            }
            (i + 1..=t.n).map(|j| t.cluster(i, j) + go(t, j, k - 1)).fold(f64::MAX, f64::min)
        }
        go(&t, 0, k)
    }

    proptest! {
        #[test]
        fn equals_brute_force(v in prop::collection::vec((-50i32..50, 1u8..5), 1..10), k in 1usize..5) {
            let values: Vec<f32> = v.iter().map(|p| p.0 as f32 / 4.0).collect();
            let weights: Vec<f32> = v.iter().map(|p| f32::from(p.1)).collect();
            let mut points: Vec<Point> = values.iter().zip(&weights).map(|(&x, &w)| (f64::from(x), f64::from(w))).collect();
            points.sort_by(|a, b| a.0.total_cmp(&b.0));
            let c = centres(&values, Some(&weights), k);
            let found = cost(&values, Some(&weights), &c);
            prop_assert!((found - brute(&points, k)).abs() < 1e-4 * (1.0 + found), "{found} {c:?}");
        }

        #[test]
        fn nearest_is_nearest(mut c in prop::collection::vec(-10f32..10.0, 1..9), x in -12f32..12.0) {
            c.sort_by(f32::total_cmp);
            let d = (c[nearest(&c, x)] - x).abs();
            prop_assert!(c.iter().all(|y| (y - x).abs() >= d));
        }
    }

    #[test]
    fn a_large_normal_sample_reaches_the_lloyd_max_distortion() {
        let mut r = crate::testing::Random(1);
        let v: Vec<f32> = (0..40_000).map(|_| r.normal()).collect();
        let power: f64 = v.iter().map(|&x| f64::from(x).powi(2)).sum();
        let d = cost(&v, None, &centres(&v, None, 16)) / power;
        // Lloyd–Max at 16 levels: 0.009497 (Jayant & Noll, table 4.3); the sample's tails are a little lighter.
        assert!((d - 0.0095).abs() < 8e-4, "{d}");
    }

    #[test]
    fn odd_inputs() {
        assert!(centres(&[], None, 4).is_empty());
        assert_eq!(centres(&[2.0, 2.0, f32::NAN], None, 4), [2.0]);
    }
}
