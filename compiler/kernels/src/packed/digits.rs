//! kernel: activations as digits of eight bits.

use super::{PackedCodes, depth};
use crate::parallel::Pool;
use crate::partition::{Parts, ranges};
use crate::simd::{LANES, Simd, tiered};

/// From here on sums before their scales might leave float32: such rows are multiplied as floats with scaled weights, and
/// overflow only where float products do.
const HUGE: f32 = 1e28;
/// Digits of activations in float precision.
pub(super) const FLOAT: usize = 3;
/// Digits of activations as words.
pub(super) const WORDS: usize = 2;

/// Rows of activations as digits: block by block, in each the bytes of digit 0, then of digit 1, and so on.
pub(super) struct Digits<'a> {
    pub digits: usize,
    pub bytes: &'a [u8],
    /// For each row and block: what one of the lowest digit is worth; NaN where an activation is not finite or huge.
    pub unit: &'a [f32],
    /// For each row, block and digit: its sum.
    pub sums: &'a [i32],
    /// The rows themselves, `step` elements apart.
    pub rows: (*const f32, usize),
}

/// `f32` cells that digits of `m` rows take.
pub(super) fn cells(w: &PackedCodes, m: usize, digits: usize) -> Option<usize> {
    let row = depth(w.k, 8).next_multiple_of(8) / 4 * digits + w.flushes() * (1 + digits);
    row.checked_mul(m)
}

/// Elements below which cutting them is not worth handing over.
const GRAIN: usize = 16 * 1024;

/// Where rows start.
struct Start(*const f32);

// SAFETY: points to rows that are only read.
unsafe impl Sync for Start {}

impl Start {
    fn at(&self, element: usize) -> *const f32 {
        self.0.wrapping_add(element)
    }
}

/// Cuts `m` rows at `a`, `step` apart.
///
/// # Safety
/// Each row holds `w.k` elements.
pub(super) unsafe fn cut<'a>(
    pool: &dyn Pool,
    w: &PackedCodes,
    m: usize,
    digits: usize,
    (a, step): (*const f32, usize),
    room: &'a mut [f32],
) -> Digits<'a> {
    let width = depth(w.k, w.bits);
    let (bytes, rest) = room.split_at_mut(m * (depth(w.k, 8).next_multiple_of(8) / 4) * digits);
    let (unit, rest) = rest.split_at_mut(m * w.flushes());
    let bytes: &mut [u8] = bytemuck::cast_slice_mut(bytes);
    let sums: &mut [i32] = bytemuck::cast_slice_mut(&mut rest[..m * w.flushes() * digits]);
    let (from, blocks) = (Start(a), w.flushes());
    let parts = (Parts::of(&mut *bytes), Parts::of(&mut *unit), Parts::of(&mut *sums));
    ranges(pool, m, GRAIN.div_ceil(w.k.max(1)), &|rows| {
        for (row, b) in rows.flat_map(|row| (0..blocks).map(move |b| (row, b))) {
            let (start, len) = (b * w.block, w.block_len(b));
            let at = (row * width + start) * digits;
            let index = row * blocks + b;
            let live = len.min(w.k - start);
            // SAFETY: the block lies in the row; its bytes, padded to whole cells, in `bytes`. Blocks have parts of their own.
            unsafe {
                let x = from.at(row * step + start);
                let to = parts.0.part(at..at + len * digits).as_mut_ptr();
                let sums = parts.2.part(index * digits..(index + 1) * digits);
                let unit = match digits {
                    1 => one(w.tier, x, live, len, to, sums),
                    WORDS => two(w.tier, x, live, len, to, sums),
                    _ => three(w.tier, x, live, len, to, sums),
                };
                parts.1.part(index..index + 1).fill(unit);
            }
        }
    });
    Digits { digits, bytes, unit, sums, rows: (a, step) }
}

/// The largest magnitude of a block, and whether all is finite.
#[inline(always)]
unsafe fn largest<S: Simd>(s: S, x: *const f32, live: usize) -> (f32, bool) {
    let (mut most, mut odd) = (s.splat(0.0), s.splat(0.0));
    for k in (0..live).step_by(LANES) {
        // SAFETY: `live` elements lie at `x`.
        let v = unsafe { s.load_up_to(x.add(k), live - k) };
        most = s.max(s.abs(v), most);
        odd = s.fma(v, s.splat(0.0), odd);
    }
    (s.largest(most), !s.any(s.is_nan(odd)))
}

