//! Deterministic data for the tests of this crate.

use ndarray::Array2;

/// SplitMix64: a seed gives the same stream everywhere.
pub struct Random(pub u64);

impl Random {
    pub fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
    pub fn uniform(&mut self) -> f32 {
        (self.bits() >> 40) as f32 / (1u32 << 24) as f32
    }
    /// Nearly normal: a sum of twelve uniforms.
    pub fn normal(&mut self) -> f32 {
        (0..12).map(|_| self.uniform()).sum::<f32>() - 6.0
    }
}

/// A rows × cols matrix of nearly normal entries.
pub fn matrix(rows: usize, cols: usize, seed: u64) -> Array2<f32> {
    let mut r = Random(seed);
    Array2::from_shape_fn((rows, cols), |_| r.normal())
}

/// Samples whose columns are strongly correlated, as activations are.
pub fn correlated(samples: usize, cols: usize, seed: u64) -> Array2<f32> {
    let mix = matrix(cols.div_ceil(4).max(1), cols, seed ^ 77);
    matrix(samples, mix.nrows(), seed).dot(&mix) + matrix(samples, cols, seed ^ 99) * 0.3
}
