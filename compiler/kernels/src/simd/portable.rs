//! 16 lanes in an array: any CPU, and Miri.

use super::{Codes, LANES, Simd, halve};

/// Needs no proof.
#[derive(Clone, Copy)]
pub(crate) struct Portable;

type F = [f32; LANES];
type I = [i32; LANES];
type M = [bool; LANES];

#[inline(always)]
fn map2<A: Copy, B: Copy, R: Copy + Default>(
    a: [A; LANES],
    b: [B; LANES],
    f: impl Fn(A, B) -> R,
) -> [R; LANES] {
    let mut out = [R::default(); LANES];
    for i in 0..LANES {
        out[i] = f(a[i], b[i]);
    }
    out
}

/// `round_ties_even` without the library call it is on a bare CPU.
#[inline(always)]
fn nearest(a: f32) -> f32 {
    const WHOLE: f32 = 8388608.0; // from here on every f32 is an integer
    let m = a.abs();
    if m < WHOLE { ((m + WHOLE) - WHOLE).copysign(a) } else { a }
}

/// `x · 2^n` by two exact powers, for instruction sets without it: only the second product can round.
#[inline(always)]
pub(super) fn scale2_in_two<S: Simd>(s: S, x: S::F, n: S::F) -> S::F {
    let n = s.to_i(n);
    let half = s.sar_i::<1>(n);
    let bias = s.splat_i(127);
    let a = s.of_bits(s.shl_i::<23>(s.add_i(half, bias)));
    let b = s.of_bits(s.shl_i::<23>(s.add_i(s.sub_i(n, half), bias)));
    s.mul(s.mul(x, a), b)
}

macro_rules! lanes {
    ($($name:ident($a:ident: $ta:ty $(, $b:ident: $tb:ty)?) -> $r:ty = $e:expr;)*) => {$(
        #[inline(always)]
        fn $name(self, $a: $ta $(, $b: $tb)?) -> $r {
            let mut out: $r = [Default::default(); LANES];
            for i in 0..LANES {
                let $a = $a[i];
                $(let $b = $b[i];)?
                out[i] = $e;
            }
            out
        }
    )*};
}

impl Simd for Portable {
    type F = F;
    type I = I;
    type M = M;
    const WIDE: bool = false;

    #[inline(always)]
    fn splat(self, x: f32) -> F {
        [x; LANES]
    }
    #[inline(always)]
    fn splat_i(self, x: i32) -> I {
        [x; LANES]
    }
    #[inline(always)]
    unsafe fn load(self, p: *const f32) -> F {
        // SAFETY: the caller's contract.
        unsafe { p.cast::<F>().read_unaligned() }
    }
    #[inline(always)]
    unsafe fn store(self, p: *mut f32, x: F) {
        // SAFETY: the caller's contract.
        unsafe { p.cast::<F>().write_unaligned(x) }
    }
    #[inline(always)]
    unsafe fn load_head(self, p: *const f32, n: usize) -> F {
        let mut out = [0.0; LANES];
        for (i, x) in out.iter_mut().enumerate().take(n) {
            // SAFETY: i < n, which the caller vouches for.
            *x = unsafe { *p.add(i) };
        }
        out
    }
    #[inline(always)]
    unsafe fn store_head(self, p: *mut f32, x: F, n: usize) {
        for (i, &x) in x.iter().enumerate().take(n) {
            // SAFETY: i < n, which the caller vouches for.
            unsafe { *p.add(i) = x };
        }
    }
    #[inline(always)]
    unsafe fn load_half(self, p: *const u16) -> F {
        // SAFETY: the caller's contract.
        let bits = unsafe { p.cast::<[u16; LANES]>().read_unaligned() };
        bits.map(|b| half::f16::from_bits(b).to_f32_const())
    }
    #[inline(always)]
    unsafe fn store_half(self, p: *mut u16, x: F) {
        let bits = x.map(|x| half::f16::from_f32_const(x).to_bits());
        // SAFETY: the caller's contract.
        unsafe { p.cast::<[u16; LANES]>().write_unaligned(bits) }
    }
    #[inline(always)]
    fn head(self, n: usize) -> M {
        std::array::from_fn(|i| i < n)
    }

