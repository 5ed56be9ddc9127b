//! Chains that are a product, a sum and bounds of one operand, each of them or not, as normalizations and residuals before a
//! quantization are: one pass that stores no step.

use super::values::{Held, Value};
use super::{Arg, Binary, Chain, Format, Step};
use crate::simd::{LANES, Simd};

/// `min(max(x · factor + shift, low), high)`, what there is of it, each rounded as by itself.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Affine {
    pub x: usize,
    pub factor: Option<Arg>,
    pub shift: Option<Arg>,
    pub low: Option<f32>,
    pub high: Option<f32>,
}

impl Affine {
    /// What a chain is as one, if it is: steps in this order, each of which reads the one before, and two of them at least.
    pub fn of(chain: &Chain) -> Option<Affine> {
        let operands = chain.operands.len();
        let outer = |a: Arg| !matches!(a, Arg::Slot(s) if s >= operands);
        let mut found: Option<(Affine, usize)> = None;
        for (i, step) in chain.steps.iter().enumerate() {
            let Step::Binary(op, a, b) = *step else { return None };
            let (mut value, place, other) = match (found, a, b) {
                (None, Arg::Slot(x), other) | (None, other, Arg::Slot(x)) => {
                    (Affine { x, factor: None, shift: None, low: None, high: None }, 0, other)
                }
                (Some((value, place)), Arg::Slot(before), other) if before + 1 == operands + i => {
                    (value, place, other)
                }
                (Some((value, place)), other, Arg::Slot(before)) if before + 1 == operands + i => {
                    (value, place, other)
                }
                _ => return None,
            };
            let next = match (op, other) {
                (Binary::Mul, _) if outer(other) => {
                    value.factor = Some(other);
                    1
                }
                (Binary::Add, _) if outer(other) => {
                    value.shift = Some(other);
                    2
                }
                (Binary::Max, Arg::Const(c)) if !c.is_nan() => {
                    value.low = Some(c);
                    3
                }
                (Binary::Min, Arg::Const(c)) if !c.is_nan() => {
                    value.high = Some(c);
                    4
                }
                _ => return None,
            };
            if next <= place {
                return None;
            }
            found = Some((value, next));
        }
        let whole = chain.steps.len() > 1 && chain.result + 1 == operands + chain.steps.len();
        found.filter(|_| whole).map(|(value, _)| value)
    }
}

impl Affine {
    /// Whether the bounds change anything of what is stored: a quantization cuts at bounds of its own.
    pub fn cuts(&self, store: Format) -> bool {
        if self.low.is_none() && self.high.is_none() {
            return false;
        }
        let Format::Bytes { signed, scale, zero } = store else { return true };
        let (least, most) = if signed { (-128.0, 127.0) } else { (0.0, 255.0) };
        let code = |x: f32| (x / scale).round_ties_even() + zero as f32;
        let outside = self.low.is_none_or(|x| code(x) <= least) && self.high.is_none_or(|x| code(x) >= most);
        // A scale that is not positive turns the order around or has none.
        !(outside && scale > 0.0)
    }
}

/// Floats, or one for all elements: where the first vector lies, and 1 or 0.
#[derive(Clone, Copy)]
pub(super) struct Stepped(pub *const f32, pub usize);

impl Stepped {
    /// What is held, if a number in `one`.
    #[inline(always)]
    pub fn of<S: Simd>(s: S, held: Held<S::F>, one: &mut [f32; LANES]) -> Stepped {
        if !held.0.is_null() {
            return Stepped(held.0, 1);
        }
        // SAFETY: `one` holds a vector.
        unsafe { s.store(one.as_mut_ptr(), held.1) };
        Stepped(one.as_ptr(), 0)
    }
}

impl<S: Simd> Value<S> for Stepped {
    #[inline(always)]
    unsafe fn at(self, s: S, i: usize) -> S::F {
        // SAFETY: the caller's contract.
        unsafe { s.load(self.0.add(i * self.1)) }
    }
}

/// A product and a sum of which nothing has to be asked for each element: what there is not is 1 or minus 0.
#[derive(Clone, Copy)]
pub(super) struct Line<X> {
    pub x: X,
    pub factor: Stepped,
    pub shift: Stepped,
}

impl<S: Simd, X: Value<S>> Value<S> for Line<X> {
    #[inline(always)]
    unsafe fn at(self, s: S, i: usize) -> S::F {
        // SAFETY: the caller's contract.
        unsafe { s.add(s.mul(self.x.at(s, i), self.factor.at(s, i)), self.shift.at(s, i)) }
    }
}

/// A value between bounds.
#[derive(Clone, Copy)]
pub(super) struct Bounded<V, F> {
    pub value: V,
    pub low: F,
    pub high: F,
}

impl<S: Simd, V: Value<S>> Value<S> for Bounded<V, S::F> {
    const SPREADS: bool = V::SPREADS;

    #[inline(always)]
    unsafe fn at(self, s: S, i: usize) -> S::F {
        // SAFETY: the caller's contract.
        let x = unsafe { self.value.at(s, i) };
        // The instructions give their second operand where one is NaN.
        s.min(self.high, s.max(self.low, x))
    }
    #[inline(always)]
    unsafe fn spread(self, s: S, i: usize) -> [S::F; 4] {
        // SAFETY: the caller's contract.
        let mut x = unsafe { self.value.spread(s, i) };
        for v in 0..4 {
            x[v] = s.min(self.high, s.max(self.low, x[v]));
        }
        x
    }
}
