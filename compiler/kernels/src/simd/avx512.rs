//! 16 lanes in one 512-bit register.

use super::{Codes, LANES, Simd};
use std::arch::x86_64::*;

/// Proof of AVX-512 F, BW, DQ, VL and VNNI.
#[derive(Clone, Copy)]
pub(crate) struct Avx512(());

impl Avx512 {
    /// # Safety
    /// The CPU has AVX-512 F, BW, DQ, VL and VNNI.
    #[inline(always)]
    pub(crate) unsafe fn new() -> Self {
        Avx512(())
    }
}

macro_rules! ops {
    ($($name:ident($($a:ident: $t:ty),*) -> $r:ty = $e:expr;)*) => {$(
        #[inline(always)]
        fn $name(self, $($a: $t),*) -> $r {
            // SAFETY: `self` proves the instructions are there; they touch registers only.
            unsafe { $e }
        }
    )*};
}

#[inline(always)]
fn low(n: usize) -> __mmask16 {
    debug_assert!(n < LANES);
    ((1u32 << n) - 1) as __mmask16
}

/// The bytes of four rows as cells of four, in the order of [`Simd::interleave`].
///
/// # Safety
/// The CPU has AVX-512 BW.
#[inline(always)]
unsafe fn cells([a, b, c, d]: [__m512i; 4]) -> [__m512i; 4] {
    // SAFETY: the caller vouches for the instructions; registers only.
    unsafe {
        let (ab, cd) = (_mm512_unpacklo_epi8(a, b), _mm512_unpacklo_epi8(c, d));
        let (ab2, cd2) = (_mm512_unpackhi_epi8(a, b), _mm512_unpackhi_epi8(c, d));
        [
            _mm512_unpacklo_epi16(ab, cd),
            _mm512_unpackhi_epi16(ab, cd),
            _mm512_unpacklo_epi16(ab2, cd2),
            _mm512_unpackhi_epi16(ab2, cd2),
        ]
    }
}

/// Codes of 64 whole numbers: four lanes of each vector, for each quarter of the register.
///
/// # Safety
/// The CPU has AVX-512 BW.
#[inline(always)]
unsafe fn coded(x: [__m512i; 4], codes: Codes) -> __m512i {
    // SAFETY: the caller vouches for the instructions; registers only.
    unsafe {
        if codes.is_plain() {
            return _mm512_packus_epi16(_mm512_packs_epi32(x[0], x[1]), _mm512_packs_epi32(x[2], x[3]));
        }
        let zero = _mm512_set1_epi16(codes.zero);
        let ab = _mm512_adds_epi16(_mm512_packs_epi32(x[0], x[1]), zero);
        let cd = _mm512_adds_epi16(_mm512_packs_epi32(x[2], x[3]), zero);
        let bytes = _mm512_max_epu8(_mm512_packus_epi16(ab, cd), _mm512_set1_epi8(codes.low as i8));
        let bytes = _mm512_min_epu8(bytes, _mm512_set1_epi8(codes.high as i8));
        _mm512_xor_si512(bytes, _mm512_set1_epi8(codes.flip as i8))
    }
}

/// A table of 256 bytes at the bytes of `index`. In assembly, because [`Tier::Avx512`](crate::Tier) does not promise
/// VBMI and an intrinsic of other features would stay a call.
///
/// # Safety
/// The CPU has VBMI beside AVX-512.
#[cfg(not(miri))]
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
unsafe fn wide(table: [__m512i; 4], index: __m512i) -> __m512i {
    let (mut low, mut high) = (index, index);
    // SAFETY: the caller vouches for the instructions; they touch registers only.
    unsafe {
        std::arch::asm!(
            "vpermi2b {low}, {a}, {b}",
            "vpermi2b {high}, {c}, {d}",
            low = inout(zmm_reg) low,
            high = inout(zmm_reg) high,
            a = in(zmm_reg) table[0],
            b = in(zmm_reg) table[1],
            c = in(zmm_reg) table[2],
            d = in(zmm_reg) table[3],
            options(pure, nomem, nostack, preserves_flags),
        );
    }
    _mm512_mask_blend_epi8(_mm512_movepi8_mask(index), low, high)
}

