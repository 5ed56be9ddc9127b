//! Kernel calls as data, and what makes them.
//!
//! A [`Call`] is a kernel with its parameters and packed weights; lowering gives one for every step that has a kernel. A
//! session makes the calls from memory, a [`Plan`] holds them with the places of their operands: in a file that a later
//! session maps, or inside an artefact, whose one entry point in `entry.rs` reads and executes it. This crate knows
//! kernels only: it is compiled once more, as a static library that is embedded in the compiler and copied into every
//! artefact.

mod attention;
mod bands;
mod call;
mod chain;
mod denormals;
mod entry;
mod integer;
mod io;
pub mod loops;
mod model;
mod pair;
mod plan;
mod recurrent;
mod run;

pub use bands::between;
pub use call::{
    Bands, BytePairs, Call, Finish, Kept, Line, Mask, Matrix, Move, Numbers, Pair, Pass, Recurrence,
    Residual, Scalar, Scaling, Scores, Stage, Stores, Weights, Zero,
};
pub use entry::{compress_artefact_run, forget};
pub use io::{Io, Plain};
pub use model::{Memory, Model};
pub use plan::{Operand, Plan, Port, Step};
