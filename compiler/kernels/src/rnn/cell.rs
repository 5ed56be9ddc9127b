//! kernel: products with packed recurrence weights, and the equations of the cells on rows of units.

use super::{GROUP, RecurrenceArgs, SMALL};
use crate::dispatch::Tier;
use crate::hint::prefetch;
use crate::norm::affine;
use crate::simd::{LANES, Simd, tiered};
use crate::vecmath::{Function, sigmoid, sigmoid_ratio, tanh_ratio};
use std::ops::Range;

/// Rows of weights ahead that are asked for.
const NEAR: usize = 8;

/// An activation of the ONNX recurrent operators.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Gate {
    Sigmoid,
    Tanh,
    Relu,
    /// `alpha·x + beta`.
    Affine {
        alpha: f32,
        beta: f32,
    },
    LeakyRelu {
        alpha: f32,
    },
    ThresholdedRelu {
        alpha: f32,
    },
    /// `alpha·tanh(beta·x)`.
    ScaledTanh {
        alpha: f32,
        beta: f32,
    },
    HardSigmoid {
        alpha: f32,
        beta: f32,
    },
    Elu {
        alpha: f32,
    },
    Softsign,
    Softplus,
}

impl Gate {
    /// In place, after limiting to `[-clip, clip]`.
    ///
    /// # Safety
    /// `x` holds `n` elements.
    unsafe fn run(self, tier: Tier, x: *mut f32, n: usize, clip: f32) {
        // SAFETY: passed on; in place.
        unsafe {
            if clip < f32::INFINITY {
                Function::Clip { lo: -clip, hi: clip }.run(tier, x, x, n);
            }
            let f = match self {
                Gate::Sigmoid => Function::Sigmoid,
                Gate::Tanh => Function::Tanh,
                Gate::Relu => Function::Relu,
                Gate::LeakyRelu { alpha } => Function::LeakyRelu { slope: alpha },
                Gate::ThresholdedRelu { alpha } => Function::ThresholdedRelu { alpha },
                Gate::HardSigmoid { alpha, beta } => Function::HardSigmoid { alpha, beta },
                Gate::Elu { alpha } => Function::Elu { alpha },
                Gate::Softsign => Function::Softsign,
                Gate::Softplus => Function::Softplus,
                Gate::Affine { alpha, beta } => return affine(tier, x, x, n, alpha, beta),
                Gate::ScaledTanh { alpha, beta } => {
                    affine(tier, x, x, n, beta, 0.0);
                    Function::Tanh.run(tier, x, x, n);
                    return affine(tier, x, x, n, alpha, 0.0);
                }
            };
            f.run(tier, x, x, n);
        }
    }
}

tiered! {
    /// `c = a·b + d·e`, `e` one if null.
    ///
    /// # Safety
    /// All hold `n` elements; `c` may be any of the others.
    unsafe fn blend(s: S; a: *const f32, b: *const f32, d: *const f32, e: *const f32, c: *mut f32, n: usize) {
        let mut i = 0;
        while i < n {
            let left = n - i;
            let mut v = s.load_up_to(d.add(i), left);
            if !e.is_null() {
                v = s.mul(v, s.load_up_to(e.add(i), left));
            }
            let v = s.fma(s.load_up_to(a.add(i), left), s.load_up_to(b.add(i), left), v);
            s.store_up_to(c.add(i), v, left);
            i += LANES;
        }
    }
}

tiered! {
    /// `c = a·b`.
    ///
    /// # Safety
    /// All hold `n` elements; `c` may be one of the others.
    unsafe fn times(s: S; a: *const f32, b: *const f32, c: *mut f32, n: usize) {
        let mut i = 0;
        while i < n {
            let v = s.mul(s.load_up_to(a.add(i), n - i), s.load_up_to(b.add(i), n - i));
            s.store_up_to(c.add(i), v, n - i);
            i += LANES;
        }
    }
}

