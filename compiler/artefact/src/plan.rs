//! A schedule as data: steps, and where their operands lie.

use crate::call::Call;
use kernels::{fields, variants};

/// Where an operand lies, and its bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operand {
    /// At this offset of the workspace.
    Workspace {
        at: usize,
        bytes: usize,
    },
    Input {
        at: usize,
        bytes: usize,
    },
    Output {
        at: usize,
        bytes: usize,
    },
    /// At this offset of the constants.
    Constant {
        at: usize,
        bytes: usize,
    },
}

/// A call and its operands, inputs first.
pub struct Step {
    pub call: Call,
    pub inputs: usize,
    pub operands: Vec<Operand>,
}

/// An input or output.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Port {
    pub bytes: usize,
    pub align: usize,
}

/// All steps of a model, in order.
pub struct Plan {
    pub inputs: Vec<Port>,
    pub outputs: Vec<Port>,
    /// Bytes of working memory, at a multiple of 64.
    pub workspace: usize,
    /// Generated loops.
    pub loops: usize,
    /// Values that inputs must have, as bytes.
    pub fixed: Vec<(usize, Vec<u8>)>,
    pub steps: Vec<Step>,
}

impl Plan {
    /// Whether every operand lies inside the memory it names, and every loop is there. `constants` are bytes.
    pub fn is_sound(&self, constants: usize) -> bool {
        let inside =
            |at: usize, bytes: usize, len: usize| at.checked_add(bytes).is_some_and(|end| end <= len);
        let port = |ports: &[Port], at: usize, bytes: usize| ports.get(at).is_some_and(|p| p.bytes == bytes);
        let fits = |o: &Operand| match *o {
            Operand::Workspace { at, bytes } => at.is_multiple_of(64) && inside(at, bytes, self.workspace),
            Operand::Input { at, bytes } => port(&self.inputs, at, bytes),
            Operand::Output { at, bytes } => port(&self.outputs, at, bytes),
            Operand::Constant { at, bytes } => at.is_multiple_of(16) && inside(at, bytes, constants),
        };
        self.fixed.iter().all(|(i, b)| port(&self.inputs, *i, b.len()))
            && self.steps.iter().all(|s| {
                s.inputs <= s.operands.len()
                    && s.call.code().is_none_or(|c| c < self.loops)
                    && s.operands.iter().all(fits)
            })
    }
}

fields! {
    Step { call, inputs, operands }
    Port { bytes, align }
    Plan { inputs, outputs, workspace, loops, fixed, steps }
}

variants! { Operand {
    0 = Workspace { at, bytes }, 1 = Input { at, bytes }, 2 = Output { at, bytes }, 3 = Constant { at, bytes },
} }
