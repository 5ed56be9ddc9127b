//! kernel: convolution with fewer products, after Winograd, channels-last: F(4×4, 3×3), F(2×2, 3×3), F(2×2, 5×5) over
//! planes, F(4, 3) and F(2, 5) along lines.
//!
//! A tile of 4×4 outputs comes from 6×6 inputs by 36 products for each pair of channels instead of 144. Tiles are
//! transformed in blocks, each of the 36 elements of a tile is one matrix product over channels, and the way back ends
//! in the epilogue. Interpolation points are 0, ±1/√2, ±√2 and ∞, with which the largest error stays within three times
//! that of the plain sum on layers of 128 channels; after Lavin and Gray, Fast Algorithms for Convolutional Neural
//! Networks (2016), and Barabasz et al., Error Analysis and Improving the Accuracy of Winograd Convolution (2020).

use crate::Tier;
use crate::conv_shape::{ConvShape, Window};
use crate::epilogue::{Epilogue, Finish};
use crate::indirect::{self, Job};
use crate::matrix_rows::MatrixRows;
use crate::pack::{Aligned, PackedRef, Panels};
use crate::parallel::{Pool, Serial};
use crate::partition::ranges;
use crate::scratch;
use crate::simd::{LANES, Simd, tiered};
use crate::tile::{Place, store_rows};
use std::ops::Range;

/// Bytes of transformed weights up to which 4×4 outputs are taken together; they take four times the room of plain ones.
const MOST_BYTES: usize = 6 << 20;
/// The same for 2×2 outputs, which take less than twice the room.
const MOST_BYTES_OF_TWO: usize = 16 << 20;
/// Bytes of weights that the last cache keeps from one run to the next; what is beyond comes from memory.
const KEPT_BYTES: usize = 6 << 20;
/// Bytes of transformed inputs and sums of a block that the second-level cache keeps.
const BLOCK_BYTES: usize = 640 << 10;
/// Tiles of a block: whole register tiles, few enough for their pointers and scratch.
const BLOCK_TILES: std::ops::RangeInclusive<usize> = 24..=240;
/// Elements of the largest tile of inputs.
const MOST: usize = 36;
/// What the plain form must cost, in hundredths, for this one to be taken.
const GAIN: usize = 118;

/// The tile: how many outputs are taken together, and of which window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    /// 2×2 outputs of a window of 3×3.
    Two,
    /// 4×4 outputs of a window of 3×3.
    Four,
    /// 2×2 outputs of a window of 5×5.
    TwoOfFive,
    /// 4 outputs of a window of 3 along W.
    Line,
    /// 2 outputs of a window of 5 along W.
    LineOfFive,
}

impl Side {
    pub(crate) const ALL: [Side; 5] = [Side::Four, Side::Two, Side::TwoOfFive, Side::Line, Side::LineOfFive];

    /// Outputs of a tile along H and W.
    fn outputs(self) -> [usize; 2] {
        match self {
            Side::Two | Side::TwoOfFive => [2, 2],
            Side::Four => [4, 4],
            Side::Line => [1, 4],
            Side::LineOfFive => [1, 2],
        }
    }

    /// The window along H and W.
    fn window(self) -> [usize; 2] {
        match self {
            Side::Two | Side::Four => [3, 3],
            Side::TwoOfFive => [5, 5],
            Side::Line => [1, 3],
            Side::LineOfFive => [1, 5],
        }
    }

    /// Inputs of a tile along H and W.
    fn inputs(self) -> [usize; 2] {
        let (m, r) = (self.outputs(), self.window());
        [m[0] + r[0] - 1, m[1] + r[1] - 1]
    }

    /// Products of a tile for each pair of channels.
    fn elements(self) -> usize {
        self.inputs()[0] * self.inputs()[1]
    }

    /// Whether it makes this convolution: planes, steps of 1, one group.
    pub(crate) fn takes(self, shape: &ConvShape) -> bool {
        shape.kernel == [1, self.window()[0], self.window()[1]]
            && shape.stride == [1, 1, 1]
            && shape.groups == 1
            && shape.dilation.into_iter().skip(1).all(|d| (1..=8).contains(&d))
            && shape.pad_begin[0] == 0
            && shape.pad_end[0] == 0
    }