tiered! {
    /// Three digits that stand for x within half a unit, at most 2⁻²³ of the block's largest |x|.
    unsafe fn three(s: S; x: *const f32, live: usize, len: usize, to: *mut u8, sums: &mut [i32]) -> f32 {
        let (most, finite) = largest(s, x, live);
        if !finite || most >= HUGE {
            fill(to, len, sums);
            return f32::NAN;
        }
        // 2^22 ≤ most·2^shift < 2^23, and one less where the highest digit would pass 127.
        let exponent = ((most.to_bits() >> 23) as i32 - 127).max(-104);
        let up = |shift: i32| f32::from_bits(((shift + 127) as u32) << 23);
        let mut shift = 22 - exponent;
        if most * up(shift) > 8_355_711.0 {
            shift -= 1;
        }
        let (scale, round) = (s.splat(up(shift)), s.splat_i(128));
        let mut sum = [s.splat_i(0); 3];
        for k in (0..len).step_by(LANES) {
            let left = len - k;
            let v = if k < live { s.load_up_to(x.add(k), live - k) } else { s.splat(0.0) };
            let low = s.to_i(s.mul(v, scale));
            let middle = s.sar_i::<8>(s.add_i(low, round));
            let high = s.sar_i::<8>(s.add_i(middle, round));
            for (d, v) in [low, middle, high].into_iter().enumerate() {
                s.store_bytes(to.add(d * len + k), v, left.min(LANES));
                let signed = s.sar_i::<24>(s.shl_i::<24>(v));
                sum[d] = s.add_i(sum[d], signed);
            }
        }
        for (d, total) in sum.into_iter().enumerate() {
            sums[d] = s.sum(s.to_f(total)) as i32;
        }
        up(-shift)
    }
}

/// The largest value of two digits: the higher may not pass 127.
const MOST_WORD: f32 = 32_639.0;

tiered! {
    /// Two digits: x rounded to 1/32639 of the block's largest |x|.
    unsafe fn two(s: S; x: *const f32, live: usize, len: usize, to: *mut u8, sums: &mut [i32]) -> f32 {
        let (most, finite) = largest(s, x, live);
        if !finite || most >= HUGE || !(MOST_WORD / most).is_finite() {
            fill(to, len, sums);
            return if finite && most < HUGE { 0.0 } else { f32::NAN };
        }
        let (scale, round) = (s.splat(MOST_WORD / most), s.splat_i(128));
        let mut sum = [s.splat_i(0); 2];
        for k in (0..len).step_by(LANES) {
            let left = len - k;
            let v = if k < live { s.load_up_to(x.add(k), live - k) } else { s.splat(0.0) };
            let low = s.to_i(s.mul(v, scale));
            let high = s.sar_i::<8>(s.add_i(low, round));
            s.store_bytes(to.add(k), low, left.min(LANES));
            s.store_bytes(to.add(len + k), high, left.min(LANES));
            sum[0] = s.add_i(sum[0], s.sar_i::<24>(s.shl_i::<24>(low)));
            sum[1] = s.add_i(sum[1], high);
        }
        for (d, total) in sum.into_iter().enumerate() {
            sums[d] = s.sum(s.to_f(total)) as i32;
        }
        most / MOST_WORD
    }
}

tiered! {
    /// One digit: x rounded to 1/127 of the block's largest |x|.
    unsafe fn one(s: S; x: *const f32, live: usize, len: usize, to: *mut u8, sums: &mut [i32]) -> f32 {
        let (most, finite) = largest(s, x, live);
        if !finite || most >= HUGE || !(127.0 / most).is_finite() {
            fill(to, len, sums);
            return if finite && most < HUGE { 0.0 } else { f32::NAN };
        }
        let scale = s.splat(127.0 / most);
        let mut sum = s.splat_i(0);
        for k in (0..len).step_by(LANES) {
            let v = if k < live { s.load_up_to(x.add(k), live - k) } else { s.splat(0.0) };
            let q = s.to_i(s.mul(v, scale));
            s.store_bytes(to.add(k), q, (len - k).min(LANES));
            sum = s.add_i(sum, q);
        }
        sums[0] = s.sum(s.to_f(sum)) as i32;
        most / 127.0
    }
}

unsafe fn fill(to: *mut u8, bytes: usize, sums: &mut [i32]) {
    // SAFETY: at least the first digit lies there.
    unsafe { to.write_bytes(0, bytes * sums.len()) };
    sums.fill(0);
}
