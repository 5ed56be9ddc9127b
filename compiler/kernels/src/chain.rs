//! kernel: chains of element-wise operators whose operands and results may be 8-bit integers with a scale and a zero point.
//!
//! Elements are worked on in blocks that stay in the first-level cache: operands become float32 there, each step is one pass
//! of vectors over the block, and the result is quantized on its way out. Every step rounds as the operator by itself does.

use crate::dispatch::{Tier, has_vbmi};
use crate::error::{Error, product, same_length};
use crate::integers::Codes;
use crate::quantizer::Quantizer;
use crate::scratch;
use crate::simd::{LANES, Simd, tiered};
use crate::stored::{Reader, Stored, Writer};
use crate::vecmath::Function;

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

/// Elements of a block.
const BLOCK: usize = 256;
/// Elements by which a block may be longer.
const REST: usize = 64;
/// A slot has room for a vector that starts at its last element.
const SLOT: usize = BLOCK + REST + LANES;
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
        scratch::with(slots * SLOT, |slots| {
            let start = slots.as_ptr();
            let at = std::array::from_fn(|k| start.wrapping_add(k * SLOT));
            let mut at =
                Run { chain: self, tier: tier.usable(), operands, slots, at, one: [0.0; MOST_SLOTS], out, n };
            if n > BLOCK / 2 { at.wide(rows) } else { at.narrow(rows) }
        });
        Ok(())
    }
}

struct Run<'a, 'b> {
    chain: &'a Chain,
    tier: Tier,
    operands: &'a [Place<'a>],
    slots: &'b mut [f32],
    /// Where the operands' elements of a block are: in their slots, or where they lie.
    at: [*const f32; MOST_SLOTS],
    /// Where that is null: the operand's one element.
    one: [f32; MOST_SLOTS],
    out: &'b mut [u8],
    n: usize,
}

