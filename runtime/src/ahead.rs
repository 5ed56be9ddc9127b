//! A model compiled ahead of time, for one set of input shapes.

use crate::prepare::{Key, deciding_inputs, specialise};
use codegen::Artefact;
use ir::{DType, Dim, Error, Graph, Result, Tensor};
pub use kernels::Tier;
use std::collections::BTreeMap;

/// What a model is compiled for.
pub struct Ahead<'a> {
    /// Shapes of inputs by name; open dims that none names are 1.
    pub shapes: BTreeMap<String, Vec<usize>>,
    /// Values of integer or boolean inputs that are compiled in; a run with others is refused.
    pub values: BTreeMap<String, Vec<i64>>,
    /// A C identifier.
    pub name: &'a str,
    /// The object that artefacts carry.
    pub kernels: &'a [u8],
    /// The narrowest CPU the artefact runs on.
    pub tier: Tier,
}

/// Compiles `graph` ahead of time. What the artefact computes is what a [`Session`](crate::Session) computes on a CPU of
/// that tier, to the bit.
///
/// # Errors
/// `Unsupported` when the model has nodes that need more than kernels; all are named.
pub fn compile_ahead(graph: &Graph, ahead: Ahead) -> Result<Artefact> {
    let widened = exact::widen(graph).ok().flatten();
    let graph = widened.as_ref().unwrap_or(graph);
    let takes = graph.input_summary();
    let known = |n: &&String| graph.inputs().iter().any(|&v| graph.value_name(v) == n.as_str());
    if let Some(n) = ahead.shapes.keys().chain(ahead.values.keys()).find(|n| !known(n)) {
        return Err(Error::data(format!("there is no input '{n}'; the model takes {takes}")));
    }
    let key: Key = graph
        .inputs()
        .iter()
        .map(|&v| {
            let (ty, port) = (graph.ty(v), graph.value_name(v));
            let declared = ty.shape().map(|s| s.iter().map(|d| d.known().unwrap_or(1)).collect());
            let shape: Option<Vec<usize>> = ahead.shapes.get(port).cloned().or(declared);
            let (Some(dtype), Some(shape)) = (ty.dtype(), shape) else {
                return Err(Error::data(format!("input '{port}' has no declared type and rank: {takes}")));
            };
            let fits =
                ty.merge(&ir::ValueType::tensor(dtype, shape.iter().copied().map(Dim::Known).collect()));
            fits.map_err(|e| e.tensor(port))?;
            let value = ahead.values.get(port).map(|x| bytes(dtype, &shape, x).map_err(|e| e.tensor(port)));
            Ok((dtype, shape, value.transpose()?))
        })
        .collect::<Result<_>>()?;
    let fixed = key.iter().enumerate().filter_map(|(i, k)| Some((i, k.2.clone()?))).collect();
    let target = codegen::Target { name: ahead.name, kernels: ahead.kernels, tier: ahead.tier, fixed };
    codegen::build(&specialise(graph, &key)?, target).map_err(|e| {
        let open: Vec<String> = deciding_inputs(graph)
            .into_iter()
            .filter(|&i| key[i].2.is_none())
            .map(|i| format!("'{}'", graph.value_name(graph.inputs()[i])))
            .collect();
        if e.blame != ir::Blame::Unsupported || open.is_empty() {
            return e;
        }
        Error {
            message: format!(
                "{}; give the values that decide shapes or branches (--value): {}",
                e.message,
                open.join(", ")
            ),
            ..e
        }
    })
}

/// A value for an input of integers or booleans.
fn bytes(dtype: DType, shape: &[usize], x: &[i64]) -> Result<Vec<u8>> {
    let count: usize = shape.iter().product();
    if x.len() != count {
        return Err(Error::data(format!("{} values are given for {count} elements", x.len())));
    }
    let t = match dtype {
        DType::I64 => Tensor::new(shape, x.to_vec())?,
        DType::I32 => Tensor::new(shape, x.iter().map(|&x| x as i32).collect())?,
        DType::Bool => Tensor::from_bytes(dtype, shape, x.iter().map(|&x| u8::from(x != 0)).collect())?,
        _ => return Err(Error::data(format!("values can be fixed for int64, int32 and bool, not {dtype}"))),
    };
    Ok(t.bytes().to_vec())
}
