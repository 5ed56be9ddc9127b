//! Matrix products: `C = act(alpha · A·B + bias + residual)`.
//!
//! Sums run in the order of K, each product added with one rounding on the fused tiers, whatever the shape of the
//! tiles and the number of threads.

use crate::dispatch::Tier;
use crate::epilogue::{Epilogue, Finish, holds};
use crate::error::{Error, product};
use crate::indirect::{self, Job};
use crate::matrix_rows::MatrixRows;
use crate::pack::{self, PackedB, PackedRef, Strides};
use crate::parallel::{Pool, Serial};

/// # Safety
/// `a` holds `m` rows of `b.rows` elements `a_step` apart, `c` holds `m` rows of the result `c_step` apart, `finish`
/// was made for it.
unsafe fn product_of(
    pool: &dyn Pool,
    tier: Tier,
    m: usize,
    (a, a_step): (*const f32, usize),
    b: PackedRef,
    (c, c_step): (*mut f32, usize),
    finish: &Finish,
) {
    let job = Job {
        tier,
        rows: &MatrixRows { a: a.cast(), step: a_step * size_of::<f32>() },
        count: m,
        taps: 1,
        depth: b.rows,
        skips: false,
        row_bytes: b.rows.saturating_mul(size_of::<f32>()),
        b,
        c,
        c_step,
        finish,
        integers: None,
        quantized: None,
    };
    // SAFETY: the caller's contract.
    unsafe { indirect::run(pool, &job) }
}

/// `C = act(alpha · A·B + …)` with B packed. A is `m × k` with rows `a_stride` apart, C is `m × n` with rows
/// `c_stride` apart, which may exceed `n`.
pub fn gemm_f32(
    pool: &dyn Pool,
    m: usize,
    a: &[f32],
    a_stride: usize,
    b: &PackedB,
    c: &mut [f32],
    c_stride: usize,
    alpha: f32,
    epilogue: &Epilogue,
) -> Result<(), Error> {
    Strides { row: a_stride, col: 1 }.check("A", a.len(), m, b.k())?;
    holds("C", c.len(), m, b.n(), c_stride)?;
    let finish = epilogue.finish(alpha, m, b.n())?;
    // SAFETY: the extents were checked.
    unsafe {
        product_of(pool, b.tier(), m, (a.as_ptr(), a_stride), b.view(), (c.as_mut_ptr(), c_stride), &finish)
    };
    Ok(())
}

/// The sizes of a product of two activations.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GemmShape {
    /// Independent products.
    pub batch: usize,
    /// Rows of A and C.
    pub m: usize,
    /// Columns of B and C.
    pub n: usize,
    /// Columns of A, rows of B.
    pub k: usize,
}

/// A matrix operand of a batched product.
#[derive(Clone, Copy, Debug)]
pub struct Operand<'a> {
    /// The elements.
    pub data: &'a [f32],
    /// Where a matrix has its elements; a transpose is a swap of the two.
    pub strides: Strides,
    /// Elements between the matrices of two products; 0 where all share one.
    pub batch_stride: usize,
}

/// `f32` of scratch that [`gemm_dynamic_f32`] needs for `shape` on `threads` threads. `a_transposed` says that A's
/// columns are not adjacent. `None` where the number leaves `usize`.
pub fn gemm_dynamic_scratch(shape: GemmShape, a_transposed: bool, threads: usize) -> Option<usize> {
    let b = pack::scratch_len(shape.k, shape.n)?;
    let a = if a_transposed { shape.m.checked_mul(shape.k)? } else { 0 };
    let lanes = if shape.batch > 1 { threads.clamp(1, shape.batch) } else { 1 };
    a.checked_add(b)?.checked_mul(lanes)
}

