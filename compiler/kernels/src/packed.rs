//! Products with weights of few bits that stay packed: integers of up to 8 bits with scales, or entries of a table.
//!
//! Weights are multiplied as bytes. The float32 activations are cut into three 8-bit digits per block of inputs
//! ([`Precision::Float`]), so that integer dot products compute what float products would: a digit row stands for
//! x within 2⁻²³ of the block's largest |x|, table entries within 2⁻²³ of the largest, and sums inside a block are
//! exact. [`Precision::Bytes`] takes one digit: activations rounded to 8 bits, for files that ask for it.

mod coding;
mod digits;
mod entries;
mod source;
mod stored;
mod stream;
#[cfg(target_arch = "x86_64")]
mod tiles;

use crate::dispatch::Tier;
use crate::epilogue::{Epilogue, holds};
use crate::error::{Error, product, same_length};
use crate::pack::{Aligned, Strides};
use crate::parallel::Pool;
use crate::simd::LANES;
use entries::Entries;
use half::f16;
use source::{Kept, VECTOR};

/// How activations meet packed weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Precision {
    /// As float32 products, within their own rounding.
    Float,
    /// Activations rounded to 1/32639 of the largest of each block of at most 256 inputs: nearer than half floats where
    /// values are above a sixteenth of the largest.
    Words,
    /// Activations rounded to 8 bits with a scale for each block.
    Bytes,
}

/// What codes count from.
#[derive(Clone, Copy, Debug)]
pub enum Zero<'a> {
    /// One number for all.
    One(i32),
    /// One for each scale.
    Each(&'a [f32]),
}

/// Weights of a product by `k × n` as codes: `w = scale · (value(code) − zero)`, where the value of a code is the
/// code itself or an entry of the table.
#[derive(Clone, Copy, Debug)]
pub struct Codes<'a> {
    /// A byte for each weight.
    pub codes: &'a [u8],
    /// Where the code of a weight is.
    pub strides: Strides,
    pub k: usize,
    pub n: usize,
    /// 4 or 8: what codes are stored in.
    pub bits: u32,
    /// Inputs that share a scale; `k` or more for one scale for each output.
    pub block: usize,
    /// `n × ⌈k / block⌉`, blocks adjacent.
    pub scale: &'a [f32],
    pub zero: Zero<'a>,
    /// 16 entries for 4 bits, 256 for 8.
    pub table: Option<&'a [f32]>,
}

/// The longest block whose sums stay exact, and after which activations get a new scale.
const LONGEST: usize = 256;

/// The share of zeros from which on a bitmap of 8-bit codes is read faster than all of them, where these come from memory:
/// at 50 % as fast, at 60 % faster, by `cargo run --release -p compress-kernels --example sparse 4096 4096` and the example
/// `packed`. In the caches all codes are read 1.8 times as fast at any share (768 × 768), and codes of 4 bits everywhere.
const SPARSE: f64 = 0.6;

/// Weights from which on floats leave the second-level cache and more.
const LARGE: usize = 4 << 20;
/// Inputs from which on what is done once for each sum does not count.
const LONG: usize = 256;

/// Scales as the kernel reads them: panel by panel, block by block.
#[derive(Clone)]
enum Scales {
    Half(Vec<u16>),
    Single(Vec<f32>),
}

/// Packed weights of a `k × n` product.
#[derive(Clone)]
pub struct PackedCodes {
    tier: Tier,
    k: usize,
    n: usize,
    bits: u32,
    /// Inputs of a block.
    block: usize,
    /// Scales for each output: 1, or one for each block.
    blocks: usize,
    data: Aligned,
    /// In place of `data`, what is not zero.
    kept: Option<Kept>,
    scales: Scales,
    /// `-scale · zero` where zeros differ.
    offsets: Option<Vec<f32>>,
    /// What all codes count from.
    zero: i32,
    entries: Option<Entries>,
}

/// The columns of a panel: 64, or 16 for those left over and on tiers of few registers.
fn panel_at(tier: Tier, n: usize, col: usize) -> usize {
    if tier == Tier::Avx512 && n.div_ceil(LANES) * LANES - col >= 4 * LANES { 4 } else { 1 }
}

/// Columns and widths in vectors of all panels.
fn panels(tier: Tier, n: usize) -> impl Iterator<Item = (usize, usize)> {
    let mut col = 0;
    std::iter::from_fn(move || {
        let at = col;
        (at < n).then(|| {
            let width = panel_at(tier, n, at);
            col += width * LANES;
            (at, width)
        })
    })
}