    fn tiles(self, shape: &ConvShape, output: [usize; 3]) -> usize {
        let along = |axis: usize| {
            let d = shape.dilation[axis];
            (0..d)
                .map(|phase| phase_len(output[axis], d, phase).div_ceil(self.outputs()[axis - 1]))
                .sum::<usize>()
        };
        shape.batch.saturating_mul(output[0]).saturating_mul(along(1)).saturating_mul(along(2))
    }

    /// About the cycles of a convolution: products of 16 lanes, transforms, and weights that leave the cache.
    fn cost(self, shape: &ConvShape, output: [usize; 3]) -> usize {
        let (c, k) = (shape.cin.div_ceil(LANES), shape.cout.div_ceil(LANES));
        let tiles = self.tiles(shape, output);
        let (into, out) = match self {
            Side::Two => (100, 80),
            Side::Four => (280, 220),
            Side::TwoOfFive => (280, 130),
            Side::Line | Side::LineOfFive => (30, 25),
        };
        let products = tiles.saturating_mul(self.elements() * shape.cin * k);
        let transforms = tiles.saturating_mul(into * c + out * k);
        let bytes = self.bytes(shape);
        let blocks = tiles.div_ceil(self.block(shape));
        let stream = if bytes > 512 << 10 { blocks.saturating_mul(bytes / 24) } else { 0 };
        let stream = stream.saturating_add(bytes.saturating_sub(KEPT_BYTES) / 2);
        (products / 9 * 10).saturating_add(transforms).saturating_add(stream)
    }

    /// Bytes of transformed weights.
    fn bytes(self, shape: &ConvShape) -> usize {
        let row = shape.cout.next_multiple_of(LANES) * size_of::<f32>();
        row.saturating_mul(self.elements()).saturating_mul(shape.cin)
    }

    fn most_bytes(self) -> usize {
        if self == Side::Two { MOST_BYTES_OF_TWO } else { MOST_BYTES }
    }

    /// Tiles of a block: as many as the cache holds, and enough to make reading all weights once worth it.
    fn block(self, shape: &ConvShape) -> usize {
        let (c, k) = (shape.cin.next_multiple_of(LANES), shape.cout.next_multiple_of(LANES));
        let fits = BLOCK_BYTES / (self.elements() * (c + k) * size_of::<f32>());
        let worth = c * k / (2 * (c + k));
        fits.max(worth).clamp(*BLOCK_TILES.start(), *BLOCK_TILES.end()) / 12 * 12
    }
}

/// Positions `phase`, `phase + d`, … below `n`.
fn phase_len(n: usize, d: usize, phase: usize) -> usize {
    n.saturating_sub(phase).div_ceil(d)
}

/// The tile that makes this convolution cheaper than its plain form, if one does.
pub(crate) fn side(shape: &ConvShape) -> Option<Side> {
    let output = shape.output().ok()?;
    let small = [shape.cin, shape.cout].into_iter().all(|n| (8..=1 << 14).contains(&n));
    if !small || output.contains(&0) {
        return None;
    }
    let pixels = output.iter().fold(shape.batch, |n, &m| n.saturating_mul(m));
    let taps = shape.kernel.iter().fold(1usize, |n, &k| n.saturating_mul(k));
    let direct =
        pixels.saturating_mul(taps.saturating_mul(shape.cin * shape.cout.div_ceil(LANES))) / 94 * 100;
    // Only where windows are wide does the plain form leave out most of the padding: its tiles are many pixels.
    let direct = match shape.dilation {
        [1, 1, 1] => direct,
        _ => (direct as f64 * shape.window().ok()?.share()) as usize,
    };
    let sides = Side::ALL.into_iter().filter(|s| s.takes(shape) && s.bytes(shape) <= s.most_bytes());
    let best = sides.min_by_key(|s| s.cost(shape, output))?;
    (best.cost(shape, output).saturating_mul(GAIN) / 100 < direct).then_some(best)
}

