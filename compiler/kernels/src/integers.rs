//! kernel: what becomes of the integer sums of a contraction: zero points out, scales in, the epilogue, and storing as
//! float32, as 8-bit integers or as they are.
//!
//! For activations `x` with zero point `zx` and weights `w` with zero points `zw` of each column, over K products,
//! `Σ (x − zx)(w − zw) = Σ x·w − zx·Σ(w − zw) − zw·Σ x`: a term of the column and one of row and column.

use crate::epilogue::{Activation, Affine, Epilogue, activate};
use crate::quantizer::Quantizer;
use crate::simd::{LANES, Simd};
use crate::tile::{Place, Tile, store_rows};

/// How results are stored.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Store {
    /// The sums themselves.
    Sums,
    Float,
    /// `saturate(round_half_even(x / scale) + zero)` into `low..=high`.
    Bytes {
        scale: f32,
        zero: i32,
        low: i32,
        high: i32,
    },
    /// `sum · scale + addend`, rounded half to even, as a byte.
    Codes(Codes),
}

/// How whole numbers become bytes: the zero point is added and the bounds of type and activation cut, all as unsigned bytes;
/// flipping their highest bit makes signed ones.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Codes {
    pub zero: i16,
    pub low: u8,
    pub high: u8,
    pub flip: u8,
    /// Values may lie outside of 32 bits, and are brought inside first.
    pub far: bool,
    /// What comes between the sum's value and its whole number.
    pub bend: Option<Bend>,
}

/// A function that registers hold, then a factor and an addend for all columns: the quantization's scale is in them.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Bend {
    pub act: Activation,
    pub scale: f32,
    pub shift: f32,
}

impl Codes {
    /// Whole numbers cut to bytes from `-shift` on.
    pub(crate) fn plain(shift: i16) -> Codes {
        Codes { zero: shift, low: 0, high: 255, flip: shift as u8, far: false, bend: None }
    }
}

impl Codes {
    /// Sums of `V` vectors of columns as whole numbers.
    ///
    /// # Safety
    /// `scale` and `addend` hold `V` vectors.
    #[inline(always)]
    pub(crate) unsafe fn whole<S: Simd, const R: usize, const V: usize>(
        self,
        s: S,
        acc: &mut [[S::I; V]; R],
        (scale, addend): (*const f32, *const f32),
    ) {
        let mut f = [[s.splat(0.0); V]; R];
        for v in 0..V {
            // SAFETY: the caller's contract.
            let (m, b) = unsafe { (s.load(scale.add(v * LANES)), s.load(addend.add(v * LANES))) };
            for r in 0..R {
                f[r][v] = s.add(s.mul(s.to_f(acc[r][v]), m), b);
            }
        }
        if let Some(Bend { act, scale, shift }) = self.bend {
            activate(s, act, &mut f);
            let (scale, shift) = (s.splat(scale), s.splat(shift));
            for r in 0..R {
                for v in 0..V {
                    f[r][v] = s.add(s.mul(f[r][v], scale), shift);
                }
            }
        }
        if self.far {
            let most = s.splat(65536.0);
            for r in 0..R {
                for v in 0..V {
                    f[r][v] = s.min(s.max(f[r][v], s.neg(most)), most);
                }
            }
        }
        for r in 0..R {
            for v in 0..V {
                acc[r][v] = s.to_i(f[r][v]);
            }
        }
    }

    /// Whether whole numbers only have to be cut to unsigned bytes.
    #[inline(always)]
    pub(crate) fn is_plain(self) -> bool {
        (self.zero, self.low, self.high, self.flip) == (0, 0, 255, 0)
    }

    /// The byte of a whole number.
    #[inline(always)]
    pub(crate) fn of(self, x: i32) -> u8 {
        let x = x.saturating_add(self.zero.into()).clamp(0, 255) as u8;
        x.max(self.low).min(self.high) ^ self.flip
    }
}

