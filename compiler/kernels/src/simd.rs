//! One vector type of 16 `f32` lanes on every instruction set, so that a kernel is written once and adds in the
//! same order everywhere: AVX-512 holds it in one register, AVX2 in two, the portable tier in an array.
//!
//! A value of a type that implements [`Simd`] is the proof that the CPU has the instructions; [`tiered!`] makes
//! such values, after dispatch, inside functions compiled for them.

use crate::integers::Codes;

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod portable;

#[cfg(target_arch = "x86_64")]
pub(crate) use avx2::Avx2;
#[cfg(target_arch = "x86_64")]
pub(crate) use avx512::Avx512;
pub(crate) use portable::Portable;

/// Lanes of [`Simd::F`] and [`Simd::I`].
pub(crate) const LANES: usize = 16;

/// The instructions kernels are written in. `F` is 16 × f32, `I` 16 × i32, `M` 16 truth values.
///
/// Every method is inlined into the `#[target_feature]` function that [`tiered!`] makes.
pub(crate) trait Simd: Copy {
    /// 16 × f32.
    type F: Copy;
    /// 16 × i32.
    type I: Copy;
    /// 16 × bool.
    type M: Copy;
    /// Whether 16 accumulators and their operands fit in the registers; otherwise four do.
    const WIDE: bool;

    fn splat(self, x: f32) -> Self::F;
    /// # Safety
    /// `p` is valid for reading 16 `f32`.
    unsafe fn load(self, p: *const f32) -> Self::F;
    /// # Safety
    /// `p` is valid for writing 16 `f32`.
    unsafe fn store(self, p: *mut f32, x: Self::F);
    /// Reads `n < 16` lanes; the others are zero.
    ///
    /// # Safety
    /// `p` is valid for reading `n` `f32`.
    unsafe fn load_head(self, p: *const f32, n: usize) -> Self::F;
    /// Writes the first `n < 16` lanes.
    ///
    /// # Safety
    /// `p` is valid for writing `n` `f32`.
    unsafe fn store_head(self, p: *mut f32, x: Self::F, n: usize);
    /// Lanes with index below `n`.
    fn head(self, n: usize) -> Self::M;

    fn add(self, a: Self::F, b: Self::F) -> Self::F;
    fn sub(self, a: Self::F, b: Self::F) -> Self::F;
    fn mul(self, a: Self::F, b: Self::F) -> Self::F;
    fn div(self, a: Self::F, b: Self::F) -> Self::F;
    /// `1 / a` to 1e-7, for `a` in `1..2^127`.
    #[inline(always)]
    fn reciprocal(self, a: Self::F) -> Self::F {
        self.div(self.splat(1.0), a)
    }
    fn sqrt(self, a: Self::F) -> Self::F;
    /// `a·b + c`, rounded once except on the portable tier.
    fn fma(self, a: Self::F, b: Self::F, c: Self::F) -> Self::F;
    /// `c - a·b`, rounded once except on the portable tier.
    fn fnma(self, a: Self::F, b: Self::F, c: Self::F) -> Self::F;
    /// `a > b ? a : b`: a NaN in either gives `b`.
    fn max(self, a: Self::F, b: Self::F) -> Self::F;
    /// `a < b ? a : b`: a NaN in either gives `b`.
    fn min(self, a: Self::F, b: Self::F) -> Self::F;
    /// To the nearest integer, ties to even.
    fn round(self, a: Self::F) -> Self::F;
    fn floor(self, a: Self::F) -> Self::F;
    fn ceil(self, a: Self::F) -> Self::F;
    /// `x · 2^n` for `x` near one and integral `n` in `-252..=254`, rounded once.
    fn scale2(self, x: Self::F, n: Self::F) -> Self::F;

    fn lt(self, a: Self::F, b: Self::F) -> Self::M;
    fn le(self, a: Self::F, b: Self::F) -> Self::M;
    fn eq(self, a: Self::F, b: Self::F) -> Self::M;
    fn is_nan(self, a: Self::F) -> Self::M;
    fn or_mask(self, a: Self::M, b: Self::M) -> Self::M;
    fn any(self, m: Self::M) -> bool;
    /// `m ? a : b`, lane by lane.
    fn select(self, m: Self::M, a: Self::F, b: Self::F) -> Self::F;

