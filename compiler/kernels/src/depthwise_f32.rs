//! kernel: convolution of each channel by itself, channels-last: vectors run over channels, registers over pixels.
//!
//! The lines of input under the window, cut to a strip of columns and a block of channels, are copied once into a
//! ring that stays in the first-level cache, with the padding filled in. From there up to 8 neighbouring pixels are
//! summed together, so that a weight is loaded once for all and every product takes its input straight from memory.

use crate::Tier;
use crate::conv_shape::Window;
use crate::epilogue::Finish;
use crate::error::Error;
use crate::hint::{opaque, prefetch};
use crate::pack::Aligned;
use crate::parallel::Pool;
use crate::simd::{LANES, Simd, tiered};
use crate::tile::{Place, store_rows};
use std::cell::RefCell;
use std::ops::Range;

/// Pixels of the largest tile.
const MOST: usize = 8;
/// Channels of a block.
const BLOCK: usize = 64;
/// Elements of the ring that leave the first-level cache room for the rest.
const RING: usize = 7 * 1024;
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
        Ok(PackedDepthwise { tier: tier.usable(), channels, multiplier, step, data })
    }

    pub(crate) fn bytes(&self) -> usize {
        self.data.bytes()
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

// SAFETY: tasks write disjoint lines or channels of `y`; everything else is read.
unsafe impl Sync for Call<'_> {}

/// # Safety
/// `x` and `y` hold the pixels of the window's input and output, `finish` was made for those of the output.
pub(crate) unsafe fn run(pool: &dyn Pool, call: &Call) {
    let [d, h, w] = call.window.output;
    let planes = call.batch * d;
    let channels = call.weights.channels;
    if planes * h == 0 || w == 0 || channels == 0 {
        return;
    }
    let blocks = channels.div_ceil(BLOCK);
    let work = planes.saturating_mul(h).saturating_mul(w).saturating_mul(channels);
    let wanted = (work / GRAIN).clamp(1, 4 * pool.threads().max(1));
    let cuts = if pool.threads() <= 1 { 1 } else { wanted.div_ceil(planes * blocks).clamp(1, h) };
    let share = h.div_ceil(cuts);
    let cuts = h.div_ceil(share);
    let task = |i: usize| {
        let (plane, block, cut) = (i / cuts / blocks, i / cuts % blocks, i % cuts);
        let first = block * BLOCK;
        let part = Part {
            call,
            plane,
            lines: cut * share..h.min((cut + 1) * share),
            channel: first,
            live: BLOCK.min(channels - first),
        };
        // SAFETY: the caller's contract; tasks have lines and channels of their own.
        unsafe { part.run() }
    };
    match planes * blocks * cuts {
        tasks if tasks == 1 || pool.threads() <= 1 || wanted == 1 => (0..tasks).for_each(task),
        tasks => pool.run(tasks, &task),
    }
}

/// Lines of one plane, for one block of channels.
struct Part<'a> {
    call: &'a Call<'a>,
    plane: usize,
    lines: Range<usize>,
    channel: usize,
    live: usize,
}

/// Input lines in the first-level cache: the block's channels of a strip's pixels, padding filled in.
struct Ring<'a> {
    data: &'a mut [f32],
    /// Elements of a pixel.
    pixel: usize,
    /// Elements of a line.
    line: usize,
    /// The first output column of the strip.
    column: usize,
    /// Output columns of the strip.
    live: usize,
}

/// A line of the window over a line of the ring.
#[derive(Clone, Copy)]
struct Row {
    input: *const f32,
    weights: *const f32,
}

#[derive(Default)]
struct Scratch {
    ring: Aligned,
    rows: Vec<Row>,
    /// The input line each slot of the ring holds.
    held: Vec<Option<(usize, usize)>>,
}

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::default();
}

/// How the window walks over the ring.
#[derive(Clone, Copy)]
struct Walk {
    /// Slots: lines of the window, or single elements.
    slots: usize,
    /// Window elements of a slot.
    run: usize,
    /// Pixels of the ring between two output columns.
    stride: usize,
}