/// The first bytes of `x` at the bits of `mask`, elsewhere `rest`. In assembly as [`wide`].
///
/// # Safety
/// The CPU has VBMI2 beside AVX-512.
#[cfg(not(miri))]
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
unsafe fn expanded(mask: u64, x: __m512i, mut rest: __m512i) -> __m512i {
    // SAFETY: the caller vouches for the instruction; it touches registers only.
    unsafe {
        std::arch::asm!(
            "vpexpandb {rest}{{{mask}}}, {x}",
            rest = inout(zmm_reg) rest,
            x = in(zmm_reg) x,
            mask = in(kreg) mask,
            options(pure, nomem, nostack, preserves_flags),
        );
    }
    rest
}

impl Simd for Avx512 {
    type F = __m512;
    type I = __m512i;
    type M = __mmask16;
    const WIDE: bool = true;

    #[inline(always)]
    unsafe fn load(self, p: *const f32) -> __m512 {
        // SAFETY: the caller's contract; `self` proves the instruction.
        unsafe { _mm512_loadu_ps(p) }
    }
    #[inline(always)]
    unsafe fn store(self, p: *mut f32, x: __m512) {
        // SAFETY: the caller's contract; `self` proves the instruction.
        unsafe { _mm512_storeu_ps(p, x) }
    }
    #[inline(always)]
    unsafe fn load_head(self, p: *const f32, n: usize) -> __m512 {
        // SAFETY: masked lanes are not touched; the caller vouches for the others.
        unsafe { _mm512_maskz_loadu_ps(low(n), p) }
    }
    #[inline(always)]
    unsafe fn store_head(self, p: *mut f32, x: __m512, n: usize) {
        // SAFETY: masked lanes are not touched; the caller vouches for the others.
        unsafe { _mm512_mask_storeu_ps(p, low(n), x) }
    }
    #[inline(always)]
    unsafe fn load_half(self, p: *const u16) -> __m512 {
        // SAFETY: the caller's contract; `self` proves the instruction.
        unsafe { _mm512_cvtph_ps(_mm256_loadu_si256(p.cast())) }
    }
    #[inline(always)]
    unsafe fn store_half(self, p: *mut u16, x: __m512) {
        // SAFETY: the caller's contract; `self` proves the instruction.
        unsafe { _mm256_storeu_si256(p.cast(), _mm512_cvtps_ph::<0>(x)) }
    }
    #[inline(always)]
    fn head(self, n: usize) -> __mmask16 {
        low(n)
    }