    fn bits(self, a: Self::F) -> Self::I;
    fn of_bits(self, a: Self::I) -> Self::F;
    fn splat_i(self, x: i32) -> Self::I;
    fn add_i(self, a: Self::I, b: Self::I) -> Self::I;
    fn sub_i(self, a: Self::I, b: Self::I) -> Self::I;
    fn and_i(self, a: Self::I, b: Self::I) -> Self::I;
    fn xor_i(self, a: Self::I, b: Self::I) -> Self::I;
    fn shl_i<const N: u32>(self, a: Self::I) -> Self::I;
    /// Arithmetic shift.
    fn sar_i<const N: u32>(self, a: Self::I) -> Self::I;
    fn to_f(self, a: Self::I) -> Self::F;
    /// Nearest, ties to even; the least integer for what lies below all, and for NaN, and some for what lies above.
    fn to_i(self, a: Self::F) -> Self::I;

    /// Widens 16 half-precision numbers.
    ///
    /// # Safety
    /// `p` is valid for reading 16 `u16`.
    unsafe fn load_half(self, p: *const u16) -> Self::F;
    /// Rounds to half precision, ties to even.
    ///
    /// # Safety
    /// `p` is valid for writing 16 `u16`.
    unsafe fn store_half(self, p: *mut u16, x: Self::F);