impl Part<'_> {
    /// A slot holds a line of input where neighbouring outputs share its pixels, else the pixels of one element.
    fn walk(&self) -> Walk {
        let w = &self.call.window;
        let [d, h, k] = w.kernel;
        if w.dilation[2] == 1 && w.stride[2] <= 2 {
            Walk { slots: d * h, run: k, stride: w.stride[2] }
        } else {
            Walk { slots: d * h * k, run: 1, stride: 1 }
        }
    }

    /// # Safety
    /// As [`run`], for this part.
    unsafe fn run(&self) {
        let mut scratch = SCRATCH.take();
        let walk = self.walk();
        let width = self.call.window.output[2];
        let pixel = self.live.next_multiple_of(LANES);
        let mut columns = width.next_multiple_of(MOST);
        let line = |columns: usize| ((columns - 1) * walk.stride + walk.run) * pixel;
        while columns > MOST && walk.slots * line(columns) > RING {
            columns = columns.div_ceil(2).next_multiple_of(MOST);
        }
        let line = line(columns);
        if scratch.ring.bytes() < walk.slots * line * size_of::<f32>() {
            scratch.ring = Aligned::zeros(walk.slots * line);
        }
        for column in (0..width).step_by(columns) {
            let data = &mut scratch.ring.as_mut_slice()[..walk.slots * line];
            let mut ring = Ring { data, pixel, line, column, live: columns.min(width - column) };
            scratch.held.clear();
            scratch.held.resize(walk.slots, None);
            for y in self.lines.clone() {
                // SAFETY: the caller's contract.
                unsafe {
                    self.load(&walk, &mut ring, y, &mut scratch.rows, &mut scratch.held);
                    self.line(&walk, &ring, y, &scratch.rows);
                }
            }
        }
        SCRATCH.set(scratch);
    }

    /// Brings the input lines under output line `y` into the ring and lists them.
    ///
    /// # Safety
    /// As [`run`].
    unsafe fn load(
        &self,
        walk: &Walk,
        ring: &mut Ring,
        y: usize,
        rows: &mut Vec<Row>,
        held: &mut [Option<(usize, usize)>],
    ) {
        let w = &self.call.window;
        let [kd, kh, kw] = w.kernel;
        let (image, plane) = (self.plane / w.output[0], self.plane % w.output[0]);
        // Consecutive windows share lines only along H.
        let rotates = kd == 1 && walk.slots == kh && w.dilation[1] == 1;
        rows.clear();
        for t in 0..walk.slots {
            let (th, first) = if walk.run == kw { (t, 0) } else { (t / kw, t % kw) };
            let source = (w.source(0, plane, th / kh), w.source(1, y, th % kh));
            let (Some(d), Some(h)) = source else { continue };
            let slot = if rotates { h % walk.slots } else { t };
            if held[slot] != Some((d, h)) {
                let line = ((image * w.input[0] + d) * w.input[1] + h) * w.input[2];
                // SAFETY: a line of the input.
                unsafe { self.copy(walk, ring, slot, line, first) };
                held[slot] = Some((d, h));
            }
            rows.push(Row {
                input: ring.data[slot * ring.line..].as_ptr(),
                weights: (self.call.weights.data.as_ptr())
                    .wrapping_add(t * walk.run * self.call.weights.step + self.channel),
            });
        }
    }

    /// Copies what the strip needs of an input line, from window element `first` on, into a slot.
    ///
    /// # Safety
    /// `line` is the first pixel of a line of the input.
    unsafe fn copy(&self, walk: &Walk, ring: &mut Ring, slot: usize, line: usize, first: usize) {
        let w = &self.call.window;
        let to = &mut ring.data[slot * ring.line..(slot + 1) * ring.line];
        let pixels = ring.line / ring.pixel;
        let x = self.call.x.wrapping_add(line.wrapping_mul(self.call.x_step));
        let m = self.call.weights.multiplier;
        if walk.run > 1 || (w.stride[2] == walk.stride && w.dilation[2] == 1) {
            let start = ring.column * w.stride[2];
            let before = w.pad[2].saturating_sub(start).min(pixels);
            let from = (start + before).saturating_sub(w.pad[2]);
            let copied = w.input[2].saturating_sub(from).min(pixels - before);
            to[..before * ring.pixel].fill(0.0);
            let x = x.wrapping_add(from.wrapping_mul(self.call.x_step));
            let middle = &mut to[before * ring.pixel..];
            // SAFETY: these pixels are in the line.
            unsafe {
                pixels_to(self.call.weights.tier, self, x, self.call.x_step, middle, ring.pixel, copied, m)
            };
            to[(before + copied) * ring.pixel..].fill(0.0);
            return;
        }
        for (i, to) in to.chunks_exact_mut(ring.pixel).enumerate() {
            match (i < ring.live).then(|| w.source(2, ring.column + i, first)).flatten() {
                Some(column) => {
                    let x = x.wrapping_add(column.wrapping_mul(self.call.x_step));
                    // SAFETY: this pixel is in the line.
                    unsafe { pixels_to(self.call.weights.tier, self, x, 0, to, ring.pixel, 1, m) };
                }
                None => to.fill(0.0),
            }
        }
    }

    /// # Safety
    /// As [`run`]; `rows` lie in the ring.
    unsafe fn line(&self, walk: &Walk, ring: &Ring, y: usize, rows: &[Row]) {
        let w = &self.call.window;
        let first = (self.plane * w.output[1] + y) * w.output[2] + ring.column;
        let line = Line {
            part: self,
            rows,
            run: walk.run,
            pixel: ring.pixel,
            step: walk.stride * ring.pixel,
            first,
            columns: ring.live,
        };
        // SAFETY: the caller's contract.
        unsafe {
            tiles(self.call.weights.tier, &line);
            if self.call.finish.is_late() {
                for pixel in first..first + ring.live {
                    let y = self.call.y.add(pixel * self.call.y_step + self.channel);
                    let y = std::slice::from_raw_parts_mut(y, self.live);
                    self.call.finish.late(y, pixel, self.channel);
                }
            }
        }
    }
}

