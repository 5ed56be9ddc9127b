//! Contractions take numbers below 2⁻¹²⁶ as zero: a processor needs a hundred cycles for each multiplication of such a one,
//! and trained models have whole channels of them.

use kernels::Pool;

/// While it lives, the thread's denormal operands and results of vector and scalar floating point are zeros.
struct Flushed(#[cfg(all(target_arch = "x86_64", not(miri)))] u32);

/// Of the control register: results, then operands.
#[cfg(all(target_arch = "x86_64", not(miri)))]
const BITS: u32 = 1 << 15 | 1 << 6;

#[cfg(all(target_arch = "x86_64", not(miri)))]
impl Flushed {
    fn new() -> Flushed {
        let mut before = 0u32;
        // SAFETY: stores the register, which has no other effect.
        unsafe { std::arch::asm!("stmxcsr [{}]", in(reg) &mut before, options(nostack)) };
        set(before | BITS);
        Flushed(before)
    }
}

#[cfg(all(target_arch = "x86_64", not(miri)))]
impl Drop for Flushed {
    fn drop(&mut self) {
        set(self.0);
    }
}

#[cfg(all(target_arch = "x86_64", not(miri)))]
fn set(register: u32) {
    // SAFETY: the value was read from the register but for the two bits that flush, which mask no exception and leave the
    // direction of rounding. What the compiler moves across gives the same but for denormal numbers.
    unsafe { std::arch::asm!("ldmxcsr [{}]", in(reg) &register, options(nostack, readonly)) };
}

#[cfg(not(all(target_arch = "x86_64", not(miri))))]
impl Flushed {
    fn new() -> Flushed {
        Flushed()
    }
}

/// A pool whose tasks run so.
struct Flushing<'a>(&'a dyn Pool);

impl Pool for Flushing<'_> {
    fn threads(&self) -> usize {
        self.0.threads()
    }

    fn run(&self, tasks: usize, f: &(dyn Fn(usize) + Sync)) {
        self.0.run(tasks, &|i| {
            let _flushed = Flushed::new();
            f(i);
        });
    }
}

/// Calls `f` with a pool such that it and its tasks see no denormal numbers.
pub fn without<R>(pool: &dyn Pool, f: impl FnOnce(&dyn Pool) -> R) -> R {
    let _flushed = Flushed::new();
    f(&Flushing(pool))
}

#[cfg(test)]
mod tests {
    use super::*;
    use kernels::Serial;
    use std::hint::black_box;

    #[test]
    fn denormal_numbers_are_zeros_inside_and_numbers_again_after() {
        let tiny = black_box(1e-40f32);
        let doubled = || black_box(tiny) * black_box(2.0);
        assert!(doubled() > 0.0);
        without(&Serial, |pool| {
            if cfg!(all(target_arch = "x86_64", not(miri))) {
                assert_eq!(doubled(), 0.0);
                pool.run(3, &|_| assert_eq!(doubled(), 0.0));
                assert_eq!(doubled(), 0.0, "a task puts back what it found");
            }
        });
        assert!(doubled() > 0.0);
    }
}
