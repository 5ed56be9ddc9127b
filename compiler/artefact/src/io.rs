//! Operands of one step while it runs.

use kernels::Pool;
use std::cell::{Cell, RefCell};

/// Memory of the operands of one step, inputs first.
pub struct Io<'a> {
    pub pool: &'a dyn Pool,
    operands: &'a [(*mut u8, usize)],
    inputs: usize,
    /// Each output may be borrowed once: the first 64, and all others.
    taken: Cell<u64>,
    more_taken: RefCell<Vec<usize>>,
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
        Io { pool, operands, inputs, taken: Cell::new(0), more_taken: RefCell::default() }
    }

    /// The same operands for another pool; no output is left here.
    pub fn on<'b>(&'b self, pool: &'b dyn Pool) -> Io<'b> {
        let outputs = self.operands.len() - self.inputs;
        let (taken, more) = (self.taken.replace(u64::MAX), self.more_taken.replace((64..outputs).collect()));
        Io { pool, taken: Cell::new(taken), more_taken: RefCell::new(more), ..*self }
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
        assert!(at < self.operands.len() && self.take(i), "output {i} is taken");
        let (p, bytes) = self.operands[at];
        if bytes == 0 {
            return &mut [];
        }
        // SAFETY: as `new` demands; each output is handed out once.
        unsafe { std::slice::from_raw_parts_mut(p as *mut T, bytes / size_of::<T>()) }
    }

    /// Whether output `i` had not been taken before.
    fn take(&self, i: usize) -> bool {
        if i < 64 {
            let bit = 1u64 << i;
            return self.taken.replace(self.taken.get() | bit) & bit == 0;
        }
        let mut more = self.more_taken.borrow_mut();
        match more.binary_search(&i) {
            Ok(_) => false,
            Err(at) => {
                more.insert(at, i);
                true
            }
        }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_of_many_outputs_is_given_once() {
        let mut memory = [0u8; 200];
        let start = memory.as_mut_ptr();
        let operands: Vec<(*mut u8, usize)> = (0..200).map(|i| (start.wrapping_add(i), 1)).collect();
        // SAFETY: a byte each of the array, which outlives `io`.
        let io = unsafe { Io::new(&kernels::Serial, &operands, 0) };
        (0..200).for_each(|i| io.output::<u8>(i)[0] = i as u8);
        for i in [0, 63, 64, 128, 199] {
            assert!(!io.take(i));
        }
        drop(io);
        assert!(memory.iter().enumerate().all(|(i, &b)| b == i as u8));
    }
}
