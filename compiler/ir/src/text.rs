//! Graphs as text, in ONNX's own text syntax (onnx/docs/Syntax.md): what tests are written in and people read.
//!
//! Beyond that syntax: an output may name another value (`(float y = sum)`), a tensor may come from a side table or a
//! generator (`float[64,64] w = ["location": "fill:normal:7"]`), every element type has literals, and a subgraph whose
//! captures are not simply the outer names declares them (`float x = ["capture": "0"]`, attribute `ir_captures`).

mod build;
mod fill;
mod lex;
mod literal;
mod parse;
mod print;
mod syntax;
#[cfg(test)]
mod tests;

use crate::{Error, Graph, Lookup, Result, Tensor};
use std::collections::BTreeMap;

/// Tensors too large to write inline, by location.
pub type SideTable = BTreeMap<String, Tensor>;

/// Name of the attribute that lists the captured values of a node explicitly.
const CAPTURES: &str = "ir_captures";

/// The graph as text, every tensor inline. Parsing it gives the graph back, compacted; captures have the types of the
/// values they stand for.
pub fn print(graph: &Graph) -> Result<String> {
    Ok(print_with(graph, usize::MAX)?.0)
}

/// As [`print`], but tensors of more than `inline` elements go to the side table.
pub fn print_with(graph: &Graph, inline: usize) -> Result<(String, SideTable)> {
    print::model(graph, inline)
}

/// Reads a graph; operators come from `lookup`.
pub fn parse(text: &str, lookup: &dyn Lookup) -> Result<Graph> {
    parse_with(text, lookup, &SideTable::new())
}

/// As [`parse`], with the side table that [`print_with`] gave.
pub fn parse_with(text: &str, lookup: &dyn Lookup, table: &SideTable) -> Result<Graph> {
    let (meta, graph) = parse::model(text, table)?;
    let mut g = build::graph(&graph, lookup, None)?;
    g.meta = meta;
    Ok(g)
}

/// An error at a place in the text, lines and columns counted from 1.
fn error_at(place: lex::Place, message: impl std::fmt::Display) -> Error {
    Error::model(format!("line {} column {}: {message}", place.line, place.column))
}
