//! Matrix products in bfloat16: `C = act(alpha · A·B + bias + residual)` with float32 activations and results.
//!
//! Both operands are rounded to bfloat16, products are exact, sums are float32: against the product of the rounded
//! operands the error is that of a float32 sum, against the given ones at most `2.01 · 2⁻⁸ · Σ|a·b|` more (a relative error of
//! `2⁻⁸` in each operand). Results do not depend on the number of threads; tiers add in different orders.

use crate::bf16;
use crate::epilogue::{Epilogue, holds};
use crate::error::{Error, product};
use crate::indirect::{self, Job};
use crate::matrix_rows::MatrixRows;
use crate::pack::Strides;
use crate::pack_bf16::PackedBf16;
use crate::parallel::Pool;
use crate::scratch;

/// `C = act(alpha · A·B + …)` with B packed. A is `m × k` with rows `a_stride` apart, C is `m × n` with rows `c_stride`
/// apart, which may exceed `n`.
pub fn gemm_bf16(
    pool: &dyn Pool,
    m: usize,
    a: &[f32],
    a_stride: usize,
    b: &PackedBf16,
    c: &mut [f32],
    c_stride: usize,
    alpha: f32,
    epilogue: &Epilogue,
) -> Result<(), Error> {
    if b.taps != 1 {
        return Err(Error::Shape { what: "the weights are packed for a convolution" });
    }
    Strides { row: a_stride, col: 1 }.check("A", a.len(), m, b.tap)?;
    holds("C", c.len(), m, b.n(), c_stride)?;
    let finish = epilogue.finish(alpha, m, b.n())?;
    let cells = b.tap.div_ceil(2);
    let room = product("A leaves the address space", &[m, cells])?;
    scratch::with(room, |rows| {
        bf16::convert(pool, b.is_native(), a, m, b.tap, a_stride, rows);
        let job = Job {
            tier: b.tier(),
            rows: &MatrixRows { a: rows.as_ptr().cast(), step: cells * 4 },
            count: m,
            taps: 1,
            depth: cells,
            skips: false,
            row_bytes: cells.saturating_mul(4),
            b: b.view(),
            c: c.as_mut_ptr(),
            c_step: c_stride,
            finish: &finish,
            integers: None,
            quantized: None,
        };
        // SAFETY: the extents were checked; the converted rows hold `m · cells` cells.
        unsafe { indirect::run(pool, &job) };
    });
    Ok(())
}

#[cfg(test)]
mod tests;
