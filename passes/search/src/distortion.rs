//! How far outputs are from the original's, as a number that grows with the square of small errors in the layers.
//!
//! Probabilities saturate: an error of the scores changes those of a sure sample by nothing and those of an unsure one by all,
//! so that few samples say little of others. Their logarithms are the scores, less what is common to all classes.

use crate::metric::Reference;
use ir::Value;

/// Probabilities below this are alike.
const LEAST: f32 = 1e-12;

/// Logarithms of rows of probabilities, less the mean of each row.
pub fn centred(x: &mut [f32], classes: usize) {
    for row in x.chunks_mut(classes.max(1)) {
        row.iter_mut().for_each(|p| *p = p.max(LEAST).ln());
        let mean = row.iter().sum::<f32>() / row.len() as f32;
        row.iter_mut().for_each(|p| *p -= mean);
    }
}

impl Reference {
    /// Squared error of all parts relative to their power, per sample, averaged.
    pub fn distance(&self, outputs: &[Vec<Value>]) -> f64 {
        let (mut sum, mut n) = (0.0, 0usize);
        for (a, b) in self.all.iter().zip(outputs) {
            for (i, x) in a.iter().enumerate() {
                let (Some(x), Some(y), Some(p)) = (x, self.seen(b, i), self.power.get(i)) else { continue };
                if x.len() != y.len() || *p <= 0.0 {
                    sum += f64::from(u8::from(x.len() != y.len()));
                    continue;
                }
                let e: f64 = x.iter().zip(&y).map(|(a, b)| f64::from(a - b).powi(2)).sum();
                sum += if e.is_finite() { e / (p * x.len().max(1) as f64) } else { 1e6 };
            }
            n += 1;
        }
        sum / n.max(1) as f64
    }

    /// What the outputs of the same samples differ by, each number in units in which the sum of squares is the
    /// [`Reference::distance`]; of each sample at most `width` numbers, which are sums of differences with random signs, so
    /// that inner products of two changes are those of the whole on average (count sketch; Charikar et al. 2002).
    pub fn change(&self, outputs: &[Vec<Value>], width: usize) -> Vec<f32> {
        let (width, samples) = (width.max(1), self.all.len().max(1) as f64);
        let mut change = Vec::new();
        for (a, b) in self.all.iter().zip(outputs) {
            let numbers: usize = a.iter().flatten().map(Vec::len).sum();
            let from = change.len();
            change.resize(from + numbers.min(width), 0f32);
            let mut next = 0;
            for (i, x) in a.iter().enumerate() {
                let first = next;
                next += x.as_ref().map_or(0, Vec::len);
                let (Some(x), Some(y), Some(p)) = (x, self.seen(b, i), self.power.get(i)) else { continue };
                let unit = (p * x.len().max(1) as f64 * samples).sqrt();
                for (place, (x, y)) in (first..).zip(x.iter().zip(&y)) {
                    let d = (f64::from(y - x) / unit) as f32;
                    let (at, sign) = if numbers <= width { (place, 1.0) } else { bucket(place, width) };
                    if d.is_finite() {
                        change[from + at] += sign * d;
                    }
                }
            }
        }
        change
    }

    /// One part in the form in which it is compared.
    fn seen(&self, outputs: &[Value], i: usize) -> Option<Vec<f32>> {
        let mut x = self.parts.get(i)?.of(outputs)?;
        if self.probabilities && i == self.judged {
            centred(&mut x, self.classes);
        }
        Some(x)
    }
}

/// Where a number goes in a sketch, and its sign: SplitMix64 of its place.
fn bucket(place: usize, width: usize) -> (usize, f32) {
    let z = (place as u64).wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    let z = z ^ (z >> 31);
    ((z >> 1) as usize % width, if z & 1 == 0 { 1.0 } else { -1.0 })
}

#[cfg(test)]
mod tests {
    use super::*;
    use ir::Tensor;

    fn outputs(rows: &[Vec<f32>]) -> Vec<Vec<Value>> {
        rows.iter().map(|r| vec![Value::Tensor(Tensor::new(&[1, r.len()], r.clone()).unwrap())]).collect()
    }

    fn softmax(x: &[f32]) -> Vec<f32> {
        let sum: f32 = x.iter().map(|v| v.exp()).sum();
        x.iter().map(|v| v.exp() / sum).collect()
    }

    #[test]
    fn sure_samples_tell_as_much_as_others() {
        let (sure, unsure) = (softmax(&[9.0, 0.0, -2.0]), softmax(&[0.1, 0.0, -0.2]));
        let r = Reference::new(outputs(&[sure, unsure]), &["y".into()], vec![None; 2], None);
        assert!(r.probabilities);
        let moved =
            |a: f32, b: f32| outputs(&[softmax(&[9.0 + a, 0.0, -2.0]), softmax(&[0.1 + b, 0.0, -0.2])]);
        let (one, other) = (r.distance(&moved(0.1, 0.0)), r.distance(&moved(0.0, 0.1)));
        assert!(one > 0.0 && (one / other - 1.0).abs() < 1e-2, "{one} {other}");
    }

    #[test]
    fn sketches_keep_sums_of_squares_and_products() {
        let wave = |k: f32| (0..6000).map(|i| (i as f32 * k).sin()).collect::<Vec<f32>>();
        let zero = vec![1.0; 6000];
        let r = Reference::new(outputs(std::slice::from_ref(&zero)), &["e".into()], vec![None], None);
        let moved = |d: &[f32]| outputs(&[zero.iter().zip(d).map(|(a, b)| a + 0.1 * b).collect()]);
        let product = |a: &[f32], b: &[f32]| -> f64 { a.iter().zip(b).map(|(a, b)| f64::from(a * b)).sum() };
        let (a, b) = (moved(&wave(0.37)), moved(&wave(0.11)));
        for width in [6000, 1500] {
            let (x, y) = (r.change(&a, width), r.change(&b, width));
            assert_eq!(x.len(), width);
            let d = r.distance(&a);
            assert!((product(&x, &x) / d - 1.0).abs() < 0.1, "{} {d}", product(&x, &x));
            assert!(product(&x, &y).abs() < 0.1 * d);
        }
    }
}