/// Transformed weights: one packed operand of `cin × cout` for each element of a tile.
#[derive(Clone)]
pub(crate) struct PackedWinograd {
    tier: Tier,
    side: Side,
    cin: usize,
    panels: Panels,
    data: Aligned,
}

crate::variants! { Side { 0 = Four, 1 = Two, 2 = TwoOfFive, 3 = Line, 4 = LineOfFive } }

crate::fields! { PackedWinograd { tier, side, cin, panels, data } }

impl PackedWinograd {
    /// Transforms weights of shape `[cout, cin, window…]`; `None` where they are not finite, as differences of infinite
    /// numbers are not numbers.
    pub(crate) fn new(tier: Tier, side: Side, weights: &[[u8; 4]], cout: usize, cin: usize) -> Option<Self> {
        let taps = side.window()[0] * side.window()[1];
        let len = cout.checked_mul(cin)?.checked_mul(taps)?;
        if weights.len() != len || weights.iter().any(|w| !f32::from_ne_bytes(*w).is_finite()) {
            return None;
        }
        let tier = tier.usable();
        let panels = Panels::of(tier, cout);
        let part = panels.len(cin);
        let mut data = Aligned::zeros(side.elements() * part);
        for index in 0..panels.count() {
            let panel = panels.get(index);
            let width = panel.width * LANES;
            for v in (0..width).step_by(LANES) {
                let live = cout.saturating_sub(panel.col + v).min(LANES);
                for row in 0..cin {
                    let at = panel.col * cin + row * width + v;
                    let from = &weights[((panel.col + v).min(cout) * cin + row * live.min(1)) * taps..];
                    let to = data.as_mut_slice()[at..].as_mut_ptr();
                    let w = Taps { from, step: cin * taps, live };
                    // SAFETY: `to` holds a vector for each element, `part` apart.
                    unsafe {
                        match side {
                            Side::Four => transform(tier, Four, &w, to, part),
                            Side::Two => transform(tier, Two, &w, to, part),
                            Side::TwoOfFive => transform(tier, TwoOfFive, &w, to, part),
                            Side::Line => transform(tier, Line, &w, to, part),
                            Side::LineOfFive => transform(tier, LineOfFive, &w, to, part),
                        }
                    }
                }
            }
        }
        Some(PackedWinograd { tier, side, cin, panels, data })
    }

    /// Whether the weights are those of this kind of convolution.
    pub(crate) fn takes(&self, shape: &ConvShape) -> bool {
        self.side.takes(shape)
    }

    pub(crate) fn bytes(&self) -> usize {
        self.data.bytes()
    }

    fn part(&self, element: usize) -> PackedRef {
        let data = self.data.as_ptr().wrapping_add(element * self.panels.len(self.cin));
        PackedRef { data, rows: self.cin, panels: self.panels, cells: crate::pack::Cells::One }
    }
}

/// The windows of up to 16 output channels for one input channel.
struct Taps<'a> {
    from: &'a [[u8; 4]],
    step: usize,
    live: usize,
}

impl Taps<'_> {
    /// Element `t` of the window, of each channel.
    #[inline(always)]
    fn get(&self, t: usize) -> [f32; LANES] {
        let mut g = [0.0; LANES];
        for (lane, g) in g.iter_mut().enumerate().take(self.live) {
            *g = f32::from_ne_bytes(self.from[lane * self.step + t]);
        }
        g
    }
}

/// The linear maps of one tile along one side, on columns of vectors; what a map does not need is not read or written.
trait Maps {
    const TAPS: usize;
    const IN: usize;
    const OUT: usize;
    /// Along H as along W; else a tile is a piece of a line.
    const SQUARE: bool;
    /// Inputs, outputs and window along H.
    const HIGH: [usize; 3] = if Self::SQUARE { [Self::IN, Self::OUT, Self::TAPS] } else { [1, 1, 1] };

    fn weights<S: Simd>(s: S, g: &[S::F; 5], to: &mut [S::F; 6]);
    fn input<S: Simd>(s: S, d: &[S::F; 6], to: &mut [S::F; 6]);
    fn output<S: Simd>(s: S, m: &[S::F; 6], to: &mut [S::F; 4]);
}

