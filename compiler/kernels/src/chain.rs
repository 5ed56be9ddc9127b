//! kernel: chains of element-wise operators whose operands and results may be 8-bit integers with a scale and a zero point.
//!
//! Elements are worked on in blocks that stay in the first-level cache: operands become float32 there, each step is one pass
//! of vectors over the block, and the result is quantized on its way out. Every step rounds as the operator by itself does.

use crate::dispatch::Tier;
use crate::error::{Error, product};
use crate::integers::{Codes, Quantizer};
use crate::scratch;
use crate::simd::{LANES, Simd, tiered};
use crate::vecmath::Function;

/// How elements are stored.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Format {
    F32,
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
            Format::F32 => 4,
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
/// A slot has room for a vector that starts at its last element.
const SLOT: usize = BLOCK + LANES;
/// Operands and steps of a chain.
pub const MOST_SLOTS: usize = 24;

impl Chain {
    fn check(&self) -> Result<(), Error> {
        let slots = self.operands.len() + self.steps.len();
        let earlier = |i: usize, a: Arg| !matches!(a, Arg::Slot(s) if s >= self.operands.len() + i);
        let fine = self.steps.iter().enumerate().all(|(i, s)| match *s {
            Step::Binary(_, a, b) => earlier(i, a) && earlier(i, b),
            Step::Map(_, a) | Step::Snap(_, a) => earlier(i, a),
        });
        if !fine || self.result >= slots || slots > MOST_SLOTS {
            return Err(Error::Shape { what: "a chain reads a slot that is not there" });
        }
        Ok(())
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
            let mut at = Run { chain: self, tier: tier.usable(), operands, slots, out, n };
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
    out: &'b mut [u8],
    n: usize,
}

impl Run<'_, '_> {
    /// Rows of several blocks.
    fn wide(&mut self, rows: usize) {
        for r in 0..rows {
            for first in (0..self.n).step_by(BLOCK) {
                let len = BLOCK.min(self.n - first);
                for k in 0..self.operands.len() {
                    let p = self.operands[k];
                    self.fill(k, 0, p.row * r + p.inner * first, p.inner, len);
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
                (0..most.min(rows)).for_each(|i| self.fill(k, i * n, 0, self.operands[k].inner, n));
            }
        }
        for first in (0..rows).step_by(most) {
            let count = most.min(rows - first);
            for k in 0..self.operands.len() {
                let p = self.operands[k];
                if p.row == n && p.inner == 1 {
                    self.fill(k, 0, first * n, 1, count * n);
                } else if p.row != 0 {
                    (0..count).for_each(|i| self.fill(k, i * n, (first + i) * p.row, p.inner, n));
                }
            }
            self.steps(first * n, count * n);
        }
    }

    /// Elements `from..` of operand `k` to its slot.
    fn fill(&mut self, k: usize, to: usize, from: usize, inner: usize, len: usize) {
        let (format, data) = (self.chain.operands[k], self.operands[k].data);
        let slot = &mut self.slots[k * SLOT + to..(k + 1) * SLOT];
        if inner == 0 {
            let mut one = [0.0; LANES];
            // SAFETY: the element was checked to lie in the operand; `one` holds a vector.
            unsafe { load(self.tier, format, data.as_ptr().add(from * format.size()), one.as_mut_ptr(), 1) };
            slot[..len].fill(one[0]);
            return;
        }
        // SAFETY: the elements were checked to lie in the operand; a slot has room for a vector past its block.
        unsafe { load(self.tier, format, data.as_ptr().add(from * format.size()), slot.as_mut_ptr(), len) }
    }

    /// All steps over the first `len` elements of the slots, and storing them at element `to`.
    fn steps(&mut self, to: usize, len: usize) {
        let (chain, tier) = (self.chain, self.tier);
        let start = self.slots.as_mut_ptr();
        let padded = len.next_multiple_of(LANES);
        for (i, step) in chain.steps.iter().enumerate() {
            let y = start.wrapping_add((chain.operands.len() + i) * SLOT);
            let x = |a: Arg| match a {
                Arg::Slot(s) => (start.wrapping_add(s * SLOT).cast_const(), 0.0),
                Arg::Const(c) => (std::ptr::null(), c),
            };
            // SAFETY: slots were checked, hold whole vectors of elements and are apart.
            unsafe {
                match *step {
                    Step::Binary(op, a, b) => binary(tier, op, x(a), x(b), y, padded),
                    Step::Snap(format, a) => {
                        let a = held(x(a), y, padded);
                        snap(tier, format, a, y, padded);
                    }
                    Step::Map(f, a) => {
                        let a = held(x(a), y, padded);
                        f.run(tier, a, y, padded);
                    }
                }
            }
        }
        let size = chain.store.size();
        let y = self.out[to * size..(to + len) * size].as_mut_ptr();
        // SAFETY: the slot was checked; the result has `len` elements from there on.
        unsafe { store(tier, chain.store, start.add(chain.result * SLOT), y, len) }
    }
}

/// A step's operand in memory: a number is spread over the result.
///
/// # Safety
/// `y` holds `n` elements.
unsafe fn held((p, c): (*const f32, f32), y: *mut f32, n: usize) -> *const f32 {
    if p.is_null() {
        // SAFETY: the caller's contract.
        unsafe { std::slice::from_raw_parts_mut(y, n) }.fill(c);
        return y;
    }
    p
}

tiered! {
    /// # Safety
    /// `p` holds `n` elements of the format, `y` whole vectors of them.
    unsafe fn load(s: S; format: Format, p: *const u8, y: *mut f32, n: usize) {
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

tiered! {
    /// # Safety
    /// `x` holds whole vectors of `n` elements, `y` has room for `n` of the format.
    unsafe fn store(s: S; format: Format, x: *const f32, y: *mut u8, n: usize) {
        let Format::Bytes { signed, scale, zero } = format else {
            return std::ptr::copy_nonoverlapping(x.cast(), y, 4 * n);
        };
        let shift: i16 = if signed { 128 } else { 0 };
        let codes = Codes { zero: shift, low: 0, high: 255, flip: shift as u8, far: false };
        let q = quantizer(s, signed, scale, zero);
        let mut i = 0;
        while i < n {
            let mut v = [s.splat(0.0); 4];
            for k in 0..4 {
                if i + k * LANES < n {
                    v[k] = s.load(x.add(i + k * LANES));
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

tiered! {
    /// # Safety
    /// `x` and `y` hold `n` elements, whole vectors.
    unsafe fn snap(s: S; format: Format, x: *const f32, y: *mut f32, n: usize) {
        let Format::Bytes { signed, scale, zero } = format else {
            return std::ptr::copy(x, y, n);
        };
        let q = quantizer(s, signed, scale, zero);
        let (scale, zero) = (s.splat(scale), s.splat_i(zero));
        let mut i = 0;
        while i < n {
            let code = q.of(s, s.load(x.add(i)));
            s.store(y.add(i), s.mul(s.to_f(s.sub_i(code, zero)), scale));
            i += LANES;
        }
    }
}

tiered! {
    /// Operands are pointers, or a number where the pointer is null.
    ///
    /// # Safety
    /// What is pointed at and `y` hold `n` elements, whole vectors.
    unsafe fn binary(s: S; op: Binary, a: (*const f32, f32), b: (*const f32, f32), y: *mut f32, n: usize) {
        match op {
            Binary::Add => each(s, a, b, y, n, |x, y| s.add(x, y)),
            Binary::Sub => each(s, a, b, y, n, |x, y| s.sub(x, y)),
            Binary::Mul => each(s, a, b, y, n, |x, y| s.mul(x, y)),
            Binary::Div => each(s, a, b, y, n, |x, y| s.div(x, y)),
            // Both give their second operand where one is NaN.
            Binary::Min => each(s, a, b, y, n, |x, y| s.select(s.is_nan(x), x, s.min(x, y))),
            Binary::Max => each(s, a, b, y, n, |x, y| s.select(s.is_nan(x), x, s.max(x, y))),
        }
    }
}

/// # Safety
/// As [`binary`].
#[inline(always)]
unsafe fn each<S: Simd>(
    s: S,
    a: (*const f32, f32),
    b: (*const f32, f32),
    y: *mut f32,
    n: usize,
    f: impl Fn(S::F, S::F) -> S::F,
) {
    let (ca, cb) = (s.splat(a.1), s.splat(b.1));
    let mut i = 0;
    while i < n {
        // SAFETY: the caller's contract.
        unsafe {
            let x = if a.0.is_null() { ca } else { s.load(a.0.add(i)) };
            let z = if b.0.is_null() { cb } else { s.load(b.0.add(i)) };
            s.store(y.add(i), f(x, z));
        }
        i += LANES;
    }
}

#[cfg(test)]
mod tests;
