//! Operands of one step while it runs.

use kernels::Pool;
use std::cell::Cell;

/// Memory of the operands of one step, inputs first.
pub struct Io<'a> {
    pub pool: &'a dyn Pool,
    operands: &'a [(*mut u8, usize)],
    inputs: usize,
    /// Each output may be borrowed once.
    taken: Cell<u64>,
}

/// An element type that may be viewed in raw memory.
pub trait Plain: bytemuck::Pod {}

macro_rules! plain {
    ($($t:ty)*) => {$(impl Plain for $t {})*};
}
plain!(f32 f64 i64 i32 u8 i8 u16 i16 u32 u64);

impl<'a> Io<'a> {
    /// Start and bytes of each operand.
    ///
    /// # Safety
    /// Each points to as many initialised bytes, aligned for the elements they hold, that live as long as the `Io`; no
    /// output shares memory with another operand, except where a kernel works in place and then does not read the input.
    pub unsafe fn new(pool: &'a dyn Pool, operands: &'a [(*mut u8, usize)], inputs: usize) -> Io<'a> {
        Io { pool, operands, inputs, taken: Cell::new(0) }
    }

    /// Input `i` as elements.
    pub fn input<T: Plain>(&self, i: usize) -> &[T] {
        assert!(i < self.inputs, "input {i} of {}", self.inputs);
        let (p, bytes) = self.operands[i];
        if bytes == 0 {
            return &[];
        }
        debug_assert!((p as usize).is_multiple_of(align_of::<T>()));
        // SAFETY: as `new` demands.
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
        // SAFETY: as `new` demands; each output is handed out once.
        unsafe { std::slice::from_raw_parts_mut(p as *mut T, bytes / size_of::<T>()) }
    }

    /// How many of the operands are inputs.
    pub fn inputs(&self) -> usize {
        self.inputs
    }

    /// Raw start of operand `i`.
    pub fn pointer(&self, i: usize) -> *mut u8 {
        self.operands[i].0
    }
}
