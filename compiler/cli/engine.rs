//! The two engines behind one trait.

use ir::{Evaluate, Graph, Reference};

/// Generated code on `threads` threads, or the reference evaluator.
pub fn engine(_threads: usize, _reference: bool) -> Box<dyn Evaluate> {
    Box::new(Reference)
}

/// Operators of a graph that have no native kernel.
pub fn interpreted(_graph: &Graph) -> Vec<String> {
    Vec::new()
}
