//! Opens, compiles and runs ONNX models on the CPU.
//!
//! A [`Session`] compiles the model for each set of input shapes it meets and keeps the programs. [`Jit`] offers the same
//! engine to the search as [`ir::Evaluate`].

mod evaluate;
mod memory;
mod pool;
mod prepare;
mod profile;
mod session;

pub use evaluate::Jit;
pub use memory::return_freed_blocks;
pub use pool::ThreadPool;
pub use profile::{Profile, Step};
pub use session::Session;