impl PackedCodes {
    /// Packs weights in the form that is read fastest: with a bitmap where many are zero. `None` where no kernel of the
    /// tier reads them.
    pub fn new(tier: Tier, c: &Codes) -> Result<Option<PackedCodes>, Error> {
        if let Zero::One(zero) = c.zero
            && c.table.is_none()
        {
            let zeros = c.codes.iter().filter(|&&code| i32::from(code) == zero).count();
            if PackedCodes::bitmap_pays(c, zeros)
                && let Some(sparse) = PackedCodes::sparse(tier, c)?
            {
                return Ok(Some(sparse));
            }
        }
        PackedCodes::dense(tier, c)
    }

    fn bitmap_pays(c: &Codes, zeros: usize) -> bool {
        let all = c.k.saturating_mul(c.n);
        c.bits == 8 && all >= LARGE && zeros as f64 >= SPARSE * all as f64
    }

    /// The code of a weight that is zero, where there is one for all.
    fn zero_code(&self) -> Option<i32> {
        (self.entries.is_none() && self.offsets.is_none()).then_some(self.zero)
    }

    /// Packs only what is not zero, and a bitmap; `None` where no kernel of the tier reads this form.
    pub fn sparse(tier: Tier, c: &Codes) -> Result<Option<PackedCodes>, Error> {
        if !(tier.usable() == Tier::Portable || tier.usable() == Tier::Avx512 && crate::dispatch::has_vbmi2())
        {
            return Ok(None);
        }
        let Some(mut packed) = PackedCodes::dense(tier, &Codes { bits: 8, table: None, ..*c })? else {
            return Ok(None);
        };
        let zero = match packed.zero_code().map(u8::try_from) {
            Some(Ok(z)) if c.table.is_none() => z,
            _ => return Ok(None),
        };
        let mut kept = Kept::default();
        let vectors = packed.vectors();
        for (i, vector) in packed.data.as_bytes().chunks_exact(VECTOR).enumerate() {
            if i % vectors == 0 {
                kept.starts.push(kept.values.len());
            }
            let mut mask = 0;
            for (b, &x) in vector.iter().enumerate().filter(|(_, x)| **x != zero) {
                mask |= 1 << b;
                kept.values.push(x);
            }
            kept.masks.push(mask);
        }
        kept.values.extend([0; VECTOR]);
        kept.values.shrink_to_fit();
        packed.data = Aligned::zeros(0);
        packed.kept = Some(kept);
        Ok(Some(packed))
    }

    /// Packs all weights; `None` where no kernel of the tier reads this form.
    pub fn dense(tier: Tier, c: &Codes) -> Result<Option<PackedCodes>, Error> {
        let tier = tier.usable();
        c.strides.check("codes", c.codes.len(), c.k, c.n)?;
        let (k, n) = (c.k, c.n);
        if k == 0 || n == 0 || !matches!(c.bits, 4 | 8) || c.block == 0 {
            return Ok(None);
        }
        let groups = k.div_ceil(c.block);
        same_length("scales", product("scales", &[n, groups])?, c.scale.len())?;
        if let Zero::Each(z) = c.zero {
            same_length("zero points", c.scale.len(), z.len())?;
        }
        let mut zero = if let Zero::One(z) = c.zero { z } else { 0 };
        let mut unit = 1.0;
        let mut entries = None;
        if let Some(t) = c.table {
            same_length("table", 1 << c.bits, t.len())?;
            let Some(e) = Entries::of(t).filter(|e| zero == 0 && e.readable(tier)) else { return Ok(None) };
            unit = e.unit();
            zero = 128;
            entries = Some(e);
        }
        // Sums of a block must fit an i32 with room for the zero.
        let Some(block) = flushed(k, c.block).filter(|_| (-1024..=1024).contains(&zero)) else {
            return Ok(None);
        };
        let blocks = if groups == 1 { 1 } else { k.div_ceil(block) };
        let cells =
            product("packed weights", &[n.next_multiple_of(LANES), depth(k, c.bits), c.bits as usize])?;
        let mut packed = PackedCodes {
            tier,
            k,
            n,
            bits: c.bits,
            block,
            blocks,
            data: Aligned::zeros(cells.div_ceil(32)),
            kept: None,
            scales: Scales::Single(Vec::new()),
            offsets: None,
            zero,
            entries,
        };
        packed.fill(c);
        let per = if blocks == 1 { k } else { block };
        let at = |col: usize, b: usize| col * groups + b * per / c.block;
        let scales = packed.spread(|col, b| c.scale[at(col, b)] * unit);
        if let Zero::Each(z) = c.zero {
            packed.offsets = Some(packed.spread(|col, b| -c.scale[at(col, b)] * z[at(col, b)]));
        }
        let half: Vec<u16> = scales.iter().map(|&s| f16::from_f32(s).to_bits()).collect();
        let exact = half.iter().zip(&scales).all(|(&h, &s)| f16::from_bits(h).to_f32() == s);
        packed.scales = if exact && blocks > 1 { Scales::Half(half) } else { Scales::Single(scales) };
        Ok(Some(packed))
    }

