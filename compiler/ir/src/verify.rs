//! Invariants of a graph, each with a code. Run after import and, in tests and fuzzing, after every pass.

use crate::{Def, Error, Graph, Result, check_form};
use std::collections::BTreeSet;

/// Deepest nesting of subgraphs.
const MAX_DEPTH: usize = 32;

/// Checks `graph` and its subgraphs:
/// V001 no cycles · V002 reads exist · V003 operator form (arity, attributes) · V004 edges match inputs ·
/// V005 outputs exist and have unique names · V006 captures within bounds · V007 nesting depth.
pub fn verify(graph: &Graph) -> Result<()> {
    verify_at(graph, usize::MAX, 0)
}

fn verify_at(graph: &Graph, captures: usize, depth: usize) -> Result<()> {
    if depth > MAX_DEPTH {
        return Err(Error::limit(format!("V007: subgraphs nest deeper than {MAX_DEPTH}")));
    }
    graph.order().map_err(|e| Error { message: format!("V001: {}", e.message), ..e })?;
    let mut names = BTreeSet::new();
    for o in graph.outputs() {
        if o.value.index() >= graph.value_bound() || *graph.def(o.value) == Def::Dead {
            return Err(Error::model(format!("V005: output '{}' is never computed", o.name)));
        }
        if !names.insert(o.name.as_str()) {
            return Err(Error::model(format!("V005: output '{}' is named twice", o.name)));
        }
    }
    if captures != usize::MAX && graph.capture_count() > captures {
        return Err(Error::internal(format!("V006: capture {} of {captures}", graph.capture_count() - 1)));
    }
    for (id, n) in graph.nodes() {
        let at = |e: Error| e.at(&n.name, &crate::qualified(n.op));
        check_form(n.op, &n.attrs, n.inputs(), n.outputs().len())
            .map_err(|e| at(Error { message: format!("V003: {}", e.message), ..e }))?;
        if let Some(v) = n.reads().find(|v| *graph.def(*v) == Def::Dead) {
            return Err(at(Error::internal(format!("V002: reads dead value {}", v.index()))));
        }
        let expected = n.reads().filter(|&v| graph.producer(v).is_some()).count();
        let edges = graph
            .view()
            .edges_directed(petgraph::stable_graph::NodeIndex::new(id.index()), petgraph::Direction::Incoming)
            .count();
        if expected != edges {
            return Err(at(Error::internal(format!("V004: {edges} edges for {expected} reads"))));
        }
        for g in n.attrs.graphs() {
            verify_at(g, n.captures().len(), depth + 1).map_err(at)?;
        }
    }
    Ok(())
}