tiered! {
    /// `c = (1 - z)·h + z·old`.
    ///
    /// # Safety
    /// All hold `n` elements.
    unsafe fn mix(s: S; z: *const f32, h: *const f32, old: *const f32, c: *mut f32, n: usize) {
        let mut i = 0;
        while i < n {
            let left = n - i;
            let (z, h) = (s.load_up_to(z.add(i), left), s.load_up_to(h.add(i), left));
            let v = s.fma(z, s.load_up_to(old.add(i), left), s.mul(s.sub(s.splat(1.0), z), h));
            s.store_up_to(c.add(i), v, left);
            i += LANES;
        }
    }
}

/// LSTM from the sums of its gates, rows of `wide`, which are overwritten. `peephole` is null or `[3 × n]`.
///
/// # Safety
/// `gates` holds `4·wide` elements, the others `n ≤ wide`.
pub(super) unsafe fn lstm(
    tier: Tier,
    a: &RecurrenceArgs<'_>,
    gates: *mut f32,
    wide: usize,
    n: usize,
    cell: *mut f32,
    new: *mut f32,
) {
    let gate = |g: usize| gates.wrapping_add(g * wide);
    let (i, o, f, c) = (gate(0), gate(1), gate(2), gate(3));
    // SAFETY: rows of the gates.
    let act = |x: *mut f32, n: usize| unsafe { a.f.run(tier, x, n, a.clip) };
    // SAFETY: by the caller.
    unsafe {
        a.g.run(tier, c, n, a.clip);
        match a.peephole {
            None if a.input_forget => act(i, wide + n),
            None => act(i, 2 * wide + n),
            Some(p) => {
                blend(tier, p.as_ptr(), cell, i, std::ptr::null(), i, n);
                blend(tier, p.as_ptr().add(2 * n), cell, f, std::ptr::null(), f, n);
                act(i, n);
                act(f, n);
            }
        }
        if a.input_forget {
            affine(tier, i, f, n, -1.0, 1.0);
        }
        blend(tier, f, cell, i, c, cell, n);
        if let Some(p) = a.peephole {
            blend(tier, p.as_ptr().add(n), cell, o, std::ptr::null(), o, n);
            act(o, n);
        }
        std::ptr::copy_nonoverlapping(cell, c, n);
        a.h.run(tier, c, n, a.clip);
        times(tier, o, c, new, n);
    }
}

impl RecurrenceArgs<'_> {
    /// Whether [`lstm_units`] computes this LSTM.
    pub(super) fn is_plain_lstm(&self) -> bool {
        let gates = (self.f, self.g, self.h) == (Gate::Sigmoid, Gate::Tanh, Gate::Tanh);
        gates && self.clip == f32::INFINITY && !self.input_forget && self.peephole.is_none()
    }
}

/// The product of two ratios by one division, which is what takes most of a gate.
#[inline(always)]
fn product_of<S: Simd>(s: S, a: (S::F, S::F), b: (S::F, S::F)) -> S::F {
    s.div(s.mul(a.0, b.0), s.mul(a.1, b.1))
}

tiered! {
    /// [`lstm`] with its usual gates for some blocks of 16 units, in one pass.
    ///
    /// # Safety
    /// `gates` holds `4·wide` elements, the others `wide`, and `wide` is a multiple of 16.
    pub(super) unsafe fn lstm_units(s: S; gates: *const f32, wide: usize, blocks: Range<usize>, cell: *mut f32, new: *mut f32) {
        for block in blocks {
            let at = block * LANES;
            let (i, o) = (sigmoid_ratio(s, s.load(gates.add(at))), sigmoid_ratio(s, s.load(gates.add(wide + at))));
            let f = sigmoid(s, s.load(gates.add(2 * wide + at)));
            let added = product_of(s, i, tanh_ratio(s, s.load(gates.add(3 * wide + at))));
            let c = s.fma(f, s.load(cell.add(at)), added);
            s.store(cell.add(at), c);
            s.store(new.add(at), product_of(s, o, tanh_ratio(s, c)));
        }
    }
}

