//! Changing element types: half precision, integers, booleans; quantization and back.
//!
//! Loops are plain Rust, compiled for each tier: the compiler vectorises them and every tier gives the same bits.

use crate::dispatch::Tier;
use crate::error::{Error, product, same_length};
use crate::parallel::Pool;
use crate::partition::{GRAIN, Parts, ranges};
use crate::quantizer::{ByColumn, Quantizer};
use crate::simd::{LANES, tiered};
use half::slice::HalfBitsSliceExt;
use half::{bf16, f16};

/// Conversion of one element by the rules of ONNX `Cast`: to an integer towards zero, saturated where the value is
/// out of range and zero for NaN; between integers modulo the width; to `bool` whether not zero.
pub trait CastTo<B>: Copy + Send + Sync {
    fn cast(self) -> B;
}

macro_rules! casts {
    ($($a:ty => $($b:ty)*;)*) => {$($(
        impl CastTo<$b> for $a {
            #[inline(always)]
            fn cast(self) -> $b {
                self as $b
            }
        }
    )*)*};
}
macro_rules! all_casts {
    ($($a:ty)*) => {
        $(casts! { $a => u8 i8 u16 i16 u32 i32 u64 i64 f32 f64; }
        impl CastTo<bool> for $a {
            #[inline(always)]
            fn cast(self) -> bool {
                self != 0 as $a
            }
        }
        impl CastTo<$a> for bool {
            #[inline(always)]
            fn cast(self) -> $a {
                u8::from(self) as $a
            }
        }
        impl CastTo<f16> for $a {
            #[inline(always)]
            fn cast(self) -> f16 {
                f16::from_f64_const(self as f64)
            }
        }
        impl CastTo<bf16> for $a {
            #[inline(always)]
            fn cast(self) -> bf16 {
                bf16::from_f64_const(self as f64)
            }
        }
        impl CastTo<$a> for f16 {
            #[inline(always)]
            fn cast(self) -> $a {
                self.to_f32_const() as $a
            }
        }
        impl CastTo<$a> for bf16 {
            #[inline(always)]
            fn cast(self) -> $a {
                self.to_f32_const() as $a
            }
        })*
    };
}
all_casts!(u8 i8 u16 i16 u32 i32 u64 i64 f32 f64);

tiered! {
    /// # Safety
    /// None beyond the tier's.
    unsafe fn cast_slice<A: CastTo<B>, B: Copy>(s: S; x: &[A], y: &mut [B]) {
        let _ = s;
        for (y, x) in y.iter_mut().zip(x) {
            *y = x.cast();
        }
    }
}

/// `y[i] = x[i]` in another type. For half precision and `f32` see [`widen_f16`] and its neighbours, which are faster.
pub fn cast<A: CastTo<B>, B: Copy + Send>(pool: &dyn Pool, x: &[A], y: &mut [B]) -> Result<(), Error> {
    same_length("cast output", x.len(), y.len())?;
    let parts = Parts::of(y);
    ranges(pool, x.len(), GRAIN, &|r| {
        // SAFETY: ranges are disjoint.
        unsafe { cast_slice(Tier::best(), &x[r.clone()], parts.part(r)) }
    });
    Ok(())
}

tiered! {
    /// # Safety
    /// Both hold `n` elements.
    unsafe fn widen_half(s: S; x: *const u16, y: *mut f32, n: usize) {
        let mut i = 0;
        while i + LANES <= n {
            s.store(y.add(i), s.load_half(x.add(i)));
            i += LANES;
        }
        if i < n {
            let mut tail = [0u16; LANES];
            std::ptr::copy_nonoverlapping(x.add(i), tail.as_mut_ptr(), n - i);
            s.store_up_to(y.add(i), s.load_half(tail.as_ptr()), n - i);
        }
    }
}

