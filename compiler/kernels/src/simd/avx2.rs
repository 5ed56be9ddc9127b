//! 16 lanes in two 256-bit registers.

use super::{Codes, LANES, Simd, mapped};
use std::arch::x86_64::*;

/// Proof of AVX2, FMA and F16C, and of AVX-VNNI where `VNNI` says so.
#[derive(Clone, Copy)]
pub(crate) struct Avx2<const VNNI: bool = false>(());

impl Avx2<false> {
    /// # Safety
    /// The CPU has AVX2, FMA and F16C.
    #[inline(always)]
    pub(crate) unsafe fn new() -> Self {
        Avx2(())
    }
}

impl Avx2<true> {
    /// # Safety
    /// The CPU has AVX2, FMA, F16C and AVX-VNNI.
    #[inline(always)]
    pub(crate) unsafe fn with_vnni() -> Self {
        Avx2(())
    }
}

/// Lanes 0–7 and 8–15.
#[derive(Clone, Copy)]
pub(crate) struct F(__m256, __m256);
/// Lanes 0–7 and 8–15.
#[derive(Clone, Copy)]
pub(crate) struct I(__m256i, __m256i);

/// [`Simd::sum_quads`] of two quarters, side by side.
///
/// # Safety
/// The CPU has AVX.
#[inline(always)]
unsafe fn quarters([a, b, c, d]: [__m256; 4]) -> __m256 {
    // SAFETY: the caller vouches for the instructions; registers only.
    unsafe {
        let ab = _mm256_add_ps(_mm256_unpacklo_ps(a, b), _mm256_unpackhi_ps(a, b));
        let cd = _mm256_add_ps(_mm256_unpacklo_ps(c, d), _mm256_unpackhi_ps(c, d));
        let low = _mm256_shuffle_ps::<0b01_00_01_00>(ab, cd);
        let high = _mm256_shuffle_ps::<0b11_10_11_10>(ab, cd);
        _mm256_add_ps(low, high)
    }
}

/// Sum of eight lanes by halving.
///
/// # Safety
/// The CPU has AVX.
#[inline(always)]
pub(super) unsafe fn sum8(a: __m256) -> f32 {
    // SAFETY: the caller vouches for AVX; registers only.
    unsafe {
        let h = _mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps::<1>(a));
        let h = _mm_add_ps(h, _mm_movehl_ps(h, h));
        _mm_cvtss_f32(_mm_add_ss(h, _mm_shuffle_ps::<1>(h, h)))
    }
}

/// One half of [`Simd::interleave`].
///
/// # Safety
/// The CPU has AVX2; each row is valid for reading 32 bytes.
#[inline(always)]
unsafe fn interleave32(rows: [*const u8; 4]) -> [__m256i; 4] {
    // SAFETY: the caller's contract.
    unsafe {
        let (a, b) = (_mm256_loadu_si256(rows[0].cast()), _mm256_loadu_si256(rows[1].cast()));
        let (c, d) = (_mm256_loadu_si256(rows[2].cast()), _mm256_loadu_si256(rows[3].cast()));
        let (ab, cd) = (_mm256_unpacklo_epi8(a, b), _mm256_unpacklo_epi8(c, d));
        let (ab2, cd2) = (_mm256_unpackhi_epi8(a, b), _mm256_unpackhi_epi8(c, d));
        [
            _mm256_unpacklo_epi16(ab, cd),
            _mm256_unpackhi_epi16(ab, cd),
            _mm256_unpacklo_epi16(ab2, cd2),
            _mm256_unpackhi_epi16(ab2, cd2),
        ]
    }
}

/// One half of [`Simd::store_interleaved`].
///
/// # Safety
/// The CPU has AVX2.
#[inline(always)]
unsafe fn narrow32(x: [__m256i; 4]) -> __m256i {
    // SAFETY: the caller vouches for AVX2; registers only.
    unsafe {
        let mask = _mm256_set1_epi32(0xff);
        let (a, b) = (_mm256_and_si256(x[0], mask), _mm256_and_si256(x[1], mask));
        let (c, d) = (_mm256_and_si256(x[2], mask), _mm256_and_si256(x[3], mask));
        _mm256_packus_epi16(_mm256_packs_epi32(a, b), _mm256_packs_epi32(c, d))
    }
}

