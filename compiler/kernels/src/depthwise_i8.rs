//! kernel: convolution of each channel of bytes by itself, channels last: 64 channels at a time.
//!
//! The window's rows are gathered into cells of four, one cell for each channel, once for every input column; a pixel then
//! is one integer dot product for each column under its window. Cells of 64 channels come out of the byte interleaving in an
//! order of their own, in which weights and corrections are packed too, and which storing bytes undoes for free.
//! Channels left over that fill at most half or a quarter of a block share it with those of the next lines of the result.

use crate::conv_shape::Window;
use crate::dispatch::Tier;
use crate::epilogue::{Activation, Affine, Epilogue, Finish};
use crate::error::{Error, product};
use crate::gemm_i8::one_scale;
use crate::integers::{Integers, Store};
use crate::pack::Aligned;
use crate::pack_i8::{Weights, spread};
use crate::parallel::Pool;
use crate::quantizer::Quantizer;
use crate::simd::{LANES, Simd, tiered};
use crate::tile::{Place, store_rows};
use crate::vecmath::costly;
use std::cell::RefCell;
use std::ops::Range;

mod rolled;

/// Channels of a block.
const BLOCK: usize = 4 * LANES;
/// Columns of cells kept at once: with few cells to a column they stay in the first-level cache.
const COLUMNS: usize = 96;
/// Pixels summed together.
const PIXELS: usize = 4;
/// Output bytes below which a task is not worth handing over.
const GRAIN: usize = 16 * 1024;
/// Tasks for each thread, where there is work for as many.
const TASKS: usize = 8;

/// Weights and what goes with them, in blocks of 64 channels.
#[derive(Clone)]
pub(crate) struct PackedDepthwiseI8 {
    tier: Tier,
    channels: usize,
    /// Of one sum.
    products: usize,
    /// Cells of four window rows.
    quads: usize,
    /// `[block][quad][window column][64 cells]`, cells in interleaved order.
    cells: Aligned,
    /// The same with a one for each product, where weights have zero points.
    ones: Option<Aligned>,
    /// `Σ (w − zero)`, zero points and scales by channel, whole blocks, in interleaved order.
    sums: Vec<i32>,
    zero: Vec<i32>,
    scale: Vec<f32>,
}

/// Place of lane `lane` of vector `v` in a row of 64 bytes, after interleaving.
const fn channel(v: usize, lane: usize) -> usize {
    lane / 4 * 16 + v * 4 + lane % 4
}

/// Lines of the result that share the block from channel `start` on.
fn lines_of(channels: usize, start: usize) -> usize {
    match channels.saturating_sub(start) {
        0..=16 => 4,
        17..=32 => 2,
        _ => 1,
    }
}

/// The channel of a lane of a block.
fn channel_of(channels: usize, block: usize, v: usize, lane: usize) -> usize {
    let start = block * BLOCK;
    start + channel(v, lane) % (BLOCK / lines_of(channels, start))
}

/// Values by channel as whole blocks in interleaved order.
fn interleaved<T: Copy + Default>(x: &[T]) -> Vec<T> {
    let mut out = vec![T::default(); x.len().next_multiple_of(BLOCK)];
    for (at, out) in out.iter_mut().enumerate() {
        let c = channel_of(x.len(), at / BLOCK, at % BLOCK / LANES, at % LANES);
        *out = x.get(c).copied().unwrap_or_default();
    }
    out
}

crate::fields! { PackedDepthwiseI8 { tier, channels, products, quads, cells, ones, sums, zero, scale } }

/// The same for scales, of which there may be one; what stands between them divides nothing by zero.
fn interleaved_scales(by: &[f32]) -> Vec<f32> {
    match by {
        [] | [_] => by.to_vec(),
        [first, ..] => interleaved(by).into_iter().map(|s| if s == 0.0 { *first } else { s }).collect(),
    }
}