    /// # Safety
    /// `p` is valid for reading 16 `i32`.
    #[inline(always)]
    unsafe fn load_i(self, p: *const i32) -> Self::I {
        // SAFETY: the caller's contract; lanes have the same size.
        unsafe { self.bits(self.load(p.cast())) }
    }
    /// The low 32 bits of the products.
    fn mul_i(self, a: Self::I, b: Self::I) -> Self::I;
    /// The same four bytes in every lane.
    ///
    /// # Safety
    /// `p` is valid for reading 4 bytes.
    #[inline(always)]
    unsafe fn quad(self, p: *const u8) -> Self::I {
        // SAFETY: the caller's contract.
        self.splat_i(unsafe { p.cast::<i32>().read_unaligned() })
    }
    /// In each lane the products of four unsigned bytes of `u` and four signed ones of `i`, added to `acc`: exact.
    fn dot(self, acc: Self::I, u: Self::I, i: Self::I) -> Self::I;
    /// Widens 16 unsigned bytes.
    ///
    /// # Safety
    /// `p` is valid for reading 16 bytes.
    unsafe fn load_bytes(self, p: *const u8) -> Self::I;
    /// 16 bytes in each quarter of the lanes.
    #[inline(always)]
    fn four_times(self, bytes: &[u8]) -> Self::I {
        let mut all = [0u8; 64];
        for (i, b) in all.iter_mut().enumerate() {
            *b = bytes[i % 16];
        }
        // SAFETY: 64 bytes are 16 lanes.
        unsafe { self.load_i(all.as_ptr().cast()) }
    }
    /// Bytes of `table`, the same 16 in each quarter of the lanes, at the bytes of `index`, which are below 16.
    fn lookup(self, table: Self::I, index: Self::I) -> Self::I;
    /// Bytes from `p` on at the bits of `mask` that are set, in order; elsewhere those of `rest`.
    ///
    /// # Safety
    /// `p` is valid for reading 64 bytes.
    #[inline(always)]
    unsafe fn expand(self, mask: u64, p: *const u8, rest: Self::I) -> Self::I {
        let mut bytes = [0u8; 64];
        let rest = self.array(self.of_bits(rest)).map(f32::to_bits);
        let mut next = 0;
        for (i, b) in bytes.iter_mut().enumerate() {
            *b = rest[i / 4].to_le_bytes()[i % 4];
            if mask >> i & 1 == 1 {
                // SAFETY: at most 64 are read.
                *b = unsafe { *p.add(next) };
                next += 1;
            }
        }
        // SAFETY: 64 bytes are 16 lanes.
        unsafe { self.load_i(bytes.as_ptr().cast()) }
    }
    /// Bytes of a table of 256 at the bytes of `index`.
    #[inline(always)]
    fn lookup_wide(self, table: [Self::I; 4], index: Self::I) -> Self::I {
        let bytes = |x: Self::I| mapped(self.array(self.of_bits(x)), f32::to_bits);
        let table = mapped(table, bytes);
        let at = |i: u8| (table[usize::from(i >> 6)][usize::from(i >> 2 & 15)] >> (8 * (i & 3))) as u8;
        let found =
            mapped(bytes(index), |lane| f32::from_bits(u32::from_le_bytes(mapped(lane.to_le_bytes(), at))));
        // SAFETY: 16 lanes.
        self.bits(unsafe { self.load(found.as_ptr()) })
    }
    /// Numbers of a table at the lanes of `index`, of which the low five bits count.
    #[inline(always)]
    fn lookup32(self, table: &[f32; 32], index: Self::I) -> Self::F {
        let found = mapped(self.array(self.of_bits(index)), |i| table[(i.to_bits() & 31) as usize]);
        // SAFETY: 16 lanes.
        unsafe { self.load(found.as_ptr()) }
    }
    /// Lane `l` is lane `index[l] % 16` of `x`.
    #[inline(always)]
    fn permute(self, x: Self::F, index: Self::I) -> Self::F {
        let lanes = self.array(x);
        let found = mapped(self.array(self.of_bits(index)), |i| lanes[(i.to_bits() & 15) as usize]);
        // SAFETY: 16 lanes.
        unsafe { self.load(found.as_ptr()) }
    }
    /// Quarter `v` of vector `j` is quarter `j` of `x[v]`: what comes in the order of [`Simd::interleave`], in that of the bytes.
    #[inline(always)]
    fn quarters(self, x: [Self::F; 4]) -> [Self::F; 4] {
        let mut out = [0f32; 4 * LANES];
        for (v, x) in x.into_iter().enumerate() {
            let lanes = self.array(x);
            for lane in 0..LANES {
                out[lane / 4 * LANES + 4 * v + lane % 4] = lanes[lane];
            }
        }
        let mut y = x;
        for v in 0..4 {
            // SAFETY: `out` holds four vectors.
            y[v] = unsafe { self.load(out.as_ptr().add(v * LANES)) };
        }
        y
    }
    /// Stores the low byte of the first `n <= 16` lanes.
    ///
    /// # Safety
    /// `p` is valid for writing `n` bytes.
    unsafe fn store_bytes(self, p: *mut u8, x: Self::I, n: usize);
    /// Lane `l` of vector `v` holds the bytes that the four rows have at `l / 4 · 16 + 4 v + l % 4`, the first row lowest.
    ///
    /// # Safety
    /// Each pointer is valid for reading `n <= 64` bytes; beyond them anything may stand in the lanes.
    unsafe fn interleave(self, rows: [*const u8; 4], n: usize) -> [Self::I; 4];
    /// The same for rows put together from `L` parts of up to `64 / L` bytes.
    ///
    /// # Safety
    /// Each pointer is valid for reading `n <= 64 / L` bytes; beyond them anything may stand in the lanes.
    #[inline(always)]
    unsafe fn interleave_parts<const L: usize>(self, rows: [[*const u8; L]; 4], n: usize) -> [Self::I; 4] {
        let mut bytes = [[0u8; 64]; 4];
        // SAFETY: the caller's contract; parts lie inside of `bytes`.
        unsafe {
            for (row, bytes) in rows.iter().zip(&mut bytes) {
                for (part, to) in row.iter().zip(bytes.chunks_exact_mut(64 / L)) {
                    std::ptr::copy_nonoverlapping(*part, to.as_mut_ptr(), n);
                }
            }
            self.interleave(std::array::from_fn(|i| bytes[i].as_ptr()), 64)
        }
    }
    /// Stores the low bytes of lanes that are in the order of [`Simd::interleave`], in the order of the bytes.
    ///
    /// # Safety
    /// `p` is valid for writing `n <= 64` bytes.
    unsafe fn store_interleaved(self, p: *mut u8, x: [Self::I; 4], n: usize);

