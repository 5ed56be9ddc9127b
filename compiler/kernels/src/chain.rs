//! kernel: chains of element-wise operators whose operands and results may be 8-bit integers with a scale and a zero point.
//!
//! Elements are worked on in blocks that stay in the first-level cache: operands become float32 there, each step is one pass
//! of vectors over the block, and the result is quantized on its way out. Every step rounds as the operator by itself does.

use crate::dispatch::{Tier, has_vbmi};
use crate::error::{Error, product, same_length};
use crate::quantizer::Quantizer;
use crate::scratch;
use crate::simd::{LANES, Simd, tiered};
use crate::stored::{Reader, Stored, Writer};
use crate::vecmath::Function;
use affine::{Affine, Bounded, Line, Stepped};
use values::*;

/// How elements are stored.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Format {
    F32,
    /// Half precision: rounded to nearest, ties to even.
    Half,
    /// 32-bit integers, which only [`Step::Equal`] reads.
    Words,
    /// `(byte − zero) · scale`, with bytes read as `i8` or `u8`.
    Bytes {
        signed: bool,
        scale: f32,
        zero: i32,
    },
}

impl Format {
    /// Bytes of an element.
    pub fn size(self) -> usize {
        match self {
            Format::F32 | Format::Words => 4,
            Format::Half => 2,
            Format::Bytes { .. } => 1,
        }
    }
}

/// An operand of a step: a slot or a number.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Arg {
    /// Slots are the chain's operands, then the results of its steps.
    Slot(usize),
    Const(f32),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Binary {
    Add,
    Sub,
    Mul,
    Div,
    /// NaN if either is NaN.
    Min,
    /// NaN if either is NaN.
    Max,
    /// The left, times the right where it is below zero.
    Leaky,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Step {
    Binary(Binary, Arg, Arg),
    Map(Function, Arg),
    /// What quantization and dequantization leave of a value.
    Snap(Format, Arg),
    /// 1 where two integers are equal, 0 elsewhere.
    Equal(Arg, Arg),
}

/// A straight line of steps.
#[derive(Clone, Debug, PartialEq)]
pub struct Chain {
    pub operands: Vec<Format>,
    pub steps: Vec<Step>,
    /// The slot stored.
    pub result: usize,
    pub store: Format,
}

/// Where an operand's elements are: row `r`, column `c` at `r · row + c · inner`.
#[derive(Clone, Copy, Debug)]
pub struct Place<'a> {
    pub data: &'a [u8],
    /// 0 or 1.
    pub inner: usize,
    pub row: usize,
}

/// Elements by which a block may be longer.
const REST: usize = 64;
/// Operands and steps of a chain.
pub const MOST_SLOTS: usize = 24;

impl Chain {
    fn check(&self) -> Result<(), Error> {
        let slots = self.operands.len() + self.steps.len();
        let words = |s: usize| self.operands.get(s) == Some(&Format::Words);
        let earlier =
            |i: usize, a: Arg| !matches!(a, Arg::Slot(s) if s >= self.operands.len() + i || words(s));
        let fine = self.steps.iter().enumerate().all(|(i, s)| match *s {
            Step::Binary(_, a, b) => earlier(i, a) && earlier(i, b),
            Step::Map(_, a) | Step::Snap(_, a) => earlier(i, a),
            Step::Equal(a, b) => [a, b].iter().all(|a| matches!(a, Arg::Slot(s) if words(*s))),
        });
        if !fine || self.result >= slots || words(self.result) || slots > MOST_SLOTS {
            return Err(Error::Shape { what: "a chain reads a slot that is not there" });
        }
        if self.store == Format::Words {
            return Err(Error::Shape { what: "a chain's results are no integers of 32 bits" });
        }
        Ok(())
    }

    /// Where the only operand and the result are bytes: what becomes of each byte.
    pub fn table(&self, tier: Tier) -> Option<Table> {
        let [Format::Bytes { .. }] = self.operands[..] else { return None };
        let all: Vec<u8> = (0..=255).collect();
        let mut table = [0; 256];
        let place = Place { data: &all, inner: 1, row: 0 };
        if self.store.size() != 1 || self.run(tier, &[place], &mut table, 1, 256).is_err() {
            return None;
        }
        Some(Table(Box::new(table)))
    }