    ops! {
        splat(x: f32) -> __m512 = _mm512_set1_ps(x);
        add(a: __m512, b: __m512) -> __m512 = _mm512_add_ps(a, b);
        sub(a: __m512, b: __m512) -> __m512 = _mm512_sub_ps(a, b);
        mul(a: __m512, b: __m512) -> __m512 = _mm512_mul_ps(a, b);
        div(a: __m512, b: __m512) -> __m512 = _mm512_div_ps(a, b);
        sqrt(a: __m512) -> __m512 = _mm512_sqrt_ps(a);
        fma(a: __m512, b: __m512, c: __m512) -> __m512 = _mm512_fmadd_ps(a, b, c);
        fnma(a: __m512, b: __m512, c: __m512) -> __m512 = _mm512_fnmadd_ps(a, b, c);
        max(a: __m512, b: __m512) -> __m512 = _mm512_max_ps(a, b);
        min(a: __m512, b: __m512) -> __m512 = _mm512_min_ps(a, b);
        round(a: __m512) -> __m512 = _mm512_roundscale_ps::<0x08>(a);
        floor(a: __m512) -> __m512 = _mm512_roundscale_ps::<0x09>(a);
        ceil(a: __m512) -> __m512 = _mm512_roundscale_ps::<0x0a>(a);
        scale2(x: __m512, n: __m512) -> __m512 = _mm512_scalef_ps(x, n);
        lt(a: __m512, b: __m512) -> __mmask16 = _mm512_cmp_ps_mask::<_CMP_LT_OQ>(a, b);
        le(a: __m512, b: __m512) -> __mmask16 = _mm512_cmp_ps_mask::<_CMP_LE_OQ>(a, b);
        eq(a: __m512, b: __m512) -> __mmask16 = _mm512_cmp_ps_mask::<_CMP_EQ_OQ>(a, b);
        is_nan(a: __m512) -> __mmask16 = _mm512_cmp_ps_mask::<_CMP_UNORD_Q>(a, a);
        select(m: __mmask16, a: __m512, b: __m512) -> __m512 = _mm512_mask_blend_ps(m, b, a);
        bits(a: __m512) -> __m512i = _mm512_castps_si512(a);
        of_bits(a: __m512i) -> __m512 = _mm512_castsi512_ps(a);
        splat_i(x: i32) -> __m512i = _mm512_set1_epi32(x);
        add_i(a: __m512i, b: __m512i) -> __m512i = _mm512_add_epi32(a, b);
        sub_i(a: __m512i, b: __m512i) -> __m512i = _mm512_sub_epi32(a, b);
        and_i(a: __m512i, b: __m512i) -> __m512i = _mm512_and_si512(a, b);
        xor_i(a: __m512i, b: __m512i) -> __m512i = _mm512_xor_si512(a, b);
        mul_i(a: __m512i, b: __m512i) -> __m512i = _mm512_mullo_epi32(a, b);
        dot(acc: __m512i, u: __m512i, i: __m512i) -> __m512i = _mm512_dpbusd_epi32(acc, u, i);
        lookup(table: __m512i, index: __m512i) -> __m512i = _mm512_shuffle_epi8(table, index);
        to_f(a: __m512i) -> __m512 = _mm512_cvtepi32_ps(a);
        to_i(a: __m512) -> __m512i = _mm512_cvtps_epi32(a);
        sum(a: __m512) -> f32 = {
            let h = _mm256_add_ps(_mm512_castps512_ps256(a), _mm512_extractf32x8_ps::<1>(a));
            super::avx2::sum8(h)
        };
    }
    #[inline(always)]
    fn shl_i<const N: u32>(self, a: __m512i) -> __m512i {
        // SAFETY: `self` proves the instruction is there.
        unsafe { _mm512_slli_epi32::<N>(a) }
    }
    #[inline(always)]
    fn sar_i<const N: u32>(self, a: __m512i) -> __m512i {
        // SAFETY: `self` proves the instruction is there.
        unsafe { _mm512_srai_epi32::<N>(a) }
    }
    #[cfg(not(miri))]
    #[inline(always)]
    unsafe fn expand(self, mask: u64, p: *const u8, rest: __m512i) -> __m512i {
        debug_assert!(crate::dispatch::has_vbmi2());
        // SAFETY: the caller's contract; kernels for bitmaps run on CPUs with VBMI2 only.
        unsafe { expanded(mask, _mm512_loadu_si512(p.cast()), rest) }
    }
    #[inline(always)]
    fn quarters(self, [a, b, c, d]: [__m512; 4]) -> [__m512; 4] {
        // SAFETY: `self` proves the instruction is there.
        unsafe {
            let low = (_mm512_shuffle_f32x4::<0x44>(a, b), _mm512_shuffle_f32x4::<0x44>(c, d));
            let high = (_mm512_shuffle_f32x4::<0xee>(a, b), _mm512_shuffle_f32x4::<0xee>(c, d));
            [
                _mm512_shuffle_f32x4::<0x88>(low.0, low.1),
                _mm512_shuffle_f32x4::<0xdd>(low.0, low.1),
                _mm512_shuffle_f32x4::<0x88>(high.0, high.1),
                _mm512_shuffle_f32x4::<0xdd>(high.0, high.1),
            ]
        }
    }
    #[cfg(not(miri))]
    #[inline(always)]
    fn reciprocal(self, a: __m512) -> __m512 {
        // 14 bits, which a step of Newton's method doubles.
        // SAFETY: `self` proves the instruction is there.
        let r = unsafe { _mm512_rcp14_ps(a) };
        self.fma(r, self.fnma(a, r, self.splat(1.0)), r)
    }
    #[inline(always)]
    fn permute(self, x: __m512, index: __m512i) -> __m512 {
        // SAFETY: `self` proves the instruction is there.
        unsafe { _mm512_permutexvar_ps(index, x) }
    }
    #[inline(always)]
    fn lookup32(self, table: &[f32; 32], index: __m512i) -> __m512 {
        // SAFETY: the table holds two vectors; `self` proves the instructions.
        unsafe {
            let (low, high) = (_mm512_loadu_ps(table.as_ptr()), _mm512_loadu_ps(table.as_ptr().add(LANES)));
            _mm512_permutex2var_ps(low, index, high)
        }
    }
    #[cfg(not(miri))]
    #[inline(always)]
    fn lookup_wide(self, table: [__m512i; 4], index: __m512i) -> __m512i {
        debug_assert!(crate::dispatch::has_vbmi());
        // SAFETY: `self` proves AVX-512; kernels for wide tables run on CPUs with VBMI only.
        unsafe { wide(table, index) }
    }
    #[inline(always)]
    unsafe fn load_bytes(self, p: *const u8) -> __m512i {
        // SAFETY: the caller's contract; `self` proves the instruction.
        unsafe { _mm512_cvtepu8_epi32(_mm_loadu_si128(p.cast())) }
    }
    #[inline(always)]
    unsafe fn store_bytes(self, p: *mut u8, x: __m512i, n: usize) {
        debug_assert!(n <= LANES);
        // SAFETY: masked bytes are not touched; the caller vouches for the others.
        unsafe {
            let bytes = _mm512_cvtepi32_epi8(x);
            if n >= LANES {
                _mm_storeu_si128(p.cast(), bytes);
            } else {
                _mm_mask_storeu_epi8(p.cast(), low(n), bytes);
            }
        }
    }
    #[inline(always)]
    unsafe fn store_codes<const V: usize>(self, p: *mut u8, x: [__m512i; V], codes: Codes, n: usize) {
        // SAFETY: masked bytes are not touched; the caller vouches for the others; `self` proves the instructions.
        unsafe {
            let at = |v: usize| x[v.min(V - 1)];
            let order = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
            let bytes = coded([at(0), at(1), at(2), at(3)], codes);
            let bytes = _mm512_permutexvar_epi32(order, bytes);
            if n < V * LANES {
                _mm512_mask_storeu_epi8(p.cast(), (1u64 << n) - 1, bytes);
            } else if V == 4 {
                _mm512_storeu_si512(p.cast(), bytes);
            } else {
                if V >= 2 {
                    _mm256_storeu_si256(p.cast(), _mm512_castsi512_si256(bytes));
                }
                match V {
                    1 => _mm_storeu_si128(p.cast(), _mm512_castsi512_si128(bytes)),
                    3 => _mm_storeu_si128(p.add(32).cast(), _mm512_extracti32x4_epi32::<2>(bytes)),
                    _ => {}
                }
            }
        }
    }
    #[inline(always)]
    unsafe fn store_codes_interleaved(self, p: *mut u8, x: [__m512i; 4], codes: Codes, n: usize) {
        // SAFETY: masked bytes are not touched; the caller vouches for the others; `self` proves the instructions.
        unsafe {
            let bytes = coded(x, codes);
            if n >= 64 {
                _mm512_storeu_si512(p.cast(), bytes);
            } else {
                _mm512_mask_storeu_epi8(p.cast(), (1u64 << n) - 1, bytes);
            }
        }
    }
    /// Lane `d` of vector `j` is byte `4 d + j`: a dot product picks one of four.
    #[inline(always)]
    unsafe fn spread(self, p: *const u8, flip: u8, addend: i32) -> [__m512i; 4] {
        // SAFETY: the caller's contract; `self` proves the instructions.
        unsafe {
            let bytes = _mm512_xor_si512(_mm512_loadu_si512(p.cast()), _mm512_set1_epi8(flip as i8));
            let start = _mm512_set1_epi32(addend);
            let mut all = [start; 4];
            for v in 0..4 {
                all[v] = _mm512_dpbusd_epi32(start, bytes, _mm512_set1_epi32(1 << (8 * v)));
            }
            all
        }
    }
    #[inline(always)]
    unsafe fn store_codes_spread(self, p: *mut u8, x: [__m512i; 4], codes: Codes) {
        // SAFETY: the caller vouches for the bytes; `self` proves the instructions.
        unsafe {
            // Four bytes of each vector in each quarter, which belong one of each behind each other.
            let order = _mm512_set4_epi32(0x0f0b_0703, 0x0e0a_0602, 0x0d09_0501, 0x0c08_0400);
            _mm512_storeu_si512(p.cast(), _mm512_shuffle_epi8(coded(x, codes), order));
        }
    }
    #[inline(always)]
    fn farther(self, most: __m512, x: __m512) -> __m512 {
        // SAFETY: `self` proves the instructions. A remainder by whole numbers; the larger magnitude, or the one that is no NaN.
        unsafe { _mm512_range_ps::<0b1011>(most, _mm512_reduce_ps::<0>(x)) }
    }
    #[inline(always)]
    unsafe fn interleave(self, rows: [*const u8; 4], n: usize) -> [__m512i; 4] {
        // SAFETY: masked bytes are not touched; `self` proves the instructions.
        unsafe {
            let live = if n >= 64 { !0 } else { (1u64 << n) - 1 };
            let a = _mm512_maskz_loadu_epi8(live, rows[0].cast());
            let b = _mm512_maskz_loadu_epi8(live, rows[1].cast());
            let c = _mm512_maskz_loadu_epi8(live, rows[2].cast());
            let d = _mm512_maskz_loadu_epi8(live, rows[3].cast());
            cells([a, b, c, d])
        }
    }
    #[inline(always)]
    unsafe fn interleave_parts<const L: usize>(self, rows: [[*const u8; L]; 4], n: usize) -> [__m512i; 4] {
        // SAFETY: masked bytes are not touched; `self` proves the instructions.
        unsafe {
            let mut whole = [_mm512_setzero_si512(); 4];
            for (row, whole) in rows.iter().zip(&mut whole) {
                *whole = if L == 2 {
                    let live = if n >= 32 { !0 } else { (1u32 << n) - 1 };
                    let part = |i: usize| _mm256_maskz_loadu_epi8(live, row[i.min(L - 1)].cast());
                    _mm512_inserti64x4::<1>(_mm512_castsi256_si512(part(0)), part(1))
                } else {
                    let live = if n >= 16 { !0 } else { (1u16 << n) - 1 };
                    let part = |i: usize| _mm_maskz_loadu_epi8(live, row[i.min(L - 1)].cast());
                    let half =
                        |i: usize| _mm256_inserti128_si256::<1>(_mm256_castsi128_si256(part(i)), part(i + 1));
                    _mm512_inserti64x4::<1>(_mm512_castsi256_si512(half(0)), half(2))
                };
            }
            cells(whole)
        }
    }
    #[inline(always)]
    unsafe fn store_codes_parts(
        self,
        p: *mut u8,
        step: usize,
        x: [__m512i; 4],
        codes: Codes,
        (parts, live): (usize, usize),
        n: usize,
    ) {
        // SAFETY: masked bytes are not touched; the caller vouches for the others; `self` proves the instructions.
        unsafe {
            let bytes = coded(x, codes);
            let at = |i: usize| p.wrapping_add(i * step);
            if parts == 2 {
                let mask = if n >= 32 { !0 } else { (1u32 << n) - 1 };
                _mm256_mask_storeu_epi8(at(0).cast(), mask, _mm512_castsi512_si256(bytes));
                if live > 1 {
                    _mm256_mask_storeu_epi8(at(1).cast(), mask, _mm512_extracti64x4_epi64::<1>(bytes));
                }
                return;
            }
            let mask = if n >= 16 { !0 } else { (1u16 << n) - 1 };
            let quarters = [
                _mm512_castsi512_si128(bytes),
                _mm512_extracti32x4_epi32::<1>(bytes),
                _mm512_extracti32x4_epi32::<2>(bytes),
                _mm512_extracti32x4_epi32::<3>(bytes),
            ];
            for i in 0..4 {
                if i < live {
                    _mm_mask_storeu_epi8(at(i).cast(), mask, quarters[i]);
                }
            }
        }
    }
    #[inline(always)]
    unsafe fn store_interleaved(self, p: *mut u8, x: [__m512i; 4], n: usize) {
        // SAFETY: masked bytes are not touched; `self` proves the instructions.
        unsafe {
            let mask = _mm512_set1_epi32(0xff);
            let (a, b) = (_mm512_and_si512(x[0], mask), _mm512_and_si512(x[1], mask));
            let (c, d) = (_mm512_and_si512(x[2], mask), _mm512_and_si512(x[3], mask));
            let (low, high) = (_mm512_packs_epi32(a, b), _mm512_packs_epi32(c, d));
            let live = if n >= 64 { !0 } else { (1u64 << n) - 1 };
            _mm512_mask_storeu_epi8(p.cast(), live, _mm512_packus_epi16(low, high));
        }
    }
    #[inline(always)]
    fn or_mask(self, a: __mmask16, b: __mmask16) -> __mmask16 {
        a | b
    }
    #[inline(always)]
    fn any(self, m: __mmask16) -> bool {
        m != 0
    }
    #[inline(always)]
    unsafe fn quads(self, rows: [*const f32; 4]) -> __m512 {
        // SAFETY: the caller vouches for four floats of each row; `self` proves the instructions are there.
        unsafe {
            let [a, b, c, d] = rows;
            let x = _mm512_castps128_ps512(_mm_loadu_ps(a));
            let x = _mm512_mask_broadcast_f32x4(x, 0x00f0, _mm_loadu_ps(b));
            let x = _mm512_mask_broadcast_f32x4(x, 0x0f00, _mm_loadu_ps(c));
            _mm512_mask_broadcast_f32x4(x, 0xf000, _mm_loadu_ps(d))
        }
    }
    #[inline(always)]
    fn sum_quads(self, [a, b, c, d]: [__m512; 4]) -> [__m512; 4] {
        // SAFETY: `self` proves the instructions are there; registers only.
        unsafe {
            let ab = _mm512_add_ps(_mm512_unpacklo_ps(a, b), _mm512_unpackhi_ps(a, b));
            let cd = _mm512_add_ps(_mm512_unpacklo_ps(c, d), _mm512_unpackhi_ps(c, d));
            let low = _mm512_shuffle_ps::<0b01_00_01_00>(ab, cd);
            let high = _mm512_shuffle_ps::<0b11_10_11_10>(ab, cd);
            let x = _mm512_add_ps(low, high);
            [
                x,
                _mm512_shuffle_f32x4::<0b01_01_01_01>(x, x),
                _mm512_shuffle_f32x4::<0b10_10_10_10>(x, x),
                _mm512_shuffle_f32x4::<0b11_11_11_11>(x, x),
            ]
        }
    }
    #[inline(always)]
    fn array(self, a: __m512) -> [f32; LANES] {
        let mut out = [0.0; LANES];
        // SAFETY: `out` holds 16 lanes.
        unsafe { self.store(out.as_mut_ptr(), a) };
        out
    }
}
