//! Every instruction of every tier against plain Rust, bit for bit.

use super::*;
use crate::Tier;
use crate::testing::{bytes, random};

/// Where one tier's results are left.
#[derive(Default)]
struct Found {
    floats: Vec<(&'static str, [f32; LANES])>,
    ints: Vec<(&'static str, [i32; LANES])>,
    bytes: Vec<(&'static str, Vec<u8>)>,
}

#[inline(always)]
fn ints<S: Simd>(s: S, x: S::I) -> [i32; LANES] {
    s.array(s.of_bits(x)).map(|x| x.to_bits() as i32)
}

tiered! {
    /// # Safety
    /// `a`, `b`, `c` are valid for reading 16 elements, `rows` each for 64 bytes.
    unsafe fn all(s: S; a: *const f32, b: *const f32, c: *const f32, rows: [*const u8; 4], found: *mut Found) {
        let found = &mut *found;
        let (x, y, z) = (s.load(a), s.load(b), s.load(c));
        let (i, j) = (s.bits(x), s.bits(y));
        let mut f = |name, v| found.floats.push((name, s.array(v)));
        f("add", s.add(x, y));
        f("sub", s.sub(x, y));
        f("mul", s.mul(x, y));
        f("div", s.div(x, y));
        f("sqrt", s.sqrt(x));
        f("max", s.max(x, y));
        f("min", s.min(x, y));
        f("round", s.round(x));
        f("floor", s.floor(x));
        f("ceil", s.ceil(x));
        f("neg", s.neg(x));
        f("abs", s.abs(x));
        f("xor_sign", s.xor_sign(x, y));
        f("select lt", s.select(s.lt(x, y), x, z));
        f("select le", s.select(s.le(x, y), x, z));
        f("select eq", s.select(s.eq(x, x), y, z));
        f("select nan", s.select(s.is_nan(x), y, z));
        f("select or", s.select(s.or_mask(s.lt(x, y), s.head(5)), x, z));
        f("to_f", s.to_f(i));
        f("farther", s.farther(s.splat(0.25), s.min(s.splat(1e6), s.max(s.splat(-1e6), z))));
        f("farther than NaN", s.farther(s.splat(0.25), s.splat(f32::NAN)));
        f("permute", s.permute(x, j));
        f("scale2", s.scale2(s.splat(1.25), s.round(s.min(s.splat(254.0), s.max(s.splat(-252.0), z)))));
        f("sum", s.splat(s.sum(z)));
        f("product", s.splat(s.product(z)));
        f("largest", s.splat(s.largest(z)));
        f("smallest", s.splat(s.smallest(z)));
        f("any", s.splat(f32::from(s.any(s.lt(x, y)))));
        for n in 0..LANES {
            f("load_head", s.load_head(a, n));
            let mut to = [7.0; LANES];
            s.store_head(to.as_mut_ptr(), x, n);
            f("store_head", s.load(to.as_ptr()));
        }
        let mut half = [0u16; LANES];
        s.store_half(half.as_mut_ptr(), z);
        f("halves", s.load_half(half.as_ptr()));
        let mut g = |name, v| found.ints.push((name, ints(s, v)));
        g("add_i", s.add_i(i, j));
        g("sub_i", s.sub_i(i, j));
        g("mul_i", s.mul_i(i, j));
        g("and_i", s.and_i(i, j));
        g("xor_i", s.xor_i(i, j));
        g("shl_i", s.shl_i::<5>(i));
        g("sar_i", s.sar_i::<3>(i));
        g("dot", s.dot(i, j, i));
        g("to_i", s.to_i(s.min(s.splat(1e6), s.max(s.splat(-1e6), z))));
        g("quad", s.quad(rows[0]));
        for n in [1, 3, 4, 15, 16, 17, 31, 33, 63, 64] {
            let v = s.interleave(rows, n);
            let mut to = vec![0u8; 64];
            s.store_interleaved(to.as_mut_ptr(), v, n);
            found.bytes.push(("interleaved", to));
            if n <= LANES {
                let mut to = vec![0u8; LANES];
                s.store_bytes(to.as_mut_ptr(), i, n);
                found.bytes.push(("store_bytes", to));
            }
        }
        let signed = Codes { zero: 100, ..Codes::plain(128) };
        for (flip, addend, codes) in [(0, 0, Codes::plain(0)), (0x80, -128, Codes::plain(128)), (0x80, 3, signed)] {
            let mut to = vec![0u8; 64];
            s.store_codes_spread(to.as_mut_ptr(), s.spread(rows[1], flip, addend), codes);
            found.bytes.push(("spread", to));
        }
        let v = s.interleave(rows, 64);
        for v in v {
            found.ints.push(("interleave", ints(s, v)));
        }
    }
}

fn of(tier: Tier, [a, b, c]: [&[f32]; 3], rows: &[u8]) -> Found {
    let mut found = Found::default();
    let row = |i: usize| rows[i * 64..].as_ptr();
    // SAFETY: three times 16 elements, four times 64 bytes.
    unsafe { all(tier, a.as_ptr(), b.as_ptr(), c.as_ptr(), [row(0), row(1), row(2), row(3)], &mut found) };
    found
}

#[test]
fn every_tier_computes_what_plain_rust_does() {
    let specials = [
        0.0,
        -0.0,
        1.0,
        -1.5,
        2.5,
        f32::INFINITY,
        f32::NEG_INFINITY,
        f32::MAX,
        1e-45,
        -1e-40,
        0.5,
        -0.5,
        3.5,
        1e9,
        -2.5,
        f32::MIN_POSITIVE,
    ];
    let mut with_nan = specials;
    with_nan[3] = f32::NAN;
    with_nan[15] = -f32::NAN;
    let scaled = |seed, by: f32| random(LANES, seed).into_iter().map(|x| x * by).collect::<Vec<f32>>();
    let mut cases = vec![
        [specials.to_vec(), scaled(1, 3.0), scaled(2, 300.0)],
        [with_nan.to_vec(), specials.iter().rev().copied().collect(), scaled(3, 5.0)],
    ];
    cases.extend((4..12).map(|seed| [scaled(seed, 9.0), scaled(seed + 20, 9.0), scaled(seed + 40, 1000.0)]));
    let same = |x: f32, y: f32| x.to_bits() == y.to_bits() || (x.is_nan() && y.is_nan());
    for (k, [a, b, c]) in cases.iter().enumerate() {
        let rows = bytes(4 * 64, k as u64);
        let want = of(Tier::Portable, [a, b, c], &rows);
        for &tier in Tier::available() {
            let found = of(tier, [a, b, c], &rows);
            assert_eq!(found.floats.len(), want.floats.len());
            for ((name, f), (_, w)) in found.floats.iter().zip(&want.floats) {
                assert!(f.iter().zip(w).all(|(f, w)| same(*f, *w)), "{tier:?} {name}: {f:?} is not {w:?}");
            }
            for ((name, f), (_, w)) in found.ints.iter().zip(&want.ints) {
                assert_eq!(f, w, "{tier:?} {name}");
            }
            for ((name, f), (_, w)) in found.bytes.iter().zip(&want.bytes) {
                assert_eq!(f, w, "{tier:?} {name}");
            }
        }
    }
}

#[test]
fn multiply_adds_round_once_where_the_tier_says_so() {
    tiered! {
        /// # Safety
        /// Each pointer is valid for 16 elements.
        unsafe fn both(s: S; p: *const f32, fused: *mut f32, negated: *mut f32) {
            let (a, b, c) = (s.load(p), s.load(p.add(LANES)), s.load(p.add(2 * LANES)));
            s.store(fused, s.fma(a, b, c));
            s.store(negated, s.fnma(a, b, c));
        }
    }
    let x = random(3 * LANES, 9);
    for &tier in Tier::available() {
        let (mut f, mut n) = ([0.0; LANES], [0.0; LANES]);
        // SAFETY: 48 elements read, 16 written to each.
        unsafe { both(tier, x.as_ptr(), f.as_mut_ptr(), n.as_mut_ptr()) };
        for l in 0..LANES {
            let (a, b, c) = (x[l], x[LANES + l], x[2 * LANES + l]);
            let want = if tier == Tier::Portable {
                (a * b + c, c - a * b)
            } else {
                (a.mul_add(b, c), (-a).mul_add(b, c))
            };
            assert_eq!((f[l], n[l]), want, "{tier:?}");
        }
    }
}
