//! kernel: convolution of each channel by itself, channels-last: vectors run over channels, registers over pixels.
//!
//! Up to 8 neighbouring pixels are summed together, so that a weight is loaded once for all of them and every
//! product takes its input straight from memory. Inside a line their addresses are a fixed step apart; where a
//! window meets the border they come from a table that points to zeros.

use crate::Tier;
use crate::conv_shape::Window;
use crate::epilogue::Finish;
use crate::error::Error;
use crate::pack::Aligned;
use crate::parallel::Pool;
use crate::simd::{LANES, Simd, tiered};
use crate::tile::{Place, load, store_rows};
use std::cell::RefCell;
use std::ops::Range;

/// Pixels of the largest tile.
const MOST: usize = 8;
/// Output elements below which a task is not worth handing over.
const GRAIN: usize = 8 * 1024;

/// Weights as `[taps][channels]`, channels padded to whole vectors.
#[derive(Clone)]
pub(crate) struct PackedDepthwise {
    tier: Tier,
    channels: usize,
    /// Output channels for each input channel.
    multiplier: usize,
    step: usize,
    data: Aligned,
    /// A pixel of padding.
    zeros: Aligned,
}

impl PackedDepthwise {
    /// Packs weights of shape `[channels, 1, taps]`, of which `multiplier` neighbours share an input channel.
    pub(crate) fn new(
        tier: Tier,
        weights: &[f32],
        channels: usize,
        multiplier: usize,
        taps: usize,
    ) -> Result<Self, Error> {
        let step = channels.next_multiple_of(LANES);
        let bytes = taps.checked_mul(size_of::<f32>()).and_then(|n| n.checked_mul(step));
        if bytes.is_none_or(|n| n > isize::MAX as usize) {
            return Err(Error::Shape { what: "the weights leave the address space" });
        }
        let mut data = Aligned::zeros(step * taps);
        let to = data.as_mut_slice();
        for channel in 0..channels {
            for tap in 0..taps {
                to[tap * step + channel] = weights[channel * taps + tap];
            }
        }
        Ok(PackedDepthwise {
            tier: tier.usable(),
            channels,
            multiplier,
            step,
            data,
            zeros: Aligned::zeros(step),
        })
    }

    pub(crate) fn bytes(&self) -> usize {
        self.data.bytes() + self.zeros.bytes()
    }
}

/// One convolution with checked operands.
pub(crate) struct Call<'a> {
    pub window: Window,
    pub batch: usize,
    pub x: *const f32,
    pub x_step: usize,
    pub weights: &'a PackedDepthwise,
    pub y: *mut f32,
    pub y_step: usize,
    pub finish: &'a Finish,
}

// SAFETY: tasks write disjoint lines of `y`; everything else is read.
unsafe impl Sync for Call<'_> {}

/// # Safety
/// `x` and `y` hold the pixels of the window's input and output, `finish` was made for those of the output.
pub(crate) unsafe fn run(pool: &dyn Pool, call: &Call) {
    let [d, h, w] = call.window.output;
    let lines = call.batch * d * h;
    if lines == 0 || w == 0 || call.weights.channels == 0 {
        return;
    }
    let share = GRAIN
        .div_ceil(w.saturating_mul(call.weights.channels))
        .max(lines.div_ceil(4 * pool.threads().max(1)));
    let task = |i: usize| {
        // SAFETY: the caller's contract; tasks have lines of their own.
        unsafe { self::lines(call, i * share..lines.min((i + 1) * share)) }
    };
    match lines.div_ceil(share) {
        // SAFETY: as above.
        _ if pool.threads() <= 1 => unsafe { self::lines(call, 0..lines) },
        1 => task(0),
        tasks => pool.run(tasks, &task),
    }
}

/// A weight vector's place and the input under it for output column 0, of one element of the window.
#[derive(Clone, Copy)]
struct Tap {
    input: *const f32,
    weights: *const f32,
    /// Its column in the window.
    k: usize,
}

/// Pixels of one line that are summed together.
struct Pixels<'a> {
    call: &'a Call<'a>,
    taps: &'a [Tap],
    /// From a tap's input to that of the first pixel, and on to the next.
    shift: usize,
    step: usize,
    /// `table[tap · MOST + pixel]`, for pixels that meet the border.
    table: &'a [*const f32],
    out: &'a [usize],
    live: usize,
}

