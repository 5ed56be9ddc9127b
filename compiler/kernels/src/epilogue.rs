//! What happens to a contraction's sums before they are stored.

use crate::dispatch::Tier;
use crate::error::{Error, product, same_length};
use crate::quantizer::{Grid, to_grid};
use crate::simd::Simd;
use crate::tile::{Place, load};
use crate::vecmath;

/// An element-wise function applied to a finished sum. NaN stays NaN.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum Activation {
    /// The identity.
    #[default]
    None,
    /// `max(x, 0)`.
    Relu,
    /// `min(max(x, lo), hi)`.
    Clip { lo: f32, hi: f32 },
    /// `x < 0 ? slope·x : x`.
    LeakyRelu(f32),
    /// The same, `low` at least.
    LeakyFrom { slope: f32, low: f32 },
    /// `x · max(0, min(1, x/6 + 1/2))`.
    HardSwish,
    /// `max(0, min(1, alpha·x + beta))`.
    HardSigmoid { alpha: f32, beta: f32 },
    /// `1 / (1 + e^-x)`.
    Sigmoid,
    /// `x · sigmoid(x)`.
    Silu,
    /// `tanh x`.
    Tanh,
    /// `x/2 · (1 + erf(x/√2))`.
    GeluErf,
    /// The tanh form of gelu.
    GeluTanh,
}

/// A second operand added to the result, laid out as the result.
#[derive(Clone, Copy, Debug)]
pub struct Residual<'a> {
    /// Rows of as many elements as the result has columns.
    pub data: &'a [f32],
    /// Elements between the starts of two rows.
    pub row_stride: usize,
    /// `act(acc + bias) + residual` instead of `act(acc + bias + residual)`.
    pub after_activation: bool,
}

/// A factor and an addend for each column (output channel): `x · scale + shift`, rounded twice.
#[derive(Clone, Copy, Debug)]
pub struct Affine<'a> {
    pub scale: &'a [f32],
    pub shift: &'a [f32],
}

/// `act(acc + bias + residual) · scale + shift`, brought to a grid, fused into the kernel that makes `acc`.
#[derive(Clone, Copy, Debug, Default)]
pub struct Epilogue<'a> {
    /// One addend for each column (output channel).
    pub bias: Option<&'a [f32]>,
    /// A matrix to add.
    pub residual: Option<Residual<'a>>,
    /// The function applied to the sum, or before the residual is added.
    pub act: Activation,
    /// Applied behind the others; `act` must be cheap.
    pub affine: Option<Affine<'a>>,
    /// Applied last: what quantization and dequantization leave of a value. Results must be float32.
    pub grid: Option<Grid>,
}

impl Activation {
    /// Cheap enough for the registers of a tile. The others run over the finished tile while it is in cache.
    pub fn is_cheap(self) -> bool {
        !matches!(
            self,
            Activation::Sigmoid
                | Activation::Silu
                | Activation::Tanh
                | Activation::GeluErf
                | Activation::GeluTanh
        )
    }
}

impl Epilogue<'_> {
    /// An epilogue that is an activation.
    pub fn activation(act: Activation) -> Self {
        Epilogue { act, ..Epilogue::default() }
    }

    /// Checks the operands against a result of `rows × cols` and resolves them to pointers.
    pub(crate) fn finish(&self, alpha: f32, rows: usize, cols: usize) -> Result<Finish, Error> {
        if let Some(bias) = self.bias {
            same_length("bias", cols, bias.len())?;
        }
        if let Some(a) = self.affine {
            same_length("scale of an epilogue", cols, a.scale.len())?;
            same_length("shift of an epilogue", cols, a.shift.len())?;
            if !self.act.is_cheap() {
                return Err(Error::Shape { what: "an epilogue scales what registers do not hold" });
            }
        }
        if let Some(r) = self.residual {
            holds("residual", r.data.len(), rows, cols, r.row_stride)?;
        }
        let null = std::ptr::null();
        let after = self.residual.is_some_and(|r| r.after_activation);
        let cheap = self.act.is_cheap();
        Ok(Finish {
            alpha,
            bias: self.bias.map_or(null, <[f32]>::as_ptr),
            scale: self.affine.map_or(null, |a| a.scale.as_ptr()),
            shift: self.affine.map_or(null, |a| a.shift.as_ptr()),
            residual: self.residual.map_or(null, |r| r.data.as_ptr()),
            residual_step: self.residual.map_or(0, |r| r.row_stride),
            before: self.residual.is_some() && !after,
            after: after && cheap,
            late_residual: after && !cheap,
            act: if cheap { self.act } else { Activation::None },
            late: if cheap { Activation::None } else { self.act },
            grid: self.grid,
        })
    }
}

