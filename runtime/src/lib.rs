//! Opens, compiles and runs ONNX models on the CPU.

mod evaluate;
mod profile;
mod session;

pub use evaluate::Jit;
pub use profile::{Profile, Step};
pub use session::Session;
