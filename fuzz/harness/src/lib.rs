//! Generators and oracles shared by tests and fuzzers: one `check` per target, driven by libFuzzer, by `cargo test` on
//! fixed inputs, and by replay.
#![deny(unsafe_code)]

#[cfg(feature = "run")]
pub mod build;
pub mod bytes;
#[cfg(feature = "run")]
pub mod check;
#[cfg(feature = "run")]
mod compress;
#[cfg(feature = "run")]
pub mod container;
#[cfg(feature = "run")]
pub mod engine;
#[cfg(feature = "run")]
pub mod families;
#[cfg(all(test, feature = "run"))]
mod found;
#[cfg(feature = "run")]
pub mod generate;
pub mod limits;
#[cfg(feature = "run")]
pub mod mutate;
#[cfg(feature = "run")]
pub mod oracle;
#[cfg(feature = "run")]
pub mod pair;
#[cfg(feature = "run")]
mod panics;
#[cfg(feature = "run")]
pub mod passes;
#[cfg(feature = "run")]
pub mod quant;
#[cfg(feature = "run")]
pub mod random;
#[cfg(feature = "run")]
pub mod reduce;
#[cfg(feature = "run")]
mod shake;
#[cfg(feature = "run")]
pub mod targets;

/// Between 64 and 4,096 pseudo-random bytes (SplitMix64).
pub fn random_bytes(seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let mut next = || {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    };
    let n = 64 + (next() % 4033) as usize;
    (0..n.div_ceil(8)).flat_map(|_| next().to_le_bytes()).take(n).collect()
}
