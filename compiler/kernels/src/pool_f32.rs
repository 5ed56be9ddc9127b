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
        for row in range {
            // SAFETY: the extents were checked; rows of the output do not overlap.
            unsafe { call.pixel(row, y.as_mut_ptr().add(row * y_stride)) };
        }
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

impl Call<'_> {
    /// # Safety
    /// `row` is a pixel of the output and `y` is valid for its channels.
    unsafe fn pixel(&self, row: usize, y: *mut f32) {
        debug_assert!(self.y_stride >= self.channels || row == 0);
        let w = self.window;
        let (image, d, h) = w.line(row / w.output[2]);
        let at = [d, h, row % w.output[2]];
        let (mut first, mut count) = ([0; 3], [0; 3]);
        for i in 0..3 {
            let origin = at[i] * w.stride[i];
            let skip = w.pad[i].saturating_sub(origin).div_ceil(w.dilation[i]);
            let start = (origin + skip * w.dilation[i]).saturating_sub(w.pad[i]);
            let room = w.input[i].saturating_sub(start).div_ceil(w.dilation[i]);
            first[i] = start;
            count[i] = w.kernel[i].saturating_sub(skip).min(room);
        }
        let pixel = |[d, h, w_]: [usize; 3]| ((image * w.input[0] + d) * w.input[1] + h) * w.input[2] + w_;
        let step = |i: usize, size: usize| w.dilation[i].saturating_mul(size).wrapping_mul(self.x_stride);
        let field = Field {
            corner: self.x.wrapping_add(pixel(first).wrapping_mul(self.x_stride)),
            count,
            step: [step(0, w.input[1] * w.input[2]), step(1, w.input[2]), step(2, 1)],
        };
        let divisor = match self.kind {
            Pooling::AverageWithPadding { pad_end } => {
                (0..3).map(|i| padded_count(w, i, at[i], pad_end[i])).product()
            }
            _ => count.iter().product::<usize>(),
        };
        // SAFETY: the field lies in the input.
        unsafe {
            match self.kind {
                Pooling::Max => largest(self.tier, &field, y, self.channels),
                _ => mean(self.tier, &field, y, self.channels, divisor.max(1) as f32),
            }
        }
    }
}

/// Elements of the window on `axis` at output position `o` that lie in the input or its padding.
fn padded_count(w: &Window, axis: usize, o: usize, pad_end: usize) -> usize {
    let end = w.input[axis].saturating_add(w.pad[axis]).saturating_add(pad_end);
    end.saturating_sub(o * w.stride[axis]).div_ceil(w.dilation[axis]).min(w.kernel[axis])
}

tiered! {
    unsafe fn largest(s: S; f: &Field, y: *mut f32, channels: usize) {
        each_channel(s, f, y, channels, s.splat(f32::NEG_INFINITY), |m, x| s.max(m, x), |m| m)
    }
}

tiered! {
    unsafe fn mean(s: S; f: &Field, y: *mut f32, channels: usize, divisor: f32) {
        let divisor = s.splat(divisor);
        each_channel(s, f, y, channels, s.splat(0.0), |m, x| s.add(m, x), |m| s.div(m, divisor))
    }
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
