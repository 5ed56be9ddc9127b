//! Pooling over channels-last activations.

use crate::conv_shape::{Window, pixels};
use crate::dispatch::Tier;
use crate::epilogue::holds;
use crate::error::{Error, product};
use crate::parallel::Pool;
use crate::partition::{Parts, ranges};
use crate::simd::{LANES, Simd, tiered};

/// How a window becomes one value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pooling {
    /// The largest element; padding does not count. Of a NaN and a later number the number is kept, as the
    /// instruction has it; a window whose last element is NaN gives NaN.
    Max,
    /// The mean of the elements that are not padding.
    Average,
    /// The sum divided by the elements of the window that lie in the input or its stated padding, which ends
    /// `pad_end` after the input.
    AverageWithPadding {
        /// Padding behind each axis.
        pad_end: [usize; 3],
    },
}

/// Pools `[batch, D, H, W, channels]` with pixels `x_stride` apart into pixels `y_stride` apart. A window without an
/// element gives -∞ for [`Pooling::Max`] and 0 for the others.
pub fn pool_f32(
    tier: Tier,
    pool: &dyn Pool,
    kind: Pooling,
    window: &Window,
    batch: usize,
    channels: usize,
    x: &[f32],
    x_stride: usize,
    y: &mut [f32],
    y_stride: usize,
) -> Result<(), Error> {
    window.check()?;
    let what = "the sizes leave the address space";
    let rows = product(what, &[batch, pixels(window.output)?])?;
    holds("input", x.len(), product(what, &[batch, pixels(window.input)?])?, channels, x_stride)?;
    holds("output", y.len(), rows, channels, y_stride)?;
    if rows == 0 || channels == 0 {
        return Ok(());
    }
    let call = Call { tier: tier.usable(), kind, window, channels, x: x.as_ptr(), x_stride, y_stride };
    let y = Parts::of(y);
    let taps = pixels(window.kernel)?;
    let grain = (16 * 1024usize).div_ceil(channels.saturating_mul(taps));
    ranges(pool, rows, grain, &|range| {
        // SAFETY: the extents were checked; rows of the output do not overlap.
        unsafe { pixels_of(call.tier, &call, range, y.as_mut_ptr()) };
    });
    Ok(())
}

struct Call<'a> {
    tier: Tier,
    kind: Pooling,
    window: &'a Window,
    channels: usize,
    x: *const f32,
    x_stride: usize,
    y_stride: usize,
}

// SAFETY: points into a shared slice that outlives the call; only read.
unsafe impl Sync for Call<'_> {}

/// The part of the input under one window: corner, elements and steps along each axis.
struct Field {
    corner: *const f32,
    count: [usize; 3],
    step: [usize; 3],
}

tiered! {
    /// # Safety
    /// `rows` are pixels of the output, `y` its start.
    unsafe fn pixels_of(s: S; call: &Call, rows: std::ops::Range<usize>, y: *mut f32) {
        match call.kind {
            Pooling::Max => each_pixel(s, call, rows, y, s.splat(f32::NEG_INFINITY), |m, x| s.max(m, x), |m, _| m),
            _ => each_pixel(s, call, rows, y, s.splat(0.0), |m, x| s.add(m, x), |m, n| s.div(m, s.splat(n))),
        }
    }
}

/// # Safety
/// As [`pixels_of`].
#[inline(always)]
unsafe fn each_pixel<S: Simd>(
    s: S,
    call: &Call,
    rows: std::ops::Range<usize>,
    y: *mut f32,
    start: S::F,
    join: impl Fn(S::F, S::F) -> S::F + Copy,
    end: impl Fn(S::F, f32) -> S::F + Copy,
) {
    let w = call.window;
    let step = |i: usize, size: usize| w.dilation[i].saturating_mul(size).wrapping_mul(call.x_stride);
    let step = [step(0, w.input[1] * w.input[2]), step(1, w.input[2]), step(2, 1)];
    let mut row = rows.start;
    while row < rows.end {
        let (line, column) = (row / w.output[2], row % w.output[2]);
        let (image, d, h) = w.line(line);
        let ((d0, depth), (h0, height)) = (w.span(0, d), w.span(1, h));
        let line = (image * w.input[0] + d0) * w.input[1] + h0;
        for column in column..w.output[2].min(column + rows.end - row) {
            let (w0, width) = w.span(2, column);
            let corner = call.x.wrapping_add((line * w.input[2] + w0).wrapping_mul(call.x_stride));
            let field = Field { corner, count: [depth, height, width], step };
            let divisor = match call.kind {
                Pooling::AverageWithPadding { pad_end } => {
                    let at = [d, h, column];
                    (0..3).map(|i| padded_count(w, i, at[i], pad_end[i])).product()
                }
                _ => depth * height * width,
            };
            let divisor = divisor.max(1) as f32;
            // SAFETY: the field lies in the input, the pixel in the output.
            unsafe {
                let y = y.add(row * call.y_stride);
                each_channel(s, &field, y, call.channels, start, join, |m| end(m, divisor));
            }
            row += 1;
        }
    }
}