impl PackedDepthwiseI8 {
    /// Packs weights of shape `[channels, 1, rows of the window, columns]`.
    pub(crate) fn new(
        tier: Tier,
        w: &Weights,
        channels: usize,
        rows: usize,
        columns: usize,
    ) -> Result<Self, Error> {
        let quads = rows.div_ceil(4);
        let blocks = channels.div_ceil(BLOCK);
        let len = product("the weights leave the address space", &[blocks, quads, columns, BLOCK, 4])? / 4;
        let flip = if w.signed { 0u8 } else { 0x80 };
        let shift = if w.signed { 0 } else { -128 };
        let zero = spread("weight zero points", w.zero, channels, 0)?;
        let zero: Vec<i32> = zero.into_iter().map(|z| z.wrapping_add(shift)).collect();
        let value =
            |c: usize, row: usize, column: usize| (w.data[(c * rows + row) * columns + column] ^ flip) as i8;
        let fill = |f: &dyn Fn(usize, usize, usize) -> i8| {
            let mut cells = Aligned::zeros(len);
            let bytes: &mut [[i8; 4]] = bytemuck::cast_slice_mut(cells.as_mut_slice());
            for (at, cell) in bytes.iter_mut().take(len).enumerate() {
                let (v, lane) = (at % BLOCK / LANES, at % LANES);
                let (column, quad) = (at / BLOCK % columns, at / BLOCK / columns % quads);
                let c = channel_of(channels, at / BLOCK / columns / quads, v, lane);
                for (i, byte) in cell.iter_mut().enumerate() {
                    let row = quad * 4 + i;
                    *byte = if c < channels && row < rows { f(c, row, column) } else { 0 };
                }
            }
            cells
        };
        let sum = |c: usize| -> i32 {
            let taps = (0..rows * columns).map(|t| i32::from(value(c, t / columns, t % columns)));
            taps.map(|w| w.wrapping_sub(zero[c])).fold(0, i32::wrapping_add)
        };
        let sums: Vec<i32> = (0..channels).map(sum).collect();
        Ok(PackedDepthwiseI8 {
            tier: tier.usable(),
            channels,
            products: rows * columns,
            quads,
            cells: fill(&value),
            ones: zero.iter().any(|&z| z != 0).then(|| fill(&|_, _, _| 1)),
            sums: interleaved(&sums),
            zero: interleaved(&zero),
            scale: interleaved(&spread("weight scales", w.scale, channels, 1.0)?),
        })
    }

    pub(crate) fn bytes(&self) -> usize {
        self.cells.bytes() * if self.ones.is_some() { 2 } else { 1 } + self.sums.len() * 12
    }
}

/// One convolution with checked operands.
pub(crate) struct Call<'a> {
    pub window: Window,
    pub batch: usize,
    /// Unsigned bytes and their zero point and scale.
    pub x: *const u8,
    pub zero: i32,
    /// One for each channel in place of `zero`, or none.
    pub zeros: &'a [i32],
    pub scale: f32,
    pub weights: &'a PackedDepthwiseI8,
    pub y: *mut f32,
    pub store: Store,
    /// Scales of the result, where it is bytes.
    pub by: &'a [f32],
    pub epilogue: Epilogue<'a>,
}

impl Call<'_> {
    /// A pixel of padding: the zero points of a block's channels.
    #[inline(always)]
    fn pad(&self, start: usize) -> [u8; BLOCK] {
        let mut pad = [self.zero as u8; BLOCK];
        for (pad, &zero) in pad.iter_mut().zip(self.zeros.get(start..).unwrap_or_default()) {
            *pad = zero as u8;
        }
        pad
    }

    /// The same for each channel, in the order of corrections.
    fn all_zeros(&self) -> Vec<i32> {
        if self.zeros.is_empty() { vec![self.zero; self.weights.sums.len()] } else { interleaved(self.zeros) }
    }
}

/// A call with its corrections worked out.
struct Work<'a> {
    call: &'a Call<'a>,
    /// Where sums begin.
    offset: Vec<i32>,
    scale: Vec<f32>,
    /// The epilogue over all of it, and over interleaved columns.
    finish: &'a Finish,
    ordered: &'a Finish,
    /// What `finish` does late, where that is a function alone.
    last: Option<Activation>,
    store: Store,
    /// Addends of codes.
    addend: Vec<f32>,
    /// Bytes stored without anything that has rows: the interleaved order can be kept to the end.
    direct: bool,
}

// SAFETY: tasks write disjoint lines and channels of `y`; everything else is read.
unsafe impl Sync for Work<'_> {}

