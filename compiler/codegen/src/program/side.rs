//! Runs on parts of a batch whose outputs lie side by side, so that nothing has to be put together.

use super::words::Words;
use super::{OutputSlot, Program};
use ir::{Error, Result, Tensor, Value};
use kernels::Pool;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

/// The outputs of so many runs of a program, one run's behind another's along the first dim.
pub struct Side<'a> {
    program: &'a Program,
    outputs: Vec<Words>,
    /// Where each begins.
    starts: Vec<Start>,
    /// Parts that ran.
    done: Vec<AtomicBool>,
}

/// The first byte of an output, of which every part has its own bytes.
struct Start(*mut u8);
// SAFETY: parts write disjoint ranges, each once.
unsafe impl Sync for Start {}
// SAFETY: as above.
unsafe impl Send for Start {}

impl Program {
    /// Room for the outputs of `parts` runs; `None` where an output has no known size, or a part's outputs would not begin at
    /// an address that kernels take.
    pub fn side_by_side(&self, parts: usize) -> Result<Option<Side<'_>>> {
        let (mut outputs, mut starts) = (Vec::new(), Vec::new());
        for o in &self.outputs {
            let OutputSlot::Static(dtype, shape, bytes) = o else { return Ok(None) };
            if dtype.bits() < 8 || shape.is_empty() || !bytes.is_multiple_of(16) {
                return Ok(None);
            }
            let all =
                bytes.checked_mul(parts).ok_or_else(|| Error::limit("the outputs of a batch overflow"))?;
            let mut words = self.spares.room(all)?;
            starts.push(Start(words.as_mut_ptr()));
            outputs.push(words);
        }
        let done = (0..parts).map(|_| AtomicBool::new(false)).collect();
        Ok(Some(Side { program: self, outputs, starts, done }))
    }

    fn sizes(&self) -> impl Iterator<Item = usize> {
        self.outputs.iter().map(|o| if let OutputSlot::Static(_, _, bytes) = o { *bytes } else { 0 })
    }
}

impl Side<'_> {
    /// Runs part `n`, once.
    pub fn run(&self, n: usize, inputs: &[Value], pool: &dyn Pool) -> Result<()> {
        if self.done.get(n).is_none_or(|d| d.swap(true, Relaxed)) {
            return Err(Error::internal("a part of a batch runs twice"));
        }
        let at = self.starts.iter().zip(self.program.sizes()).map(|(s, bytes)| s.0.wrapping_add(n * bytes));
        // SAFETY: each output has room for as many parts as there are in `done`, at multiples of 16 bytes, and part `n` is
        // run by nobody else.
        let (state, _) = unsafe { self.program.run_into(inputs, pool, false, at.collect())? };
        self.program.put_back(state);
        Ok(())
    }

    /// The outputs with all parts.
    pub fn finish(self) -> Result<Vec<Value>> {
        if self.done.iter().any(|d| !d.load(Relaxed)) {
            return Err(Error::internal("a part of the batch did not run"));
        }
        let parts = self.done.len();
        let whole = |(o, words): (&OutputSlot, Words)| {
            let OutputSlot::Static(dtype, shape, _) = o else {
                return Err(Error::internal("an output of unknown size"));
            };
            let mut shape = shape.to_vec();
            shape[0] *= parts;
            Ok(Value::Tensor(Tensor::mapped(*dtype, &shape, Arc::new(words), 0)?))
        };
        self.program.outputs.iter().zip(self.outputs).map(whole).collect()
    }
}