/// Elements of the window on `axis` at output position `o` that lie in the input or its padding.
fn padded_count(w: &Window, axis: usize, o: usize, pad_end: usize) -> usize {
    let end = w.input[axis].saturating_add(w.pad[axis]).saturating_add(pad_end);
    end.saturating_sub(o * w.stride[axis]).div_ceil(w.dilation[axis]).min(w.kernel[axis])
}

/// # Safety
/// The field is valid for reading and `y` for writing `channels` elements for each of its pixels.
#[inline(always)]
unsafe fn each_channel<S: Simd>(
    s: S,
    f: &Field,
    y: *mut f32,
    channels: usize,
    start: S::F,
    join: impl Fn(S::F, S::F) -> S::F + Copy,
    end: impl Fn(S::F) -> S::F + Copy,
) {
    // SAFETY: the caller's contract.
    unsafe {
        let mut c = 0;
        while c + 4 * LANES <= channels {
            fold::<S, 4>(s, f, y, c, LANES, start, join, end);
            c += 4 * LANES;
        }
        if c + 2 * LANES <= channels {
            fold::<S, 2>(s, f, y, c, LANES, start, join, end);
            c += 2 * LANES;
        }
        while c < channels {
            fold::<S, 1>(s, f, y, c, channels - c, start, join, end);
            c += LANES;
        }
    }
}

/// # Safety
/// As [`each_channel`], for `V` vectors from channel `c` on, of `live` elements.
#[inline(always)]
unsafe fn fold<S: Simd, const V: usize>(
    s: S,
    f: &Field,
    y: *mut f32,
    c: usize,
    live: usize,
    start: S::F,
    join: impl Fn(S::F, S::F) -> S::F,
    end: impl Fn(S::F) -> S::F,
) {
    let mut acc = [start; V];
    for d in 0..f.count[0] {
        for h in 0..f.count[1] {
            let line =
                f.corner.wrapping_add(d.wrapping_mul(f.step[0]).wrapping_add(h.wrapping_mul(f.step[1])) + c);
            for w in 0..f.count[2] {
                let x = line.wrapping_add(w.wrapping_mul(f.step[2]));
                for v in 0..V {
                    // SAFETY: the caller's contract.
                    acc[v] = join(acc[v], unsafe { s.load_up_to(x.wrapping_add(v * LANES), live) });
                }
            }
        }
    }
    for v in 0..V {
        // SAFETY: the caller's contract.
        unsafe { s.store_up_to(y.add(c + v * LANES), end(acc[v]), live) };
    }
}

/// The mean or largest element of each channel of each image: [`pool_f32`] with a window as large as the input.
pub fn global_pool_f32(
    tier: Tier,
    pool: &dyn Pool,
    kind: Pooling,
    batch: usize,
    positions: usize,
    channels: usize,
    x: &[f32],
    x_stride: usize,
    y: &mut [f32],
    y_stride: usize,
) -> Result<(), Error> {
    let window = Window {
        input: [1, 1, positions],
        output: [1; 3],
        kernel: [1, 1, positions.max(1)],
        stride: [1; 3],
        dilation: [1; 3],
        pad: [0; 3],
    };
    let kind = if kind == Pooling::Max { kind } else { Pooling::Average };
    pool_f32(tier, pool, kind, &window, batch, channels, x, x_stride, y, y_stride)
}

#[cfg(test)]
mod tests;