/// Codes of 32 whole numbers: four lanes of each vector, for each half of the register.
///
/// # Safety
/// The CPU has AVX2.
#[inline(always)]
unsafe fn coded32(x: [__m256i; 4], codes: Codes) -> __m256i {
    // SAFETY: the caller vouches for AVX2; registers only.
    unsafe {
        if codes.is_plain() {
            return _mm256_packus_epi16(_mm256_packs_epi32(x[0], x[1]), _mm256_packs_epi32(x[2], x[3]));
        }
        let zero = _mm256_set1_epi16(codes.zero);
        let ab = _mm256_adds_epi16(_mm256_packs_epi32(x[0], x[1]), zero);
        let cd = _mm256_adds_epi16(_mm256_packs_epi32(x[2], x[3]), zero);
        let bytes = _mm256_max_epu8(_mm256_packus_epi16(ab, cd), _mm256_set1_epi8(codes.low as i8));
        let bytes = _mm256_min_epu8(bytes, _mm256_set1_epi8(codes.high as i8));
        _mm256_xor_si256(bytes, _mm256_set1_epi8(codes.flip as i8))
    }
}

/// Sums of four products in each 32-bit lane, exact: even and odd bytes are multiplied as 16-bit integers, because the
/// instruction on bytes saturates.
///
/// # Safety
/// The CPU has AVX2.
#[inline(always)]
unsafe fn dot8(acc: __m256i, u: __m256i, i: __m256i) -> __m256i {
    // SAFETY: the caller vouches for AVX2; registers only.
    unsafe {
        let (u0, u1) = (_mm256_and_si256(u, _mm256_set1_epi16(0xff)), _mm256_srli_epi16::<8>(u));
        let (i0, i1) = (_mm256_srai_epi16::<8>(_mm256_slli_epi16::<8>(i)), _mm256_srai_epi16::<8>(i));
        let sum = _mm256_add_epi32(_mm256_madd_epi16(u0, i0), _mm256_madd_epi16(u1, i1));
        _mm256_add_epi32(acc, sum)
    }
}

macro_rules! each {
    ($($name:ident($($a:ident: $t:ident),*) -> $r:ident = $op:expr;)*) => {$(
        #[inline(always)]
        fn $name(self, $($a: $t),*) -> $r {
            // SAFETY: `self` proves the instructions are there; they touch registers only.
            unsafe { $r($op($($a.0),*), $op($($a.1),*)) }
        }
    )*};
}

static LOW: [i32; 32] = {
    let mut t = [0; 32];
    let mut i = 0;
    while i < 16 {
        t[i] = -1;
        i += 1;
    }
    t
};

/// All-ones in the lanes below `n ≤ 16`.
#[inline(always)]
fn low(n: usize) -> I {
    debug_assert!(n <= LANES);
    // SAFETY: 16 values from index 16 - n on lie inside the table; AVX is proved by the callers' token.
    unsafe {
        let p = LOW.as_ptr().add(16 - n);
        I(_mm256_loadu_si256(p.cast()), _mm256_loadu_si256(p.add(8).cast()))
    }
}

impl<const VNNI: bool> Simd for Avx2<VNNI> {
    type F = F;
    type I = I;
    type M = F;
    const WIDE: bool = false;