/// A matrix of `rows × cols` with rows `stride` apart fits into `len` elements.
pub(crate) fn holds(
    what: &'static str,
    len: usize,
    rows: usize,
    cols: usize,
    stride: usize,
) -> Result<(), Error> {
    if rows == 0 || cols == 0 {
        return Ok(());
    }
    if stride < cols && rows > 1 {
        return Err(Error::Shape { what: "rows of a matrix overlap" });
    }
    let last = product(what, &[rows - 1, stride])?;
    match last.checked_add(cols) {
        Some(needed) if needed <= len => Ok(()),
        needed => Err(Error::Length { what, expected: needed.unwrap_or(usize::MAX), found: len }),
    }
}

/// An [`Epilogue`] whose operands are checked against the result.
pub(crate) struct Finish {
    pub alpha: f32,
    bias: *const f32,
    /// Both are null, or neither.
    scale: *const f32,
    shift: *const f32,
    residual: *const f32,
    residual_step: usize,
    before: bool,
    after: bool,
    late_residual: bool,
    act: Activation,
    late: Activation,
    pub grid: Option<Grid>,
}

// SAFETY: the pointers are to shared slices that outlive the kernel call they are made for, and are only read.
unsafe impl Sync for Finish {}
// SAFETY: as above.
unsafe impl Send for Finish {}

impl Finish {
    /// The same epilogue for the columns from `col` on.
    pub(crate) fn starting_at_column(&self, col: usize) -> Finish {
        let shift = |p: *const f32| if p.is_null() { p } else { p.wrapping_add(col) };
        Finish {
            bias: shift(self.bias),
            scale: shift(self.scale),
            shift: shift(self.shift),
            residual: shift(self.residual),
            ..*self
        }
    }

    /// The same epilogue for the rows from `row` on.
    pub(crate) fn starting_at_row(&self, row: usize) -> Finish {
        Finish { residual: self.residual.wrapping_add(row * self.residual_step), ..*self }
    }

    /// The epilogue of a tile, in registers.
    ///
    /// # Safety
    /// The tile's rows and columns lie in the result that [`Epilogue::finish`] was asked about.
    #[inline(always)]
    pub(crate) unsafe fn sums<S: Simd, const R: usize, const V: usize>(
        &self,
        s: S,
        acc: &mut [[S::F; V]; R],
        place: &Place,
    ) {
        if self.alpha != 1.0 {
            let alpha = s.splat(self.alpha);
            each(acc, |_, _, x| s.mul(alpha, x));
        }
        // SAFETY: `finish` checked one element for each column.
        unsafe {
            if !self.bias.is_null() {
                let b = columns::<S, V>(s, self.bias.add(place.col), place);
                each(acc, |_, v, x| s.add(x, b[v]));
            }
            if self.before {
                self.add_residual(s, acc, place);
            }
        }
        activate(s, self.act, acc);
        if self.after {
            // SAFETY: the caller's contract.
            unsafe { self.add_residual(s, acc, place) };
        }
        if !self.scale.is_null() {
            // SAFETY: `finish` checked one element for each column.
            let (m, b) = unsafe {
                (
                    columns::<S, V>(s, self.scale.add(place.col), place),
                    columns::<S, V>(s, self.shift.add(place.col), place),
                )
            };
            each(acc, |_, v, x| s.add(s.mul(x, m[v]), b[v]));
        }
    }