/// The gates z and r from their sums, and `r·old` behind them in the third row.
///
/// # Safety
/// `gates` holds `3·wide` elements, `old` `n ≤ wide`.
pub(super) unsafe fn gru_reset(
    tier: Tier,
    a: &RecurrenceArgs<'_>,
    gates: *mut f32,
    wide: usize,
    n: usize,
    old: *const f32,
) {
    // SAFETY: by the caller.
    unsafe {
        a.f.run(tier, gates, wide + n, a.clip);
        times(tier, gates.add(wide), old, gates.add(2 * wide), n);
    }
}

/// The new state from z and the sum of gate h.
///
/// # Safety
/// All hold `n` elements.
pub(super) unsafe fn gru_mix(
    tier: Tier,
    a: &RecurrenceArgs<'_>,
    z: *const f32,
    h: *mut f32,
    n: usize,
    old: *const f32,
    new: *mut f32,
) {
    // SAFETY: by the caller.
    unsafe {
        a.g.run(tier, h, n, a.clip);
        mix(tier, z, h, old, new, n);
    }
}

/// GRU with the reset gate applied after the product: `x` is the projection of gate h.
///
/// # Safety
/// `gates` holds `3·wide` elements, the others `n ≤ wide`.
pub(super) unsafe fn gru_linear(
    tier: Tier,
    a: &RecurrenceArgs<'_>,
    gates: *mut f32,
    wide: usize,
    n: usize,
    x: *const f32,
    old: *const f32,
    new: *mut f32,
) {
    // SAFETY: by the caller.
    unsafe {
        a.f.run(tier, gates, wide + n, a.clip);
        let h = gates.add(2 * wide);
        blend(tier, gates.add(wide), h, x, std::ptr::null(), h, n);
        gru_mix(tier, a, gates, h, n, old, new);
    }
}

/// # Safety
/// Both hold `n` elements.
pub(super) unsafe fn plain(tier: Tier, a: &RecurrenceArgs<'_>, sums: *const f32, n: usize, new: *mut f32) {
    // SAFETY: by the caller.
    unsafe {
        std::ptr::copy_nonoverlapping(sums, new, n);
        a.f.run(tier, new, n, a.clip);
    }
}

/// What a product with packed weights reads and writes for each sequence of a group.
#[derive(Clone, Copy)]
pub(super) struct Rows<const G: usize> {
    /// Added to the product: `hidden` elements for each gate; null for zeros.
    pub(super) start: [[*const f32; G]; GROUP],
    /// Elements from what a block starts with to the next block's.
    pub(super) step: usize,
    /// `hidden` elements.
    pub(super) input: [*const f32; GROUP],
    /// `G` rows of `wide`.
    pub(super) sums: [*mut f32; GROUP],
}

// SAFETY: tasks read the rows and write the sums of their own blocks.
unsafe impl<const G: usize> Sync for Rows<G> {}

tiered! {
    /// `sums = start + input·R` for `n` sequences, a whole group or one, and some blocks of 16 units.
    ///
    /// # Safety
    /// `packed` holds a pass of `G` gates, the rows what they say.
    pub(super) unsafe fn multiply_lstm(s: S; packed: *const f32, rows: &Rows<4>, n: usize, hidden: usize, wide: usize, blocks: Range<usize>) {
        sweep::<S, 4, 2, 1>(s, packed, rows, n, hidden, wide, blocks);
    }
}

tiered! {
    /// As [`multiply_lstm`].
    ///
    /// # Safety
    /// As [`multiply_lstm`].
    pub(super) unsafe fn multiply_three(s: S; packed: *const f32, rows: &Rows<3>, n: usize, hidden: usize, wide: usize, blocks: Range<usize>) {
        sweep::<S, 3, 2, 1>(s, packed, rows, n, hidden, wide, blocks);
    }
}

tiered! {
    /// As [`multiply_lstm`].
    ///
    /// # Safety
    /// As [`multiply_lstm`].
    pub(super) unsafe fn multiply_two(s: S; packed: *const f32, rows: &Rows<2>, n: usize, hidden: usize, wide: usize, blocks: Range<usize>) {
        sweep::<S, 2, 4, 2>(s, packed, rows, n, hidden, wide, blocks);
    }
}