    lanes! {
        add(a: F, b: F) -> F = a + b;
        sub(a: F, b: F) -> F = a - b;
        mul(a: F, b: F) -> F = a * b;
        div(a: F, b: F) -> F = a / b;
        sqrt(a: F) -> F = a.sqrt();
        max(a: F, b: F) -> F = if a > b { a } else { b };
        min(a: F, b: F) -> F = if a < b { a } else { b };
        round(a: F) -> F = nearest(a);
        floor(a: F) -> F = { let r = nearest(a); if r > a { r - 1.0 } else { r } };
        ceil(a: F) -> F = { let r = nearest(a); if r < a { (r + 1.0).copysign(a) } else { r } };
        lt(a: F, b: F) -> M = a < b;
        le(a: F, b: F) -> M = a <= b;
        eq(a: F, b: F) -> M = a == b;
        is_nan(a: F) -> M = a.is_nan();
        or_mask(a: M, b: M) -> M = a | b;
        bits(a: F) -> I = a.to_bits() as i32;
        of_bits(a: I) -> F = f32::from_bits(a as u32);
        add_i(a: I, b: I) -> I = a.wrapping_add(b);
        sub_i(a: I, b: I) -> I = a.wrapping_sub(b);
        and_i(a: I, b: I) -> I = a & b;
        xor_i(a: I, b: I) -> I = a ^ b;
        mul_i(a: I, b: I) -> I = a.wrapping_mul(b);
        to_f(a: I) -> F = a as f32;
        to_i(a: F) -> I = if a.is_nan() { i32::MIN } else { nearest(a) as i32 };
    }
    #[inline(always)]
    fn fma(self, a: F, b: F, c: F) -> F {
        map2(map2(a, b, |x, y| x * y), c, |x, y| x + y)
    }
    #[inline(always)]
    fn fnma(self, a: F, b: F, c: F) -> F {
        map2(c, map2(a, b, |x, y| x * y), |x, y| x - y)
    }
    #[inline(always)]
    fn dot(self, acc: I, u: I, i: I) -> I {
        let mut out = acc;
        for l in 0..LANES {
            let (u, i) = (u[l].to_le_bytes(), i[l].to_le_bytes());
            for k in 0..4 {
                out[l] = out[l].wrapping_add(i32::from(u[k]) * i32::from(i[k] as i8));
            }
        }
        out
    }
    #[inline(always)]
    unsafe fn load_bytes(self, p: *const u8) -> I {
        // SAFETY: the caller's contract.
        std::array::from_fn(|i| i32::from(unsafe { *p.add(i) }))
    }
    #[inline(always)]
    fn lookup(self, table: I, index: I) -> I {
        let at = |i: u8| table[usize::from(i / 4)].to_le_bytes()[usize::from(i % 4)];
        index.map(|lane| i32::from_le_bytes(lane.to_le_bytes().map(at)))
    }
    #[inline(always)]
    unsafe fn store_bytes(self, p: *mut u8, x: I, n: usize) {
        for (i, &x) in x.iter().enumerate().take(n) {
            // SAFETY: i < n, which the caller vouches for.
            unsafe { *p.add(i) = x as u8 };
        }
    }
    #[inline(always)]
    unsafe fn interleave(self, rows: [*const u8; 4], n: usize) -> [I; 4] {
        let at = |v: usize, l: usize| l / 4 * 16 + 4 * v + l % 4;
        // SAFETY: only bytes below `n` are read.
        let byte = |row: *const u8, at: usize| if at < n { unsafe { *row.add(at) } } else { 0 };
        std::array::from_fn(|v| std::array::from_fn(|l| i32::from_le_bytes(rows.map(|r| byte(r, at(v, l))))))
    }
    #[inline(always)]
    unsafe fn store_interleaved(self, p: *mut u8, x: [I; 4], n: usize) {
        for (v, x) in x.iter().enumerate() {
            for (l, &x) in x.iter().enumerate() {
                let at = l / 4 * 16 + 4 * v + l % 4;
                if at < n {
                    // SAFETY: `at` is below `n`.
                    unsafe { *p.add(at) = x as u8 };
                }
            }
        }
    }
    #[inline(always)]
    unsafe fn store_codes<const V: usize>(self, p: *mut u8, x: [I; V], codes: Codes, n: usize) {
        for (i, &x) in x.as_flattened().iter().enumerate().take(n) {
            // SAFETY: i < n, which the caller vouches for.
            unsafe { *p.add(i) = codes.of(x) };
        }
    }
    #[inline(always)]
    unsafe fn store_codes_interleaved(self, p: *mut u8, x: [I; 4], codes: Codes, n: usize) {
        let bytes = x.map(|x| x.map(|x| i32::from(codes.of(x))));
        // SAFETY: the caller's contract.
        unsafe { self.store_interleaved(p, bytes, n) }
    }
    #[inline(always)]
    fn shl_i<const N: u32>(self, a: I) -> I {
        a.map(|x| x << N)
    }
    #[inline(always)]
    fn sar_i<const N: u32>(self, a: I) -> I {
        a.map(|x| x >> N)
    }
    #[inline(always)]
    fn select(self, m: M, a: F, b: F) -> F {
        std::array::from_fn(|i| if m[i] { a[i] } else { b[i] })
    }
    #[inline(always)]
    fn any(self, m: M) -> bool {
        m.iter().any(|&m| m)
    }
    #[inline(always)]
    fn scale2(self, x: F, n: F) -> F {
        scale2_in_two(self, x, n)
    }
    #[inline(always)]
    fn sum(self, a: F) -> f32 {
        halve(a, |x, y| x + y)
    }
    #[inline(always)]
    unsafe fn quads(self, rows: [*const f32; 4]) -> F {
        // SAFETY: the caller vouches for four floats of each row.
        std::array::from_fn(|i| unsafe { *rows[i / 4].add(i % 4) })
    }
    #[inline(always)]
    fn sum_quads(self, x: [F; 4]) -> [F; 4] {
        let sum = |q: &[f32]| (q[0] + q[2]) + (q[1] + q[3]);
        std::array::from_fn(|r| {
            std::array::from_fn(|n| if n < 4 { sum(&x[n][4 * r..4 * r + 4]) } else { 0.0 })
        })
    }
    #[inline(always)]
    fn array(self, a: F) -> [f32; LANES] {
        a
    }
}