tiered! {
    /// Copies the part's channels of `count` pixels `step` apart into pixels of `pixel` elements.
    unsafe fn pixels_to(
        s: S; part: &Part, x: *const f32, step: usize, to: &mut [f32], pixel: usize, count: usize, multiplier: usize
    ) {
        assert!(count * pixel <= to.len());
        let to = to.as_mut_ptr();
        if multiplier > 1 {
            for i in 0..count {
                let (x, to) = (x.wrapping_add(i.wrapping_mul(step)), to.add(i * pixel));
                for c in (0..pixel).step_by(LANES) {
                    let live = LANES.min(part.live - c);
                    s.store(to.add(c), spread(s, x, part.channel + c, live, multiplier));
                }
            }
            return;
        }
        let x = x.wrapping_add(part.channel);
        // The same pixels of the next line come next.
        let ahead = step.wrapping_mul(part.call.window.input[2]);
        match (part.live, pixel) {
            (64, 64) => vectors::<S, 4>(s, x, step, to, count, ahead),
            (48, 48) => vectors::<S, 3>(s, x, step, to, count, ahead),
            (32, 32) => vectors::<S, 2>(s, x, step, to, count, ahead),
            (16, 16) => vectors::<S, 1>(s, x, step, to, count, ahead),
            _ => {
                for i in 0..count {
                    let (x, to) = (x.wrapping_add(i.wrapping_mul(step)), to.add(i * pixel));
                    for c in (0..pixel).step_by(LANES) {
                        s.store(to.add(c), s.load_up_to(x.wrapping_add(c), part.live - c));
                    }
                }
            }
        }
    }
}

/// # Safety
/// As [`pixels_to`], for pixels of `V` vectors.
#[inline(always)]
unsafe fn vectors<S: Simd, const V: usize>(
    s: S,
    mut x: *const f32,
    step: usize,
    mut to: *mut f32,
    count: usize,
    ahead: usize,
) {
    for _ in 0..count {
        for v in 0..V {
            // SAFETY: the caller's contract.
            unsafe { s.store(to.add(v * LANES), s.load(x.add(v * LANES))) };
            prefetch(x.wrapping_add(ahead + v * LANES));
        }
        x = x.wrapping_add(step);
        to = to.wrapping_add(V * LANES);
    }
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

/// Output columns of one line and block of channels, their input in the ring.
struct Line<'a> {
    part: &'a Part<'a>,
    rows: &'a [Row],
    /// Window elements of a row.
    run: usize,
    /// Elements of a pixel of the ring, and from one output column to the next.
    pixel: usize,
    step: usize,
    /// The result's row of the first column.
    first: usize,
    columns: usize,
}

tiered! {
    unsafe fn tiles(s: S; line: &Line) {
        let rows = if S::WIDE { MOST } else { MOST / 2 };
        for column in (0..line.columns).step_by(rows) {
            let mut c = 0;
            if S::WIDE {
                while c + 2 * LANES <= line.pixel {
                    sums::<S, 8, 2>(s, line, column, c);
                    c += 2 * LANES;
                }
                if c < line.pixel {
                    sums::<S, 8, 1>(s, line, column, c);
                }
            } else {
                while c < line.pixel {
                    sums::<S, 4, 1>(s, line, column, c);
                    c += LANES;
                }
            }
        }
    }
}

/// Sums, finishes and stores `P` columns from `column` on, of `V` vectors of channels.
///
/// # Safety
/// As [`run`]; the ring has room for whole tiles.
#[inline(always)]
unsafe fn sums<S: Simd, const P: usize, const V: usize>(s: S, line: &Line, column: usize, c: usize) {
    let call = line.part.call;
    let mut acc = [[s.splat(0.0); V]; P];
    // SAFETY: the caller's contract; weights are padded to whole vectors.
    unsafe {
        let shift = column * line.step + c;
        for row in line.rows {
            let (mut x, mut w) = (row.input.add(shift), row.weights.add(c));
            for _ in 0..line.run {
                let mut wv = [s.splat(0.0); V];
                for v in 0..V {
                    wv[v] = s.load(w.add(v * LANES));
                }
                let pixels = opaque(x);
                for r in 0..P {
                    for v in 0..V {
                        acc[r][v] = s.fma(s.load(pixels.add(r * line.step + v * LANES)), wv[v], acc[r][v]);
                    }
                }
                x = x.wrapping_add(line.pixel);
                w = w.wrapping_add(call.weights.step);
            }
        }
        let mut out = [0; P];
        let live_rows = P.min(line.columns - column);
        for (r, out) in out.iter_mut().enumerate() {
            *out = line.first + column + r.min(live_rows - 1);
        }
        let col = line.part.channel + c;
        let live_cols = (V * LANES).min(line.part.live - c);
        let place = Place { out: out.as_ptr(), live_rows, live_cols, col };
        call.finish.sums(s, &mut acc, &place);
        store_rows(s, &acc, call.y.add(col), call.y_step, &place);
    }
}
