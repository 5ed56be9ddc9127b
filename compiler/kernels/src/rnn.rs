//! The recurrent half of LSTM, GRU and RNN: `h·R` for packed `R`, gates and activations fused, step after step.
//!
//! The input half, `x·Wᵀ` with all biases added, is a plain matrix product over the whole sequence and is the
//! caller's. Gate orders, equations and options are those of the ONNX operators.

mod bytes;
mod cell;
#[cfg(test)]
mod tests;

pub use bytes::{pack_gates, recur_bytes, recur_bytes_on};
pub use cell::Gate;

use crate::dispatch::Tier;
use crate::error::{Error, product, same_length};
use crate::pack::{Aligned, turn};
use crate::parallel::Pool;
use crate::partition::{Parts, ranges};
use crate::scratch;
use crate::simd::LANES;
use cell::Rows;
use std::ops::Range;

/// Which recurrence, and so how many gates in which order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Gates i, o, f, c.
    Lstm,
    /// Gates z, r, h.
    Gru { linear_before_reset: bool },
    /// One gate.
    Rnn,
}

impl Kind {
    /// Rows of `R` and of the input projection, in units of the hidden size.
    pub fn gates(self) -> usize {
        match self {
            Kind::Lstm => 4,
            Kind::Gru { .. } => 3,
            Kind::Rnn => 1,
        }
    }

    /// Whether input projections of this kind come block by block ([`Projected::by_blocks`]): what a block of units starts
    /// with then lies together, as it is made by one panel of the projection's weights.
    pub fn projects_by_blocks(self, hidden: usize) -> bool {
        self == Kind::Lstm && hidden.is_multiple_of(LANES)
    }

    /// The row of the input weights, and the element of the biases, that makes element `i` of a projection.
    pub fn projected_from(self, hidden: usize, i: usize) -> usize {
        if !self.projects_by_blocks(hidden) {
            return i;
        }
        let block = self.gates() * LANES;
        i % block / LANES * hidden + i / block * LANES + i % LANES
    }

    /// Gates that are computed together, by their first and count.
    fn passes(self) -> &'static [(usize, usize)] {
        match self {
            Kind::Lstm => &[(0, 4)],
            Kind::Gru { linear_before_reset: true } => &[(0, 3)],
            Kind::Gru { linear_before_reset: false } => &[(0, 2), (2, 1)],
            Kind::Rnn => &[(0, 1)],
        }
    }
}

/// Recurrence weights in the order they are read: for each pass, block of 16 units, input unit and gate, 16 lanes.
#[derive(Clone)]
pub struct PackedRecurrence {
    kind: Kind,
    hidden: usize,
    data: Aligned,
}

crate::variants! { Kind { 0 = Lstm, 1 = Gru { linear_before_reset }, 2 = Rnn } }

crate::fields! { PackedRecurrence { kind, hidden, data } }

impl PackedRecurrence {
    /// Packs `R`, `[gates·hidden × hidden]`.
    pub fn pack(kind: Kind, r: &[f32], hidden: usize) -> Result<Self, Error> {
        PackedRecurrence::from_unaligned(kind, bytemuck::cast_slice(r), hidden)
    }

    /// As [`PackedRecurrence::pack`] for elements at any address, as they lie in a file.
    pub fn from_unaligned(kind: Kind, r: &[[u8; 4]], hidden: usize) -> Result<Self, Error> {
        same_length(
            "recurrence weights",
            product("recurrence weights overflow", &[kind.gates(), hidden, hidden])?,
            r.len(),
        )?;
        let blocks = hidden.div_ceil(LANES);
        let mut data = Aligned::zeros(kind.gates() * blocks * LANES * hidden);
        let mut rest = data.as_mut_slice();
        for &(first, gates) in kind.passes() {
            let step = gates * LANES;
            for block in 0..blocks {
                let (to, after) = rest.split_at_mut(step * hidden);
                rest = after;
                let unit = block * LANES;
                for g in 0..gates {
                    let from = &r[((first + g) * hidden + unit) * hidden..];
                    turn(&mut to[g * LANES..], step, from, hidden, hidden - unit, hidden);
                }
            }
        }
        Ok(PackedRecurrence { kind, hidden, data })
    }