#[derive(Default)]
struct Scratch {
    taps: Vec<Tap>,
    table: Vec<*const f32>,
}

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::default();
}

/// # Safety
/// As [`run`], for a range of lines.
unsafe fn lines(call: &Call, range: Range<usize>) {
    let mut scratch = SCRATCH.take();
    for line in range {
        // SAFETY: the caller's contract.
        unsafe { self::line(call, line, &mut scratch) };
    }
    SCRATCH.set(scratch);
}

fn find_taps(call: &Call, line: usize, taps: &mut Vec<Tap>) {
    let w = &call.window;
    let (image, d, h) = w.line(line);
    let [kd, kh, kw] = w.kernel;
    taps.clear();
    for t in 0..kd * kh {
        let (Some(d), Some(h)) = (w.source(0, d, t / kh), w.source(1, h, t % kh)) else { continue };
        let line = ((image * w.input[0] + d) * w.input[1] + h) * w.input[2];
        for k in 0..kw {
            let pixel = (line + k * w.dilation[2]).wrapping_sub(w.pad[2]);
            taps.push(Tap {
                input: call.x.wrapping_add(pixel.wrapping_mul(call.x_step)),
                weights: call.weights.data.as_ptr().wrapping_add((t * kw + k) * call.weights.step),
                k,
            });
        }
    }
}

/// # Safety
/// As [`run`], for one line.
unsafe fn line(call: &Call, line: usize, scratch: &mut Scratch) {
    let w = &call.window;
    let width = w.output[2];
    let Scratch { taps, table } = scratch;
    find_taps(call, line, taps);
    let interior = w.interior(2);
    let interior = if interior.len() < MOST { width..width } else { interior };
    let step = w.stride[2].wrapping_mul(call.x_step);
    for (range, inside) in
        [(0..interior.start, false), (interior.clone(), true), (interior.end..width, false)]
    {
        let mut column = range.start;
        while column < range.end {
            let live = MOST.min(range.end - column);
            if !inside {
                fill_table(call, taps, column, live, step, table);
            }
            let mut out = [0; MOST];
            for (i, out) in out.iter_mut().enumerate() {
                *out = line * width + column + i.min(live - 1);
            }
            let pixels =
                Pixels { call, taps, shift: column.wrapping_mul(step), step, table, out: &out, live };
            // SAFETY: the caller's contract; addresses inside the interior are pixels of the input.
            unsafe {
                if inside {
                    near(call.weights.tier, &pixels);
                } else {
                    far(call.weights.tier, &pixels);
                }
            }
            column += live;
        }
    }
    if call.finish.is_late() {
        for pixel in line * width..(line + 1) * width {
            // SAFETY: a pixel of the output that no other task writes.
            unsafe {
                let y =
                    std::slice::from_raw_parts_mut(call.y.add(pixel * call.y_step), call.weights.channels);
                call.finish.late(y, pixel, 0);
            }
        }
    }
}

fn fill_table(
    call: &Call,
    taps: &[Tap],
    column: usize,
    live: usize,
    step: usize,
    table: &mut Vec<*const f32>,
) {
    table.clear();
    let zeros = call.weights.zeros.as_ptr();
    for tap in taps {
        for i in 0..MOST {
            let column = column + i.min(live - 1);
            let inside = call.window.source(2, column, tap.k).is_some();
            table.push(if inside { tap.input.wrapping_add(column.wrapping_mul(step)) } else { zeros });
        }
    }
}

tiered! {
    unsafe fn near(s: S; p: &Pixels) {
        heights::<S, false>(s, p)
    }
}

tiered! {
    unsafe fn far(s: S; p: &Pixels) {
        heights::<S, true>(s, p)
    }
}

/// Tiles of 8 pixels where there are registers for them, 4 elsewhere.
///
/// # Safety
/// As [`run`], for the pixels given.
#[inline(always)]
unsafe fn heights<S: Simd, const TABLE: bool>(s: S, p: &Pixels) {
    // SAFETY: the caller's contract.
    unsafe {
        let mut first = 0;
        while first < p.live {
            first += match p.live - first {
                5.. if S::WIDE => widths::<S, TABLE, 8>(s, p, first),
                3.. => widths::<S, TABLE, 4>(s, p, first),
                2 => widths::<S, TABLE, 2>(s, p, first),
                _ => widths::<S, TABLE, 1>(s, p, first),
            };
        }
    }
}