    /// Computes `rows · n` adjacent elements.
    pub fn run(
        &self,
        tier: Tier,
        operands: &[Place],
        out: &mut [u8],
        rows: usize,
        n: usize,
    ) -> Result<(), Error> {
        self.check()?;
        let what = "an operand of a chain is too short";
        if operands.len() != self.operands.len() || out.len() != product(what, &[rows, n, self.store.size()])?
        {
            return Err(Error::Shape { what });
        }
        if rows == 0 || n == 0 {
            return Ok(());
        }
        for (p, f) in operands.iter().zip(&self.operands) {
            let last = product(what, &[rows - 1, p.row])?.saturating_add((n - 1).saturating_mul(p.inner));
            if p.inner > 1 || product(what, &[last.saturating_add(1), f.size()])? > p.data.len() {
                return Err(Error::Shape { what });
            }
        }
        let slots = self.operands.len() + self.steps.len();
        let block = self.block();
        // A slot has room for a vector that starts at its last element.
        let slot = block + REST + LANES;
        scratch::with(slots * slot, |slots| {
            let start = slots.as_ptr();
            let sources = std::array::from_fn(|k| Source {
                at: start.wrapping_add(k * slot),
                bytes: std::ptr::null(),
                one: 0.0,
            });
            let once = std::array::from_fn(|k| k < self.operands.len() && self.reads_once(k));
            let tier = tier.usable();
            let affine = Affine::of(self);
            let mut run =
                Run { chain: self, tier, operands, slots, slot, block, sources, once, out, n, affine };
            if n > block / 2 { run.wide(rows) } else { run.narrow(rows) }
        });
        Ok(())
    }

    /// Elements of a block: the slots of all operands and steps stay in the first-level cache.
    fn block(&self) -> usize {
        const ALL: usize = 4096;
        let slots = self.operands.len() + self.steps.len();
        (ALL / slots.max(1) / (4 * LANES) * (4 * LANES)).clamp(256, 1024)
    }

    /// Whether one sum or product, or the result, is all that reads an operand: it then takes bytes as they are.
    fn reads_once(&self, k: usize) -> bool {
        let reads = |a: Arg| usize::from(a == Arg::Slot(k));
        let of = |step: &Step| match *step {
            Step::Binary(Binary::Add | Binary::Mul, a, b) => reads(a) + reads(b),
            Step::Binary(_, a, b) | Step::Equal(a, b) => 2 * (reads(a) + reads(b)),
            Step::Map(_, a) | Step::Snap(_, a) => 2 * reads(a),
        };
        self.steps.iter().map(of).sum::<usize>() + usize::from(self.result == k) == 1
    }
}

struct Run<'a, 'b> {
    chain: &'a Chain,
    tier: Tier,
    operands: &'a [Place<'a>],
    slots: &'b mut [f32],
    /// Elements of a slot and of a block.
    slot: usize,
    block: usize,
    sources: [Source; MOST_SLOTS],
    /// Operands that one sum or product reads, or the result alone.
    once: [bool; MOST_SLOTS],
    out: &'b mut [u8],
    n: usize,
    /// What the chain is by a shorter name.
    affine: Option<Affine>,
}

/// Where an operand's elements of a block are.
#[derive(Clone, Copy)]
struct Source {
    /// In its slot, or where they lie.
    at: *const f32,
    /// Unless null: bytes, where they lie.
    bytes: *const u8,
    /// Where both are null: its one element.
    one: f32,
}

impl Run<'_, '_> {
    /// Rows of several blocks.
    fn wide(&mut self, rows: usize) {
        // A short rest is part of the block before it.
        let blocks = self.n.saturating_sub(REST).div_ceil(self.block).max(1);
        let step = self.n.div_ceil(blocks).next_multiple_of(LANES);
        for r in 0..rows {
            for first in (0..self.n).step_by(step) {
                let len = step.min(self.n - first);
                for k in 0..self.operands.len() {
                    let p = self.operands[k];
                    self.fill(k, 0, p.row * r + p.inner * first, p.inner, len, len);
                }
                self.steps(r * self.n + first, len);
            }
        }
    }