/// Factors and addends that take integer sums to codes, and how these are stored.
pub(crate) struct Requantization {
    pub codes: Codes,
    pub scale: Vec<f32>,
    pub addend: Vec<f32>,
}

impl Store {
    /// Storing bytes in one multiplication and one addition for each sum, where nothing but a bias and bounds comes between:
    /// `round(sum · (scale / s) + bias / s)` for a quantization by `s`, of one element or one for each column. `scale` leads
    /// from sums of up to `products` products to values, one for each column.
    pub(crate) fn requantization(
        self,
        by: &[f32],
        epilogue: &Epilogue,
        scale: &[f32],
        products: usize,
    ) -> Option<Requantization> {
        let Store::Bytes { zero, low, high, .. } = self else { return None };
        let plain = by.iter().all(|&s| s > 0.0 && (1.0 / s).is_normal());
        if epilogue.residual.is_some() || by.is_empty() || !plain {
            return None;
        }
        let (lo, hi) = match epilogue.act {
            _ if epilogue.affine.is_some() => return bent(by, epilogue, scale, products, (zero, low)),
            Activation::None => (f32::NEG_INFINITY, f32::INFINITY),
            Activation::Relu => (0.0, f32::INFINITY),
            Activation::Clip { lo, hi } if lo <= hi => (lo, hi),
            _ => return bent(by, epilogue, scale, products, (zero, low)),
        };
        let shift = if low < 0 { 128 } else { 0 };
        let code = |x: f32, s: f32| {
            let code = ((x / s).round_ties_even() + zero as f32).clamp(low as f32, high as f32) as i32;
            u8::try_from(code + shift).ok()
        };
        // Bounds are the same for all columns or outside of all.
        let bound = |x: f32| {
            let first = code(x, by[0])?;
            by.iter().all(|&s| code(x, s) == Some(first)).then_some(first)
        };
        let finite = |x: f32| x.clamp(-f32::MAX, f32::MAX);
        let of = |(c, x): (usize, &f32)| finite(x / by[if by.len() == 1 { 0 } else { c.min(by.len() - 1) }]);
        let scale: Vec<f32> = scale.iter().enumerate().map(of).collect();
        let addend = match epilogue.bias {
            Some(bias) => bias.iter().enumerate().map(of).collect(),
            None => vec![0.0; scale.len()],
        };
        let most = products as f32 * (255.0 * 255.0);
        let near = |(m, b): (&f32, &f32)| (most * m.abs() + b.abs()) < 2e9;
        let far = !scale.iter().zip(&addend).all(near);
        let zero = i16::from(u8::try_from(zero.checked_add(shift)?).ok()?);
        let codes = Codes { zero, low: bound(lo)?, high: bound(hi)?, far, ..Codes::plain(shift as i16) };
        Some(Requantization { codes, scale, addend })
    }

    /// The activation that remains to be done: quantizing cuts at its own bounds, and where an activation's bounds are these
    /// or lie outside, rounding being monotone, it changes nothing.
    pub(crate) fn remains(self, act: Activation) -> Activation {
        let Store::Bytes { scale, zero, low, high } = self else { return act };
        let code = |x: f32| (x / scale).round_ties_even() + zero as f32;
        let (lo, hi) = match act {
            Activation::Relu => (0.0, f32::INFINITY),
            Activation::Clip { lo, hi } => (lo, hi),
            _ => return act,
        };
        // A scale that is not positive turns the order around or has none.
        if scale > 0.0 && code(lo) <= low as f32 && code(hi) >= high as f32 { Activation::None } else { act }
    }
}