    /// One value for each output and block, in the order of the panels.
    fn spread(&self, value: impl Fn(usize, usize) -> f32) -> Vec<f32> {
        let mut out = Vec::with_capacity(self.n.next_multiple_of(LANES) * self.blocks);
        for (col, width) in panels(self.tier, self.n) {
            for b in 0..self.blocks {
                let columns = col..col + width * LANES;
                out.extend(columns.map(|c| if c < self.n { value(c, b) } else { 0.0 }));
            }
        }
        out
    }

    fn fill(&mut self, c: &Codes) {
        let (tier, k, n) = (self.tier, self.k, self.n);
        let per = 32 / self.bits as usize;
        let bytes: &mut [u8] = bytemuck::cast_slice_mut(self.data.as_mut_slice());
        let mut cells = bytes.chunks_exact_mut(4);
        for (col, width) in panels(tier, n) {
            for first in (0..k).step_by(per) {
                for lane in col..col + width * LANES {
                    let Some(cell) = cells.next() else { return };
                    if lane >= n {
                        continue;
                    }
                    let code = |i: usize| match first + i {
                        i if i < k => c.codes[i * c.strides.row + lane * c.strides.col],
                        _ => 0,
                    };
                    for (i, byte) in cell.iter_mut().enumerate() {
                        *byte = if per == 8 { code(i) & 15 | code(i + 4) << 4 } else { code(i) };
                    }
                }
            }
        }
    }

    /// Numbers of rows between which [`PackedCodes::for_rows`] decides alike.
    const STEPS: [usize; 8] = [1, 2, 3, 4, 8, 64, 128, 1024];

    /// The most rows for which weights are packed as for `m`.
    pub fn rows_like(m: usize) -> usize {
        PackedCodes::STEPS.into_iter().find(|&most| m <= most).unwrap_or(match m {
            ..=PackedCodes::MOST_ROWS => PackedCodes::MOST_ROWS,
            _ => usize::MAX,
        })
    }

    /// Most rows for which any weights stay packed.
    pub const MOST_ROWS: usize = 1 << 16;

    /// Whether `m` rows are multiplied faster with these weights than with floats. Measured with
    /// `cargo run --release -p compress-kernels --example packed K N rows` on one thread with AVX-512, for weights of 96 × 384
    /// to 4096 × 4096. Rows as words win with integers of any block at all rows that were tried, by 1.3 to 2.7, and with 16
    /// entries by 1.2 and more. In float precision integers with one scale win by 1.25 to 1.7 up to 512; those of 4 bits with a
    /// scale for each 32 inputs by 1.1 and more up to 128, those of 8 bits with as many scales by 1.06 to 1.3 up to 64, of small
    /// weights up to 2 rows; 16 entries up to 8 rows of large weights and 1 of small ones, 256 entries up to 3 and 1.
    pub fn pays(tier: Tier, c: &Codes, m: usize, precision: Precision) -> bool {
        let large = c.k.saturating_mul(c.n) >= LARGE;
        let wide = tier.usable() == Tier::Avx512 && c.k >= LONG;
        let few_codes = c.table.is_none() || c.bits == 4;
        m <= match c.table {
            _ if wide && few_codes && precision == Precision::Words => Self::MOST_ROWS,
            None if !wide => 4,
            None if c.block >= c.k => 1024,
            None if c.bits == 4 => 128,
            None if large => 64,
            None => 2,
            Some(_) if !large => 1,
            Some(_) if c.bits == 4 => 8,
            Some(_) => 3,
        }
    }

    /// Packs weights for products of `m` rows; `None` where floats are as fast, or no kernel of the tier reads them.
    pub fn for_rows(
        tier: Tier,
        c: &Codes,
        m: usize,
        precision: Precision,
    ) -> Result<Option<PackedCodes>, Error> {
        match m {
            _ if !PackedCodes::pays(tier, c, m, precision) => Ok(None),
            // Bitmaps are read again for each row.
            0..=4 => PackedCodes::new(tier, c),
            _ => PackedCodes::dense(tier, c),
        }
    }

    /// Whether rows may be two digits: not where products are those of few rows, which wait for memory, and not on tiers
    /// that gain nothing.
    fn takes_words(&self) -> bool {
        let large = self.entries.as_ref().is_some_and(|e| e.entries() > 16);
        self.tier == Tier::Avx512 && self.kept.is_none() && !large
    }

