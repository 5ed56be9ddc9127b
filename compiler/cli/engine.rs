//! The two engines behind one trait.

use crate::feeds;
use ir::{Evaluate, Feeds, Graph, Outcome, Reference, Result, ValueId};

/// Generated code on `threads` threads, or the reference evaluator.
pub fn engine(threads: usize, reference: bool) -> Box<dyn Evaluate> {
    if reference { Box::new(Widened) } else { Box::new(runtime::Jit::new(threads.max(1))) }
}

/// The reference evaluator on what sessions run: half-float models in float32.
struct Widened;

impl Evaluate for Widened {
    fn run(&self, graph: &Graph, inputs: &Feeds, taps: &[ValueId]) -> Result<Outcome> {
        let wide = exact::widen(graph)?;
        Reference.run(wide.as_ref().unwrap_or(graph), inputs, taps)
    }
}

/// Generated code that holds one graph at a time: a search runs each over all samples before the next.
pub fn frugal(threads: usize) -> Box<dyn Evaluate> {
    Box::new(runtime::Jit::new(threads.max(1)).keeping(1))
}

/// Nodes of a graph that have no native kernel at its declared shapes (open dims as 1).
pub fn interpreted(graph: &Graph) -> Vec<String> {
    let Ok(inputs) = feeds::random(graph, &Default::default(), 0) else { return Vec::new() };
    let session = runtime::Session::from_graph(graph, 1);
    session.and_then(|s| s.interpreted(&inputs)).unwrap_or_default()
}