    /// The recurrence it was packed for.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// Units of the state.
    pub fn hidden(&self) -> usize {
        self.hidden
    }
}

/// Activations and options. Fields a kind has no use for are ignored.
#[derive(Clone, Copy, Debug)]
pub struct RecurrenceArgs<'a> {
    /// Of the gates i, o, f; z, r; or the only one.
    pub f: Gate,
    /// Of the gate c or h.
    pub g: Gate,
    /// Of the LSTM's cell.
    pub h: Gate,
    /// Inputs of activations are limited to `[-clip, clip]`; infinity for none.
    pub clip: f32,
    /// LSTM: `f = 1 - i`.
    pub input_forget: bool,
    /// LSTM: weights of the cell in the gates i, o, f, `[3 × hidden]`.
    pub peephole: Option<&'a [f32]>,
    /// GRU with `linear_before_reset`: the recurrent bias of gate h, `[hidden]`, not part of the projection.
    pub hidden_bias: Option<&'a [f32]>,
}

impl Default for RecurrenceArgs<'_> {
    /// The LSTM's defaults.
    fn default() -> Self {
        RecurrenceArgs {
            f: Gate::Sigmoid,
            g: Gate::Tanh,
            h: Gate::Tanh,
            clip: f32::INFINITY,
            input_forget: false,
            peephole: None,
            hidden_bias: None,
        }
    }
}

/// The input projections: `[steps, batch, gates·hidden]` in some order of the first two.
#[derive(Clone, Copy, Debug)]
pub struct Projected<'a> {
    pub data: &'a [f32],
    pub steps: usize,
    pub batch: usize,
    /// Elements from a step to the next.
    pub step: usize,
    /// Elements from a sequence to the next.
    pub row: usize,
    /// Steps of each sequence, at most `steps`; all of them if left out.
    pub lengths: Option<&'a [usize]>,
    /// From the last step of each sequence to its first.
    pub reverse: bool,
    /// For each block of 16 units all gates, in place of for each gate all units: as [`Kind::projects_by_blocks`] says.
    pub by_blocks: bool,
}

/// Where the state after each step goes: `[steps, batch, hidden]` in some order of the first two. Steps past a
/// sequence's length become zero.
pub struct States<'a> {
    pub data: &'a mut [f32],
    pub step: usize,
    pub row: usize,
}

/// Runs the recurrence. `h` and, for an LSTM, `c`, `[batch × hidden]`, hold the initial state and receive the final.
pub fn recur(
    pool: &dyn Pool,
    weights: &PackedRecurrence,
    args: &RecurrenceArgs<'_>,
    x: &Projected<'_>,
    h: &mut [f32],
    c: &mut [f32],
    y: Option<States<'_>>,
) -> Result<(), Error> {
    recur_on(Tier::best(), pool, weights, args, x, h, c, y)
}

