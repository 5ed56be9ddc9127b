//! ONNX files to IR and back. Hostile bytes meet one door: the wire pre-scan in `wire.rs`.

mod external;
mod functions;
mod import;
mod mmap;
mod opset;
mod proto;
mod tensor;
pub mod wire;

pub use import::{Imported, OPSETS, from_bytes, open, survey};