const ROOT: f32 = std::f32::consts::SQRT_2;
const HALF_ROOT: f32 = std::f32::consts::FRAC_1_SQRT_2;

/// `even + odd` and `even - odd`.
#[inline(always)]
fn both<S: Simd>(s: S, even: S::F, odd: S::F) -> (S::F, S::F) {
    (s.add(even, odd), s.sub(even, odd))
}

/// The inputs at the six points.
#[inline(always)]
fn six_inputs<S: Simd>(s: S, d: &[S::F; 6], to: &mut [S::F; 6]) {
    let (two, half, two_and_half) = (s.splat(2.0), s.splat(0.5), s.splat(2.5));
    let (root, half_root) = (s.splat(ROOT), s.splat(HALF_ROOT));
    to[0] = s.fnma(two_and_half, d[2], s.add(d[0], d[4]));
    let odd = s.fnma(root, d[1], s.mul(half_root, d[3]));
    (to[1], to[2]) = both(s, s.fnma(two, d[2], d[4]), odd);
    let odd = s.fnma(half_root, d[1], s.mul(root, d[3]));
    (to[3], to[4]) = both(s, s.fnma(half, d[2], d[4]), odd);
    to[5] = s.fnma(two_and_half, d[3], s.add(d[1], d[5]));
}

/// The window at the points `±√square`, times `factor`.
#[inline(always)]
fn weights_at<S: Simd>(s: S, g: &[S::F; 5], taps: usize, square: f32, factor: f32) -> (S::F, S::F) {
    let point = square.sqrt();
    let mut even = s.mul(s.splat(factor), g[0]);
    let mut odd = s.mul(s.splat(factor * point), g[1]);
    even = s.fma(s.splat(factor * square), g[2], even);
    if taps == 5 {
        odd = s.fma(s.splat(factor * point * square), g[3], odd);
        even = s.fma(s.splat(factor * square * square), g[4], even);
    }
    both(s, even, odd)
}

/// The window at the six points, each with its factor.
#[inline(always)]
fn six_weights<S: Simd>(s: S, g: &[S::F; 5], taps: usize, to: &mut [S::F; 6]) {
    to[0] = g[0];
    (to[1], to[2]) = weights_at(s, g, taps, 0.5, -2.0 / 3.0);
    (to[3], to[4]) = weights_at(s, g, taps, 2.0, 1.0 / 6.0);
    to[5] = g[taps - 1];
}

#[inline(always)]
fn four_outputs<S: Simd>(s: S, m: &[S::F; 6], to: &mut [S::F; 4]) {
    let ((near, near_odd), (far, far_odd)) = (both(s, m[1], m[2]), both(s, m[3], m[4]));
    to[0] = s.add(m[0], s.add(near, far));
    to[1] = s.fma(s.splat(HALF_ROOT), near_odd, s.mul(s.splat(ROOT), far_odd));
    to[2] = s.fma(s.splat(0.5), near, s.mul(s.splat(2.0), far));
    let cubes = s.fma(s.splat(2.0 * ROOT), far_odd, m[5]);
    to[3] = s.fma(s.splat(HALF_ROOT / 2.0), near_odd, cubes);
}

#[inline(always)]
fn two_outputs<S: Simd>(s: S, m: &[S::F; 6], to: &mut [S::F; 4]) {
    let ((near, near_odd), (far, far_odd)) = (both(s, m[1], m[2]), both(s, m[3], m[4]));
    to[0] = s.add(m[0], s.add(near, far));
    to[1] = s.fma(s.splat(HALF_ROOT), near_odd, s.fma(s.splat(ROOT), far_odd, m[5]));
}