    #[inline(always)]
    fn splat(self, x: f32) -> F {
        // SAFETY: `self` proves the instruction is there.
        let v = unsafe { _mm256_set1_ps(x) };
        F(v, v)
    }
    #[inline(always)]
    fn splat_i(self, x: i32) -> I {
        // SAFETY: `self` proves the instruction is there.
        let v = unsafe { _mm256_set1_epi32(x) };
        I(v, v)
    }
    #[inline(always)]
    unsafe fn load(self, p: *const f32) -> F {
        // SAFETY: the caller's contract; `self` proves the instruction.
        unsafe { F(_mm256_loadu_ps(p), _mm256_loadu_ps(p.add(8))) }
    }
    #[inline(always)]
    unsafe fn store(self, p: *mut f32, x: F) {
        // SAFETY: the caller's contract; `self` proves the instruction.
        unsafe {
            _mm256_storeu_ps(p, x.0);
            _mm256_storeu_ps(p.add(8), x.1);
        }
    }
    #[inline(always)]
    unsafe fn load_head(self, p: *const f32, n: usize) -> F {
        let m = low(n);
        // SAFETY: masked lanes are not touched; the caller vouches for the others.
        unsafe { F(_mm256_maskload_ps(p, m.0), _mm256_maskload_ps(p.wrapping_add(8), m.1)) }
    }
    #[inline(always)]
    unsafe fn store_head(self, p: *mut f32, x: F, n: usize) {
        let m = low(n);
        // SAFETY: masked lanes are not touched; the caller vouches for the others.
        unsafe {
            _mm256_maskstore_ps(p, m.0, x.0);
            _mm256_maskstore_ps(p.wrapping_add(8), m.1, x.1);
        }
    }
    #[inline(always)]
    unsafe fn load_half(self, p: *const u16) -> F {
        // SAFETY: the caller's contract; `self` proves the instruction.
        unsafe {
            F(_mm256_cvtph_ps(_mm_loadu_si128(p.cast())), _mm256_cvtph_ps(_mm_loadu_si128(p.add(8).cast())))
        }
    }
    #[inline(always)]
    unsafe fn store_half(self, p: *mut u16, x: F) {
        // SAFETY: the caller's contract; `self` proves the instruction.
        unsafe {
            _mm_storeu_si128(p.cast(), _mm256_cvtps_ph::<0>(x.0));
            _mm_storeu_si128(p.add(8).cast(), _mm256_cvtps_ph::<0>(x.1));
        }
    }
    #[inline(always)]
    fn head(self, n: usize) -> F {
        self.of_bits(low(n))
    }