/// `C[i] = act(alpha · A[i]·B[i] + …)` for each product `i` of the batch. The residual's rows continue through the
/// batch: row `i · m + r`. `c_batch_stride` must hold a whole matrix.
pub fn gemm_dynamic_f32(
    tier: Tier,
    pool: &dyn Pool,
    shape: GemmShape,
    a: Operand,
    b: Operand,
    c: &mut [f32],
    c_stride: usize,
    c_batch_stride: usize,
    alpha: f32,
    epilogue: &Epilogue,
    scratch: &mut [f32],
) -> Result<(), Error> {
    let GemmShape { batch, m, n, k } = shape;
    if batch == 0 || m == 0 || n == 0 {
        return Ok(());
    }
    for (what, x, rows, cols) in [("A", a, m, k), ("B", b, k, n)] {
        x.strides.check(what, beyond(what, x.data.len(), batch, x.batch_stride)?, rows, cols)?;
    }
    holds("C", beyond("C", c.len(), batch, c_batch_stride)?, m, n, c_stride)?;
    let rows = product("rows of the batch leave the address space", &[batch, m])?;
    if batch > 1 && c_batch_stride < (m - 1).saturating_mul(c_stride).saturating_add(n) {
        return Err(Error::Shape { what: "products of a batch overlap" });
    }
    let finish = epilogue.finish(alpha, rows, n)?;
    let transposed = a.strides.col != 1 && k > 1;
    let lanes = if batch > 1 { pool.threads().clamp(1, batch) } else { 1 };
    let needed = gemm_dynamic_scratch(shape, transposed, lanes)
        .ok_or(Error::Shape { what: "scratch leaves the address space" })?;
    if scratch.len() < needed {
        return Err(Error::Length { what: "scratch", expected: needed, found: scratch.len() });
    }
    let call =
        Call { tier: tier.usable(), shape, a, b, c: c.as_mut_ptr(), c_stride, c_batch_stride, transposed };
    let share = batch.div_ceil(lanes);
    if lanes == 1 {
        call.products(pool, 0..batch, &finish, scratch);
        return Ok(());
    }
    let each = needed / lanes;
    let scratch = crate::partition::Parts::of(scratch);
    pool.run(lanes, &|lane| {
        // SAFETY: each lane has its own part.
        let scratch = unsafe { scratch.part(lane * each..(lane + 1) * each) };
        call.products(&Serial, lane * share..batch.min((lane + 1) * share), &finish, scratch);
    });
    Ok(())
}

/// The elements left for the last product of a batch.
fn beyond(what: &'static str, len: usize, batch: usize, stride: usize) -> Result<usize, Error> {
    let skipped = product(what, &[batch - 1, stride])?;
    len.checked_sub(skipped).ok_or(Error::Length { what, expected: skipped, found: len })
}

struct Call<'a> {
    tier: Tier,
    shape: GemmShape,
    a: Operand<'a>,
    b: Operand<'a>,
    c: *mut f32,
    c_stride: usize,
    c_batch_stride: usize,
    transposed: bool,
}

// SAFETY: products write disjoint matrices of `c`.
unsafe impl Sync for Call<'_> {}

impl Call<'_> {
    fn products(&self, pool: &dyn Pool, range: std::ops::Range<usize>, finish: &Finish, scratch: &mut [f32]) {
        let GemmShape { m, n, k, .. } = self.shape;
        let (rows, scratch) = scratch.split_at_mut(if self.transposed { m * k } else { 0 });
        let mut packed = None;
        for i in range {
            let b = match packed {
                Some(b) if self.b.batch_stride == 0 => b,
                _ => {
                    let data = &self.b.data[(i * self.b.batch_stride).min(self.b.data.len())..];
                    pack::pack_into(self.tier, scratch, data, self.b.strides, k, n)
                }
            };
            packed = Some(b);
            let data = &self.a.data[(i * self.a.batch_stride).min(self.a.data.len())..];
            let a = if self.transposed {
                gather(rows, data, self.a.strides, m, k);
                (rows.as_ptr(), k)
            } else {
                (data.as_ptr(), self.a.strides.row)
            };
            let c = (self.c.wrapping_add(i * self.c_batch_stride), self.c_stride);
            // SAFETY: the extents of A, B and C were checked for every product of the batch.
            unsafe { product_of(pool, self.tier, m, a, b, c, &finish.starting_at_row(i * m)) };
        }
    }
}

fn gather(to: &mut [f32], a: &[f32], strides: Strides, m: usize, k: usize) {
    const BLOCK: usize = 16;
    for r0 in (0..m).step_by(BLOCK) {
        for c in 0..k {
            for r in r0..m.min(r0 + BLOCK) {
                to[r * k + c] = a[r * strides.row + c * strides.col];
            }
        }
    }
}

#[cfg(test)]
mod tests;
