//! A model compiled ahead of time, for one set of input shapes.

use crate::prepare::{Key, specialise};
use codegen::Artefact;
use ir::{Dim, Error, Graph, Result};
use std::collections::BTreeMap;

/// Compiles `graph` for inputs of these shapes, open dims that none names being 1. `name` is a C identifier, `kernels`
/// the object that artefacts carry. What the artefact computes is what a [`Session`](crate::Session) computes on the
/// same CPU, to the bit.
///
/// # Errors
/// `Unsupported` when the model has nodes that need more than kernels; all are named.
pub fn compile_ahead(
    graph: &Graph,
    shapes: &BTreeMap<String, Vec<usize>>,
    name: &str,
    kernels: &[u8],
) -> Result<Artefact> {
    let takes = graph.input_summary();
    if let Some(n) =
        shapes.keys().find(|n| !graph.inputs().iter().any(|&v| graph.value_name(v) == n.as_str()))
    {
        return Err(Error::data(format!("there is no input '{n}'; the model takes {takes}")));
    }
    let key: Key = graph
        .inputs()
        .iter()
        .map(|&v| {
            let (ty, port) = (graph.ty(v), graph.value_name(v));
            let declared = ty.shape().map(|s| s.iter().map(|d| d.known().unwrap_or(1)).collect());
            let shape: Option<Vec<usize>> = shapes.get(port).cloned().or(declared);
            let (Some(dtype), Some(shape)) = (ty.dtype(), shape) else {
                return Err(Error::data(format!("input '{port}' has no declared type and rank: {takes}")));
            };
            let fits =
                ty.merge(&ir::ValueType::tensor(dtype, shape.iter().copied().map(Dim::Known).collect()));
            fits.map_err(|e| e.tensor(port))?;
            Ok((dtype, shape, None))
        })
        .collect::<Result<_>>()?;
    codegen::build(&specialise(graph, &key)?, name, kernels)
}
