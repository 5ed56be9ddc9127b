//! Ranges of activations from streaming histograms: min–max, percentile, least squared error, least entropy loss.

/// Bins of the histogram; when a value falls outside, neighbours are merged and the range doubles.
const BINS: usize = 2048;

/// A histogram that widens itself, with the exact extremes.
#[derive(Debug, Clone)]
pub struct Histogram {
    /// Bins cover `-limit..limit`.
    limit: f32,
    bins: Vec<u64>,
    min: f32,
    max: f32,
}

/// How a range is chosen from a histogram.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Choice {
    MinMax,
    /// Share of values that stay inside, such as 0.9999.
    Percentile(f64),
    /// Least squared rounding plus clipping error at 8 bits.
    LeastSquares,
    /// Least Kullback–Leibler divergence between the histogram and its 8-bit form.
    Entropy,
}

impl Default for Histogram {
    fn default() -> Self {
        Histogram { limit: 0.0, bins: vec![0; BINS], min: f32::MAX, max: f32::MIN }
    }
}

impl Histogram {
    /// Adds finite values; others are ignored.
    pub fn push(&mut self, values: impl Iterator<Item = f32> + Clone) {
        let (lo, hi) = values
            .clone()
            .filter(|x| x.is_finite())
            .fold((self.min, self.max), |(a, b), x| (a.min(x), b.max(x)));
        if lo > hi {
            return;
        }
        (self.min, self.max) = (lo, hi);
        self.cover(lo.abs().max(hi.abs()));
        let scale = if self.limit > 0.0 { BINS as f32 / (2.0 * self.limit) } else { 0.0 };
        for x in values.filter(|x| x.is_finite()) {
            self.bins[(((x + self.limit) * scale) as usize).min(BINS - 1)] += 1;
        }
    }

    fn cover(&mut self, top: f32) {
        if self.limit == 0.0 && top > 0.0 {
            // All earlier values were zero; keep them in the bin of zero.
            let zeros = std::mem::take(&mut self.bins[0]);
            self.bins[BINS / 2] += zeros;
            self.limit = top;
        }
        while top > self.limit && self.limit > 0.0 {
            let mut wide = vec![0; BINS];
            for (i, &n) in self.bins.iter().enumerate() {
                wide[BINS / 4 + i / 2] += n;
            }
            self.bins = wide;
            self.limit *= 2.0;
        }
    }

    pub fn is_empty(&self) -> bool {
        self.min > self.max
    }

    fn centre(&self, i: usize) -> f64 {
        (i as f64 + 0.5) / BINS as f64 * 2.0 * f64::from(self.limit) - f64::from(self.limit)
    }

    /// The chosen range, always containing zero; (0, 0) when nothing was seen.
    pub fn range(&self, choice: Choice) -> (f32, f32) {
        if self.is_empty() {
            return (0.0, 0.0);
        }
        let full = (self.min.min(0.0), self.max.max(0.0));
        match choice {
            Choice::MinMax => full,
            Choice::Percentile(p) => self.percentile(p, full),
            Choice::LeastSquares => self.best(full, |lo, hi| self.squared(lo, hi)),
            Choice::Entropy => self.best(full, |lo, hi| self.divergence(lo, hi)),
        }
    }

    /// Mean squared error of values stored as 8 bits of `range`: rounding inside, clipping outside.
    pub fn noise(&self, (lo, hi): (f32, f32)) -> f64 {
        let total: u64 = self.bins.iter().sum();
        self.squared(f64::from(lo), f64::from(hi)) / total.max(1) as f64
    }

    fn percentile(&self, p: f64, full: (f32, f32)) -> (f32, f32) {
        let total: u64 = self.bins.iter().sum();
        let tail = ((1.0 - p) / 2.0 * total as f64) as u64;
        let edge = |order: &mut dyn Iterator<Item = usize>| {
            let mut seen = 0;
            for i in order {
                seen += self.bins[i];
                if seen > tail {
                    return self.centre(i) as f32;
                }
            }
            0.0
        };
        let (lo, hi) = (edge(&mut (0..BINS)), edge(&mut (0..BINS).rev()));
        (lo.min(0.0).max(full.0), hi.max(0.0).min(full.1))
    }

