//! Chains that are a product, a sum and bounds of one operand, each of them or not, as normalizations and residuals before a
//! quantization are: one pass that stores no step.

use super::values::{Bytes, Held, Value};
use super::{Arg, Binary, Chain, Step};
use crate::simd::Simd;

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

/// An operand where it lies: bytes or floats.
#[derive(Clone, Copy)]
pub(super) struct Either<F, I>(pub Option<Bytes<F, I>>, pub Held<F>);

impl<S: Simd> Value<S> for Either<S::F, S::I> {
    #[inline(always)]
    unsafe fn at(self, s: S, i: usize) -> S::F {
        // SAFETY: the caller's contract.
        unsafe { self.0.map_or_else(|| self.1.at(s, i), |bytes| bytes.at(s, i)) }
    }
}

/// The values of an [`Affine`].
#[derive(Clone, Copy)]
pub(super) struct Bounded<F, I> {
    pub x: Either<F, I>,
    pub factor: Option<Either<F, I>>,
    pub shift: Option<Either<F, I>>,
    pub low: Option<F>,
    pub high: Option<F>,
}

impl<S: Simd> Value<S> for Bounded<S::F, S::I> {
    #[inline(always)]
    unsafe fn at(self, s: S, i: usize) -> S::F {
        // SAFETY: the caller's contract.
        unsafe {
            let mut x = self.x.at(s, i);
            if let Some(factor) = self.factor {
                x = s.mul(x, factor.at(s, i));
            }
            if let Some(shift) = self.shift {
                x = s.add(x, shift.at(s, i));
            }
            // The instructions give their second operand where one is NaN.
            if let Some(low) = self.low {
                x = s.select(s.is_nan(x), x, s.max(x, low));
            }
            if let Some(high) = self.high {
                x = s.select(s.is_nan(x), x, s.min(x, high));
            }
            x
        }
    }
}