/// `round(act(sum · scale + bias) · (factor / s) + addend / s)`, where one factor, addend and `s` serve all columns.
fn bent(
    by: &[f32],
    epilogue: &Epilogue,
    scale: &[f32],
    products: usize,
    (zero, low): (i32, i32),
) -> Option<Requantization> {
    let one = |v: &[f32]| v.first().copied().filter(|&x| v.iter().all(|&y| y == x));
    let (factor, addend) = match epilogue.affine {
        Some(Affine { scale, shift }) => (one(scale)?, one(shift)?),
        None => (1.0, 0.0),
    };
    let by = one(by).filter(|_| epilogue.act.is_cheap())?;
    let bend = Bend { act: epilogue.act, scale: factor / by, shift: addend / by };
    // No function here takes a value further from 0 than this and its own bounds.
    let (most, steepest) = match epilogue.act {
        Activation::LeakyRelu(slope) => (0.0, slope.abs().max(1.0)),
        Activation::LeakyFrom { slope, low } => (low.abs(), slope.abs().max(1.0)),
        Activation::Clip { lo, hi } => (lo.abs().max(hi.abs()), 0.0),
        Activation::HardSigmoid { .. } => (1.0, 0.0),
        _ => (0.0, 1.0),
    };
    let products = products as f32 * (255.0 * 255.0);
    let bias = |c: usize| epilogue.bias.map_or(0.0, |b| b[c.min(b.len() - 1)]);
    let reach = |(c, m): (usize, &f32)| {
        (most + steepest * (products * m.abs() + bias(c).abs())) * bend.scale.abs() + bend.shift.abs() < 2e9
    };
    let far = !scale.iter().enumerate().all(reach);
    let shift = if low < 0 { 128 } else { 0 };
    let zero = i16::from(u8::try_from(zero.checked_add(shift)?).ok()?);
    let addend = epilogue.bias.map_or_else(|| vec![0.0; scale.len()], <[f32]>::to_vec);
    let codes = Codes { zero, far, bend: Some(bend), ..Codes::plain(shift as i16) };
    Some(Requantization { codes, scale: scale.to_vec(), addend })
}

/// Corrections and scales, one for each column and padded to whole vectors; resolved to pointers.
pub(crate) struct Integers {
    /// Subtracted from the sums of a column.
    pub offset: *const i32,
    /// Weight zero points, or null; then `row_sums` has one sum of the left operand for each result row.
    pub zero: *const i32,
    pub row_sums: *const i32,
    /// From integer sums to values, or to codes with `addend`, which is null otherwise.
    pub scale: *const f32,
    pub addend: *const f32,
    pub store: Store,
}

// SAFETY: the pointers are to slices that outlive the kernel call they are made for, and are only read.
unsafe impl Sync for Integers {}

impl Integers {
    /// The same for the columns from `col` on; `col` may be any, loads are unaligned.
    pub(crate) fn starting_at_column(&self, col: usize) -> Integers {
        let zero = if self.zero.is_null() { self.zero } else { self.zero.wrapping_add(col) };
        Integers {
            offset: self.offset.wrapping_add(col),
            zero,
            scale: self.scale.wrapping_add(col),
            addend: self.addend.wrapping_add(col),
            ..*self
        }
    }

    /// Where the sums of columns from `col` on start.
    ///
    /// # Safety
    /// The columns have their corrections.
    #[inline(always)]
    pub(crate) unsafe fn start<S: Simd, const V: usize>(&self, s: S, col: usize) -> [S::I; V] {
        let mut start = [s.splat_i(0); V];
        for v in 0..V {
            // SAFETY: the caller's contract.
            start[v] = s.sub_i(start[v], unsafe { s.load_i(self.offset.add(col + v * LANES)) });
        }
        start
    }