    /// Stores the codes of the first `n` of `16 V` whole numbers, `V` at most 4.
    ///
    /// # Safety
    /// `p` is valid for writing `min(n, 16 V)` bytes.
    unsafe fn store_codes<const V: usize>(self, p: *mut u8, x: [Self::I; V], codes: Codes, n: usize);
    /// The same for lanes in the order of [`Simd::interleave`].
    ///
    /// # Safety
    /// `p` is valid for writing `n <= 64` bytes.
    unsafe fn store_codes_interleaved(self, p: *mut u8, x: [Self::I; 4], codes: Codes, n: usize);
    /// The 64 bytes at `p`, their bits flipped where `flip` has ones, plus `addend`: in an order of the tier's own.
    ///
    /// # Safety
    /// `p` is valid for reading 64 bytes.
    #[inline(always)]
    unsafe fn spread(self, p: *const u8, flip: u8, addend: i32) -> [Self::I; 4] {
        let (flip, addend) = (self.splat_i(flip.into()), self.splat_i(addend));
        let mut all = [addend; 4];
        for v in 0..4 {
            // SAFETY: the caller's contract.
            let x = unsafe { self.load_bytes(p.add(v * LANES)) };
            all[v] = self.add_i(self.xor_i(x, flip), addend);
        }
        all
    }
    /// Stores the codes of lanes that are in the order of [`Simd::spread`], in the order of the bytes.
    ///
    /// # Safety
    /// `p` is valid for writing 64 bytes.
    #[inline(always)]
    unsafe fn store_codes_spread(self, p: *mut u8, x: [Self::I; 4], codes: Codes) {
        // SAFETY: the caller's contract.
        unsafe { self.store_codes(p, x, codes, 64) }
    }
    /// How far `x` is from a whole number, or `most` if that is more; NaN counts as whole.
    #[inline(always)]
    fn farther(self, most: Self::F, x: Self::F) -> Self::F {
        self.max(self.abs(self.sub(x, self.round(x))), most)
    }
    /// The same in `parts` of `64 / parts` bytes, `n` of each of the first `live`, `step` apart.
    ///
    /// # Safety
    /// `p` and the places of the other parts are valid for writing `n <= 64 / parts` bytes.
    #[inline(always)]
    unsafe fn store_codes_parts(
        self,
        p: *mut u8,
        step: usize,
        x: [Self::I; 4],
        codes: Codes,
        (parts, live): (usize, usize),
        n: usize,
    ) {
        let mut bytes = [0u8; 64];
        // SAFETY: `bytes` holds 64; the caller vouches for the parts.
        unsafe {
            self.store_codes_interleaved(bytes.as_mut_ptr(), x, codes, 64);
            for (part, from) in bytes.chunks_exact(64 / parts).take(live).enumerate() {
                std::ptr::copy_nonoverlapping(from.as_ptr(), p.wrapping_add(part * step), n);
            }
        }
    }

    /// Four floats of each row, one row after the other.
    ///
    /// # Safety
    /// Each row is valid for reading four `f32`.
    unsafe fn quads(self, rows: [*const f32; 4]) -> Self::F;

    /// For each quarter of the lanes `(x0 + x2) + (x1 + x3)` of that quarter of each operand: quarter `r` is vector `r`, whose
    /// lane `n` is operand `n`. Its other lanes hold anything.
    fn sum_quads(self, x: [Self::F; 4]) -> [Self::F; 4];

    fn array(self, a: Self::F) -> [f32; LANES];

    /// Sum of the lanes by halving: (0+8, 1+9, …), then (0+4, …), down to one.
    fn sum(self, a: Self::F) -> f32;

    #[inline(always)]
    fn neg(self, a: Self::F) -> Self::F {
        self.of_bits(self.xor_i(self.bits(a), self.splat_i(i32::MIN)))
    }
    #[inline(always)]
    fn abs(self, a: Self::F) -> Self::F {
        self.of_bits(self.and_i(self.bits(a), self.splat_i(i32::MAX)))
    }
    /// `x` with the sign bit of `s` toggled in.
    #[inline(always)]
    fn xor_sign(self, x: Self::F, s: Self::F) -> Self::F {
        self.of_bits(self.xor_i(self.bits(x), self.and_i(self.bits(s), self.splat_i(i32::MIN))))
    }
    #[inline(always)]
    fn zero(self) -> Self::F {
        self.splat(0.0)
    }
    /// `p(x)` for coefficients from the constant term up.
    #[inline(always)]
    fn poly<const N: usize>(self, x: Self::F, c: [f32; N]) -> Self::F {
        let mut y = self.splat(c[N - 1]);
        let mut k = N - 1;
        while k > 0 {
            k -= 1;
            y = self.fma(y, x, self.splat(c[k]));
        }
        y
    }
    /// Largest lane; unspecified if a lane is NaN.
    #[inline(always)]
    fn largest(self, a: Self::F) -> f32 {
        halve(self.array(a), |x, y| if x > y { x } else { y })
    }
    /// Smallest lane; unspecified if a lane is NaN.
    #[inline(always)]
    fn smallest(self, a: Self::F) -> f32 {
        halve(self.array(a), |x, y| if x < y { x } else { y })
    }
    #[inline(always)]
    fn product(self, a: Self::F) -> f32 {
        halve(self.array(a), |x, y| x * y)
    }
    /// Reads 16 lanes or, at a tail, `n < 16`.
    ///
    /// # Safety
    /// `p` is valid for reading `min(n, 16)` `f32`.
    #[inline(always)]
    unsafe fn load_up_to(self, p: *const f32, n: usize) -> Self::F {
        // SAFETY: the caller vouches for the lanes read.
        unsafe { if n >= LANES { self.load(p) } else { self.load_head(p, n) } }
    }
    /// Writes 16 lanes or, at a tail, `n < 16`.
    ///
    /// # Safety
    /// `p` is valid for writing `min(n, 16)` `f32`.
    #[inline(always)]
    unsafe fn store_up_to(self, p: *mut f32, x: Self::F, n: usize) {
        // SAFETY: the caller vouches for the lanes written.
        unsafe { if n >= LANES { self.store(p, x) } else { self.store_head(p, x, n) } }
    }
}