    /// Blocks of several rows.
    fn narrow(&mut self, rows: usize) {
        let (n, most) = (self.n, self.block / self.n);
        for k in 0..self.operands.len() {
            if self.operands[k].row == 0 {
                let count = most.min(rows);
                (0..count).for_each(|i| self.fill(k, i * n, 0, self.operands[k].inner, n, count * n));
            }
        }
        for first in (0..rows).step_by(most) {
            let count = most.min(rows - first);
            for k in 0..self.operands.len() {
                let p = self.operands[k];
                if p.row == n && p.inner == 1 {
                    self.fill(k, 0, first * n, 1, count * n, count * n);
                } else if p.row != 0 {
                    let row = |i| (first + i) * p.row;
                    (0..count).for_each(|i| self.fill(k, i * n, row(i), p.inner, n, count * n));
                }
            }
            self.steps(first * n, count * n);
        }
    }

    /// Elements `from..` of operand `k` to its slot, from element `to` on; a whole block of float32, of `block` elements,
    /// stays where it lies.
    fn fill(&mut self, k: usize, to: usize, from: usize, inner: usize, len: usize, block: usize) {
        let (format, data) = (self.chain.operands[k], self.operands[k].data);
        let start = data.as_ptr().wrapping_add(from * format.size());
        let whole = (from + len.next_multiple_of(LANES)).saturating_mul(format.size()) <= data.len();
        let stays = len == block && inner == 1 && whole;
        let source = &mut self.sources[k];
        source.bytes = std::ptr::null();
        match format {
            Format::F32 | Format::Words if stays && start.cast::<f32>().is_aligned() => {
                source.at = start.cast();
                return;
            }
            Format::Bytes { .. } if stays && self.once[k] => {
                source.bytes = start;
                return;
            }
            _ => {}
        }
        let slot = &mut self.slots[k * self.slot + to..(k + 1) * self.slot];
        source.at = slot.as_ptr().wrapping_sub(to);
        if inner == 0 {
            let mut one = [0.0; LANES];
            // SAFETY: the element was checked to lie in the operand; `one` holds a vector.
            unsafe { load(self.tier, format, start, one.as_mut_ptr(), 1) };
            if self.n > self.block / 2 {
                (source.at, source.one) = (std::ptr::null(), one[0]);
            } else {
                slot[..len].fill(one[0]);
            }
            return;
        }
        // SAFETY: the elements were checked to lie in the operand; a slot has room for a vector past its block.
        unsafe { load(self.tier, format, start, slot.as_mut_ptr(), len) }
    }

    /// All steps over the first `len` elements of the operands, and storing them at element `to`.
    fn steps(&mut self, to: usize, len: usize) {
        let size = self.chain.store.size();
        let y = self.out[to * size..(to + len) * size].as_mut_ptr();
        let (slots, size) = (self.slots.as_mut_ptr(), self.slot);
        // SAFETY: slots were checked, hold whole vectors of elements and are apart; the result has `len` elements from
        // there on.
        unsafe { steps(self.tier, self.chain, self.affine, self.tier, &self.sources, slots, size, y, len) }
    }
}

/// What each byte becomes.
#[derive(Clone, Debug)]
pub struct Table(Box<[u8; 256]>);

impl Stored for Table {
    fn put<'a>(&'a self, out: &mut Writer<'a>) {
        self.0.put(out);
    }
    fn take(from: &mut Reader) -> Option<Table> {
        Stored::take(from).map(Table)
    }
}

impl Table {
    /// `y[i] = table[x[i]]`.
    pub fn map(&self, tier: Tier, x: &[u8], y: &mut [u8]) -> Result<(), Error> {
        same_length("result", x.len(), y.len())?;
        let wide = tier.usable() == Tier::Avx512 && has_vbmi();
        let whole = if wide { x.len() / VECTOR * VECTOR } else { 0 };
        // SAFETY: both hold that many bytes; the CPU looks up bytes in a table of 256.
        unsafe { look_up(tier, &self.0, x.as_ptr(), y.as_mut_ptr(), whole) };
        y[whole..].iter_mut().zip(&x[whole..]).for_each(|(y, &x)| *y = self.0[usize::from(x)]);
        Ok(())
    }
}

