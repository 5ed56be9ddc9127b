//! ONNX files to IR and back. Hostile bytes meet one door: the wire pre-scan in `wire.rs`.
#![deny(unsafe_code)]

mod export;
mod external;
mod functions;
mod import;
mod mmap;
mod opset;
mod order;
mod places;
mod prepare;
mod proto;
mod rope;
mod scope;
mod tensor;
#[cfg(test)]
mod testing;
mod types;
mod versions;
pub mod wire;

pub use export::{Encoded, MAX_MESSAGE, Written, save, save_split, size, to_bytes, write};
pub use import::{Imported, OPSETS, from_bytes, open, open_moved, survey};
pub use mmap::{part as map_part, release_all};
pub use places::{Place, places};