/// Tiles over six points: window, outputs, whether over planes, and the way back.
macro_rules! six {
    ($name:ident, $taps:literal, $out:literal, $square:literal, $output:ident) => {
        struct $name;

        impl Maps for $name {
            const TAPS: usize = $taps;
            const IN: usize = 6;
            const OUT: usize = $out;
            const SQUARE: bool = $square;

            #[inline(always)]
            fn weights<S: Simd>(s: S, g: &[S::F; 5], to: &mut [S::F; 6]) {
                six_weights(s, g, $taps, to);
            }
            #[inline(always)]
            fn input<S: Simd>(s: S, d: &[S::F; 6], to: &mut [S::F; 6]) {
                six_inputs(s, d, to);
            }
            #[inline(always)]
            fn output<S: Simd>(s: S, m: &[S::F; 6], to: &mut [S::F; 4]) {
                $output(s, m, to);
            }
        }
    };
}
six!(Four, 3, 4, true, four_outputs);
six!(TwoOfFive, 5, 2, true, two_outputs);
six!(Line, 3, 4, false, four_outputs);
six!(LineOfFive, 5, 2, false, two_outputs);

/// Over the points 0, ±1 and ∞.
struct Two;

impl Maps for Two {
    const TAPS: usize = 3;
    const IN: usize = 4;
    const OUT: usize = 2;
    const SQUARE: bool = true;

    #[inline(always)]
    fn weights<S: Simd>(s: S, g: &[S::F; 5], to: &mut [S::F; 6]) {
        let half = s.splat(0.5);
        (to[0], to[3]) = (g[0], g[2]);
        (to[1], to[2]) = both(s, s.mul(half, s.add(g[0], g[2])), s.mul(half, g[1]));
    }

    #[inline(always)]
    fn input<S: Simd>(s: S, d: &[S::F; 6], to: &mut [S::F; 6]) {
        (to[0], to[1]) = (s.sub(d[0], d[2]), s.add(d[1], d[2]));
        (to[2], to[3]) = (s.sub(d[2], d[1]), s.sub(d[3], d[1]));
    }

    #[inline(always)]
    fn output<S: Simd>(s: S, m: &[S::F; 6], to: &mut [S::F; 4]) {
        to[0] = s.add(m[0], s.add(m[1], m[2]));
        to[1] = s.add(s.sub(m[1], m[2]), m[3]);
    }
}

tiered! {
    /// # Safety
    /// `to` holds a vector for each element of a tile, `part` apart.
    unsafe fn transform<T: Maps>(s: S; _maps: T, w: &Taps, to: *mut f32, part: usize) {
        let [high, _, window] = T::HIGH;
        let zero = s.splat(0.0);
        let mut columns = [[zero; 6]; 5];
        for j in 0..T::TAPS {
            let mut g = [zero; 5];
            for i in 0..window {
                g[i] = s.load(w.get(i * T::TAPS + j).as_ptr());
            }
            if T::SQUARE {
                T::weights(s, &g, &mut columns[j]);
            } else {
                columns[j][0] = g[0];
            }
        }
        for i in 0..high {
            let (mut g, mut row) = ([zero; 5], [zero; 6]);
            for j in 0..T::TAPS {
                g[j] = columns[j][i];
            }
            T::weights(s, &g, &mut row);
            for j in 0..T::IN {
                s.store(to.add((i * T::IN + j) * part), row[j]);
            }
        }
    }
}

/// One convolution with checked operands.
pub(crate) struct Call<'a> {
    pub shape: &'a ConvShape,
    pub window: Window,
    pub x: *const f32,
    pub x_step: usize,
    pub weights: &'a PackedWinograd,
    pub y: *mut f32,
    pub y_step: usize,
    pub finish: &'a Finish,
}

// SAFETY: tasks write disjoint tiles of `y`; everything else is read.
unsafe impl Sync for Call<'_> {}

/// A tile by the outputs it makes.
struct Spot {
    /// Image and plane.
    plane: usize,
    /// Its first output, and the outputs of each side that exist.
    row: usize,
    column: usize,
    rows: usize,
    columns: usize,
}

/// How tiles are numbered: planes, then along each side the phases of the dilation and the tiles of each.
struct Grid {
    /// Along H and W: outputs of a tile, outputs in all, and their dilation.
    sides: [(usize, usize, usize); 2],
    /// Tiles of each phase along each side.
    along: [Vec<usize>; 2],
    /// Tiles of a plane along each side.
    total: [usize; 2],
}

