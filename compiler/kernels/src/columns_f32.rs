//! Convolution with few output channels: neighbouring output columns fill the vector together.
//!
//! `P` columns of `cout` channels lie side by side in the result, so they are the channels of one wider output whose
//! window is that of all of them; where a column's own window does not reach, its weight is zero. The sum of each output
//! keeps its order.

use crate::Tier;
use crate::conv_shape::{ConvShape, Window};
use crate::epilogue::{Affine, Epilogue, Residual};
use crate::error::Error;
use crate::indirect::{self, Job};
use crate::narrow_f32;
use crate::pack::PackedB;
use crate::parallel::Pool;
use crate::simd::LANES;
use crate::window_rows::{FEW_CHANNELS, WindowRows};

/// Outputs of one row of the product.
const MOST: usize = 4 * LANES;
/// Hundredths of what a vector of four side by side takes that one takes by itself, of two and of three: each number of the
/// left operand is read for all of them at once.
const WIDTHS: [usize; 3] = [150, 130, 120];
/// Hundredths of the plain cost that must be left.
const GAIN: usize = 85;

/// How many columns to take together, if that makes this convolution cheaper.
pub(crate) fn columns(shape: &ConvShape) -> Option<usize> {
    let width = shape.output().ok()?[2];
    if shape.groups != 1 || shape.dilation[2] != 1 || shape.cout == 0 || shape.cin == 0 || width == 0 {
        return None;
    }
    let cost = |p: usize| {
        let window = (p - 1).checked_mul(shape.stride[2])?.checked_add(shape.kernel[2])?;
        let vectors = (p * shape.cout).div_ceil(LANES);
        let of = vectors * WIDTHS.get(vectors - 1).copied().unwrap_or(100);
        window.checked_mul(of)?.checked_mul(10).map(|n| n / p)
    };
    let plain = match narrow(shape) {
        Some(narrow) => narrow.min(cost(1)?),
        None => cost(1)?,
    };
    let most = MOST / shape.cout.max(1);
    let best = (2..=most.min(width)).filter(|p| width.is_multiple_of(*p)).min_by_key(|&p| cost(p))?;
    (cost(best)? < plain.checked_mul(GAIN)? / 100).then_some(best)
}

/// The same cost of sums of rows, where columns are few enough for these.
fn narrow(shape: &ConvShape) -> Option<usize> {
    let [d, h, w] = shape.kernel;
    let run = if shape.cin < FEW_CHANNELS { w } else { 1 };
    let taps = d.checked_mul(h)?.checked_mul(w / run)?;
    let of = narrow_f32::instructions(taps, shape.cin.checked_mul(run)?, shape.cout)?;
    let all = d.checked_mul(h)?.checked_mul(shape.cin)?;
    of.checked_mul(shape.cout)?.checked_mul(1000)?.checked_div(all)
}

/// Weights for `columns` columns together.
#[derive(Clone)]
pub(crate) struct PackedColumns {
    columns: usize,
    packed: PackedB,
}

crate::fields! { PackedColumns { columns, packed } }

impl PackedColumns {
    /// Packs weights of shape `[cout, cin, D, H, W]`.
    pub(crate) fn new(
        tier: Tier,
        columns: usize,
        weights: &[[u8; 4]],
        shape: &ConvShape,
    ) -> Result<PackedColumns, Error> {
        let (cin, cout, [d, h, w]) = (shape.cin, shape.cout, shape.kernel);
        let (wide, stride) = (w + (columns - 1) * shape.stride[2], shape.stride[2]);
        let taps = d * h * w;
        // As one column has them: for each tap and input channel those of all output channels.
        let mut single = vec![0.0; taps * cin * cout];
        for (i, o) in (0..cin).flat_map(|i| (0..cout).map(move |o| (i, o))) {
            let of = &weights[(o * cin + i) * taps..][..taps];
            of.iter().enumerate().for_each(|(t, w)| {
                single[(t * cin + i) * cout + o] = f32::from_ne_bytes(*w);
            });
        }
        let packed = PackedB::from_rows(tier, d * h * wide * cin, columns * cout, |row, col, mut to| {
            let (line, at, i) = (row / cin / wide, row / cin % wide, row % cin);
            let (mut column, mut o) = (col / cout, col % cout);
            while !to.is_empty() {
                let (piece, rest) = to.split_at_mut((cout - o).min(to.len()));
                match at.checked_sub(column * stride).filter(|&tap| tap < w) {
                    Some(tap) => {
                        let from = ((line * w + tap) * cin + i) * cout + o;
                        piece.copy_from_slice(&single[from..from + piece.len()]);
                    }
                    None => piece.fill(0.0),
                }
                (to, column, o) = (rest, column + 1, 0);
            }
        })?;
        Ok(PackedColumns { columns, packed })
    }

