//! Memory of a caller as tensors, for the duration of one run.

use ir::{Bytes, DType, Result, Tensor, Value};
use std::marker::PhantomData;
use std::sync::Arc;
use std::sync::atomic::{AtomicPtr, AtomicUsize, Ordering::*};

/// Borrowed bytes without their lifetime. Once taken back they are empty, so a tensor that outlived its run would panic
/// and never read memory that is gone.
struct Lent {
    start: AtomicPtr<u8>,
    len: AtomicUsize,
}

impl Bytes for Lent {
    fn bytes(&self) -> &[u8] {
        let len = self.len.load(Acquire);
        if len == 0 {
            return &[];
        }
        // SAFETY: `len` is not zero, so the loan that borrows these bytes has not ended (see `Loan`); the run that uses
        // the tensor holds no reference beyond it.
        unsafe { std::slice::from_raw_parts(self.start.load(Acquire), len) }
    }
}

/// All that was lent to one run; ends when dropped.
#[derive(Default)]
pub struct Loan<'a> {
    lent: Vec<Arc<Lent>>,
    _borrow: PhantomData<&'a [u8]>,
}

impl<'a> Loan<'a> {
    /// `bytes` as a tensor that must not outlive this loan.
    pub fn tensor(&mut self, dtype: DType, shape: &[usize], bytes: &'a [u8]) -> Result<Tensor> {
        let lent = Arc::new(Lent {
            start: AtomicPtr::new(bytes.as_ptr().cast_mut()),
            len: AtomicUsize::new(bytes.len()),
        });
        self.lent.push(Arc::clone(&lent));
        Tensor::mapped(dtype, shape, lent, 0)
    }

    /// The value with everything copied that lies in lent memory, such as an input that is an output.
    pub fn keep(&self, v: Value) -> Result<Value> {
        Ok(match v {
            Value::Tensor(t) if self.holds(&t) => {
                Value::Tensor(Tensor::from_bytes(t.dtype(), t.shape(), t.bytes().to_vec())?)
            }
            Value::Sequence(ty, list) => {
                Value::Sequence(ty, list.into_iter().map(|v| self.keep(v)).collect::<Result<_>>()?)
            }
            Value::Optional(ty, Some(v)) => Value::Optional(ty, Some(Box::new(self.keep(*v)?))),
            v => v,
        })
    }

    fn holds(&self, t: &Tensor) -> bool {
        let at = t.bytes().as_ptr() as usize;
        self.lent.iter().any(|l| {
            let start = l.start.load(Acquire) as usize;
            !t.bytes().is_empty() && (start..start + l.len.load(Acquire)).contains(&at)
        })
    }
}

impl Drop for Loan<'_> {
    fn drop(&mut self) {
        self.lent.iter().for_each(|l| l.len.store(0, Release));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::panic::AssertUnwindSafe;

    #[test]
    fn what_stays_is_copied_and_what_is_lent_ends() {
        let data = [1u8, 2, 3];
        let (kept, late) = {
            let mut loan = Loan::default();
            let t = loan.tensor(DType::U8, &[3], &data).unwrap();
            assert_eq!(t.bytes().as_ptr(), data.as_ptr());
            (loan.keep(Value::Tensor(t.clone())).unwrap(), t)
        };
        assert_eq!(kept.tensor().unwrap().bytes(), data);
        assert!(std::panic::catch_unwind(AssertUnwindSafe(|| late.bytes().len())).is_err());
    }
}