/// Bytes of a vector.
const VECTOR: usize = 4 * LANES;

tiered! {
    /// # Safety
    /// `x` and `y` hold `n` bytes, whole vectors; on [`Tier::Avx512`] the CPU has VBMI.
    unsafe fn look_up(s: S; table: &[u8; 256], x: *const u8, y: *mut u8, n: usize) {
        let mut parts = [s.splat_i(0); 4];
        for v in 0..4 {
            parts[v] = s.load_i(table.as_ptr().add(v * VECTOR).cast());
        }
        let mut i = 0;
        while i < n {
            let found = s.lookup_wide(parts, s.load_i(x.add(i).cast()));
            s.store(y.add(i).cast(), s.of_bits(found));
            i += VECTOR;
        }
    }
}

/// Values to a slot or, of the last step, to the result.
///
/// # Safety
/// As [`steps`]; `to` holds `len` elements, up to a whole vector.
#[inline(always)]
unsafe fn put<S: Simd>(s: S, v: impl Value<S>, last: Option<(Format, *mut u8)>, to: *mut f32, len: usize) {
    // SAFETY: the caller's contract.
    unsafe {
        if let Some((format, y)) = last {
            return store(s, format, y, len, v);
        }
        let mut i = 0;
        while i < len {
            s.store(to.add(i), v.at(s, i));
            i += LANES;
        }
    }
}

/// Stores values between bounds, where there are any.
///
/// # Safety
/// As [`store`].
#[inline(always)]
unsafe fn within<S: Simd>(
    s: S,
    format: Format,
    y: *mut u8,
    n: usize,
    value: impl Value<S>,
    bounds: Option<(S::F, S::F)>,
) {
    // SAFETY: the caller's contract.
    unsafe {
        match bounds {
            Some((low, high)) => store(s, format, y, n, Bounded { value, low, high }),
            None => store(s, format, y, n, value),
        }
    }
}