    #[inline(always)]
    unsafe fn add_residual<S: Simd, const R: usize, const V: usize>(
        &self,
        s: S,
        acc: &mut [[S::F; V]; R],
        place: &Place,
    ) {
        for r in 0..R {
            if r < place.live_rows {
                // SAFETY: a live row of the result has its row in the residual.
                unsafe {
                    let row = self.residual.add(*place.out.add(r) * self.residual_step + place.col);
                    for v in 0..V {
                        acc[r][v] = s.add(acc[r][v], load(s, row, v, place.live_cols));
                    }
                }
            }
        }
    }

    /// Whether [`Finish::late`] has work.
    #[inline]
    pub(crate) fn is_late(&self) -> bool {
        self.late != Activation::None || self.grid.is_some()
    }

    /// The function that is all of [`Finish::late`], and the epilogue without it.
    pub(crate) fn ends_in(&self) -> Option<(Activation, Finish)> {
        let alone = !self.late_residual && self.grid.is_none();
        alone.then_some((self.late, Finish { late: Activation::None, ..*self }))
    }

    /// Whether [`Finish::late`] may take adjacent rows of `cols` columns as one piece.
    pub(crate) fn joins(&self, cols: usize) -> bool {
        !self.late_residual || self.residual_step == cols
    }

    /// What was too costly for registers, over one finished piece of row `row` that starts at column `col`.
    ///
    /// # Safety
    /// The piece lies in the result that [`Epilogue::finish`] was asked about.
    pub(crate) unsafe fn late(&self, c: &mut [f32], row: usize, col: usize) {
        vecmath::apply(self.late, c);
        if self.late_residual {
            // SAFETY: the caller's contract.
            let r = unsafe {
                let start = self.residual.add(row * self.residual_step + col);
                std::slice::from_raw_parts(start, c.len())
            };
            for (c, r) in c.iter_mut().zip(r) {
                *c += r;
            }
        }
        if let Some(grid) = self.grid {
            to_grid(Tier::best(), grid, c);
        }
    }
}

#[inline(always)]
fn each<F: Copy, const R: usize, const V: usize>(acc: &mut [[F; V]; R], f: impl Fn(usize, usize, F) -> F) {
    for r in 0..R {
        for v in 0..V {
            acc[r][v] = f(r, v, acc[r][v]);
        }
    }
}

#[inline(always)]
unsafe fn columns<S: Simd, const V: usize>(s: S, p: *const f32, place: &Place) -> [S::F; V] {
    let mut x = [s.splat(0.0); V];
    for v in 0..V {
        // SAFETY: the caller has one element for each live column.
        x[v] = unsafe { load(s, p, v, place.live_cols) };
    }
    x
}

/// A cheap activation over registers. Bounds come first in `max` and `min`, which return their second operand for
/// NaN.
#[inline(always)]
pub(crate) fn activate<S: Simd, const R: usize, const V: usize>(
    s: S,
    act: Activation,
    acc: &mut [[S::F; V]; R],
) {
    let clip = |x, lo, hi| s.min(hi, s.max(lo, x));
    let zero = s.splat(0.0);
    match act {
        Activation::Relu => each(acc, |_, _, x| s.max(zero, x)),
        Activation::Clip { lo, hi } => {
            let (lo, hi) = (s.splat(lo), s.splat(hi));
            each(acc, |_, _, x| clip(x, lo, hi));
        }
        Activation::LeakyRelu(slope) => {
            let slope = s.splat(slope);
            each(acc, |_, _, x| s.select(s.lt(x, zero), s.mul(slope, x), x));
        }
        Activation::LeakyFrom { slope, low } => {
            let (slope, low) = (s.splat(slope), s.splat(low));
            each(acc, |_, _, x| s.max(low, s.select(s.lt(x, zero), s.mul(slope, x), x)));
        }
        Activation::HardSwish => {
            let (sixth, half, one) = (s.splat(1.0 / 6.0), s.splat(0.5), s.splat(1.0));
            each(acc, |_, _, x| s.mul(x, clip(s.fma(sixth, x, half), zero, one)));
        }
        Activation::HardSigmoid { alpha, beta } => {
            let (alpha, beta, one) = (s.splat(alpha), s.splat(beta), s.splat(1.0));
            each(acc, |_, _, x| clip(s.fma(alpha, x, beta), zero, one));
        }
        _ => {}
    }
}
