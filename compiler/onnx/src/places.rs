//! Where large tensors lie in a file, for tools that treat their bytes apart from the rest.

use crate::proto::{self, AttributeProto, GraphProto, NodeProto, TensorProto};
use crate::tensor::dims;
use crate::wire::{self, Cut};
use ir::{DType, Result};

/// A tensor's raw bytes in the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    pub offset: usize,
    pub len: usize,
    pub dtype: DType,
    pub shape: Vec<usize>,
}

/// Tensors of more than a kilobyte whose elements stand in `file` as they are in memory: initializers and attributes of
/// the graph, its subgraphs and functions.
///
/// # Errors
/// As reading the model does, for bytes that are no ONNX file.
pub fn places(file: &[u8]) -> Result<Vec<Place>> {
    let model = proto::parse(&wire::skeleton(file)?)?;
    let mut found = Vec::new();
    model.graph.iter().for_each(|g| graph(g, &mut found));
    model.functions.iter().flat_map(|f| &f.node).for_each(|n| node(n, &mut found));
    Ok(found)
}

fn graph(g: &GraphProto, found: &mut Vec<Place>) {
    g.initializer.iter().for_each(|t| tensor(t, found));
    g.sparse_initializer
        .iter()
        .flat_map(|s| s.values.iter().chain(s.indices.iter()))
        .for_each(|t| tensor(t, found));
    g.node.iter().for_each(|n| node(n, found));
}

fn node(n: &NodeProto, found: &mut Vec<Place>) {
    n.attribute.iter().for_each(|a| attribute(a, found));
}

fn attribute(a: &AttributeProto, found: &mut Vec<Place>) {
    a.t.iter().chain(&a.tensors).for_each(|t| tensor(t, found));
    a.g.iter().chain(&a.graphs).for_each(|g| graph(g, found));
}

fn tensor(t: &TensorProto, found: &mut Vec<Place>) {
    let (Some(cut), Some(dtype), Ok(shape)) =
        (Cut::find(&t.doc_string), DType::from_onnx(t.data_type), dims(&t.dims))
    else {
        return;
    };
    // Raw bytes, and the packed fields of floats and doubles.
    let as_stored = match cut.field {
        9 => true,
        4 => dtype == DType::F32,
        10 => dtype == DType::F64,
        _ => false,
    };
    if as_stored {
        found.push(Place { offset: cut.offset, len: cut.len, dtype, shape });
    }
}