/// [`recur`] on a chosen tier.
pub fn recur_on(
    tier: Tier,
    pool: &dyn Pool,
    weights: &PackedRecurrence,
    args: &RecurrenceArgs<'_>,
    x: &Projected<'_>,
    h: &mut [f32],
    c: &mut [f32],
    mut y: Option<States<'_>>,
) -> Result<(), Error> {
    check(weights.kind, [weights.hidden; 2], args, x, h, c, y.as_ref())?;
    if x.by_blocks && !weights.kind.projects_by_blocks(weights.hidden) {
        return Err(Error::Shape { what: "input projections of this kind do not come block by block" });
    }
    if x.batch == 0 || weights.hidden == 0 {
        return Ok(());
    }
    let (y_step, y_row) = y.as_ref().map_or((0, 0), |y| (y.step, y.row));
    let y = y.as_mut().map(|y| Parts::of(y.data));
    let (h, c) = (Parts::of(h), Parts::of(c));
    // Weights that a core's cache does not hold are shared out among threads, each its units of all sequences; of others,
    // and where every thread has plenty of them, each takes sequences.
    let streamed = weights.data.bytes() > CACHED && x.batch / pool.threads().max(1) < PLENTY;
    let least = if streamed {
        x.batch
    } else {
        (1 << 20) / (weights.data.bytes() / size_of::<f32>() * x.steps.max(1)).max(1) + 1
    };
    ranges(pool, x.batch, least, &|range| {
        let wide = weights.hidden.next_multiple_of(LANES);
        scratch::with(ROWS * range.len() * wide, |buffer| {
            // Whole vectors are written before they are read.
            if wide > weights.hidden {
                buffer.fill(0.0);
            }
            let batch = Batch {
                tier,
                pool,
                weights,
                args,
                x,
                h: h.as_mut_ptr(),
                c: c.as_mut_ptr(),
                y: y.as_ref().map_or(std::ptr::null_mut(), |y| y.as_mut_ptr()),
                y_step,
                y_row,
                first: range.start,
                count: range.len(),
                buffer: buffer.as_mut_ptr(),
                wide,
            };
            // SAFETY: lengths were checked; tasks have disjoint sequences.
            unsafe { batch.run() }
        });
    });
    Ok(())
}

/// `wide` are the elements from a gate of a projection to the next.
fn check(
    kind: Kind,
    [hidden, wide]: [usize; 2],
    args: &RecurrenceArgs<'_>,
    x: &Projected<'_>,
    h: &[f32],
    c: &[f32],
    y: Option<&States<'_>>,
) -> Result<(), Error> {
    let state = product("state sizes overflow", &[x.batch, hidden])?;
    same_length("hidden state", state, h.len())?;
    if kind == Kind::Lstm {
        same_length("cell state", state, c.len())?;
    }
    if let Some(p) = args.peephole {
        same_length("peepholes", 3 * hidden, p.len())?;
    }
    if let Some(b) = args.hidden_bias {
        same_length("hidden bias", hidden, b.len())?;
    }
    if let Some(l) = x.lengths {
        same_length("sequence lengths", x.batch, l.len())?;
        if l.iter().any(|&l| l > x.steps) {
            return Err(Error::Shape { what: "a sequence is longer than the tensor" });
        }
    }
    let reach = |what, len: usize, step, row, width| {
        if x.steps == 0 || x.batch == 0 {
            return Ok(());
        }
        let (a, b) = (product(what, &[x.steps - 1, step])?, product(what, &[x.batch - 1, row])?);
        let end = a.checked_add(b).and_then(|e| e.checked_add(width)).ok_or(Error::Shape { what })?;
        if end > len { Err(Error::Length { what, expected: end, found: len }) } else { Ok(()) }
    };
    reach("input projections", x.data.len(), x.step, x.row, kind.gates() * wide)?;
    let Some(y) = y else { return Ok(()) };
    reach("states", y.data.len(), y.step, y.row, hidden)?;
    let (near, far, n) = if y.step < y.row { (y.step, y.row, x.steps) } else { (y.row, y.step, x.batch) };
    let apart = near >= hidden && far >= near.saturating_mul(n);
    if !apart && x.steps > 1 && x.batch > 1 {
        return Err(Error::Shape { what: "states of different steps or sequences overlap" });
    }
    if x.batch > 1 && y.row < hidden {
        return Err(Error::Shape { what: "states of different sequences overlap" });
    }
    Ok(())
}

