//! Structured channel removal: whole output channels of a layer go, with everything that carries them, and the layers
//! that read them are refitted to what is left.
//!
//! A channel of a value is made by one row of a producer's weight, passes through biases, normalisations, depthwise
//! convolutions and other per-channel constants, and is read by columns of consumers' weights. [`trace::groups`] finds
//! such sets (residual additions tie several producers and consumers together), [`choose`] says which channels cost the
//! consumers least once the others make up for them (Optimal Brain Surgeon on blocks of columns), and
//! [`remove::remove`] takes them out, so that tensors really shrink.

pub mod choose;
mod reach;
pub mod remove;
#[cfg(test)]
mod tests;
pub mod trace;

pub use choose::{Cut, Side, cuts, refit};
pub use remove::remove;
pub use trace::{Group, groups};

use crate::candidate::Candidate;
use crate::layer::Layer;
use crate::method::{Context, Method, Refusal, Scope};
use ir::Result;

/// Shares of the channels that may stay, as shown in reports and taken by `--layer`.
pub const RATIOS: &[(usize, usize)] = &[(15, 16), (7, 8), (3, 4), (5, 8), (1, 2), (3, 8), (1, 4)];

/// Groups of fewer channels are left alone.
pub const FEWEST: usize = 8;

/// How many of `count` channels a share of `of.0 / of.1` keeps: a multiple that vector kernels like, where that leaves a
/// choice.
pub fn kept(count: usize, of: (usize, usize)) -> usize {
    let step = match count {
        0..32 => 1,
        32..128 => 4,
        128..512 => 8,
        _ => 16,
    };
    (count * of.0).div_ceil(of.1.max(1)).next_multiple_of(step).min(count)
}

/// The word `channels`; it works on groups of layers, so it offers nothing for a single one.
pub struct Channels;

impl Method for Channels {
    fn name(&self) -> &'static str {
        "channels"
    }
    fn scope(&self) -> Scope {
        Scope::Group
    }
    fn applies(&self, _: &Layer, _: bool) -> Result<(), Refusal> {
        Err(Refusal::new("works on groups of layers"))
    }
    fn candidates(&self, _: &Context) -> Result<Vec<Candidate>> {
        Ok(Vec::new())
    }
}