tiered! {
    /// As [`multiply_lstm`].
    ///
    /// # Safety
    /// As [`multiply_lstm`].
    pub(super) unsafe fn multiply_one(s: S; packed: *const f32, rows: &Rows<1>, n: usize, hidden: usize, wide: usize, blocks: Range<usize>) {
        sweep::<S, 1, 4, 4>(s, packed, rows, n, hidden, wide, blocks);
    }
}

/// `WIDE` and `NARROW` are the blocks of a lone sequence taken together, to have enough sums in flight, by register
/// file.
#[inline(always)]
unsafe fn sweep<S: Simd, const G: usize, const WIDE: usize, const NARROW: usize>(
    s: S,
    packed: *const f32,
    rows: &Rows<G>,
    n: usize,
    hidden: usize,
    wide: usize,
    blocks: Range<usize>,
) {
    // SAFETY: passed on; blocks stay below their number.
    unsafe {
        if n == GROUP && S::WIDE {
            for b in blocks {
                ask(rows, n, b + 1);
                tile::<S, G, GROUP, 1>(s, packed, rows, 0, b, hidden, wide);
            }
            return;
        }
        if n == SMALL && S::WIDE {
            for b in blocks {
                ask(rows, n, b + 1);
                tile::<S, G, SMALL, 1>(s, packed, rows, 0, b, hidden, wide);
            }
            return;
        }
        for row in 0..n {
            let mut b = blocks.start;
            while S::WIDE && b + WIDE <= blocks.end {
                tile::<S, G, 1, WIDE>(s, packed, rows, row, b, hidden, wide);
                b += WIDE;
            }
            while !S::WIDE && b + NARROW <= blocks.end {
                tile::<S, G, 1, NARROW>(s, packed, rows, row, b, hidden, wide);
                b += NARROW;
            }
            while b < blocks.end {
                tile::<S, G, 1, 1>(s, packed, rows, row, b, hidden, wide);
                b += 1;
            }
        }
    }
}

/// Asks for what the sums of a block start with.
#[inline(always)]
fn ask<const G: usize>(rows: &Rows<G>, n: usize, block: usize) {
    for start in &rows.start[..n] {
        start.iter().for_each(|p| prefetch(p.wrapping_add(block * rows.step)));
    }
}

/// `R` sequences from `row`, `B` blocks of 16 units from `block`.
#[inline(always)]
unsafe fn tile<S: Simd, const G: usize, const R: usize, const B: usize>(
    s: S,
    packed: *const f32,
    rows: &Rows<G>,
    row: usize,
    block: usize,
    hidden: usize,
    wide: usize,
) {
    let mut acc = [[[s.zero(); G]; B]; R];
    // SAFETY: by the caller of `sweep`.
    unsafe {
        for r in 0..R {
            for b in 0..B {
                for g in 0..G {
                    let (p, unit) = (rows.start[row + r][g], (block + b) * LANES);
                    if !p.is_null() {
                        acc[r][b][g] = s.load_up_to(p.add((block + b) * rows.step), hidden - unit);
                    }
                }
            }
        }
        let stride = hidden * G * LANES;
        let first = packed.add(block * stride);
        for k in 0..hidden {
            for b in 0..B {
                let mut w = [s.zero(); G];
                if R > 1 {
                    // Weights lie in the second-level cache.
                    let ahead = first.wrapping_add(b * stride + (k + NEAR) * G * LANES);
                    (0..G).for_each(|g| prefetch(ahead.wrapping_add(g * LANES)));
                }
                for g in 0..G {
                    w[g] = s.load(first.add(b * stride + (k * G + g) * LANES));
                }
                for r in 0..R {
                    let h = s.splat(*rows.input[row + r].add(k));
                    for g in 0..G {
                        acc[r][b][g] = s.fma(h, w[g], acc[r][b][g]);
                    }
                }
            }
        }
        for r in 0..R {
            for b in 0..B {
                for g in 0..G {
                    s.store(rows.sums[row + r].add(g * wide + (block + b) * LANES), acc[r][b][g]);
                }
            }
        }
    }
}
