//! What reading a packed weight costs in a product of one row from memory.
//!
//! Measured by `cargo run --release -p compress-kernels --example packed`, relative to a weight of four bits.

/// A weight of four bits or less, stored in four.
pub const FOUR_BITS: f64 = 1.0;
/// A weight of five to eight bits.
pub const EIGHT_BITS: f64 = 1.9;
/// A float32 weight.
pub const FLOAT: f64 = 7.5;
/// A weight behind a bitmap: its bit and its share of the expansion, and what is added for each that is kept.
const BIT: f64 = 0.7;
const KEPT: f64 = 1.5;

/// A weight of which `share` are zero, kept as a bitmap and bytes.
pub fn sparse(share: f64) -> f64 {
    BIT + KEPT * (1.0 - share)
}

/// A weight of so many bits, all kept.
pub fn dense(bits: u32) -> f64 {
    if bits <= 4 { FOUR_BITS } else { EIGHT_BITS }
}

/// The share of zeros from which a bitmap is read faster than all weights of so many bits.
pub fn break_even(bits: u32) -> f64 {
    1.0 - (dense(bits) - BIT) / KEPT
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn at_the_break_even_both_cost_the_same() {
        for bits in [4, 8] {
            assert!((sparse(break_even(bits)) - dense(bits)).abs() < 1e-9);
            assert!((0.0..1.0).contains(&break_even(bits)));
        }
    }
}