tiered! {
    /// # Safety
    /// The chain was checked; a source holds `len` elements of its operand up to a whole vector, or one for all; `slots` has
    /// a slot of as many elements as it says for each step behind those of the operands, and `y` room for `len` results.
    unsafe fn steps(
        s: S; chain: &Chain, affine: Option<Affine>, tier: Tier, sources: &[Source; MOST_SLOTS], slots: *mut f32,
        size: usize, y: *mut u8, len: usize,
    ) {
        let operands = chain.operands.len();
        let x = |a: Arg| match a {
            Arg::Slot(k) if k < operands => Held(sources[k].at, s.splat(sources[k].one)),
            Arg::Slot(k) => Held(slots.add(k * size).cast_const(), s.splat(0.0)),
            Arg::Const(c) => Held(std::ptr::null(), s.splat(c)),
        };
        let bytes = |a: Arg| match a {
            Arg::Slot(k) if k < operands && !sources[k].bytes.is_null() => {
                dequantized(s, chain.operands[k], sources[k].bytes)
            }
            _ => None,
        };
        if let Some(a) = affine {
            let (from, mut ones) = (Arg::Slot(a.x), [[0.0; LANES]; 2]);
            let (factor, shift) = (a.factor.unwrap_or(Arg::Const(1.0)), a.shift.unwrap_or(Arg::Const(-0.0)));
            let lies = bytes(from).is_some() || !x(from).0.is_null();
            let bounds = a.cuts(chain.store).then(|| {
                (s.splat(a.low.unwrap_or(f32::NEG_INFINITY)), s.splat(a.high.unwrap_or(f32::INFINITY)))
            });
            let floats = Stepped(x(from).0, 1);
            if let (None, Some(q), true) = (a.factor, bytes(shift), lies) {
                return match bytes(from) {
                    Some(p) => within(s, chain.store, y, len, Both(p, q, Add), bounds),
                    None => within(s, chain.store, y, len, Both(q, floats, Add), bounds),
                };
            }
            if bytes(factor).is_none() && bytes(shift).is_none() && lies {
                let [one, other] = &mut ones;
                let (factor, shift) = (Stepped::of(s, x(factor), one), Stepped::of(s, x(shift), other));
                let unscaled = matches!(chain.operands[a.x], Format::Bytes { signed: false, scale: 1.0, .. });
                return match bytes(from) {
                    Some(x) if unscaled => {
                        within(s, chain.store, y, len, Line { x: x.unscaled(), factor, shift }, bounds)
                    }
                    Some(x) => within(s, chain.store, y, len, Line { x, factor, shift }, bounds),
                    None => within(s, chain.store, y, len, Line { x: floats, factor, shift }, bounds),
                };
            }
        }
        for (i, step) in chain.steps.iter().enumerate() {
            let slot = operands + i;
            let to = slots.add(slot * size);
            // The last step's results are stored from registers.
            let end = slot == chain.result && i + 1 == chain.steps.len();
            let last = end.then_some((chain.store, y));
            match *step {
                Step::Binary(op, a, b) => {
                    let (p, q, a, b) = (bytes(a), bytes(b), x(a), x(b));
                    match (op, p, q) {
                        (Binary::Add, Some(p), Some(q)) => put(s, Both(p, q, Add), last, to, len),
                        (Binary::Add, Some(p), None) => put(s, Both(p, b, Add), last, to, len),
                        (Binary::Add, None, Some(q)) => put(s, Both(q, a, Add), last, to, len),
                        (Binary::Mul, Some(p), Some(q)) => put(s, Both(p, q, Mul), last, to, len),
                        (Binary::Mul, Some(p), None) => put(s, Both(p, b, Mul), last, to, len),
                        (Binary::Mul, None, Some(q)) => put(s, Both(q, a, Mul), last, to, len),
                        (Binary::Add, ..) => put(s, Both(a, b, Add), last, to, len),
                        (Binary::Mul, ..) => put(s, Both(a, b, Mul), last, to, len),
                        (Binary::Sub, ..) => put(s, Both(a, b, Sub), last, to, len),
                        (Binary::Div, ..) => put(s, Both(a, b, Div), last, to, len),
                        (Binary::Min, ..) => put(s, Both(a, b, Min), last, to, len),
                        (Binary::Max, ..) => put(s, Both(a, b, Max), last, to, len),
                        (Binary::Leaky, ..) => put(s, Both(a, b, Leaky), last, to, len),
                    }
                }
                Step::Equal(a, b) => put(s, Same(x(a), x(b)), last, to, len),
                Step::Snap(format, a) => {
                    snap(s, format, x(a), to, len);
                    put_again(s, last, to, len);
                }
                Step::Map(f, a) => {
                    let mut from = x(a).0;
                    if from.is_null() {
                        put(s, x(a), None, to, len);
                        from = to;
                    }
                    f.run(tier, from, to, len.next_multiple_of(LANES));
                    put_again(s, last, to, len);
                }
            }
            if end {
                return;
            }
        }
        match bytes(Arg::Slot(chain.result)) {
            Some(p) => store(s, chain.store, y, len, p),
            None => store(s, chain.store, y, len, x(Arg::Slot(chain.result))),
        }
    }
}

/// Values of a slot to the result.
///
/// # Safety
/// As [`put`].
#[inline(always)]
unsafe fn put_again<S: Simd>(s: S, last: Option<(Format, *mut u8)>, to: *mut f32, len: usize) {
    if let Some((format, y)) = last {
        // SAFETY: the caller's contract.
        unsafe { store(s, format, y, len, Held(to.cast_const(), s.splat(0.0))) }
    }
}