tiered! {
    /// # Safety
    /// Both hold `n` elements.
    unsafe fn narrow_half(s: S; x: *const f32, y: *mut u16, n: usize) {
        let mut i = 0;
        while i + LANES <= n {
            s.store_half(y.add(i), s.load(x.add(i)));
            i += LANES;
        }
        if i < n {
            let mut tail = [0u16; LANES];
            s.store_half(tail.as_mut_ptr(), s.load_up_to(x.add(i), n - i));
            std::ptr::copy_nonoverlapping(tail.as_ptr(), y.add(i), n - i);
        }
    }
}

/// Exact.
pub fn widen_f16(x: &[f16], y: &mut [f32]) -> Result<(), Error> {
    widen_f16_on(Tier::best(), x, y)
}

/// [`widen_f16`] on a chosen tier.
pub fn widen_f16_on(tier: Tier, x: &[f16], y: &mut [f32]) -> Result<(), Error> {
    same_length("widened output", x.len(), y.len())?;
    // SAFETY: both hold `x.len()` elements; `f16` is a transparent `u16`.
    unsafe { widen_half(tier, x.as_ptr().cast(), y.as_mut_ptr(), x.len()) };
    Ok(())
}

/// To nearest, ties to even; overflow gives infinity.
pub fn narrow_f16(x: &[f32], y: &mut [f16]) -> Result<(), Error> {
    narrow_f16_on(Tier::best(), x, y)
}

/// [`narrow_f16`] on a chosen tier.
pub fn narrow_f16_on(tier: Tier, x: &[f32], y: &mut [f16]) -> Result<(), Error> {
    same_length("narrowed output", x.len(), y.len())?;
    // SAFETY: both hold `x.len()` elements; `f16` is a transparent `u16`.
    unsafe { narrow_half(tier, x.as_ptr(), y.as_mut_ptr().cast(), x.len()) };
    Ok(())
}

/// The values of 16-bit floats, given by their bits: bfloat16 or float16.
pub fn widen_bits(brain: bool, x: &[u16], y: &mut [f32]) -> Result<(), Error> {
    if brain { widen_bf16(x.reinterpret_cast(), y) } else { widen_f16(x.reinterpret_cast(), y) }
}

/// The bits of the nearest 16-bit floats: bfloat16 or float16.
pub fn narrow_bits(brain: bool, x: &[f32], y: &mut [u16]) -> Result<(), Error> {
    if brain { narrow_bf16(x, y.reinterpret_cast_mut()) } else { narrow_f16(x, y.reinterpret_cast_mut()) }
}

/// Exact.
pub fn widen_bf16(x: &[bf16], y: &mut [f32]) -> Result<(), Error> {
    same_length("widened output", x.len(), y.len())?;
    x.iter().zip(y).for_each(|(x, y)| *y = f32::from_bits(u32::from(x.to_bits()) << 16));
    Ok(())
}

/// To nearest, ties to even; NaN stays NaN.
pub fn narrow_bf16(x: &[f32], y: &mut [bf16]) -> Result<(), Error> {
    same_length("narrowed output", x.len(), y.len())?;
    for (x, y) in x.iter().zip(y) {
        let bits = x.to_bits();
        let rounded = bits.wrapping_add(0x7fff + (bits >> 16 & 1));
        let quiet = bits | 0x0040_0000;
        *y = bf16::from_bits((if x.is_nan() { quiet } else { rounded } >> 16) as u16);
    }
    Ok(())
}

/// An integer type of quantized tensors.
pub trait Quantized: Copy + Default + Ord + Send + Sync + Into<i32> {
    const LOW: i32;
    const HIGH: i32;
    /// Of a value in range.
    fn of(v: i32) -> Self;
}

macro_rules! quantized {
    ($($t:ty)*) => {$(
        impl Quantized for $t {
            const LOW: i32 = <$t>::MIN as i32;
            const HIGH: i32 = <$t>::MAX as i32;
            #[inline(always)]
            fn of(v: i32) -> Self {
                v as $t
            }
        }
    )*};
}
quantized!(u8 i8 u16 i16);