    each! {
        add(a: F, b: F) -> F = _mm256_add_ps;
        sub(a: F, b: F) -> F = _mm256_sub_ps;
        mul(a: F, b: F) -> F = _mm256_mul_ps;
        div(a: F, b: F) -> F = _mm256_div_ps;
        sqrt(a: F) -> F = _mm256_sqrt_ps;
        fma(a: F, b: F, c: F) -> F = _mm256_fmadd_ps;
        fnma(a: F, b: F, c: F) -> F = _mm256_fnmadd_ps;
        max(a: F, b: F) -> F = _mm256_max_ps;
        min(a: F, b: F) -> F = _mm256_min_ps;
        round(a: F) -> F = _mm256_round_ps::<0x08>;
        floor(a: F) -> F = _mm256_round_ps::<0x09>;
        ceil(a: F) -> F = _mm256_round_ps::<0x0a>;
        lt(a: F, b: F) -> F = _mm256_cmp_ps::<_CMP_LT_OQ>;
        le(a: F, b: F) -> F = _mm256_cmp_ps::<_CMP_LE_OQ>;
        eq(a: F, b: F) -> F = _mm256_cmp_ps::<_CMP_EQ_OQ>;
        or_mask(a: F, b: F) -> F = _mm256_or_ps;
        bits(a: F) -> I = _mm256_castps_si256;
        of_bits(a: I) -> F = _mm256_castsi256_ps;
        add_i(a: I, b: I) -> I = _mm256_add_epi32;
        sub_i(a: I, b: I) -> I = _mm256_sub_epi32;
        and_i(a: I, b: I) -> I = _mm256_and_si256;
        xor_i(a: I, b: I) -> I = _mm256_xor_si256;
        mul_i(a: I, b: I) -> I = _mm256_mullo_epi32;
        to_f(a: I) -> F = _mm256_cvtepi32_ps;
        to_i(a: F) -> I = _mm256_cvtps_epi32;
    }
    #[inline(always)]
    fn shl_i<const N: u32>(self, a: I) -> I {
        // SAFETY: `self` proves the instruction is there.
        unsafe {
            let n = _mm_cvtsi32_si128(N as i32);
            I(_mm256_sll_epi32(a.0, n), _mm256_sll_epi32(a.1, n))
        }
    }
    #[inline(always)]
    fn sar_i<const N: u32>(self, a: I) -> I {
        // SAFETY: `self` proves the instruction is there.
        unsafe {
            let n = _mm_cvtsi32_si128(N as i32);
            I(_mm256_sra_epi32(a.0, n), _mm256_sra_epi32(a.1, n))
        }
    }
    #[inline(always)]
    fn dot(self, acc: I, u: I, i: I) -> I {
        // SAFETY: `self` proves the instructions are there.
        unsafe {
            match VNNI {
                true => I(_mm256_dpbusd_avx_epi32(acc.0, u.0, i.0), _mm256_dpbusd_avx_epi32(acc.1, u.1, i.1)),
                false => I(dot8(acc.0, u.0, i.0), dot8(acc.1, u.1, i.1)),
            }
        }
    }
    #[inline(always)]
    unsafe fn load_bytes(self, p: *const u8) -> I {
        // SAFETY: the caller's contract; `self` proves the instructions.
        unsafe {
            let x = _mm_loadu_si128(p.cast());
            I(_mm256_cvtepu8_epi32(x), _mm256_cvtepu8_epi32(_mm_srli_si128::<8>(x)))
        }
    }
    #[inline(always)]
    fn lookup(self, table: I, index: I) -> I {
        // SAFETY: `self` proves the instruction is there.
        unsafe { I(_mm256_shuffle_epi8(table.0, index.0), _mm256_shuffle_epi8(table.1, index.1)) }
    }
    #[inline(always)]
    fn permute(self, x: F, index: I) -> F {
        // Bit 3 of a lane's index, which says which half it is in, as its sign.
        let half = |i: __m256i| {
            // SAFETY: `self` proves the instructions are there.
            unsafe {
                let (low, high) = (_mm256_permutevar8x32_ps(x.0, i), _mm256_permutevar8x32_ps(x.1, i));
                _mm256_blendv_ps(low, high, _mm256_castsi256_ps(_mm256_slli_epi32::<28>(i)))
            }
        };
        F(half(index.0), half(index.1))
    }
    #[inline(always)]
    unsafe fn store_bytes(self, p: *mut u8, x: I, n: usize) {
        let mut lanes = [0i32; LANES];
        // SAFETY: `lanes` holds 16; the caller vouches for `n` bytes.
        unsafe {
            _mm256_storeu_si256(lanes.as_mut_ptr().cast(), x.0);
            _mm256_storeu_si256(lanes.as_mut_ptr().add(8).cast(), x.1);
            let bytes = mapped(lanes, |x| x as u8);
            std::ptr::copy_nonoverlapping(bytes.as_ptr(), p, n);
        }
    }
    #[inline(always)]
    unsafe fn interleave(self, rows: [*const u8; 4], n: usize) -> [I; 4] {
        let mut bytes = [[0u8; 64]; 4];
        // SAFETY: the caller's contract; `self` proves the instructions.
        unsafe {
            let row = |i: usize, bytes: &mut [[u8; 64]; 4]| {
                if n >= 64 {
                    return rows[i];
                }
                std::ptr::copy_nonoverlapping(rows[i], bytes[i].as_mut_ptr(), n);
                bytes[i].as_ptr()
            };
            let rows = mapped([0, 1, 2, 3], |i| row(i, &mut bytes));
            let (low, high) = (interleave32(rows), interleave32(mapped(rows, |p| p.add(32))));
            [I(low[0], high[0]), I(low[1], high[1]), I(low[2], high[2]), I(low[3], high[3])]
        }
    }
    #[inline(always)]
    unsafe fn store_interleaved(self, p: *mut u8, x: [I; 4], n: usize) {
        // SAFETY: `bytes` holds 64; the caller vouches for `n` bytes; `self` proves the instructions.
        unsafe {
            let mut bytes = [0u8; 64];
            _mm256_storeu_si256(bytes.as_mut_ptr().cast(), narrow32([x[0].0, x[1].0, x[2].0, x[3].0]));
            _mm256_storeu_si256(
                bytes.as_mut_ptr().add(32).cast(),
                narrow32([x[0].1, x[1].1, x[2].1, x[3].1]),
            );
            std::ptr::copy_nonoverlapping(bytes.as_ptr(), p, n);
        }
    }
    #[inline(always)]
    unsafe fn store_codes<const V: usize>(self, p: *mut u8, x: [I; V], codes: Codes, n: usize) {
        // SAFETY: `bytes` holds 64; the caller vouches for `n` bytes; `self` proves the instructions.
        unsafe {
            let order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
            let mut bytes = [0u8; 64];
            for v in (0..V).step_by(2) {
                let (a, b) = (x[v], x[(v + 1).min(V - 1)]);
                let y = _mm256_permutevar8x32_epi32(coded32([a.0, a.1, b.0, b.1], codes), order);
                _mm256_storeu_si256(bytes.as_mut_ptr().add(v * LANES).cast(), y);
            }
            if n >= V * LANES {
                std::ptr::copy_nonoverlapping(bytes.as_ptr(), p, V * LANES);
            } else {
                std::ptr::copy_nonoverlapping(bytes.as_ptr(), p, n);
            }
        }
    }
    #[inline(always)]
    unsafe fn store_codes_interleaved(self, p: *mut u8, x: [I; 4], codes: Codes, n: usize) {
        // SAFETY: `bytes` holds 64; the caller vouches for `n` bytes; `self` proves the instructions.
        unsafe {
            let low = coded32([x[0].0, x[1].0, x[2].0, x[3].0], codes);
            let high = coded32([x[0].1, x[1].1, x[2].1, x[3].1], codes);
            if n >= 64 {
                _mm256_storeu_si256(p.cast(), low);
                return _mm256_storeu_si256(p.add(32).cast(), high);
            }
            let mut bytes = [0u8; 64];
            _mm256_storeu_si256(bytes.as_mut_ptr().cast(), low);
            _mm256_storeu_si256(bytes.as_mut_ptr().add(32).cast(), high);
            std::ptr::copy_nonoverlapping(bytes.as_ptr(), p, n);
        }
    }
    #[inline(always)]
    fn is_nan(self, a: F) -> F {
        // SAFETY: `self` proves the instruction is there.
        unsafe { F(_mm256_cmp_ps::<_CMP_UNORD_Q>(a.0, a.0), _mm256_cmp_ps::<_CMP_UNORD_Q>(a.1, a.1)) }
    }
    #[inline(always)]
    fn select(self, m: F, a: F, b: F) -> F {
        // SAFETY: `self` proves the instruction is there.
        unsafe { F(_mm256_blendv_ps(b.0, a.0, m.0), _mm256_blendv_ps(b.1, a.1, m.1)) }
    }
    #[inline(always)]
    fn any(self, m: F) -> bool {
        // SAFETY: `self` proves the instruction is there.
        unsafe { _mm256_movemask_ps(_mm256_or_ps(m.0, m.1)) != 0 }
    }
    #[inline(always)]
    fn scale2(self, x: F, n: F) -> F {
        super::portable::scale2_in_two(self, x, n)
    }
    #[inline(always)]
    fn sum(self, a: F) -> f32 {
        // SAFETY: `self` proves the instructions are there.
        unsafe { sum8(_mm256_add_ps(a.0, a.1)) }
    }
    #[inline(always)]
    unsafe fn quads(self, rows: [*const f32; 4]) -> F {
        // SAFETY: the caller vouches for four floats of each row; `self` proves the instructions are there.
        unsafe {
            let [a, b, c, d] = rows;
            F(_mm256_loadu2_m128(b, a), _mm256_loadu2_m128(d, c))
        }
    }
    #[inline(always)]
    fn sum_quads(self, [a, b, c, d]: [F; 4]) -> [F; 4] {
        // SAFETY: `self` proves the instructions are there; registers only.
        unsafe {
            let (low, high) = (quarters([a.0, b.0, c.0, d.0]), quarters([a.1, b.1, c.1, d.1]));
            let second = _mm256_permute2f128_ps::<0x11>(low, low);
            let fourth = _mm256_permute2f128_ps::<0x11>(high, high);
            [F(low, low), F(second, low), F(high, high), F(fourth, high)]
        }
    }
    #[inline(always)]
    fn array(self, a: F) -> [f32; LANES] {
        let mut out = [0.0; LANES];
        // SAFETY: `out` holds 16 lanes.
        unsafe { self.store(out.as_mut_ptr(), a) };
        out
    }
}