/// # Safety
/// `x` and `y` hold the pixels of the window's input and output with the weights' channels, `y` of the type `store` says.
pub(crate) unsafe fn run(pool: &dyn Pool, call: &Call) -> Result<(), Error> {
    let (w, [d, h, width]) = (call.weights, call.window.output);
    let lines = call.batch * d * h;
    if lines == 0 || width == 0 || w.channels == 0 {
        return Ok(());
    }
    let finish = call.epilogue.finish(1.0, lines * width, w.channels)?;
    let bias = call.epilogue.bias.map(interleaved);
    let affine = call.epilogue.affine.map(|a| (interleaved(a.scale), interleaved(a.shift)));
    let epilogue = Epilogue {
        bias: bias.as_deref(),
        act: call.epilogue.act,
        affine: affine.as_ref().map(|(scale, shift)| Affine { scale, shift }),
        ..Epilogue::default()
    };
    let ordered = epilogue.finish(1.0, 1, w.sums.len())?;
    let plain = call.epilogue.residual.is_none() && !finish.is_late();
    let mut work = Work {
        call,
        offset: w.sums.iter().zip(call.all_zeros()).map(|(s, z)| s.wrapping_mul(z).wrapping_neg()).collect(),
        scale: w.scale.iter().map(|s| s * call.scale).collect(),
        finish: &finish,
        last: finish.ends_in().map(|(act, _)| act),
        ordered: &ordered,
        store: call.store,
        addend: Vec::new(),
        direct: plain && matches!(call.store, Store::Bytes { .. }),
    };
    let by = interleaved_scales(call.by);
    // Whether factors are all the same is not seen between those of channels that are not there.
    let to_codes = Epilogue { affine: call.epilogue.affine, ..epilogue };
    let requantization = call.store.requantization(&by, &to_codes, &work.scale, w.products).filter(|_| plain);
    one_scale(&by, requantization.is_some())?;
    if let Some(r) = requantization {
        (work.scale, work.addend, work.store) = (r.scale, r.addend, Store::Codes(r.codes));
    }
    let blocks = w.channels.div_ceil(BLOCK);
    // Lines of a task; those of the last block come in groups.
    let threads = pool.threads();
    let most = if threads <= 1 { 0 } else { (lines * blocks).div_ceil(TASKS * threads) };
    let share = (GRAIN / (width * BLOCK)).max(most).clamp(1, lines);
    let group = lines_of(w.channels, (blocks - 1) * BLOCK);
    let last = (share * group).next_multiple_of(group);
    let pieces = |share: usize, block: usize, step: usize| {
        (0..lines).step_by(share).map(move |first| (first, block, share, step))
    };
    let mut tasks: Vec<(usize, usize, usize, usize)> = (0..blocks - 1)
        .flat_map(|block| pieces(share, block, 1))
        .chain(pieces(last, blocks - 1, group))
        .collect();
    // In the order of lines, so that threads keep to lines of their own: what they read is what they wrote before.
    tasks.sort_by_key(|t| t.0);
    let task = |i: usize| {
        let (first, block, share, step) = tasks[i];
        let range = first..lines.min(first + share);
        // SAFETY: the caller's contract; tasks have lines and channels of their own.
        unsafe {
            match step {
                1 => self::lines(w.tier, &work, range, block, Lines::<1>),
                2 => self::lines(w.tier, &work, range, block, Lines::<2>),
                _ => self::lines(w.tier, &work, range, block, Lines::<4>),
            }
        }
    };
    match tasks.len() {
        count if threads <= 1 => (0..count).for_each(task),
        count => pool.run(count, &task),
    }
    Ok(())
}

thread_local! {
    static CELLS: RefCell<Aligned> = RefCell::default();
}

/// Lines of the result that share a block.
trait Side: Copy {
    const COUNT: usize;
}

#[derive(Clone, Copy)]
struct Lines<const L: usize>;

impl<const L: usize> Side for Lines<L> {
    const COUNT: usize = L;
}

/// Most lines that share a block.
const MOST_LINES: usize = 4;

tiered! {
    /// # Safety
    /// As [`run`], for a range of lines of the output and one block of channels.
    unsafe fn lines<L: Side>(s: S; work: &Work, range: Range<usize>, block: usize, _side: L) {
        if S::WIDE && rolled::applies(work) {
            return rolled::lines::<S, L>(s, work, range, block);
        }
        for line in range.clone().step_by(L::COUNT) {
            self::line::<S, L>(s, work, (line, L::COUNT.min(range.end - line)), block);
        }
    }
}

