//! The seam between the generated schedule and native kernels.

use ir::Value;
use kernels::Pool;
use std::cell::Cell;
use std::sync::Mutex;

/// Operands of one step while it runs: memory of static values, boxes of dynamic ones.
pub struct Io<'a> {
    pub pool: &'a dyn Pool,
    /// Start and bytes of each operand, inputs first.
    pub(crate) operands: &'a [(*mut u8, usize)],
    pub(crate) inputs: usize,
    pub(crate) boxes: &'a [Mutex<Option<Value>>],
    /// Each output may be borrowed once.
    pub(crate) taken: &'a Cell<u64>,
}

/// An element type that may be viewed in raw memory.
pub trait Plain: bytemuck::Pod {}
impl Plain for f32 {}
impl Plain for f64 {}
impl Plain for i64 {}
impl Plain for i32 {}
impl Plain for u8 {}
impl Plain for i8 {}
impl Plain for u16 {}
impl Plain for i16 {}
impl Plain for u32 {}
impl Plain for u64 {}

impl Io<'_> {
    /// Input `i` as elements.
    pub fn input<T: Plain>(&self, i: usize) -> &[T] {
        assert!(i < self.inputs, "input {i} of {}", self.inputs);
        let (p, bytes) = self.operands[i];
        if bytes == 0 {
            return &[];
        }
        debug_assert!((p as usize).is_multiple_of(align_of::<T>()));
        // SAFETY: operands come from the program: each points to `bytes` initialised bytes that live as long as the run,
        // aligned to at least 16 bytes, and the memory plan (checked for overlap) lets no output of this step share them,
        // except where a kernel declared that it works in place and then does not read the input.
        unsafe { std::slice::from_raw_parts(p as *const T, bytes / size_of::<T>()) }
    }

    /// Output `i` as elements, once.
    #[allow(clippy::mut_from_ref)] // each output is handed out once per step, which `taken` checks
    pub fn output<T: Plain>(&self, i: usize) -> &mut [T] {
        let at = self.inputs + i;
        let bit = 1u64 << (i % 64);
        assert!(at < self.operands.len() && self.taken.get() & bit == 0, "output {i} is taken");
        self.taken.set(self.taken.get() | bit);
        let (p, bytes) = self.operands[at];
        if bytes == 0 {
            return &mut [];
        }
        // SAFETY: as for inputs; outputs of one step never overlap each other, and each is handed out once.
        unsafe { std::slice::from_raw_parts_mut(p as *mut T, bytes / size_of::<T>()) }
    }

    /// Raw start of operand `i`.
    pub(crate) fn pointer(&self, i: usize) -> *mut u8 {
        self.operands[i].0
    }
}

/// One prepared computation. Errors are one line; the program adds the node.
pub trait Kernel: Send + Sync {
    fn run(&self, io: &Io) -> Result<(), String>;
}

impl<F: Fn(&Io) -> Result<(), String> + Send + Sync> Kernel for F {
    fn run(&self, io: &Io) -> Result<(), String> {
        self(io)
    }
}

/// A kernel's refusal as text.
pub fn text(e: kernels::Error) -> String {
    e.to_string()
}