/// `saturate(round_half_even(x / scale) + zero)`; NaN gives the lowest value.
#[inline(always)]
fn quantize_one<Q: Quantized>(x: f32, scale: f32, zero: i32) -> Q {
    const MAGIC: f32 = 12_582_912.0; // 1.5·2^23: adding it rounds to an integer, ties to even
    let (low, high) = ((Q::LOW - zero) as f32, (Q::HIGH - zero) as f32);
    let v = x / scale;
    let v = if v > low { v } else { low };
    let v = if v < high { v } else { high };
    let rounded = (v + MAGIC).to_bits() as i32 - MAGIC.to_bits() as i32;
    Q::of(rounded + zero)
}

tiered! {
    /// # Safety
    /// None beyond the tier's.
    unsafe fn quantize_run<Q: Quantized>(s: S; x: &[f32], y: &mut [Q], scale: f32, zero: i32) {
        let mut done = 0;
        if size_of::<Q>() == 1 {
            // Bytes are rounded from a product, which is several times faster.
            let q = Quantizer::new(s, scale, zero, Q::LOW, Q::HIGH);
            let to = y.as_mut_ptr().cast::<u8>();
            let len = x.len().min(y.len());
            while done + 4 * LANES <= len {
                let mut v = [s.splat(0.0); 4];
                for k in 0..4 {
                    v[k] = s.load(x.as_ptr().add(done + k * LANES));
                }
                q.store(s, to.add(done), v, 4 * LANES);
                done += 4 * LANES;
            }
            if done < len {
                let mut v = [s.splat(0.0); 4];
                for k in 0..4 {
                    if done + k * LANES < len {
                        v[k] = s.load_up_to(x.as_ptr().add(done + k * LANES), len - done - k * LANES);
                    }
                }
                q.store(s, to.add(done), v, len - done);
                done = len;
            }
        }
        for (y, x) in y.iter_mut().zip(x).skip(done) {
            *y = quantize_one(*x, scale, zero);
        }
    }
}

tiered! {
    /// # Safety
    /// None beyond the tier's.
    unsafe fn quantize_each<Q: Quantized>(s: S; x: &[f32], y: &mut [Q], scale: &[f32], zero: &[Q]) {
        let _ = s;
        for (((y, x), scale), zero) in y.iter_mut().zip(x).zip(scale).zip(zero) {
            *y = quantize_one(*x, *scale, (*zero).into());
        }
    }
}

tiered! {
    /// # Safety
    /// None beyond the tier's.
    unsafe fn dequantize_run<Q: Quantized>(s: S; x: &[Q], y: &mut [f32], scale: f32, zero: i32) {
        let _ = s;
        for (y, x) in y.iter_mut().zip(x) {
            *y = ((*x).into() - zero) as f32 * scale;
        }
    }
}

tiered! {
    /// # Safety
    /// None beyond the tier's.
    unsafe fn dequantize_each<Q: Quantized>(s: S; x: &[Q], y: &mut [f32], scale: &[f32], zero: &[Q]) {
        let _ = s;
        for (((y, x), scale), zero) in y.iter_mut().zip(x).zip(scale).zip(zero) {
            *y = ((*x).into() - (*zero).into()) as f32 * scale;
        }
    }
}

/// Scale and zero point of a tensor of `[outer × scale.len() × inner]`: one pair for each step of the middle axis. For
/// a whole tensor the axis has one step.
#[derive(Clone, Copy, Debug)]
pub struct Scales<'a, Q> {
    pub scale: &'a [f32],
    /// As many as scales, or none for zeros.
    pub zero: &'a [Q],
    pub inner: usize,
}