impl Grid {
    fn new(side: Side, window: &Window) -> Grid {
        let sides = [0, 1].map(|i| (side.outputs()[i], window.output[i + 1], window.dilation[i + 1]));
        let along =
            sides.map(|(m, n, d)| (0..d).map(|phase| phase_len(n, d, phase).div_ceil(m)).collect::<Vec<_>>());
        let total = [along[0].iter().sum(), along[1].iter().sum()];
        Grid { sides, along, total }
    }

    /// The first output of tile `i` along a side, and how many it has.
    fn line(&self, side: usize, mut i: usize) -> (usize, usize) {
        let (m, n, d) = self.sides[side];
        for (phase, &tiles) in self.along[side].iter().enumerate() {
            if i < tiles {
                return (phase + i * m * d, (phase_len(n, d, phase) - i * m).min(m));
            }
            i -= tiles;
        }
        (0, 0)
    }

    fn spot(&self, tile: usize) -> Spot {
        let (line, i) = (tile / self.total[1], tile % self.total[1]);
        let (row, rows) = self.line(0, line % self.total[0]);
        let (column, columns) = self.line(1, i);
        Spot { plane: line / self.total[0], row, column, rows, columns }
    }
}

/// # Safety
/// `x` and `y` hold the pixels of the window's input and output, `finish` was made for those of the output.
pub(crate) unsafe fn run(pool: &dyn Pool, call: &Call) {
    let side = call.weights.side;
    let grid = Grid::new(side, &call.window);
    let tiles = side.tiles(call.shape, call.window.output);
    if tiles == 0 {
        return;
    }
    let threads = pool.threads().max(1);
    let most = side.block(call.shape);
    let shared = if threads == 1 { most } else { tiles.div_ceil(2 * threads).next_multiple_of(12) };
    let blocks = tiles.div_ceil(most.min(shared.max(*BLOCK_TILES.start())));
    let size = tiles.div_ceil(blocks);
    let blocks = tiles.div_ceil(size);
    let alone = threads > 1 && blocks >= threads;
    let task = |i: usize| {
        let part = Part { call, grid: &grid, tiles: i * size..tiles.min((i + 1) * size) };
        // SAFETY: the caller's contract; blocks have tiles of their own.
        unsafe { part.run(if alone { &Serial } else { pool }) };
    };
    if alone { pool.run(blocks, &task) } else { (0..blocks).for_each(task) }
}

/// Elements from one element of a block's tiles to the next, `tiles` rows of `step`: a line more, so that those of one
/// tile do not fall on few sets of the cache.
fn part(tiles: usize, step: usize) -> usize {
    tiles * step + LANES
}

/// A block of tiles.
struct Part<'a> {
    call: &'a Call<'a>,
    grid: &'a Grid,
    tiles: Range<usize>,
}

/// The transformed inputs and the sums of a block: for each element of a tile, a row for each tile.
#[derive(Clone, Copy)]
struct Room {
    inputs: *mut f32,
    sums: *mut f32,
}

// SAFETY: tasks write rows or elements of their own.
unsafe impl Sync for Room {}

