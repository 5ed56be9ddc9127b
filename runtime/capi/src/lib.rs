//! The runtime's C interface: `include/compress.h` is generated from this crate.
//!
//! Nothing unwinds into C: every body runs inside [`guard`], which turns errors and panics into a status and keeps the
//! message for the thread.
#![allow(non_camel_case_types)] // the names are C's
#![allow(clippy::missing_safety_doc)] // the header states one contract for all functions

mod outputs;
mod session;
mod status;
mod tensor;

pub use outputs::*;
pub use session::*;
pub use status::*;
pub use tensor::*;