impl<Q: Quantized> Scales<'_, Q> {
    /// Rows of the axis, or the error that the lengths do not fit.
    fn check(&self, x: usize, y: usize) -> Result<usize, Error> {
        same_length("quantized tensor", x, y)?;
        if !self.zero.is_empty() {
            same_length("zero points", self.scale.len(), self.zero.len())?;
        }
        let slab = product("quantized sizes overflow", &[self.scale.len(), self.inner])?;
        if x > 0 && (slab == 0 || !x.is_multiple_of(slab)) {
            return Err(Error::Shape { what: "scales and inner size do not divide the tensor" });
        }
        Ok(slab)
    }

    fn zero(&self, c: usize) -> i32 {
        self.zero.get(c).map_or(0, |&z| z.into())
    }
}

/// Columns that are quantized at once, at least where rows are shorter.
const TOGETHER: usize = 512;

/// `y = saturate(round_half_even(x / scale) + zero)`, ONNX `QuantizeLinear`.
pub fn quantize<Q: Quantized>(
    pool: &dyn Pool,
    x: &[f32],
    by: Scales<'_, Q>,
    y: &mut [Q],
) -> Result<(), Error> {
    quantize_on(Tier::best(), pool, x, by, y)
}

/// [`quantize`] on a chosen tier.
pub fn quantize_on<Q: Quantized>(
    tier: Tier,
    pool: &dyn Pool,
    x: &[f32],
    by: Scales<'_, Q>,
    y: &mut [Q],
) -> Result<(), Error> {
    by.check(x.len(), y.len())?;
    let zeros = if by.zero.is_empty() { vec![Q::default(); by.scale.len()] } else { by.zero.to_vec() };
    let parts = Parts::of(y);
    if size_of::<Q>() == 1 && by.inner == 1 && by.scale.len() > 1 {
        // Short rows are taken together, as longer ones whose columns repeat.
        let width = by.scale.len() * (TOGETHER / by.scale.len()).max(1);
        let scales: Vec<f32> = by.scale.iter().copied().cycle().take(width).collect();
        let zeros = (0..width).map(|c| by.zero(c % by.scale.len())).collect();
        let columns = ByColumn::new(scales, zeros, Q::LOW, Q::HIGH);
        ranges(pool, x.len().div_ceil(width), GRAIN.div_ceil(width), &|range| {
            for r in range {
                let at = r * width..((r + 1) * width).min(x.len());
                // SAFETY: runs are disjoint, and begin at the first column.
                unsafe {
                    let (x, y) = (&x[at.clone()], parts.part(at));
                    columns.row(tier, (x.as_ptr(), y.as_mut_ptr().cast()), x.len(), 0);
                }
            }
        });
        return Ok(());
    }
    runs(pool, x.len(), by.scale.len(), by.inner, &|at, c| {
        // SAFETY: runs are disjoint; without a scale of its own a run is a row of all columns.
        unsafe {
            let (x, y) = (&x[at.clone()], parts.part(at));
            match c {
                Some(c) => quantize_run(tier, x, y, by.scale[c], by.zero(c)),
                None => quantize_each(tier, x, y, by.scale, &zeros),
            }
        }
    });
    Ok(())
}

/// `y = (x - zero) · scale`, ONNX `DequantizeLinear`.
pub fn dequantize<Q: Quantized>(
    pool: &dyn Pool,
    x: &[Q],
    by: Scales<'_, Q>,
    y: &mut [f32],
) -> Result<(), Error> {
    dequantize_on(Tier::best(), pool, x, by, y)
}

/// [`dequantize`] on a chosen tier.
pub fn dequantize_on<Q: Quantized>(
    tier: Tier,
    pool: &dyn Pool,
    x: &[Q],
    by: Scales<'_, Q>,
    y: &mut [f32],
) -> Result<(), Error> {
    by.check(x.len(), y.len())?;
    let zeros = if by.zero.is_empty() { vec![Q::default(); by.scale.len()] } else { by.zero.to_vec() };
    let parts = Parts::of(y);
    runs(pool, x.len(), by.scale.len(), by.inner, &|at, c| {
        // SAFETY: runs are disjoint.
        unsafe {
            let (x, y) = (&x[at.clone()], parts.part(at));
            match c {
                Some(c) => dequantize_run(tier, x, y, by.scale[c], by.zero(c)),
                None => dequantize_each(tier, x, y, by.scale, &zeros),
            }
        }
    });
    Ok(())
}