impl Run<'_, '_> {
    /// Rows of several blocks.
    fn wide(&mut self, rows: usize) {
        // A short rest is part of the block before it.
        let blocks = self.n.saturating_sub(REST).div_ceil(BLOCK).max(1);
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
        let (n, most) = (self.n, BLOCK / self.n);
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
        let readable = (from + len.next_multiple_of(LANES)).saturating_mul(4) <= data.len();
        if format.size() == 4 && len == block && inner == 1 && readable && start.cast::<f32>().is_aligned() {
            self.at[k] = start.cast();
            return;
        }
        let slot = &mut self.slots[k * SLOT + to..(k + 1) * SLOT];
        self.at[k] = slot.as_ptr().wrapping_sub(to);
        if inner == 0 {
            let mut one = [0.0; LANES];
            // SAFETY: the element was checked to lie in the operand; `one` holds a vector.
            unsafe { load(self.tier, format, start, one.as_mut_ptr(), 1) };
            if self.n > BLOCK / 2 {
                (self.at[k], self.one[k]) = (std::ptr::null(), one[0]);
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
        let slots = self.slots.as_mut_ptr();
        // SAFETY: slots were checked, hold whole vectors of elements and are apart; the result has `len` elements from
        // there on.
        unsafe { steps(self.tier, self.chain, self.tier, &self.at, &self.one, slots, y, len) }
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

/// A value of each element, a vector at a time. Types, not closures: these are sure to be inlined.
trait Value<S: Simd>: Copy {
    /// # Safety
    /// The vector from element `i` on lies in the operands.
    unsafe fn at(self, s: S, i: usize) -> S::F;
}

/// What a pointer leads to or, where it is null, a number.
#[derive(Clone, Copy)]
struct Held<F>(*const f32, F);

impl<S: Simd> Value<S> for Held<S::F> {
    #[inline(always)]
    unsafe fn at(self, s: S, i: usize) -> S::F {
        // SAFETY: the caller's contract.
        if self.0.is_null() { self.1 } else { unsafe { s.load(self.0.add(i)) } }
    }
}

/// 1 where the bits of two values are equal.
#[derive(Clone, Copy)]
struct Same<F>(Held<F>, Held<F>);

impl<S: Simd> Value<S> for Same<S::F> {
    #[inline(always)]
    unsafe fn at(self, s: S, i: usize) -> S::F {
        // SAFETY: the caller's contract.
        let (a, b) = unsafe { (self.0.at(s, i), self.1.at(s, i)) };
        let apart = s.to_f(s.xor_i(s.bits(a), s.bits(b)));
        s.select(s.eq(apart, s.splat(0.0)), s.splat(1.0), s.splat(0.0))
    }
}

/// Two values and what is made of them.
#[derive(Clone, Copy)]
struct Both<F, O>(Held<F>, Held<F>, O);

macro_rules! operators {
    ($($name:ident: |$s:ident, $x:ident, $y:ident| $e:expr;)*) => {$(
        #[derive(Clone, Copy)]
        struct $name;

        impl<S: Simd> Value<S> for Both<S::F, $name> {
            #[inline(always)]
            unsafe fn at(self, $s: S, i: usize) -> S::F {
                // SAFETY: the caller's contract.
                let ($x, $y) = unsafe { (self.0.at($s, i), self.1.at($s, i)) };
                $e
            }
        }
    )*};
}

operators! {
    Add: |s, x, y| s.add(x, y);
    Sub: |s, x, y| s.sub(x, y);
    Mul: |s, x, y| s.mul(x, y);
    Div: |s, x, y| s.div(x, y);
    // The instructions give their second operand where one is NaN.
    Min: |s, x, y| s.select(s.is_nan(x), x, s.min(x, y));
    Max: |s, x, y| s.select(s.is_nan(x), x, s.max(x, y));
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

tiered! {
    /// # Safety
    /// The chain was checked; `at` holds `len` elements of each operand up to a whole vector, or is null where `one` is
    /// the operand; `slots` has a slot for each step behind those of the operands, and `y` room for `len` results.
    unsafe fn steps(
        s: S; chain: &Chain, tier: Tier, at: &[*const f32; MOST_SLOTS], one: &[f32; MOST_SLOTS], slots: *mut f32,
        y: *mut u8, len: usize,
    ) {
        let operands = chain.operands.len();
        let x = |a: Arg| match a {
            Arg::Slot(k) if k < operands => Held(at[k], s.splat(one[k])),
            Arg::Slot(k) => Held(slots.add(k * SLOT).cast_const(), s.splat(0.0)),
            Arg::Const(c) => Held(std::ptr::null(), s.splat(c)),
        };
        for (i, step) in chain.steps.iter().enumerate() {
            let slot = operands + i;
            let to = slots.add(slot * SLOT);
            // The last step's results are stored from registers.
            let end = slot == chain.result && i + 1 == chain.steps.len();
            let last = end.then_some((chain.store, y));
            match *step {
                Step::Binary(op, a, b) => {
                    let (a, b) = (x(a), x(b));
                    match op {
                        Binary::Add => put(s, Both(a, b, Add), last, to, len),
                        Binary::Sub => put(s, Both(a, b, Sub), last, to, len),
                        Binary::Mul => put(s, Both(a, b, Mul), last, to, len),
                        Binary::Div => put(s, Both(a, b, Div), last, to, len),
                        Binary::Min => put(s, Both(a, b, Min), last, to, len),
                        Binary::Max => put(s, Both(a, b, Max), last, to, len),
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
        store(s, chain.store, y, len, x(Arg::Slot(chain.result)));
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
        let Format::Bytes { signed, scale, zero } = format else {
            return std::ptr::copy_nonoverlapping(p, y.cast(), 4 * n);
        };
        let flip = if signed { 0x80 } else { 0 };
        let (scale, flips, zero) = (s.splat(scale), s.splat_i(flip), s.splat_i(zero.wrapping_add(flip)));
        let mut i = 0;
        while i < n {
            let x = if i + LANES <= n {
                s.load_bytes(p.add(i))
            } else {
                let mut tail = [0u8; LANES];
                std::ptr::copy_nonoverlapping(p.add(i), tail.as_mut_ptr(), n - i);
                s.load_bytes(tail.as_ptr())
            };
            s.store(y.add(i), s.mul(s.to_f(s.sub_i(s.xor_i(x, flips), zero)), scale));
            i += LANES;
        }
    }
}

/// Stores `n` values.
///
/// # Safety
/// `y` has room for `n` elements of the format.
#[inline(always)]
unsafe fn store<S: Simd>(s: S, format: Format, y: *mut u8, n: usize, value: impl Value<S>) {
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
        let shift: i16 = if signed { 128 } else { 0 };
        let codes = Codes::plain(shift);
        let q = quantizer(s, signed, scale, zero);
        while i < n {
            let mut v = [s.splat(0.0); 4];
            for k in 0..4 {
                if i + k * LANES < n {
                    v[k] = value.at(s, i + k * LANES);
                }
            }
            s.store_codes(y.add(i), q.all(s, v), codes, n - i);
            i += 4 * LANES;
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

#[cfg(test)]
mod tests;
