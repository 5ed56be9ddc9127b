//! Compression methods, one file each behind one trait, and the mathematics they share.
#![deny(unsafe_code)]

pub mod candidate;
mod codebook;
pub mod factor;
mod float16;
mod fragment;
pub mod gptq;
pub mod gram;
mod integer;
pub mod kmeans;
pub mod layer;
pub mod method;
pub mod methods;
pub mod obs;
pub mod patches;
pub mod quant;
pub mod range;
mod rounding;
pub mod stats;
#[cfg(test)]
mod testing;
pub mod view;

pub use candidate::{Candidate, Replaces};
pub use layer::{Bias, Layer, Role, layers};
pub use method::{Context, Method, Refusal};
pub use methods::METHODS;
pub use stats::Stats;