/// The sequences of one task, and its working rows of `wide`: for each sequence the state before and after a step,
/// the cell, and the gates.
struct Batch<'a> {
    tier: Tier,
    pool: &'a dyn Pool,
    weights: &'a PackedRecurrence,
    args: &'a RecurrenceArgs<'a>,
    x: &'a Projected<'a>,
    h: *mut f32,
    c: *mut f32,
    y: *mut f32,
    y_step: usize,
    y_row: usize,
    first: usize,
    count: usize,
    buffer: *mut f32,
    wide: usize,
}

// SAFETY: threads work on rows of their own sequences, or on units of their own of all rows; the rest is only read.
unsafe impl Sync for Batch<'_> {}

/// Most sequences multiplied together: their weights come from the second-level cache, at half of what four would take of
/// its bandwidth.
const GROUP: usize = 6;
/// The other number of them.
const SMALL: usize = 4;
/// Blocks of 16 units whose weights stay in the cache from one group to the next.
const BLOCKS: usize = 4;
/// Weights of a product that make up for handing a part of it to another thread, and units of cells.
const SHARE: usize = 48 << 10;
const CELLS: usize = 2 << 10;
/// Bytes of weights that stay in a core's cache from one step to the next.
const CACHED: usize = 256 << 10;
/// Sequences of a thread for which weights are worth reading again at every step.
const PLENTY: usize = 32;
/// Rows of working memory for each sequence.
const ROWS: usize = 7;

/// Sequences `r..r + count` that step together.
#[derive(Clone, Copy)]
struct Group {
    r: usize,
    count: usize,
}

