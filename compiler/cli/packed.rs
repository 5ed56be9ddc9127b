//! Containers of the command line: models in `.cmpx` files.

use crate::exit::{Failure, Result};
use container::{Element, Region};
use ir::{DType, Graph, Tensor};
use std::path::Path;

/// The model file inside, when `path` is a container.
pub fn read(path: &Path) -> Result<Option<Vec<u8>>> {
    container::read(path).map_err(|e| Failure::bad(format!("{}: {e}", path.display())))
}

/// Whether a file of this name is to be a container.
pub fn wanted(path: &Path) -> bool {
    path.extension().is_some_and(|e| e.eq_ignore_ascii_case("cmpx"))
}

/// An ONNX file as a container.
pub fn pack(model: &[u8]) -> Result<Vec<u8>> {
    Ok(container::pack(model, &regions(model)?))
}

fn regions(model: &[u8]) -> ir::Result<Vec<Region>> {
    let region =
        |p: onnx::Place| Region { offset: p.offset, len: p.len, element: element(p.dtype), shape: p.shape };
    Ok(onnx::places(model)?.into_iter().map(region).collect())
}

/// Bytes of `graph` as a container.
pub fn size(graph: &Graph) -> ir::Result<u64> {
    let model = onnx::to_bytes(graph, &ops::Standard)?;
    Ok(container::pack(&model, &regions(&model)?).len() as u64)
}

/// Bytes of a tensor inside a container.
pub fn tensor_bytes(t: &Tensor) -> u64 {
    match t.dtype() {
        DType::String => t.stored_bytes() as u64,
        d => container::coded_len(t.bytes(), element(d), t.shape()) as u64,
    }
}

fn element(d: DType) -> Element {
    match d {
        DType::F32 | DType::C64 => Element::Float32,
        DType::F64 | DType::C128 => Element::Float64,
        DType::F16 => Element::Float16,
        DType::BF16 => Element::BFloat16,
        DType::I16 | DType::U16 => Element::Int16,
        DType::I32 | DType::U32 => Element::Int32,
        DType::I64 | DType::U64 => Element::Int64,
        d => match d.bits() {
            4 => Element::Nibble,
            2 => Element::Crumb,
            _ => Element::Byte,
        },
    }
}
