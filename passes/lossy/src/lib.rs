//! Compression methods, one file each behind one trait, and the mathematics they share.
#![deny(unsafe_code)]

pub mod basis;
pub mod candidate;
pub mod channels;
mod codebook;
mod coded;
#[cfg(test)]
mod contract;
pub mod dependent;
mod descent;
pub mod drift;
pub mod factor;
mod float16;
mod fragment;
pub mod gptq;
pub mod gram;
mod int8;
mod int8_dynamic;
mod integer;
pub mod joint;
pub mod kmeans;
pub mod layer;
mod low_rank;
pub mod method;
pub mod methods;
mod nm;
pub mod obs;
pub mod patches;
mod product;
mod prune;
pub mod quant;
pub mod range;
mod replace;
mod rounding;
mod separable;
mod smooth;
mod sparse;
mod sparse_form;
pub mod spectrum;
pub mod stats;
#[cfg(test)]
mod testing;
mod transpose;
pub mod trellis;
mod tucker;
pub mod view;
mod whiten;
mod wide;

pub use basis::Basis;
pub use candidate::{Candidate, Common, Replaces};
pub use layer::{Bias, Layer, Role, layers};
pub use method::{Context, Hopes, Method, Refusal, Scope, Serves};
pub use methods::METHODS;
pub use stats::Stats;