    pub fn k(&self) -> usize {
        self.k
    }

    pub fn n(&self) -> usize {
        self.n
    }

    /// Bytes of memory it holds.
    pub fn bytes(&self) -> usize {
        let scales = match &self.scales {
            Scales::Half(s) => size_of_val(&s[..]),
            Scales::Single(s) => size_of_val(&s[..]),
        };
        let kept = self.kept.as_ref().map_or(0, |k| 8 * k.masks.len() + k.values.len());
        self.data.bytes() + kept + scales + self.offsets.as_ref().map_or(0, |o| size_of_val(&o[..]))
    }

    /// Blocks of inputs, each with its own activation scale.
    fn flushes(&self) -> usize {
        self.k.div_ceil(self.block)
    }

    /// Inputs of block `b`, up to the padding.
    fn block_len(&self, b: usize) -> usize {
        self.block.min(depth(self.k, self.bits) - b * self.block)
    }

    /// Packed vectors for each 16 outputs.
    fn vectors(&self) -> usize {
        depth(self.k, self.bits) * self.bits as usize / 32
    }

    /// Calls `f` with each input, vector of outputs and their weights, over the panel at `col`.
    fn each_weight(&self, col: usize, width: usize, f: &mut dyn FnMut(usize, usize, &[f32; LANES])) {
        let per = 32 / self.bits as usize;
        let first = col / LANES * self.vectors();
        let mut value = self.kept.as_ref().map_or(0, |kept| kept.starts[col / LANES]);
        for i in 0..self.vectors() * width {
            let mut bytes = [self.zero as u8; VECTOR];
            match &self.kept {
                Some(kept) => {
                    for (b, byte) in bytes.iter_mut().enumerate() {
                        if kept.masks[first + i] >> b & 1 == 1 {
                            *byte = kept.values[value];
                            value += 1;
                        }
                    }
                }
                None => bytes.copy_from_slice(&self.data.as_bytes()[(first + i) * VECTOR..][..VECTOR]),
            }
            let (start, v) = (i / width * per, i % width);
            for k in start..self.k.min(start + per) {
                f(k, v, &self.weights(&bytes, (col, width), v, k));
            }
        }
    }

    /// The weights for input `k` in a vector's bytes.
    fn weights(
        &self,
        bytes: &[u8; VECTOR],
        (col, width): (usize, usize),
        v: usize,
        k: usize,
    ) -> [f32; LANES] {
        let b = if self.blocks == 1 { 0 } else { k / self.block };
        let scale = col * self.blocks + (b * width + v) * LANES;
        std::array::from_fn(|l| {
            let byte = bytes[4 * l + k % 4];
            let code = match (self.bits, k % 8 < 4) {
                (8, _) => byte,
                (_, true) => byte & 15,
                (_, false) => byte >> 4,
            };
            let value = match &self.entries {
                Some(e) => e.value(code),
                None => (i32::from(code) - self.zero) as f32,
            };
            let s = match &self.scales {
                Scales::Half(s) => f16::from_bits(s[scale + l]).to_f32(),
                Scales::Single(s) => s[scale + l],
            };
            s * value + self.offsets.as_ref().map_or(0.0, |o| o[scale + l])
        })
    }
}

/// `k` up to the inputs of a whole cell.
fn depth(k: usize, bits: u32) -> usize {
    k.next_multiple_of(32 / bits as usize)
}

/// The block after which sums are scaled: the longest part of `block` that whole cells fill.
fn flushed(k: usize, block: usize) -> Option<usize> {
    if block >= k {
        return Some(LONGEST);
    }
    (8..=LONGEST.min(block)).rev().find(|b| b % 8 == 0 && block.is_multiple_of(*b))
}

/// `C = act(alpha · A·W + …)` with W packed. A is `m × k` with rows `a_stride` apart, C is `m × n` with rows
/// `c_stride` apart.
pub fn gemm_packed(
    pool: &dyn Pool,
    precision: Precision,
    m: usize,
    (a, a_stride): (&[f32], usize),
    w: &PackedCodes,
    (c, c_stride): (&mut [f32], usize),
    alpha: f32,
    epilogue: &Epilogue,
) -> Result<(), Error> {
    Strides { row: a_stride, col: 1 }.check("A", a.len(), m, w.k)?;
    holds("C", c.len(), m, w.n, c_stride)?;
    let finish = epilogue.finish(alpha, m, w.n)?;
    let job = stream::Job { w, c: c.as_mut_ptr(), c_step: c_stride, finish: &finish };
    // SAFETY: the extents were checked.
    unsafe { stream::run(pool, precision, m, (a.as_ptr(), a_stride), &job) }
}

#[cfg(test)]
mod tests;