/// # Safety
/// As [`heights`].
#[inline(always)]
unsafe fn widths<S: Simd, const TABLE: bool, const P: usize>(s: S, p: &Pixels, first: usize) -> usize {
    let channels = p.call.weights.channels;
    let live = P.min(p.live - first);
    // SAFETY: the caller's contract.
    unsafe {
        let mut c = 0;
        if p.call.weights.multiplier == 1 {
            while S::WIDE && c + 2 * LANES <= channels {
                sums::<S, TABLE, P, 2>(s, p, first, live, c, |s, x, c, live| load_pair(s, x, c, live));
                c += 2 * LANES;
            }
            while c < channels {
                sums::<S, TABLE, P, 1>(s, p, first, live, c, |s, x, c, live| {
                    [load(s, x.wrapping_add(c), 0, live)]
                });
                c += LANES;
            }
        } else {
            let m = p.call.weights.multiplier;
            while c < channels {
                sums::<S, TABLE, P, 1>(s, p, first, live, c, |s, x, c, live| [spread(s, x, c, live, m)]);
                c += LANES;
            }
        }
    }
    live
}

/// # Safety
/// `x` is valid for `c + 32` elements.
#[inline(always)]
unsafe fn load_pair<S: Simd>(s: S, x: *const f32, c: usize, _: usize) -> [S::F; 2] {
    // SAFETY: the caller's contract.
    unsafe { [s.load(x.add(c)), s.load(x.add(c + LANES))] }
}

/// The inputs of output channels `c..c + live`, of which `m` neighbours share one.
///
/// # Safety
/// `x` is valid for the input channels of those.
#[inline(always)]
unsafe fn spread<S: Simd>(s: S, x: *const f32, c: usize, live: usize, m: usize) -> S::F {
    let mut lanes = [0.0; LANES];
    for (i, lane) in lanes.iter_mut().enumerate().take(live) {
        // SAFETY: the caller's contract.
        *lane = unsafe { *x.add((c + i) / m) };
    }
    // SAFETY: 16 lanes.
    unsafe { s.load(lanes.as_ptr()) }
}

/// Sums, finishes and stores `P` pixels of `V` vectors of channels.
///
/// # Safety
/// As [`heights`]; `read` reads the vectors of channels from `c` on.
#[inline(always)]
unsafe fn sums<S: Simd, const TABLE: bool, const P: usize, const V: usize>(
    s: S,
    p: &Pixels,
    first: usize,
    live: usize,
    c: usize,
    read: impl Fn(S, *const f32, usize, usize) -> [S::F; V],
) {
    let live_cols = (V * LANES).min(p.call.weights.channels - c);
    let mut acc = [[s.splat(0.0); V]; P];
    let shift = p.shift.wrapping_add(first.wrapping_mul(p.step));
    // A tile reads past the live pixels only through the table: near the end of a line they may not exist.
    let last = live - 1;
    // SAFETY: the caller's contract; weights are padded to whole vectors.
    unsafe {
        for (i, tap) in p.taps.iter().enumerate() {
            let mut w = [s.splat(0.0); V];
            for v in 0..V {
                w[v] = s.load(tap.weights.add(c + v * LANES));
            }
            let start = tap.input.wrapping_add(shift);
            for r in 0..P {
                let from = if TABLE {
                    *p.table.get_unchecked(i * MOST + (first + r).min(MOST - 1))
                } else if live == P {
                    start.wrapping_add(r.wrapping_mul(p.step))
                } else {
                    start.wrapping_add(r.min(last).wrapping_mul(p.step))
                };
                let x = read(s, from, c, live_cols);
                for v in 0..V {
                    acc[r][v] = s.fma(x[v], w[v], acc[r][v]);
                }
            }
        }
        let place = Place { out: p.out[first..].as_ptr(), live_rows: live, live_cols, col: c };
        p.call.finish.sums(s, &mut acc, &place);
        store_rows(s, &acc, p.call.y.add(c), p.call.y_step, &place);
    }
}