/// # Safety
/// As [`run`], for `lines.1` lines from `lines.0` on and one block of channels.
#[inline(always)]
unsafe fn line<S: Simd, L: Side>(s: S, work: &Work, (line, live): (usize, usize), block: usize) {
    let call = work.call;
    let (w, window) = (call.weights, &call.window);
    let strip = strip_width(window);
    let held = (strip - 1) * window.stride[2] + (window.kernel[2] - 1) * window.dilation[2] + 1;
    let mut cells = CELLS.take();
    if cells.bytes() < held * w.quads * BLOCK * 4 {
        cells = Aligned::zeros(held * w.quads * BLOCK);
    }
    let width = window.output[2];
    let mut first = 0;
    while first < width {
        let count = strip.min(width - first);
        // SAFETY: the caller's contract; there is room for the cells of a strip.
        unsafe {
            gather::<S, L>(s, work, (line, live), block, first, count, cells.as_mut_slice().as_mut_ptr());
            let cells = cells.as_ptr();
            let mut i = 0;
            while i + PIXELS <= count {
                pixels::<S, L, PIXELS>(s, work, (line * width + first, i), live, block, cells);
                i += PIXELS;
            }
            while i < count {
                pixels::<S, L, 1>(s, work, (line * width + first, i), live, block, cells);
                i += 1;
            }
        }
        first += count;
    }
    CELLS.set(cells);
}

/// Output columns whose cells are kept at once.
fn strip_width(window: &Window) -> usize {
    let reach = (window.kernel[2] - 1) * window.dilation[2] + 1;
    let fits = COLUMNS.saturating_sub(reach) / window.stride[2] + 1;
    fits.min(window.output[2])
}

/// Base and step between pixels of an input row.
type Source = (*const u8, usize);

/// The four input rows of a cell for each line; rows of padding repeat one pixel.
#[inline(always)]
fn sources<L: Side>(
    work: &Work,
    (line, live_lines): (usize, usize),
    quad: usize,
    start: usize,
    pad: *const u8,
) -> [[Source; MOST_LINES]; 4] {
    let (call, w, window) = (work.call, work.call.weights, &work.call.window);
    let ([kd, kh, _], [_, height, width]) = (window.kernel, window.input);
    let mut rows = [[(pad, 0usize); MOST_LINES]; 4];
    for l in 0..L::COUNT {
        let (image, od, oh) = window.line(line + l.min(live_lines - 1));
        for (i, row) in rows.iter_mut().enumerate() {
            let tap = quad * 4 + i;
            if tap >= kd * kh {
                continue;
            }
            let source = (window.source(0, od, tap / kh), window.source(1, oh, tap % kh));
            if let (Some(d), Some(h)) = source {
                let line = ((image * window.input[0] + d) * height + h) * width;
                row[l] = (call.x.wrapping_add(line * w.channels + start), w.channels);
            }
        }
    }
    rows
}

/// The cells of one input column.
///
/// # Safety
/// `live` bytes can be read at that column of each row.
#[inline(always)]
unsafe fn cell<S: Simd, L: Side>(
    s: S,
    rows: &[[Source; MOST_LINES]; 4],
    column: usize,
    live: usize,
) -> [S::I; 4] {
    let mut at = [[std::ptr::null(); MOST_LINES]; 4];
    for i in 0..4 {
        for l in 0..L::COUNT {
            at[i][l] = rows[i][l].0.wrapping_add(column * rows[i][l].1);
        }
    }
    // SAFETY: the caller's contract.
    unsafe { cells_at::<S, L>(s, &at, live) }
}

/// The cells of what the four rows of each line have at their pointers.
///
/// # Safety
/// `live` bytes can be read at the pointers of the lines.
#[inline(always)]
unsafe fn cells_at<S: Simd, L: Side>(s: S, at: &[[*const u8; MOST_LINES]; 4], live: usize) -> [S::I; 4] {
    let [a, b, c, d] = at;
    // SAFETY: the caller's contract.
    unsafe {
        match L::COUNT {
            1 => s.interleave([a[0], b[0], c[0], d[0]], live),
            2 => s.interleave_parts::<2>([[a[0], a[1]], [b[0], b[1]], [c[0], c[1]], [d[0], d[1]]], live),
            _ => s.interleave_parts::<4>(*at, live),
        }
    }
}

