//! Memory of outputs and of operands that lay unaligned, in words of 16 bytes. Large outputs that were dropped are the
//! memory of a later run's: the system gives new pages more slowly than many kernels fill them.

use ir::budget::{self, Charge};
use ir::{Bytes, Result};
use std::sync::{Arc, Mutex, Weak};

/// Smaller blocks come from the allocator without new pages.
const LARGE: usize = 1 << 16;

/// Zeros, or what an earlier run left there.
pub struct Words {
    words: Vec<u128>,
    _charge: Charge,
    /// Where the memory goes when this is dropped.
    home: Weak<Spares>,
}

impl Words {
    pub fn none() -> Words {
        Words { words: Vec::new(), _charge: Charge::new(0), home: Weak::new() }
    }

    pub fn zeros(bytes: usize) -> Result<Words> {
        let words = budget::zeros(bytes.div_ceil(16))?;
        Ok(Words { words, _charge: Charge::new(bytes), home: Weak::new() })
    }

    pub fn copied(bytes: &[u8]) -> Result<Words> {
        let mut w = Words::zeros(bytes.len())?;
        bytemuck::cast_slice_mut::<u128, u8>(&mut w.words)[..bytes.len()].copy_from_slice(bytes);
        Ok(w)
    }

    pub fn as_mut_ptr(&mut self) -> *mut u8 {
        self.words.as_mut_ptr().cast()
    }
}

impl Bytes for Words {
    fn bytes(&self) -> &[u8] {
        bytemuck::cast_slice(&self.words)
    }
}

impl Drop for Words {
    fn drop(&mut self) {
        if let Some(home) = self.home.upgrade() {
            home.keep(std::mem::take(&mut self.words));
        }
    }
}

/// Memory of dropped outputs, the latest few blocks.
pub struct Spares {
    most: usize,
    kept: Mutex<Vec<Vec<u128>>>,
}

impl Spares {
    /// For a program of so many outputs.
    pub fn at_most(blocks: usize) -> Arc<Spares> {
        Arc::new(Spares { most: blocks, kept: Mutex::default() })
    }

    /// Room for an output of so many bytes; what it holds is unspecified.
    pub fn room(self: &Arc<Self>, bytes: usize) -> Result<Words> {
        if bytes < LARGE {
            return Words::zeros(bytes);
        }
        let n = bytes.div_ceil(16);
        let mut kept = self.kept.lock().unwrap_or_else(|e| e.into_inner());
        let found = kept.iter().position(|w| w.len() == n).map(|i| kept.swap_remove(i));
        drop(kept);
        let mut words = match found {
            Some(words) => {
                budget::check_total(bytes)?;
                Words { words, _charge: Charge::new(bytes), home: Weak::new() }
            }
            None => Words::zeros(bytes)?,
        };
        words.home = Arc::downgrade(self);
        Ok(words)
    }

    /// The oldest block gives way.
    fn keep(&self, words: Vec<u128>) {
        let mut kept = self.kept.lock().unwrap_or_else(|e| e.into_inner());
        kept.push(words);
        if kept.len() > self.most {
            kept.remove(0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dropped_block_is_used_again_and_one_that_is_held_is_not() {
        let spares = Spares::at_most(2);
        let mut a = spares.room(100_000).unwrap();
        let at = a.as_mut_ptr();
        let mut b = spares.room(100_000).unwrap();
        assert_ne!(at, b.as_mut_ptr());
        drop(b);
        drop(a);
        let kept = |s: &Spares| s.kept.lock().unwrap().len();
        assert_eq!(kept(&spares), 2);
        drop(spares.room(10).unwrap());
        drop(spares.room(200_000).unwrap());
        assert_eq!(kept(&spares), 2, "the latest stay");
        let mut c = spares.room(100_000).unwrap();
        assert_eq!((c.as_mut_ptr(), kept(&spares)), (at, 1));
        drop(spares);
        assert_eq!(c.bytes().len(), 100_000);
    }
}
