//! The seam between the generated schedule and what runs steps that are no kernel calls.

use ir::{Result, Value};
use std::ops::Deref;
use std::sync::Mutex;

/// Kinds of steps: without a kernel, and with one from when the sizes are known, where that is worth it.
pub const REFERENCE: &str = "reference";
pub const LATE: &str = "sizes from values";

/// Operands of one step while it runs: memory of static values, boxes of dynamic ones.
pub struct Io<'a> {
    pub(crate) memory: artefact::Io<'a>,
    pub(crate) boxes: &'a [Mutex<Option<Value>>],
}

impl<'a> Deref for Io<'a> {
    type Target = artefact::Io<'a>;
    fn deref(&self) -> &artefact::Io<'a> {
        &self.memory
    }
}

/// One prepared computation. The program adds the node to an error.
pub trait Kernel: Send + Sync {
    fn run(&self, io: &Io) -> Result<()>;
}

impl<F: Fn(&Io) -> Result<()> + Send + Sync> Kernel for F {
    fn run(&self, io: &Io) -> Result<()> {
        self(io)
    }
}