/// `x.map(f)`, whose own loop is not always inlined: a call takes every vector out of its register.
#[inline(always)]
pub(crate) fn mapped<T: Copy, U: Copy, const N: usize>(x: [T; N], mut f: impl FnMut(T) -> U) -> [U; N] {
    let mut y = [std::mem::MaybeUninit::<U>::uninit(); N];
    let mut i = 0;
    while i < N {
        y[i].write(f(x[i]));
        i += 1;
    }
    // SAFETY: all elements were written, and both arrays have the same layout.
    unsafe { std::mem::transmute_copy(&y) }
}

/// Combines 16 lanes in the order of [`Simd::sum`].
#[inline(always)]
pub(crate) fn halve(mut a: [f32; LANES], f: impl Fn(f32, f32) -> f32) -> f32 {
    let mut n = LANES / 2;
    while n > 0 {
        for i in 0..n {
            a[i] = f(a[i], a[i + n]);
        }
        n /= 2;
    }
    a[0]
}

/// Defines `unsafe fn name(tier, args…)` whose body, generic over `S: Simd` with the token `s: S`, is compiled
/// once for each tier under its target features.
///
/// The function is unsafe to call as its body is; a tier that the CPU has not becomes the best it has.
macro_rules! tiered {
    ($(#[$meta:meta])* $vis:vis unsafe fn $name:ident $(<$($g:ident: $gb:path),+>)? ($s:ident: $S:ident; $($a:ident: $t:ty),* $(,)?) $(-> $r:ty)? $body:block) => {
        $(#[$meta])*
        #[allow(clippy::missing_safety_doc)] // the attributes passed in document it
        $vis unsafe fn $name $(<$($g: $gb),+>)? (tier: $crate::dispatch::Tier, $($a: $t),*) $(-> $r)? {
            #[inline(always)]
            unsafe fn body<$S: $crate::simd::Simd $($(, $g: $gb)+)?>($s: $S, $($a: $t),*) $(-> $r)? {
                // SAFETY: the contract of the function being defined.
                #[allow(unused_unsafe, unused_braces)] // bodies may hold blocks of their own
                unsafe { $body }
            }
            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
            unsafe fn avx512 $(<$($g: $gb),+>)? ($($a: $t),*) $(-> $r)? {
                // SAFETY: this function runs only on CPUs with these features.
                unsafe { body($crate::simd::Avx512::new(), $($a),*) }
            }
            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx2,fma,f16c")]
            unsafe fn avx2 $(<$($g: $gb),+>)? ($($a: $t),*) $(-> $r)? {
                // SAFETY: this function runs only on CPUs with these features.
                unsafe { body($crate::simd::Avx2::new(), $($a),*) }
            }
            // SAFETY: `usable` is a tier the CPU has; the rest is the caller's contract.
            unsafe {
                match tier.usable() {
                    #[cfg(target_arch = "x86_64")]
                    $crate::dispatch::Tier::Avx512 => avx512 $(::<$($g),+>)? ($($a),*),
                    #[cfg(target_arch = "x86_64")]
                    $crate::dispatch::Tier::Avx2 => avx2 $(::<$($g),+>)? ($($a),*),
                    _ => body($crate::simd::Portable, $($a),*),
                }
            }
        }
    };
}
pub(crate) use tiered;

#[cfg(test)]
mod tests;
