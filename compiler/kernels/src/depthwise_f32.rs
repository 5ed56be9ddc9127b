//! kernel: convolution of each channel by itself, or with few neighbours, channels-last: vectors run over channels, registers
//! over pixels.
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

mod groups;

/// Elements of the ring that leave the first-level cache room for the rest.
const RING: usize = 8 * 1024;
/// The same where sums are long enough to hide that the second-level cache is slower.
const LONG_RING: usize = 24 * 1024;
/// Elements of a window's line from which on its weights and 16 pixels fill the registers, and most that do.
const LONG: usize = 6;
const LONGEST: usize = 9;
/// Columns of a strip wide enough not to copy much of its neighbours'.
const STRIP: usize = 16;
/// Output elements below which a task is not worth handing over.
const GRAIN: usize = 8 * 1024;

/// Weights as `[taps][mixed][channels]`, channels padded to whole vectors.
#[derive(Clone)]
pub(crate) struct PackedDepthwise {
    tier: Tier,
    channels: usize,
    /// Output channels for each input channel.
    multiplier: usize,
    /// Input channels for each output channel: those of its group, which has as many of both.
    mixed: usize,
    step: usize,
    data: Aligned,
}

crate::fields! { PackedDepthwise { tier, channels, multiplier, mixed, step, data } }

impl PackedDepthwise {
    /// Whether groups of `cin` input and `cout` output channels are narrow enough.
    pub(crate) fn takes(cin: usize, cout: usize) -> bool {
        cin == 1 || cin == cout && groups::WIDTHS.contains(&cin)
    }

    /// Whether it was packed for as many groups of input and output channels, and as many taps.
    pub(crate) fn fits(&self, groups: usize, cin: usize, cout: usize, taps: usize) -> bool {
        let step = self.channels.checked_next_multiple_of(LANES);
        let multiplier = if cin == 1 { cout } else { 1 };
        PackedDepthwise::takes(cin, cout)
            && (Some(self.channels), self.multiplier, self.mixed)
                == (groups.checked_mul(cout), multiplier, cin)
            && Some(self.step) == step
            && taps
                .checked_mul(cin)
                .and_then(|n| n.checked_mul(self.step))
                .is_some_and(|len| self.data.holds(len))
    }

    /// Packs weights of shape `[groups · cout, cin, taps]`, of groups that it [takes](PackedDepthwise::takes).
    pub(crate) fn new(
        tier: Tier,
        weights: &[[u8; 4]],
        groups: usize,
        (cin, cout): (usize, usize),
        taps: usize,
    ) -> Result<Self, Error> {
        let channels = groups * cout;
        let step = channels.next_multiple_of(LANES);
        let bytes = [taps, cin, step].into_iter().try_fold(size_of::<f32>(), usize::checked_mul);
        if bytes.is_none_or(|n| n > isize::MAX as usize) {
            return Err(Error::Shape { what: "the weights leave the address space" });
        }
        let mut data = Aligned::zeros(step * cin * taps);
        let to = data.as_mut_slice();
        for channel in 0..channels {
            for (i, tap) in (0..cin).flat_map(|i| (0..taps).map(move |tap| (i, tap))) {
                let w = weights[(channel * cin + i) * taps + tap];
                to[(tap * cin + i) * step + channel] = f32::from_ne_bytes(w);
            }
        }
        let multiplier = if cin == 1 { cout } else { 1 };
        Ok(PackedDepthwise { tier: tier.usable(), channels, multiplier, mixed: cin, step, data })
    }

    pub(crate) fn bytes(&self) -> usize {
        self.data.bytes()
    }