impl Part<'_> {
    /// # Safety
    /// As [`run`], for these tiles.
    unsafe fn run(&self, pool: &dyn Pool) {
        let (w, shape) = (self.call.weights, self.call.shape);
        let (c, k) = (shape.cin.next_multiple_of(LANES), shape.cout.next_multiple_of(LANES));
        let (count, elements) = (self.tiles.len(), w.side.elements());
        let sums = elements * part(count, c);
        scratch::with(c + sums + elements * part(count, k), |room| {
            let (zeros, room) = room.split_at_mut(c);
            zeros.fill(0.0);
            let zeros = Zeros(zeros.as_ptr());
            let (inputs, sums) = room.split_at_mut(sums);
            let room = Room { inputs: inputs.as_mut_ptr(), sums: sums.as_mut_ptr() };
            let grain = |cost: usize| (1 << 15) / cost.max(1) + 1;
            // SAFETY: the caller's contract; each step writes what the next reads, in rows or elements of its own.
            unsafe {
                ranges(pool, count, grain(c * elements), &|tiles| self.input(&zeros, room, c, tiles));
                ranges(pool, elements, grain(count * c * k / LANES), &|elements| {
                    elements.for_each(|e| self.product(room, e, c, k));
                });
                ranges(pool, count, grain(k * elements), &|tiles| self.output(room, k, tiles));
            }
        });
    }

    /// # Safety
    /// As [`run`]; the room holds the block.
    unsafe fn input(&self, zeros: &Zeros, room: Room, step: usize, tiles: Range<usize>) {
        let (call, w, [high, wide]) = (self.call, &self.call.window, self.call.weights.side.inputs());
        let count = self.tiles.len();
        for t in tiles {
            let spot = self.grid.spot(self.tiles.start + t);
            let mut pixels = [zeros.0; MOST];
            for i in 0..high {
                let Some(h) = source(w, 1, spot.row, i) else { continue };
                let line = (spot.plane * w.input[1] + h) * w.input[2];
                for j in 0..wide {
                    if let Some(v) = source(w, 2, spot.column, j) {
                        pixels[i * wide + j] = call.x.wrapping_add((line + v) * call.x_step);
                    }
                }
            }
            let to = room.inputs.wrapping_add(t * step);
            let (tier, n, part) = (call.weights.tier, call.shape.cin, part(count, step));
            // SAFETY: pixels of the input or zeros; a row for each element.
            unsafe {
                match call.weights.side {
                    Side::Four => input(tier, Four, &pixels, n, to, part),
                    Side::Two => input(tier, Two, &pixels, n, to, part),
                    Side::TwoOfFive => input(tier, TwoOfFive, &pixels, n, to, part),
                    Side::Line => input(tier, Line, &pixels, n, to, part),
                    Side::LineOfFive => input(tier, LineOfFive, &pixels, n, to, part),
                }
            }
        }
    }

    /// # Safety
    /// As [`run`]; the room holds the block.
    unsafe fn product(&self, room: Room, element: usize, c: usize, k: usize) {
        let (w, count) = (self.call.weights, self.tiles.len());
        let a = room.inputs.wrapping_add(element * part(count, c));
        let plain = Epilogue::default();
        let Ok(finish) = plain.finish(1.0, count, w.panels.cols) else { return };
        let job = Job {
            tier: w.tier,
            rows: &MatrixRows { a: a.cast_const().cast(), step: c * size_of::<f32>() },
            count,
            taps: 1,
            depth: w.cin,
            skips: false,
            row_bytes: c * size_of::<f32>(),
            b: w.part(element),
            c: room.sums.wrapping_add(element * part(count, k)),
            c_step: k,
            finish: &finish,
            integers: None,
            quantized: None,
        };
        // SAFETY: rows of inputs and sums lie in the room.
        unsafe { indirect::block(&job, 0, count, 0..w.panels.count()) };
    }

    /// # Safety
    /// As [`run`]; the room holds the block.
    unsafe fn output(&self, room: Room, step: usize, tiles: Range<usize>) {
        let count = self.tiles.len();
        let (call, w) = (self.call, &self.call.window);
        let [_, dh, dw] = w.dilation;
        for t in tiles {
            let spot = self.grid.spot(self.tiles.start + t);
            let pixel = |i: usize, j: usize| {
                (spot.plane * w.output[1] + spot.row + i * dh) * w.output[2] + spot.column + j * dw
            };
            let mut out = [[0; 4]; 4];
            for i in 0..spot.rows {
                for j in 0..4 {
                    out[i][j] = pixel(i, j.min(spot.columns - 1));
                }
            }
            let to = Outputs { out, rows: spot.rows, columns: spot.columns, call };
            let from = room.sums.wrapping_add(t * step).cast_const();
            // SAFETY: the sums of a tile; the outputs exist.
            unsafe {
                let (tier, part) = (call.weights.tier, part(count, step));
                match call.weights.side {
                    Side::Four => output(tier, Four, &to, from, part),
                    Side::Two => output(tier, Two, &to, from, part),
                    Side::TwoOfFive => output(tier, TwoOfFive, &to, from, part),
                    Side::Line => output(tier, Line, &to, from, part),
                    Side::LineOfFive => output(tier, LineOfFive, &to, from, part),
                }
                if call.finish.is_late() {
                    for pixel in (0..spot.rows).flat_map(|i| out[i].into_iter().take(spot.columns)) {
                        let y = call.y.add(pixel * call.y_step);
                        call.finish.late(std::slice::from_raw_parts_mut(y, call.shape.cout), pixel, 0);
                    }
                }
            }
        }
    }
}

