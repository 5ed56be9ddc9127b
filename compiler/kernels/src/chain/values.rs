//! What a step of a chain gives for each element, a vector at a time.

use super::Format;
use crate::simd::{LANES, Simd};

/// A value of each element. Types, not closures: these are sure to be inlined.
pub(super) trait Value<S: Simd>: Copy {
    /// Bytes alone decide it, so that 64 elements are to be had at once.
    const SPREADS: bool = false;

    /// # Safety
    /// The vector from element `i` on lies in the operands.
    unsafe fn at(self, s: S, i: usize) -> S::F;

    /// 64 elements from `i` on, in the order of [`Simd::spread`]. For values that spread: parts that do not have another order.
    ///
    /// # Safety
    /// They lie in the operands.
    #[inline(always)]
    unsafe fn spread(self, s: S, i: usize) -> [S::F; 4] {
        let mut all = [s.splat(0.0); 4];
        for v in 0..4 {
            // SAFETY: the caller's contract.
            all[v] = unsafe { self.at(s, i + v * LANES) };
        }
        all
    }
}

/// What a pointer leads to or, where it is null, a number.
#[derive(Clone, Copy)]
pub(super) struct Held<F>(pub *const f32, pub F);

impl<S: Simd> Value<S> for Held<S::F> {
    #[inline(always)]
    unsafe fn at(self, s: S, i: usize) -> S::F {
        // SAFETY: the caller's contract.
        if self.0.is_null() { self.1 } else { unsafe { s.load(self.0.add(i)) } }
    }
}

/// Bytes, dequantized.
#[derive(Clone, Copy)]
pub(super) struct Bytes<F, I> {
    p: *const u8,
    scale: F,
    flip: I,
    zero: I,
    /// What makes unsigned bytes of these, and what is added to them then.
    unsigned: (u8, i32),
}

impl<F, I> Bytes<F, I> {
    /// The same of other bytes.
    #[inline(always)]
    pub(super) fn from(self, p: *const u8) -> Self {
        Bytes { p, ..self }
    }
}

impl<S: Simd> Value<S> for Bytes<S::F, S::I> {
    const SPREADS: bool = true;

    #[inline(always)]
    unsafe fn at(self, s: S, i: usize) -> S::F {
        // SAFETY: the caller's contract.
        let x = unsafe { s.load_bytes(self.p.add(i)) };
        s.mul(s.to_f(s.sub_i(s.xor_i(x, self.flip), self.zero)), self.scale)
    }
    #[inline(always)]
    unsafe fn spread(self, s: S, i: usize) -> [S::F; 4] {
        let (flip, addend) = self.unsigned;
        // SAFETY: the caller's contract.
        let x = unsafe { s.spread(self.p.add(i), flip, addend) };
        let mut all = [self.scale; 4];
        for v in 0..4 {
            all[v] = s.mul(s.to_f(x[v]), self.scale);
        }
        all
    }
}

/// Unsigned bytes less their zero point, which a scale of 1 leaves alone.
#[derive(Clone, Copy)]
pub(super) struct Unscaled<I>(*const u8, I);

impl<F: Copy, I: Copy> Bytes<F, I> {
    #[inline(always)]
    pub(super) fn unscaled(self) -> Unscaled<I> {
        Unscaled(self.p, self.zero)
    }
}

impl<S: Simd> Value<S> for Unscaled<S::I> {
    #[inline(always)]
    unsafe fn at(self, s: S, i: usize) -> S::F {
        // SAFETY: the caller's contract.
        s.to_f(s.sub_i(unsafe { s.load_bytes(self.0.add(i)) }, self.1))
    }
}

/// 1 where the bits of two values are equal.
#[derive(Clone, Copy)]
pub(super) struct Same<F>(pub Held<F>, pub Held<F>);

impl<S: Simd> Value<S> for Same<S::F> {
    #[inline(always)]
    unsafe fn at(self, s: S, i: usize) -> S::F {
        // SAFETY: the caller's contract.
        let (a, b) = unsafe { (self.0.at(s, i), self.1.at(s, i)) };
        let apart = s.to_f(s.xor_i(s.bits(a), s.bits(b)));
        s.select(s.eq(apart, s.splat(0.0)), s.splat(1.0), s.splat(0.0))
    }
}

/// Two values and what is made of them.
#[derive(Clone, Copy)]
pub(super) struct Both<A, B, O>(pub A, pub B, pub O);

macro_rules! operators {
    ($($name:ident: |$s:ident, $x:ident, $y:ident| $e:expr;)*) => {$(
        #[derive(Clone, Copy)]
        pub(super) struct $name;

        impl<S: Simd, A: Value<S>, B: Value<S>> Value<S> for Both<A, B, $name> {
            const SPREADS: bool = A::SPREADS && B::SPREADS;

            #[inline(always)]
            unsafe fn at(self, $s: S, i: usize) -> S::F {
                // SAFETY: the caller's contract.
                let ($x, $y) = unsafe { (self.0.at($s, i), self.1.at($s, i)) };
                $e
            }
            #[inline(always)]
            unsafe fn spread(self, $s: S, i: usize) -> [S::F; 4] {
                // SAFETY: the caller's contract.
                let (x, y) = unsafe { (self.0.spread($s, i), self.1.spread($s, i)) };
                let mut all = x;
                for v in 0..4 {
                    let ($x, $y) = (x[v], y[v]);
                    all[v] = $e;
                }
                all
            }
        }
    )*};
}

operators! {
    Add: |s, x, y| s.add(x, y);
    Sub: |s, x, y| s.sub(x, y);
    Mul: |s, x, y| s.mul(x, y);
    Div: |s, x, y| s.div(x, y);
    // The instructions give their second operand where one is NaN.
    Min: |s, x, y| s.select(s.is_nan(x), x, s.min(x, y));
    Max: |s, x, y| s.select(s.is_nan(x), x, s.max(x, y));
    Leaky: |s, x, y| s.select(s.lt(x, s.splat(0.0)), s.mul(x, y), x);
}

/// The values of bytes, if the format is one of bytes.
#[inline(always)]
pub(super) fn dequantized<S: Simd>(s: S, format: Format, p: *const u8) -> Option<Bytes<S::F, S::I>> {
    let Format::Bytes { signed, scale, zero } = format else { return None };
    let flip = if signed { 0x80 } else { 0 };
    let less = zero.wrapping_add(flip.into());
    Some(Bytes {
        p,
        scale: s.splat(scale),
        flip: s.splat_i(flip.into()),
        zero: s.splat_i(less),
        unsigned: (flip, less.wrapping_neg()),
    })
}