impl Batch<'_> {
    fn row(&self, part: usize, r: usize) -> *mut f32 {
        self.buffer.wrapping_add((part * self.count + r) * self.wide)
    }

    fn gates(&self, r: usize) -> *mut f32 {
        self.row(3, 0).wrapping_add(4 * r * self.wide)
    }

    fn length(&self, r: usize) -> usize {
        self.x.lengths.map_or(self.x.steps, |l| l[self.first + r])
    }

    /// The position of sequence `r` that step `i` reads and writes.
    fn position(&self, i: usize, r: usize) -> usize {
        if self.x.reverse && i < self.length(r) { self.length(r) - 1 - i } else { i }
    }

    /// # Safety
    /// The pointers hold what was checked; `buffer` holds its rows, zeroed.
    unsafe fn run(&self) {
        let (n, lstm) = (self.weights.hidden, self.weights.kind == Kind::Lstm);
        let swap = |part: usize, outside: *mut f32, out: bool| {
            for r in 0..self.count {
                let (a, b) = (outside.wrapping_add((self.first + r) * n), self.row(part, r));
                let (from, to) = if out { (b, a) } else { (a, b) };
                // SAFETY: state and working rows hold `n` elements.
                unsafe { std::ptr::copy_nonoverlapping(from, to, n) };
            }
        };
        swap(0, self.h, false);
        if lstm {
            swap(2, self.c, false);
        }
        let mut groups = Vec::with_capacity(self.count);
        for i in 0..self.x.steps {
            groups.clear();
            let mut r = 0;
            while r < self.count {
                let running = (r..self.count).take_while(|&r| i < self.length(r)).count();
                let count = together(running);
                if i < self.length(r) {
                    groups.push(Group { r, count });
                } else {
                    // SAFETY: rows of `n` elements; the state stays where the next step looks for it.
                    unsafe {
                        std::ptr::copy_nonoverlapping(self.row(i % 2, r), self.row(1 - i % 2, r), n);
                        self.keep(i, r);
                    }
                }
                r += count;
            }
            // SAFETY: passed on.
            unsafe { self.step(i, &groups) };
        }
        swap(self.x.steps % 2, self.h, true);
        if lstm {
            swap(2, self.c, true);
        }
    }

    /// Stores the state after step `i` of sequence `r`, or zeros past its end.
    unsafe fn keep(&self, i: usize, r: usize) {
        // SAFETY: passed on.
        unsafe { self.keep_units(i, r, 0..self.weights.hidden) };
    }

    /// [`Batch::keep`] for some units.
    unsafe fn keep_units(&self, i: usize, r: usize, units: Range<usize>) {
        if self.y.is_null() {
            return;
        }
        // SAFETY: every position and sequence was checked against the output.
        unsafe {
            let to = self.y.add(self.position(i, r) * self.y_step + (self.first + r) * self.y_row);
            let to = to.add(units.start);
            if i < self.length(r) {
                std::ptr::copy_nonoverlapping(self.row(1 - i % 2, r).add(units.start), to, units.len());
            } else {
                to.write_bytes(0, units.len());
            }
        }
    }

    /// Step `i` of all groups: products, each weight read once, then the cells.
    ///
    /// # Safety
    /// As [`Batch::run`].
    unsafe fn step(&self, i: usize, groups: &[Group]) {
        let (w, a, tier, wide, n) = (self.weights, self.args, self.tier, self.wide, self.weights.hidden);
        let (gate, step) = if self.x.by_blocks { (LANES, 4 * LANES) } else { (n, LANES) };
        let x = |r: usize, g: usize| {
            let at = self.position(i, r) * self.x.step + (self.first + r) * self.x.row + g * gate;
            self.x.data.as_ptr().wrapping_add(at)
        };
        let old = |r: usize| self.row(i % 2, r);
        let new = |r: usize| self.row(1 - i % 2, r);
        let sums = |r: usize| self.gates(r);
        let states = |g: &Group| g.lanes(|r| old(r).cast_const());
        // SAFETY: rows and packed weights have the sizes stated above and checked before; tasks of a product write units
        // of their own, tasks of cells rows of their own.
        unsafe {
            match w.kind {
                Kind::Lstm if a.is_plain_lstm() => self.product(groups, 4, &|group, blocks| {
                    let start = group.lanes(|r| [0, 1, 2, 3].map(|g| x(r, g)));
                    let rows = Rows { start, step, input: states(group), sums: group.lanes(sums) };
                    cell::multiply_lstm(tier, w.data.as_ptr(), &rows, group.count, n, wide, blocks.clone());
                    for r in group.r..group.r + group.count {
                        cell::lstm_units(tier, sums(r), wide, blocks.clone(), self.row(2, r), new(r));
                        self.keep_units(i, r, blocks.start * LANES..n.min(blocks.end * LANES));
                    }
                }),
                Kind::Lstm => {
                    self.product(groups, 4, &|group, blocks| {
                        let start = group.lanes(|r| [0, 1, 2, 3].map(|g| x(r, g)));
                        let rows = Rows { start, step, input: states(group), sums: group.lanes(sums) };
                        cell::multiply_lstm(tier, w.data.as_ptr(), &rows, group.count, n, wide, blocks)
                    });
                    self.cells(groups, &|r| {
                        cell::lstm(tier, a, sums(r), wide, n, self.row(2, r), new(r));
                        self.keep(i, r);
                    });
                }
                Kind::Gru { linear_before_reset: true } => {
                    let bias = Shared(a.hidden_bias.map_or(std::ptr::null(), <[f32]>::as_ptr));
                    self.product(groups, 3, &|group, blocks| {
                        let start = group.lanes(|r| [x(r, 0), x(r, 1), bias.get()]);
                        let rows = Rows { start, step, input: states(group), sums: group.lanes(sums) };
                        cell::multiply_three(tier, w.data.as_ptr(), &rows, group.count, n, wide, blocks)
                    });
                    self.cells(groups, &|r| {
                        cell::gru_linear(tier, a, sums(r), wide, n, x(r, 2), old(r), new(r));
                        self.keep(i, r);
                    });
                }
                Kind::Gru { linear_before_reset: false } => {
                    self.product(groups, 2, &|group, blocks| {
                        let start = group.lanes(|r| [x(r, 0), x(r, 1)]);
                        let rows = Rows { start, step, input: states(group), sums: group.lanes(sums) };
                        cell::multiply_two(tier, w.data.as_ptr(), &rows, group.count, n, wide, blocks)
                    });
                    self.cells(groups, &|r| cell::gru_reset(tier, a, sums(r), wide, n, old(r)));
                    let third = |r: usize| sums(r).wrapping_add(3 * wide);
                    self.product(groups, 1, &|group, blocks| {
                        let start = group.lanes(|r| [x(r, 2)]);
                        let input = group.lanes(|r| sums(r).wrapping_add(2 * wide).cast_const());
                        let rows = Rows { start, step, input, sums: group.lanes(third) };
                        let p = w.data.as_ptr().add(2 * wide * n);
                        cell::multiply_one(tier, p, &rows, group.count, n, wide, blocks)
                    });
                    self.cells(groups, &|r| {
                        cell::gru_mix(tier, a, sums(r), third(r), n, old(r), new(r));
                        self.keep(i, r);
                    });
                }
                Kind::Rnn => {
                    self.product(groups, 1, &|group, blocks| {
                        let start = group.lanes(|r| [x(r, 0)]);
                        let rows = Rows { start, step, input: states(group), sums: group.lanes(sums) };
                        cell::multiply_one(tier, w.data.as_ptr(), &rows, group.count, n, wide, blocks)
                    });
                    self.cells(groups, &|r| {
                        cell::plain(tier, a, sums(r), n, new(r));
                        self.keep(i, r);
                    });
                }
            }
        }
    }

    /// A product with `gates` gates for all groups, its blocks of 16 units shared among threads where there are enough.
    fn product(&self, groups: &[Group], gates: usize, f: &(dyn Fn(&Group, Range<usize>) + Sync)) {
        let blocks = self.wide / LANES;
        let work = gates * self.wide * self.weights.hidden * groups.len();
        let shares = (work / SHARE).clamp(1, self.pool.threads().max(1));
        // Blocks are multiplied a few together.
        let share = blocks.div_ceil(shares).next_multiple_of(2);
        let part = |range: Range<usize>| match groups {
            [one] => f(one, range),
            _ => {
                for b in range.clone().step_by(BLOCKS) {
                    groups.iter().for_each(|g| f(g, b..range.end.min(b + BLOCKS)));
                }
            }
        };
        match blocks.div_ceil(share) {
            1 => part(0..blocks),
            shares => self.pool.run(shares, &|i| part(i * share..blocks.min((i + 1) * share))),
        }
    }

    /// What follows a product, sequence by sequence, shared among threads where there is enough of it.
    fn cells(&self, groups: &[Group], f: &(dyn Fn(usize) + Sync)) {
        let threads = self.pool.threads();
        let running = || groups.iter().flat_map(|g| g.r..g.r + g.count);
        if threads > 1 && groups.len() > 1 && self.count * self.weights.hidden >= CELLS {
            let share = running().count().div_ceil(threads);
            self.pool.run(threads, &|i| running().skip(i * share).take(share).for_each(f));
        } else {
            running().for_each(f);
        }
    }
}

/// How many of so many running sequences are multiplied together next, such that few are left by themselves.
fn together(running: usize) -> usize {
    match running {
        n if n >= GROUP && !matches!(n - GROUP, 2 | 3) => GROUP,
        n if n >= SMALL => SMALL,
        _ => 1,
    }
}

impl Group {
    /// One value for each sequence; the first one's where there is no other.
    fn lanes<T>(&self, f: impl Fn(usize) -> T) -> [T; GROUP] {
        std::array::from_fn(|j| f(self.r + if j < self.count { j } else { 0 }))
    }
}

/// A pointer that tasks read through.
#[derive(Clone, Copy)]
struct Shared(*const f32);
// SAFETY: only read.
unsafe impl Sync for Shared {}

impl Shared {
    fn get(&self) -> *const f32 {
        self.0
    }
}
