//! What a model compiled ahead of time carries besides its weights and generated loops.
//!
//! A [`Plan`] is the schedule as bytes: kernel calls with their parameters and operands. Code generation writes it, and
//! the one entry point in `entry.rs` reads and executes it inside the artefact, on the widest instructions of the CPU it
//! finds itself on. This crate knows kernels only: it is compiled once more, as a static library that is embedded in the
//! compiler and copied into every artefact.

mod attention;
mod call;
mod codec;
mod entry;
mod ready;

pub use call::{Blob, Call, Contraction, Finish, Line, Mask, Move, Operand, Plan, Residual, Scores, Step};
pub use codec::Field;