tiered! {
    /// # Safety
    /// `p` holds `n` elements of the format, `y` whole vectors of them.
    unsafe fn load(s: S; format: Format, p: *const u8, y: *mut f32, n: usize) {
        if format == Format::Half {
            let p = p.cast::<u16>();
            let mut i = 0;
            while i + LANES <= n {
                s.store(y.add(i), s.load_half(p.add(i)));
                i += LANES;
            }
            if i < n {
                let mut tail = [0u16; LANES];
                std::ptr::copy_nonoverlapping(p.add(i), tail.as_mut_ptr(), n - i);
                s.store(y.add(i), s.load_half(tail.as_ptr()));
            }
            return;
        }
        let Some(bytes) = dequantized(s, format, p) else {
            return std::ptr::copy_nonoverlapping(p, y.cast(), 4 * n);
        };
        let mut i = 0;
        while i + LANES <= n {
            s.store(y.add(i), bytes.at(s, i));
            i += LANES;
        }
        if i < n {
            let mut tail = [0u8; LANES];
            std::ptr::copy_nonoverlapping(p.add(i), tail.as_mut_ptr(), n - i);
            s.store(y.add(i), bytes.from(tail.as_ptr()).at(s, 0));
        }
    }
}

/// Stores `n` values.
///
/// # Safety
/// `y` has room for `n` elements of the format.
#[inline(always)]
unsafe fn store<S: Simd, V: Value<S>>(s: S, format: Format, y: *mut u8, n: usize, value: V) {
    let mut i = 0;
    // SAFETY: the caller's contract; a vector of halves has room in `tail`.
    unsafe {
        if format == Format::Half {
            let y = y.cast::<u16>();
            while i < n {
                let v = value.at(s, i);
                if i + LANES <= n {
                    s.store_half(y.add(i), v);
                } else {
                    let mut tail = [0u16; LANES];
                    s.store_half(tail.as_mut_ptr(), v);
                    std::ptr::copy_nonoverlapping(tail.as_ptr(), y.add(i), n - i);
                }
                i += LANES;
            }
            return;
        }
        let Format::Bytes { signed, scale, zero } = format else {
            while i < n {
                s.store_up_to(y.cast::<f32>().add(i), value.at(s, i), n - i);
                i += LANES;
            }
            return;
        };
        let q = quantizer(s, signed, scale, zero);
        let mut v = [s.splat(0.0); 4];
        while i + 4 * LANES <= n {
            if V::SPREADS {
                q.store_spread(s, y.add(i), value.spread(s, i));
            } else {
                for k in 0..4 {
                    v[k] = value.at(s, i + k * LANES);
                }
                q.store(s, y.add(i), v, 4 * LANES);
            }
            i += 4 * LANES;
        }
        if i < n {
            for k in 0..4 {
                if i + k * LANES < n {
                    v[k] = value.at(s, i + k * LANES);
                }
            }
            q.store(s, y.add(i), v, n - i);
        }
    }
}

#[inline(always)]
fn quantizer<S: Simd>(s: S, signed: bool, scale: f32, zero: i32) -> Quantizer<S> {
    let (low, high) = if signed { (-128, 127) } else { (0, 255) };
    Quantizer::new(s, scale, zero, low, high)
}

/// # Safety
/// What is held and `y` have `n` elements, up to a whole vector.
#[inline(always)]
unsafe fn snap<S: Simd>(s: S, format: Format, x: Held<S::F>, y: *mut f32, n: usize) {
    let mut i = 0;
    // SAFETY: the caller's contract; a vector of halves has room in `tail`.
    unsafe {
        let Format::Bytes { signed, scale, zero } = format else {
            while i < n {
                let mut v = x.at(s, i);
                if format == Format::Half {
                    let mut tail = [0u16; LANES];
                    s.store_half(tail.as_mut_ptr(), v);
                    v = s.load_half(tail.as_ptr());
                }
                s.store(y.add(i), v);
                i += LANES;
            }
            return;
        };
        let q = quantizer(s, signed, scale, zero);
        while i + 4 * LANES <= n {
            let mut v = [s.splat(0.0); 4];
            for k in 0..4 {
                v[k] = x.at(s, i + k * LANES);
            }
            let v = q.snap(s, v);
            for k in 0..4 {
                s.store(y.add(i + k * LANES), v[k]);
            }
            i += 4 * LANES;
        }
        while i < n {
            let [v] = q.snap(s, [x.at(s, i)]);
            s.store(y.add(i), v);
            i += LANES;
        }
    }
}

mod affine;
mod values;

#[cfg(test)]
mod tests;