/// Cells of the columns under output columns `first..first + count`: `[column][quad][64 cells]`.
///
/// # Safety
/// As [`run`]; `to` holds the cells.
#[inline(always)]
unsafe fn gather<S: Simd, L: Side>(
    s: S,
    work: &Work,
    (line, live_lines): (usize, usize),
    block: usize,
    first: usize,
    count: usize,
    to: *mut f32,
) {
    let call = work.call;
    let (w, window) = (call.weights, &call.window);
    let (columns, width) = (window.kernel[2], window.input[2]);
    let start = block * BLOCK;
    let live = BLOCK.min(w.channels - start);
    let pad = call.pad(start);
    // SAFETY: a block is longer than what lives of it.
    let none = unsafe { cells_at::<S, L>(s, &[[pad.as_ptr(); MOST_LINES]; 4], live) };
    let held = (count - 1) * window.stride[2] + (columns - 1) * window.dilation[2] + 1;
    let from = first * window.stride[2];
    for quad in 0..w.quads {
        let rows = sources::<L>(work, (line, live_lines), quad, start, pad.as_ptr());
        for c in 0..held {
            let at = (from + c).checked_sub(window.pad[2]).filter(|&c| c < width);
            // SAFETY: the caller's contract: a pixel of the input, of which live channels are read, or of the padding.
            unsafe {
                let cell = match at {
                    Some(column) => cell::<S, L>(s, &rows, column, live),
                    None => none,
                };
                let to = to.add((c * w.quads + quad) * BLOCK);
                for v in 0..4 {
                    s.store(to.add(v * LANES), s.of_bits(cell[v]));
                }
            }
        }
    }
}

/// `P` neighbouring pixels of a strip in `live` lines, the first at column `at.1`; result rows start at `at.0` for column 0.
///
/// # Safety
/// As [`run`]; `cells` were gathered for the strip.
#[inline(always)]
unsafe fn pixels<S: Simd, L: Side, const P: usize>(
    s: S,
    work: &Work,
    at: (usize, usize),
    live: usize,
    block: usize,
    cells: *const f32,
) {
    let call = work.call;
    let (w, window) = (call.weights, &call.window);
    let (columns, quads) = (window.kernel[2], w.quads);
    let size = quads * columns * BLOCK;
    // SAFETY: the caller's contract.
    unsafe {
        let start = block * BLOCK;
        let mut offset = [s.splat_i(0); 4];
        for v in 0..4 {
            offset[v] = s.load_i(work.offset.as_ptr().add(start + v * LANES));
        }
        let mut acc = dots::<S, P>(s, work, at.1, w.cells.as_ptr().add(block * size), cells, offset);
        if let Some(ones) = &w.ones {
            let none = [s.splat_i(0); 4];
            let sums = dots::<S, P>(s, work, at.1, ones.as_ptr().add(block * size), cells, none);
            for v in 0..4 {
                let zero = s.load_i(w.zero.as_ptr().add(start + v * LANES));
                for p in 0..P {
                    acc[p][v] = s.sub_i(acc[p][v], s.mul_i(zero, sums[p][v]));
                }
            }
        }
        finish::<S, L, P>(s, work, acc, (at.0 + at.1, live), start);
    }
}

/// Sums of `P` pixels from column `first` on with one block of weights, beginning at `start`.
///
/// # Safety
/// As [`pixels`].
#[inline(always)]
unsafe fn dots<S: Simd, const P: usize>(
    s: S,
    work: &Work,
    first: usize,
    mut weights: *const f32,
    cells: *const f32,
    start: [S::I; 4],
) -> [[S::I; 4]; P] {
    let (window, quads) = (&work.call.window, work.call.weights.quads);
    let mut acc = [start; P];
    for quad in 0..quads {
        for k in 0..window.kernel[2] {
            // SAFETY: the caller's contract.
            unsafe {
                let mut b = [s.splat_i(0); 4];
                for v in 0..4 {
                    b[v] = s.bits(s.load(weights.add(v * LANES)));
                }
                for p in 0..P {
                    let column = (first + p) * window.stride[2] + k * window.dilation[2];
                    let x = cells.add((column * quads + quad) * BLOCK);
                    for v in 0..4 {
                        acc[p][v] = s.dot(acc[p][v], s.bits(s.load(x.add(v * LANES))), b[v]);
                    }
                }
                weights = weights.add(BLOCK);
            }
        }
    }
    acc
}