/// Calls `f` with runs of one scale and its index, or, where the axis is the last, with whole rows and none.
fn runs(
    pool: &dyn Pool,
    len: usize,
    axis: usize,
    inner: usize,
    f: &(dyn Fn(std::ops::Range<usize>, Option<usize>) + Sync),
) {
    if axis == 1 {
        return ranges(pool, len, GRAIN, &|r| f(r, Some(0)));
    }
    let (width, rows) = if inner == 1 { (axis, len / axis.max(1)) } else { (inner, len / inner.max(1)) };
    ranges(pool, rows, GRAIN.div_ceil(width.max(1)), &|range| {
        for r in range {
            f(r * width..(r + 1) * width, if inner == 1 { None } else { Some(r % axis) });
        }
    });
}

tiered! {
    /// Smallest and largest value, and zero; NaN counts for nothing.
    ///
    /// # Safety
    /// None beyond the tier's.
    unsafe fn range(s: S; x: &[f32]) -> [f32; 2] {
        let (mut low, mut high) = ([s.splat(0.0); 4], [s.splat(0.0); 4]);
        for part in x.chunks(4 * LANES) {
            for k in 0..4 {
                if k * LANES < part.len() {
                    let v = s.load_up_to(part.as_ptr().add(k * LANES), part.len() - k * LANES);
                    (low[k], high[k]) = (s.min(v, low[k]), s.max(v, high[k]));
                }
            }
        }
        let low = s.min(s.min(low[0], low[1]), s.min(low[2], low[3]));
        let high = s.max(s.max(high[0], high[1]), s.max(high[2], high[3]));
        [s.smallest(low), s.largest(high)]
    }
}

/// Scale and zero point of values from `low` to `high`, zero among them.
fn parameters([low, high]: [f32; 2]) -> (f32, u8) {
    let scale = (high - low) / 255.0;
    // All zero: any scale will do, and dividing by none will not.
    let scale = if scale > 0.0 { scale } else { 1.0 };
    (scale, (-low / scale).round_ties_even().clamp(0.0, 255.0) as u8)
}

/// [`quantize_dynamic`] of a few values, as many as there are codes.
pub(crate) fn quantize_whole(tier: Tier, x: &[f32], y: &mut [u8]) -> (f32, u8) {
    // SAFETY: the tier is usable; both take slices.
    unsafe {
        let (scale, zero) = parameters(range(tier, x));
        quantize_run(tier, x, y, scale, zero.into());
        (scale, zero)
    }
}

/// ONNX `DynamicQuantizeLinear`: quantizes to the full range of `u8` over the values and zero, and returns the scale
/// and zero point found.
pub fn quantize_dynamic(pool: &dyn Pool, x: &[f32], y: &mut [u8]) -> Result<(f32, u8), Error> {
    let mut found = vec![[0f32; 2]; x.len().div_ceil(GRAIN)];
    let parts = Parts::of(&mut found);
    let task = |t: usize| {
        let part = &x[t * GRAIN..x.len().min((t + 1) * GRAIN)];
        // SAFETY: each task has an element of its own.
        unsafe { parts.part(t..t + 1)[0] = range(Tier::best(), part) }
    };
    match x.len().div_ceil(GRAIN) {
        n if n <= 1 || pool.threads() <= 1 => (0..n).for_each(task),
        n => pool.run(n, &task),
    }
    let (scale, zero) = parameters(found.iter().fold([0f32; 2], |[a, b], [x, y]| [a.min(*x), b.max(*y)]));
    quantize(pool, x, Scales { scale: &[scale], zero: &[zero], inner: 1 }, y)?;
    Ok((scale, zero))
}

#[cfg(test)]
mod tests;