    pub(crate) fn bytes(&self) -> usize {
        self.packed.bytes()
    }
}

/// # Safety
/// `x` and `y` hold the pixels of the shape's input and output; those of `y` and of a residual are adjacent; `window`
/// is that of the shape the weights were packed for.
pub(crate) unsafe fn run(
    pool: &dyn Pool,
    shape: &ConvShape,
    window: Window,
    (x, x_stride): (&[f32], usize),
    weights: &PackedColumns,
    y: &mut [f32],
    epilogue: &Epilogue,
) -> Result<(), Error> {
    let (p, cout) = (weights.columns, shape.cout);
    let adjacent = epilogue.residual.is_none_or(|r| r.row_stride == cout);
    if !window.output[2].is_multiple_of(p) || !adjacent || p * cout > MOST {
        return Err(Error::Shape { what: "the weights are packed for another convolution" });
    }
    let mut wide = window;
    wide.output[2] /= p;
    wide.stride[2] *= p;
    wide.kernel[2] += (p - 1) * window.stride[2];
    let spread = |v: Option<&[f32]>| {
        v.map(|v| {
            let mut to = [0.0; MOST];
            to[..p * cout].chunks_exact_mut(cout).for_each(|to| to.copy_from_slice(v));
            to
        })
    };
    let bias = spread(epilogue.bias);
    let scale = spread(epilogue.affine.map(|a| a.scale));
    let shift = spread(epilogue.affine.map(|a| a.shift));
    let affine = scale.as_ref().zip(shift.as_ref());
    let count = shape.batch * wide.output.iter().product::<usize>();
    let finish = Epilogue {
        bias: bias.as_ref().map(|b| &b[..p * cout]),
        residual: epilogue.residual.map(|r| Residual { row_stride: p * cout, ..r }),
        act: epilogue.act,
        affine: affine.map(|(m, b)| Affine { scale: &m[..p * cout], shift: &b[..p * cout] }),
        grid: epilogue.grid,
    }
    .finish(1.0, count, p * cout)?;
    let runs = x_stride == shape.cin && shape.cin < FEW_CHANNELS;
    let rows = WindowRows {
        window: wide,
        x: x.as_ptr().cast(),
        step: x_stride * size_of::<f32>(),
        channels: shape.cin * size_of::<f32>(),
        run: if runs { wide.kernel[2] } else { 1 },
        pad: 0,
        groups: 1,
    };
    let job = Job {
        tier: weights.packed.tier(),
        count,
        taps: rows.taps(),
        depth: rows.depth(),
        skips: false,
        row_bytes: [wide.stride[2], x_stride, size_of::<f32>()]
            .into_iter()
            .fold(shape.stride[1], usize::saturating_mul),
        rows: &rows,
        b: weights.packed.view(),
        c: y.as_mut_ptr(),
        c_step: p * cout,
        finish: &finish,
        integers: None,
        quantized: None,
    };
    // SAFETY: the caller's contract; a row of the product is `p` adjacent pixels.
    unsafe { indirect::run(pool, &job) };
    Ok(())
}
