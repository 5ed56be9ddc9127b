//! Loops of little work: run as chains of steps, for which no code is generated.

use super::{Step, Work};
use artefact::Call;
use kernels::Tier;

/// Whether element-wise loops have code generated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Loops {
    Generated,
    /// Only where that pays for a program that starts now.
    WherePaying,
}

/// Operations of all loops of a program below which chains take microseconds longer than code does. The first loop costs
/// half a millisecond to a whole one, most of it for the generator's own code, which no cache has yet.
const LITTLE: f64 = 200_000.0;

/// Makes chains of all loops, if each can be one and they do little.
pub fn to_chains(steps: &mut [Step], tier: Tier) {
    let mut chains: Vec<(usize, Call)> = Vec::new();
    let mut operations = 0.0;
    for (i, s) in steps.iter().enumerate() {
        let chain = match &s.work {
            Work::Rows(r) => r.chain(tier),
            Work::Typed(_) => None,
            _ => continue,
        };
        operations += s.flops;
        let Some(chain) = chain.filter(|_| operations <= LITTLE) else { return };
        chains.push((i, chain));
    }
    for (i, chain) in chains {
        steps[i].work = Work::Call(Box::new(chain));
    }
}
