//! Tensors made from a seed, so that tests can name weights instead of holding them.

use crate::{DType, Error, Result, Tensor, budget};
use std::f64::consts::TAU;

/// SplitMix64 (Steele, Lea, Flood, "Fast splittable pseudorandom number generators", 2014).
struct Random(u64);

impl Random {
    fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
    /// In 0..1.
    fn unit(&mut self) -> f64 {
        (self.bits() >> 11) as f64 / (1u64 << 53) as f64
    }
}

/// The tensor that `fill:zeros`, `fill:normal:SEED` (standard normal) or `fill:uniform:SEED` (−1 to 1) stands for; an
/// optional last field scales. Integer types take 32 times the value, rounded; booleans its sign.
pub fn tensor(spec: &str, dtype: DType, shape: &[usize]) -> Result<Tensor> {
    let bad = || Error::model(format!("'fill:{spec}' is not zeros, normal:SEED or uniform:SEED"));
    let mut fields = spec.split(':');
    let kind = fields.next().unwrap_or_default();
    if kind == "zeros" {
        return Tensor::zeros(dtype, shape);
    }
    let mut random = Random(fields.next().and_then(|s| s.parse().ok()).ok_or_else(bad)?);
    let scale: f64 = fields.next().map_or(Ok(1.0), str::parse).map_err(|_| bad())?;
    let n = budget::elements(shape)?;
    budget::bytes(DType::F64, shape)?;
    let mut v = budget::vec(n)?;
    for _ in 0..n {
        let (a, b) = (random.unit(), random.unit());
        v.push(match kind {
            // Box–Muller; 1 − a is never 0.
            "normal" => (-2.0 * (1.0 - a).ln()).sqrt() * (TAU * b).cos() * scale,
            "uniform" => (2.0 * a - 1.0) * scale,
            _ => return Err(bad()),
        });
    }
    match dtype {
        DType::Bool => Tensor::new(shape, v.into_iter().map(|x| x > 0.0).collect()),
        d if d.is_float() => Tensor::from_f64s(d, shape, v),
        d => {
            let (lo, hi) =
                d.int_range().ok_or_else(|| Error::unsupported(format!("generated tensors of {d}")))?;
            let int = |x: f64| ((x * 32.0).round() as i128).clamp(lo, hi) as i64;
            Tensor::from_i64s(d, shape, v.into_iter().map(int).collect())
        }
    }
}
