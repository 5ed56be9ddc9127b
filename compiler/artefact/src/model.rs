//! A plan with its constants and code, ready to run.

use crate::io::Io;
use crate::loops::Code;
use crate::plan::{Operand, Plan};
use kernels::stored::Bulk;
use kernels::{Error, Pool};

/// A plan whose operands were checked against the constants and loops it comes with.
pub struct Model {
    plan: Plan,
    constants: Bulk,
}

/// The memory of one run: as large and aligned as the plan's ports and workspace say.
pub struct Memory<'a> {
    pub workspace: *mut u8,
    pub inputs: &'a [*mut u8],
    pub outputs: &'a [*mut u8],
}

impl Model {
    /// `None` when the plan reaches outside the constants.
    pub fn new(plan: Plan, constants: Bulk) -> Option<Model> {
        plan.is_sound(constants.bytes().len()).then_some(Model { plan, constants })
    }

    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// Executes step `i`.
    ///
    /// # Safety
    /// The memory is as the plan demands, and the code is the plan's.
    pub unsafe fn step(&self, i: usize, memory: &Memory, code: Code, pool: &dyn Pool) -> Result<(), Error> {
        let s = &self.plan.steps[i];
        let at = |o: &Operand| match *o {
            Operand::Workspace { at, bytes } => (memory.workspace.wrapping_add(at), bytes),
            Operand::Input { at, bytes } => (memory.inputs[at], bytes),
            Operand::Output { at, bytes } => (memory.outputs[at], bytes),
            Operand::Constant { at, bytes } => (self.constants.as_ptr().wrapping_add(at).cast_mut(), bytes),
        };
        let operands: smallvec::SmallVec<[(*mut u8, usize); 8]> = s.operands.iter().map(at).collect();
        // SAFETY: every operand lies inside its memory, which was checked; the memory plan keeps outputs apart.
        s.call.run(&unsafe { Io::new(pool, &operands, s.inputs) }, code)
    }
}