/// Zeros in place of pixels outside the input.
struct Zeros(*const f32);
// SAFETY: only read.
unsafe impl Sync for Zeros {}

/// The input position under element `i` of the tile whose first output is `o`.
fn source(w: &Window, axis: usize, o: usize, i: usize) -> Option<usize> {
    (o + i * w.dilation[axis]).checked_sub(w.pad[axis]).filter(|&at| at < w.input[axis])
}

struct Outputs<'a> {
    out: [[usize; 4]; 4],
    rows: usize,
    columns: usize,
    call: &'a Call<'a>,
}

tiered! {
    /// # Safety
    /// Every pixel holds `channels` elements, `to` as many, in whole vectors, for each element of a tile, `part` apart.
    unsafe fn input<T: Maps>(s: S; _maps: T, pixels: &[*const f32; MOST], channels: usize, to: *mut f32, part: usize) {
        let high = T::HIGH[0];
        let zero = s.splat(0.0);
        let mut c = 0;
        while c < channels {
            let mut middle = [[zero; 6]; 6];
            for j in 0..T::IN {
                let (mut d, mut column) = ([zero; 6], [zero; 6]);
                for i in 0..high {
                    d[i] = s.load_up_to(pixels[i * T::IN + j].add(c), channels - c);
                }
                if T::SQUARE {
                    T::input(s, &d, &mut column);
                } else {
                    column[0] = d[0];
                }
                for i in 0..high {
                    middle[i][j] = column[i];
                }
            }
            for i in 0..high {
                let mut row = [zero; 6];
                T::input(s, &middle[i], &mut row);
                for j in 0..T::IN {
                    s.store(to.add((i * T::IN + j) * part + c), row[j]);
                }
            }
            c += LANES;
        }
    }
}

tiered! {
    /// # Safety
    /// `from` holds the sums of a tile, `part` apart; the outputs are pixels of the result.
    unsafe fn output<T: Maps>(s: S; _maps: T, to: &Outputs, from: *const f32, part: usize) {
        let (zero, call) = (s.splat(0.0), to.call);
        let [high, out, _] = T::HIGH;
        let cout = call.shape.cout;
        let mut k = 0;
        while k < cout {
            let mut middle = [[zero; 6]; 4];
            for j in 0..T::IN {
                let (mut m, mut column) = ([zero; 6], [zero; 4]);
                for i in 0..high {
                    m[i] = s.load(from.add((i * T::IN + j) * part + k));
                }
                if T::SQUARE {
                    T::output(s, &m, &mut column);
                } else {
                    column[0] = m[0];
                }
                for i in 0..out {
                    middle[i][j] = column[i];
                }
            }
            for i in 0..out {
                if i >= to.rows {
                    break;
                }
                let mut row = [zero; 4];
                T::output(s, &middle[i], &mut row);
                let place = Place {
                    out: to.out[i].as_ptr(),
                    live_rows: to.columns,
                    live_cols: LANES.min(cout - k),
                    col: k,
                };
                let y = call.y.add(k);
                if T::OUT == 4 {
                    let mut acc = [[row[0]], [row[1]], [row[2]], [row[3]]];
                    call.finish.sums(s, &mut acc, &place);
                    store_rows(s, &acc, y, call.y_step, &place);
                } else {
                    let mut acc = [[row[0]], [row[1]]];
                    call.finish.sums(s, &mut acc, &place);
                    store_rows(s, &acc, y, call.y_step, &place);
                }
            }
            k += LANES;
        }
    }
}