/// # Safety
/// As [`run`]: `P` result rows from `row` on, in each of `lines` lines, channels from `start` on.
#[inline(always)]
unsafe fn finish<S: Simd, L: Side, const P: usize>(
    s: S,
    work: &Work,
    mut acc: [[S::I; 4]; P],
    (row, lines): (usize, usize),
    start: usize,
) {
    let call = work.call;
    let channels = call.weights.channels;
    let live = BLOCK.min(channels - start);
    let width = call.window.output[2];
    let rows: [usize; P] = std::array::from_fn(|p| row + p);
    let mut f = [[s.splat(0.0); 4]; P];
    // SAFETY: the caller's contract; corrections have whole blocks.
    unsafe {
        if let Store::Codes(codes) = work.store {
            let columns = (work.scale.as_ptr().add(start), work.addend.as_ptr().add(start));
            codes.whole(s, &mut acc, columns);
            for p in 0..P {
                let y = call.y.cast::<u8>().wrapping_add(rows[p] * channels + start);
                match L::COUNT {
                    1 => s.store_codes_interleaved(y, acc[p], codes, live),
                    _ => s.store_codes_parts(y, width * channels, acc[p], codes, (L::COUNT, lines), live),
                }
            }
            return;
        }
        for v in 0..4 {
            let scale = s.load(work.scale.as_ptr().add(start + v * LANES));
            for p in 0..P {
                f[p][v] = s.mul(s.to_f(acc[p][v]), scale);
            }
        }
        if L::COUNT == 1
            && let (true, Store::Bytes { scale, zero, low, high }) = (work.direct, call.store)
        {
            let place = Place { out: rows.as_ptr(), live_rows: P, live_cols: BLOCK, col: start };
            work.ordered.sums(s, &mut f, &place);
            let q = Quantizer::new(s, scale, zero, low, high);
            for p in 0..P {
                let y = call.y.cast::<u8>().wrapping_add(rows[p] * channels + start);
                let mut bytes = [s.splat_i(0); 4];
                for v in 0..4 {
                    bytes[v] = q.of(s, f[p][v]);
                }
                s.store_interleaved(y, bytes, live);
            }
            return;
        }
        for p in 0..P {
            if call.store == Store::Sums {
                for v in 0..4 {
                    f[p][v] = s.of_bits(acc[p][v]);
                }
            }
            f[p] = s.quarters(f[p]);
        }
        for l in 0..L::COUNT.min(lines) {
            let mut part = f;
            if L::COUNT > 1 {
                // The first vectors hold the line's channels; what follows is not stored.
                let vectors = 4 / L::COUNT;
                for p in 0..P {
                    for v in 0..vectors {
                        part[p][v] = f[p][l * vectors + v];
                    }
                }
            }
            rest::<S, P>(s, work, part, rows.map(|r| r + l * width), start, live);
        }
    }
}

/// The epilogue and storing of `P` result rows with their channels in order.
///
/// # Safety
/// As [`finish`].
#[inline(always)]
unsafe fn rest<S: Simd, const P: usize>(
    s: S,
    work: &Work,
    mut f: [[S::F; 4]; P],
    rows: [usize; P],
    start: usize,
    live: usize,
) {
    let call = work.call;
    let channels = call.weights.channels;
    let place = Place { out: rows.as_ptr(), live_rows: P, live_cols: live, col: start };
    // SAFETY: the caller's contract.
    unsafe {
        if call.store != Store::Sums {
            work.finish.sums(s, &mut f, &place);
        }
        if let (Some(act), Store::Float) = (work.last, call.store) {
            for row in &mut f {
                *row = costly(s, act, *row);
            }
        }
        match call.store {
            Store::Bytes { .. } => Integers::bytes(s, call.store, &f, call.y.cast(), channels, &place),
            _ => {
                let y = call.y.wrapping_add(start);
                store_rows(s, &f, y, channels, &place);
                if work.last.is_none() && work.finish.is_late() && call.store == Store::Float {
                    for &row in &rows {
                        let part = std::slice::from_raw_parts_mut(y.add(row * channels), live);
                        work.finish.late(part, row, start);
                    }
                }
            }
        }
    }
}