    /// Finishes and stores a tile whose sums began at [`Integers::start`].
    ///
    /// # Safety
    /// The columns and rows of the tile have their corrections, and the result's memory holds elements as `store` says.
    #[inline(always)]
    pub(crate) unsafe fn store<S: Simd, const R: usize, const V: usize>(
        &self,
        s: S,
        mut acc: [[S::I; V]; R],
        t: &Tile,
    ) {
        let place = &t.place;
        // SAFETY: the caller's contract.
        unsafe {
            if !self.zero.is_null() {
                for v in 0..V {
                    let zero = s.load_i(self.zero.add(place.col + v * LANES));
                    for r in 0..R {
                        if r < place.live_rows {
                            let sum = s.splat_i(*self.row_sums.add(*place.out.add(r)));
                            acc[r][v] = s.sub_i(acc[r][v], s.mul_i(zero, sum));
                        }
                    }
                }
            }
            if let Store::Codes(codes) = self.store {
                let columns = (self.scale.add(place.col), self.addend.add(place.col));
                codes.whole(s, &mut acc, columns);
                let y: *mut u8 = t.c.cast();
                for r in 0..R {
                    if r < place.live_rows {
                        let y = y.wrapping_add(place.col + *place.out.add(r) * t.c_step);
                        s.store_codes(y, acc[r], codes, place.live_cols);
                    }
                }
                return;
            }
            let mut f = [[s.splat(0.0); V]; R];
            if self.store == Store::Sums {
                for r in 0..R {
                    for v in 0..V {
                        f[r][v] = s.of_bits(acc[r][v]);
                    }
                }
                return store_rows(s, &f, t.c.wrapping_add(place.col), t.c_step, place);
            }
            for v in 0..V {
                let scale = s.load(self.scale.add(place.col + v * LANES));
                for r in 0..R {
                    f[r][v] = s.mul(s.to_f(acc[r][v]), scale);
                }
            }
            t.finish.sums(s, &mut f, place);
            match self.store {
                Store::Bytes { .. } => Self::bytes(s, self.store, &f, t.c.cast(), t.c_step, place),
                _ => store_rows(s, &f, t.c.wrapping_add(place.col), t.c_step, place),
            }
        }
    }

    /// Quantizes and stores a tile of values.
    ///
    /// # Safety
    /// `y + out[r] · step + col` is valid for writing the live columns of each live row.
    #[inline(always)]
    pub(crate) unsafe fn bytes<S: Simd, const R: usize, const V: usize>(
        s: S,
        store: Store,
        f: &[[S::F; V]; R],
        y: *mut u8,
        step: usize,
        place: &Place,
    ) {
        let Store::Bytes { scale, zero, low, high } = store else { return };
        let q = Quantizer::new(s, scale, zero, low, high);
        for r in 0..R {
            if r < place.live_rows {
                // SAFETY: the caller's contract.
                unsafe {
                    let y = y.wrapping_add(place.col + *place.out.add(r) * step);
                    for v in 0..V {
                        let live = place.live_cols.saturating_sub(v * LANES).min(LANES);
                        s.store_bytes(y.wrapping_add(v * LANES), q.of(s, f[r][v]), live);
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::quantized;

    #[test]
    fn an_absorbed_activation_changes_nothing() {
        let acts = [
            Activation::Relu,
            Activation::Clip { lo: 0.0, hi: 6.0 },
            Activation::Clip { lo: -1.0, hi: 1.0 },
            Activation::Clip { lo: 0.3, hi: 5.9 },
            Activation::Tanh,
        ];
        let mut absorbed = 0;
        for act in acts {
            for (scale, zero, signed) in [
                (6.0 / 255.0, 0, false),
                (0.02, 0, false),
                (0.02, 3, false),
                (1.0 / 127.0, 0, true),
                (-0.1, 0, false),
            ] {
                let (low, high) = if signed { (-128, 127) } else { (0, 255) };
                if (Store::Bytes { scale, zero, low, high }).remains(act) == act {
                    continue;
                }
                absorbed += 1;
                let (lo, hi) = match act {
                    Activation::Clip { lo, hi } => (lo, hi),
                    _ => (0.0, f32::INFINITY),
                };
                for x in (-2000..2000).map(|i| i as f32 * 0.005) {
                    let cut = x.max(lo).min(hi);
                    assert_eq!(
                        quantized(cut, scale, zero, signed),
                        quantized(x, scale, zero, signed),
                        "{act:?} {x} {scale}"
                    );
                }
            }
        }
        assert!(absorbed >= 3, "{absorbed}");
        assert_eq!(Store::Float.remains(Activation::Relu), Activation::Relu);
    }
}