    fn best(&self, full: (f32, f32), cost: impl Fn(f64, f64) -> f64) -> (f32, f32) {
        let mut best = (f64::MAX, full);
        for step in 0..32u8 {
            let r = 1.0 - f32::from(step) * 0.025;
            let range = (full.0 * r, full.1 * r);
            let c = cost(f64::from(range.0), f64::from(range.1));
            if c < best.0 {
                best = (c, range);
            }
        }
        best.1
    }

    fn squared(&self, lo: f64, hi: f64) -> f64 {
        let step = (hi - lo) / 255.0;
        let outside = |x: f64| (lo - x).max(x - hi).max(0.0);
        let error = |x: f64| {
            let d = outside(x);
            if d > 0.0 { d * d } else { step * step / 12.0 }
        };
        // The exact zero of a rectified map costs nothing.
        let zero = BINS / 2;
        self.bins
            .iter()
            .enumerate()
            .filter(|(i, n)| **n > 0 && *i != zero)
            .map(|(i, &n)| n as f64 * error(self.centre(i)))
            .sum()
    }

    fn divergence(&self, lo: f64, hi: f64) -> f64 {
        let step = (hi - lo) / 255.0;
        if step <= 0.0 {
            return f64::MAX;
        }
        let mut levels = vec![(0u64, 0u64); 256];
        let level = |i: usize| (((self.centre(i).clamp(lo, hi) - lo) / step).round() as usize).min(255);
        for (i, &n) in self.bins.iter().enumerate().filter(|(_, n)| **n > 0) {
            let l = &mut levels[level(i)];
            l.0 += n;
            l.1 += u64::from((lo..=hi).contains(&self.centre(i)));
        }
        let total: u64 = self.bins.iter().sum();
        let mut sum = 0.0;
        for (i, &n) in self.bins.iter().enumerate().filter(|(_, n)| **n > 0) {
            let (mass, cells) = levels[level(i)];
            let inside = (lo..=hi).contains(&self.centre(i));
            // Clipped mass sits on the last level, where the original has little: a large ratio.
            let q = if inside { mass as f64 / cells.max(1) as f64 } else { 1e-4 };
            sum += n as f64 / total as f64 * (n as f64 / q).ln();
        }
        sum
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn normal(n: usize, outlier: f32) -> Histogram {
        let mut r = crate::testing::Random(1);
        let mut h = Histogram::default();
        let v: Vec<f32> = (0..n).map(|_| r.normal()).collect();
        v.chunks(100).for_each(|c| h.push(c.iter().copied()));
        h.push([outlier].into_iter());
        h
    }

    #[test]
    fn choices_clip_an_outlier_and_min_max_does_not() {
        let h = normal(50_000, 60.0);
        assert_eq!(h.range(Choice::MinMax).1, 60.0);
        assert!(h.range(Choice::Percentile(0.9999)).1 < 8.0);
        let (lo, hi) = h.range(Choice::LeastSquares);
        let full = h.range(Choice::MinMax);
        let cost = |(a, b): (f32, f32)| h.squared(f64::from(a), f64::from(b));
        assert!(cost((lo, hi)) <= cost(full) && hi <= full.1);
        let noise = |r| h.noise(r);
        assert!(
            noise((-0.5, 0.5)) > 0.1 && noise(full) > 1e-3 && noise((-5.0, 5.0)) > 0.05,
            "{}",
            noise((-5.0, 5.0))
        );
        assert!(noise((lo, hi)) <= noise(full));
    }

    #[test]
    fn total_survives_widening() {
        let h = normal(1000, 1e6);
        assert_eq!(h.bins.iter().sum::<u64>(), 1001);
    }

    #[test]
    fn empty_and_constant_streams() {
        assert_eq!(Histogram::default().range(Choice::Entropy), (0.0, 0.0));
        let mut h = Histogram::default();
        h.push([0.0, 0.0, f32::NAN].into_iter());
        h.push([2.0].into_iter());
        for c in [Choice::MinMax, Choice::Percentile(0.99), Choice::LeastSquares, Choice::Entropy] {
            let (lo, hi) = h.range(c);
            assert!(lo <= 0.0 && (0.0..=2.0).contains(&hi), "{c:?} {lo} {hi}");
        }
    }
}