    /// Elements of a tap.
    fn tap(&self) -> usize {
        self.mixed * self.step
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
    let walk = Walk::of(&call.window, call.weights.mixed);
    let block = walk.block(channels, w);
    let blocks = channels.div_ceil(block);
    let work = planes.saturating_mul(h).saturating_mul(w).saturating_mul(channels);
    let wanted = (work / GRAIN).clamp(1, 4 * pool.threads().max(1));
    // Threads keep to lines of their own where they can: what they read is what they wrote before.
    let threads = if planes < pool.threads() { pool.threads().min(wanted) } else { 1 };
    let cuts =
        if pool.threads() <= 1 { 1 } else { wanted.div_ceil(planes * blocks).max(threads).clamp(1, h) };
    let share = h.div_ceil(cuts);
    let cuts = h.div_ceil(share);
    let task = |i: usize| {
        let (plane, cut, index) = (i / blocks / cuts, i / blocks % cuts, i % blocks);
        let first = index * block;
        let part = Part {
            call,
            plane,
            lines: cut * share..h.min((cut + 1) * share),
            channel: first,
            live: block.min(channels - first),
            walk,
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
    walk: Walk,
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
    /// The strip meets no border: its lines are read where they are.
    bypassed: bool,
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
    /// Pixels of the ring between two output columns, and between two elements of the window.
    stride: usize,
    spread: usize,
    /// The elements of a slot are many enough for tiles of one vector of channels and more pixels.
    long: bool,
}

impl Walk {
    /// A slot holds a line of input where neighbouring outputs share its pixels, else the pixels of one element.
    fn of(w: &Window, mixed: usize) -> Walk {
        let [d, h, k] = w.kernel;
        // A window wider than the input would have the ring hold more than there is.
        let reach = w.dilation[2].saturating_mul(k.saturating_sub(1));
        if w.stride[2] <= 2 && (w.dilation[2] == 1 || reach <= w.input[2]) {
            let long = mixed == 1 && w.dilation[2] == 1 && (w.stride[2] == 1 && k >= LONG || k == 7);
            Walk { slots: d * h, run: k, stride: w.stride[2], spread: w.dilation[2], long }
        } else {
            Walk { slots: d * h * k, run: 1, stride: 1, spread: 1, long: false }
        }
    }

    /// Pixels of a slot for a strip of `columns`.
    fn pixels(&self, columns: usize) -> usize {
        (columns - 1) * self.stride + (self.run - 1) * self.spread + 1
    }

    fn ring(&self) -> usize {
        if self.long { LONG_RING } else { RING }
    }

    /// Channels of a block: as many as a strip leaves room for, in even shares of vector pairs.
    fn block(&self, channels: usize, width: usize) -> usize {
        let room = self.ring() / (self.slots * self.pixels(width.min(STRIP))) / LANES * LANES;
        let blocks = channels.div_ceil(room.max(2 * LANES));
        channels.div_ceil(blocks).next_multiple_of(if self.long { LANES } else { 2 * LANES })
    }

    /// Pixels of a tile: whichever wastes the fewest columns.
    fn tile(&self, width: usize) -> usize {
        let sizes: &[usize] = if self.long && self.stride == 1 { &[16, 14, 8, 7] } else { &[8, 7] };
        sizes.iter().copied().min_by_key(|&p| width.next_multiple_of(p)).unwrap_or(8)
    }

    /// Columns of a strip, in whole tiles.
    fn strip(&self, pixel: usize, width: usize, tile: usize) -> usize {
        let tiles = width.div_ceil(tile);
        let fits = |tiles: &usize| self.slots * self.pixels(tiles * tile) * pixel <= self.ring();
        let strips = (1..tiles).find(|strips| fits(&tiles.div_ceil(*strips))).unwrap_or(tiles);
        // Strips inside a wide image need no copy.
        let most = if width > 2 * STRIP { 2 } else { tiles };
        tiles.div_ceil(strips).min(most) * tile
    }
}

impl Part<'_> {
    /// # Safety
    /// As [`run`], for this part.
    unsafe fn run(&self) {
        let mut scratch = SCRATCH.take();
        let walk = self.walk;
        let width = self.call.window.output[2];
        let pixel = self.live.next_multiple_of(LANES);
        let columns = walk.strip(pixel, width, walk.tile(width));
        let line = walk.pixels(columns) * pixel;
        if scratch.ring.bytes() < walk.slots * line * size_of::<f32>() {
            scratch.ring = Aligned::zeros(walk.slots * line);
        }
        for column in (0..width).step_by(columns) {
            let data = &mut scratch.ring.as_mut_slice()[..walk.slots * line];
            let live = columns.min(width - column);
            let bypassed = self.bypasses(column, columns);
            let mut ring = Ring { data, pixel, line, column, live, bypassed };
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

    /// Whether the tiles of a strip can read the input itself: all of it is there, and its pixels do not fall on
    /// few sets of the cache.
    fn bypasses(&self, column: usize, columns: usize) -> bool {
        let (w, walk) = (&self.call.window, &self.walk);
        let start = (column * w.stride[2]).checked_sub(w.pad[2]);
        let inside = start.is_some_and(|start| start + walk.pixels(columns) <= w.input[2]);
        let line = walk.run == w.kernel[2] && walk.stride == w.stride[2] && walk.spread == w.dilation[2];
        let whole = self.live.is_multiple_of(LANES) && self.call.weights.multiplier == 1;
        inside && line && whole && !self.call.x_step.is_multiple_of(512)
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
        let mut t = 0;
        for (d, h) in (0..kd).flat_map(|d| (0..kh).map(move |h| (d, h))) {
            let source = (w.source(0, plane, d), w.source(1, y, h));
            for first in (0..kw).step_by(walk.run) {
                let (Some(d), Some(h)) = source else {
                    t += 1;
                    continue;
                };
                let line = ((image * w.input[0] + d) * w.input[1] + h) * w.input[2];
                let input = if ring.bypassed {
                    let pixel = line + ring.column * w.stride[2] - w.pad[2];
                    self.call.x.wrapping_add(pixel * self.call.x_step + self.channel)
                } else {
                    let slot = if rotates { h % walk.slots } else { t };
                    if held[slot] != Some((d, h)) {
                        // SAFETY: a line of the input.
                        unsafe { self.copy(walk, ring, slot, line, first) };
                        held[slot] = Some((d, h));
                    }
                    ring.data[slot * ring.line..].as_ptr()
                };
                rows.push(Row {
                    input,
                    weights: (self.call.weights.data.as_ptr())
                        .wrapping_add(t * walk.run * self.call.weights.tap() + self.channel),
                });
                t += 1;
            }
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
        if walk.run > 1 || (w.stride[2] == walk.stride && w.kernel[2] == 1) {
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
        let pixel = if ring.bypassed { self.call.x_step } else { ring.pixel };
        let line = Line {
            part: self,
            rows,
            run: walk.run,
            width: ring.pixel,
            pixel,
            spread: walk.spread * pixel,
            step: walk.stride * pixel,
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
        if part.live == pixel && (step == pixel || count == 1) {
            run_of_vectors(s, x, to, count * pixel, ahead);
            return;
        }
        for i in 0..count {
            let (x, to) = (x.wrapping_add(i.wrapping_mul(step)), to.add(i * pixel));
            if part.live == pixel {
                run_of_vectors(s, x, to, pixel, ahead);
                continue;
            }
            for c in (0..pixel).step_by(LANES) {
                s.store(to.add(c), s.load_up_to(x.wrapping_add(c), part.live - c));
            }
        }
    }
}

/// Copies `len` elements, whole vectors, and asks for those `ahead`.
///
/// # Safety
/// `x` is valid for reading and `to` for writing `len` elements.
#[inline(always)]
unsafe fn run_of_vectors<S: Simd>(s: S, x: *const f32, to: *mut f32, len: usize, ahead: usize) {
    for i in (0..len).step_by(LANES) {
        let x = opaque(x.wrapping_add(i)); // else a call to copy a few vectors
        // SAFETY: the caller's contract.
        unsafe { s.store(to.add(i), s.load(x)) };
        prefetch(x.wrapping_add(ahead));
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

/// Output columns of one line and block of channels.
struct Line<'a> {
    part: &'a Part<'a>,
    rows: &'a [Row],
    /// Window elements of a row.
    run: usize,
    /// Channels, padded to whole vectors.
    width: usize,
    /// Elements from one pixel of the input to the next, from one element of the window to the next, and from one output
    /// column to the next.
    pixel: usize,
    spread: usize,
    step: usize,
    /// The result's row of the first column.
    first: usize,
    columns: usize,
}

tiered! {
    unsafe fn tiles(s: S; line: &Line) {
        let walk = &line.part.walk;
        match (S::WIDE, walk.long, walk.tile(line.part.call.window.output[2])) {
            (true, true, 16) => long::<S, 16>(s, line),
            (true, true, 14) => long::<S, 14>(s, line),
            (true, true, 8) => long::<S, 8>(s, line),
            (true, true, _) => long::<S, 7>(s, line),
            (true, false, 8) => wide::<S, 8>(s, line),
            (true, false, _) => wide::<S, 7>(s, line),
            _ => {
                for column in (0..line.columns).step_by(4) {
                    // A ring for tiles of 7 has no room for the last 4 of 8.
                    let pixels = line.columns - column;
                    for c in (0..line.width).step_by(LANES) {
                        if pixels >= 4 {
                            sums::<S, 4, 1>(s, line, column, c);
                        } else {
                            (0..pixels).for_each(|i| sums::<S, 1, 1>(s, line, column + i, c));
                        }
                    }
                }
            }
        }
    }
}

/// # Safety
/// As [`sums`], for a line.
#[inline(always)]
unsafe fn wide<S: Simd, const P: usize>(s: S, line: &Line) {
    for column in (0..line.columns).step_by(P) {
        // SAFETY: the caller's contract.
        unsafe {
            let mut c = 0;
            while c + 2 * LANES <= line.width {
                sums::<S, P, 2>(s, line, column, c);
                c += 2 * LANES;
            }
            if c < line.width {
                sums::<S, P, 1>(s, line, column, c);
            }
        }
    }
}

/// # Safety
/// As [`sums`], for a line of a [`Walk::long`] window.
#[inline(always)]
unsafe fn long<S: Simd, const P: usize>(s: S, line: &Line) {
    for c in (0..line.width).step_by(LANES) {
        for column in (0..line.columns).step_by(P) {
            // SAFETY: the caller's contract.
            unsafe { sums::<S, P, 1>(s, line, column, c) };
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
            let (x, w) = (row.input.add(shift), row.weights.add(c));
            if call.weights.mixed > 1 {
                groups::walk(s, &mut acc, x, w, line);
                continue;
            }
            if S::WIDE && V == 1 && line.part.walk.long {
                pieces(s, &mut acc, x, w, line);
                continue;
            }
            let run = if line.spread == line.pixel { line.run } else { 0 };
            match (run, line.step == line.pixel) {
                (3, true) if S::WIDE && V == 2 => slide::<S, P, V, 3, 1>(s, &mut acc, x, w, line),
                (3, false) if S::WIDE && V == 2 => slide::<S, P, V, 3, 2>(s, &mut acc, x, w, line),
                (5, true) if S::WIDE && V == 2 => slide::<S, P, V, 5, 1>(s, &mut acc, x, w, line),
                (5, false) if S::WIDE && V == 2 => slide::<S, P, V, 5, 2>(s, &mut acc, x, w, line),
                _ => walk(s, &mut acc, x, w, line),
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

/// Adds one line of a window of any size, an element at a time.
///
/// # Safety
/// As [`sums`], from the input `x` and weights `w` on.
#[inline(always)]
unsafe fn walk<S: Simd, const P: usize, const V: usize>(
    s: S,
    acc: &mut [[S::F; V]; P],
    mut x: *const f32,
    mut w: *const f32,
    line: &Line,
) {
    for _ in 0..line.run {
        let pixels = opaque(x);
        // SAFETY: the caller's contract.
        unsafe {
            let wv = vectors::<S, V>(s, w);
            for r in 0..P {
                for v in 0..V {
                    acc[r][v] = s.fma(s.load(pixels.add(r * line.step + v * LANES)), wv[v], acc[r][v]);
                }
            }
        }
        x = x.wrapping_add(line.spread);
        w = w.wrapping_add(line.part.call.weights.step);
    }
}

/// Adds one line of a [`Walk::long`] window in pieces of even length.
///
/// # Safety
/// As [`sums`], from the input `x` and weights `w` on.
#[inline(always)]
unsafe fn pieces<S: Simd, const P: usize, const V: usize>(
    s: S,
    acc: &mut [[S::F; V]; P],
    mut x: *const f32,
    mut w: *const f32,
    line: &Line,
) {
    let mut left = line.run;
    while left > 0 {
        let k = left.div_ceil(left.div_ceil(LONGEST));
        // SAFETY: the caller's contract.
        unsafe {
            match (k, line.step == line.pixel) {
                (5, true) => slide::<S, P, V, 5, 1>(s, acc, x, w, line),
                (6, true) => slide::<S, P, V, 6, 1>(s, acc, x, w, line),
                (7, true) => slide::<S, P, V, 7, 1>(s, acc, x, w, line),
                (8, true) => slide::<S, P, V, 8, 1>(s, acc, x, w, line),
                (9, true) => slide::<S, P, V, 9, 1>(s, acc, x, w, line),
                _ if P <= 8 => slide::<S, P, V, 7, 2>(s, acc, x, w, line),
                _ => {}
            }
        }
        x = x.wrapping_add(k * line.pixel);
        w = w.wrapping_add(k * line.part.call.weights.step);
        left -= k;
    }
}

/// Adds one line of a window of `K` elements, output columns `T` pixels apart: its weights stay in registers and
/// every pixel is loaded once.
///
/// # Safety
/// As [`sums`], from the input `x` and weights `w` on.
#[inline(always)]
unsafe fn slide<S: Simd, const P: usize, const V: usize, const K: usize, const T: usize>(
    s: S,
    acc: &mut [[S::F; V]; P],
    mut x: *const f32,
    w: *const f32,
    line: &Line,
) {
    let mut wv = [[s.splat(0.0); V]; K];
    for k in 0..K {
        // SAFETY: the caller's contract.
        wv[k] = unsafe { vectors::<S, V>(s, w.wrapping_add(k * line.part.call.weights.step)) };
    }
    // Written out: a loop this long would not be unrolled, and the sums would leave the registers.
    macro_rules! pixels {
        ($($i:literal)*) => {$(
            if $i < (P - 1) * T + K {
                // SAFETY: the caller's contract.
                let xv = unsafe { vectors::<S, V>(s, x) };
                for k in 0..K {
                    if $i >= k && ($i - k) % T == 0 && ($i - k) / T < P {
                        for v in 0..V {
                            acc[($i - k) / T][v] = s.fma(xv[v], wv[k][v], acc[($i - k) / T][v]);
                        }
                    }
                }
                x = opaque(x.wrapping_add(line.pixel));
            }
        )*};
    }
    pixels! { 0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23 }
    let _ = x;
}

/// # Safety
/// `p` is valid for reading `V` vectors.
#[inline(always)]
unsafe fn vectors<S: Simd, const V: usize>(s: S, p: *const f32) -> [S::F; V] {
    let mut x = [s.splat(0.0); V];
    for v in 0..V {
        // SAFETY: the caller's contract.
        x[v] = unsafe { s.load(p.add(v * LANES)) };
    }
    x
}
