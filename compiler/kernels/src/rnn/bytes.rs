//! kernel: an LSTM whose recurrent product is of bytes: the state of all sequences is quantized before each step, over its
//! values and zero, as ONNX Runtime's DynamicQuantizeLSTM does. Sums are exact, so tiers and threads agree to the bit as far
//! as their activations do.

use super::{Kind, Projected, RecurrenceArgs, States, cell, check};
use crate::convert::quantize_whole;
use crate::dispatch::Tier;
use crate::epilogue::Epilogue;
use crate::error::{Error, product, same_length};
use crate::gemm_i8::{Activations, Results, gemm_i8};
use crate::pack::Strides;
use crate::pack_i8::{PackedI8, Weights, spread};
use crate::parallel::{Pool, Serial};
use crate::simd::{LANES, tiered};

/// Bytes of weights times sequences from which on handing over a part of a product pays.
const SHARE: usize = 1 << 20;

/// Packs a matrix of `k` rows for the gates of an LSTM, `[k × 4·hidden]`: each gate padded to whole vectors of 16 units, so
/// the product has rows of `4 · hidden.next_multiple_of(16)`.
pub fn pack_gates(tier: Tier, w: &Weights, k: usize, hidden: usize) -> Result<PackedI8, Error> {
    let gates = Kind::Lstm.gates();
    let columns = product("gates overflow", &[gates, hidden])?;
    same_length("weights of gates", product("gates overflow", &[k, columns])?, w.data.len())?;
    let wide = hidden.next_multiple_of(LANES);
    if wide == hidden {
        return PackedI8::from_strided(tier, w, Strides::kn(columns), k, columns);
    }
    let data = spaced(w.data, [k * gates, hidden], wide, 0);
    let zero = spaced(&spread("weight zero points", w.zero, columns, 0)?, [gates, hidden], wide, 0);
    let scale = spaced(&spread("weight scales", w.scale, columns, 1.0)?, [gates, hidden], wide, 1.0);
    let w = Weights { data: &data, signed: w.signed, zero: &zero, scale: &scale };
    PackedI8::from_strided(tier, &w, Strides::kn(gates * wide), k, gates * wide)
}

/// Rows of `n` elements as rows of `wide`.
fn spaced<T: Copy>(x: &[T], [rows, n]: [usize; 2], wide: usize, fill: T) -> Vec<T> {
    let mut out = vec![fill; rows * wide];
    for (to, from) in out.chunks_exact_mut(wide.max(1)).zip(x.chunks_exact(n.max(1))) {
        to[..n].copy_from_slice(from);
    }
    out
}

/// Runs the recurrence with weights of [`pack_gates`]. As [`super::recur`], but that the rows of `x` have the weights'
/// columns.
pub fn recur_bytes(
    pool: &dyn Pool,
    weights: &PackedI8,
    args: &RecurrenceArgs<'_>,
    x: &Projected<'_>,
    h: &mut [f32],
    c: &mut [f32],
    y: Option<States<'_>>,
) -> Result<(), Error> {
    recur_bytes_on(Tier::best(), pool, weights, args, x, h, c, y)
}

/// [`recur_bytes`] with gates on a chosen tier; products are on the tier of the weights.
pub fn recur_bytes_on(
    tier: Tier,
    pool: &dyn Pool,
    weights: &PackedI8,
    args: &RecurrenceArgs<'_>,
    x: &Projected<'_>,
    h: &mut [f32],
    c: &mut [f32],
    mut y: Option<States<'_>>,
) -> Result<(), Error> {
    let (tier, hidden) = (tier.usable(), weights.tap_bytes);
    let wide = hidden.next_multiple_of(LANES);
    let columns = Kind::Lstm.gates() * wide;
    same_length("columns of recurrence weights", columns, weights.cols)?;
    check(Kind::Lstm, [hidden, wide], args, x, h, c, y.as_ref())?;
    if x.batch == 0 || hidden == 0 {
        return Ok(());
    }
    let mut gates = vec![0f32; product("gates overflow", &[x.batch, columns])?];
    let mut codes = vec![0u8; h.len()];
    let alone = weights.bytes().saturating_mul(x.batch) < SHARE;
    let pool = if alone { &Serial as &dyn Pool } else { pool };
    for i in 0..x.steps {
        let (scale, zero) = quantize_whole(tier, h, &mut codes);
        let a = Activations { data: &codes, signed: false, zero: i32::from(zero), zeros: &[], scale };
        gemm_i8(pool, x.batch, &a, weights, &mut Results::F32(&mut gates), &Epilogue::default())?;
        let rows = gates.chunks_exact_mut(columns).zip(h.chunks_exact_mut(hidden));
        for (b, ((gates, h), c)) in rows.zip(c.chunks_exact_mut(hidden)).enumerate() {
            let length = x.lengths.map_or(x.steps, |l| l[b]);
            let at = if x.reverse && i < length { length - 1 - i } else { i };
            let kept = y.as_mut().map(|y| &mut y.data[at * y.step + b * y.row..][..hidden]);
            if i >= length {
                if let Some(y) = kept {
                    y.fill(0.0);
                }
                continue;
            }
            let input = &x.data[at * x.step + b * x.row..][..columns];
            // SAFETY: gates and input hold four rows of `wide`, states and cells `hidden` elements; `check` compared
            // the peepholes.
            unsafe {
                add(tier, input.as_ptr(), gates.as_mut_ptr(), columns);
                cell::lstm(tier, args, gates.as_mut_ptr(), wide, hidden, c.as_mut_ptr(), h.as_mut_ptr());
            }
            if let Some(y) = kept {
                y.copy_from_slice(h);
            }
        }
    }
    Ok(())
}

tiered! {
    /// `y = x + y`.
    ///
    /// # Safety
    /// Both hold `n` elements, whole vectors.
    unsafe fn add(s: S; x: *const f32, y: *mut f32, n: usize) {
        let mut i = 0;
        while i < n {
            s.store(y.add(i), s.add(s.load(x.add(i)), s.load(y.add(i))));
            i += LANES;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Two, bytes, int, random};

    struct Case<'a> {
        n: usize,
        batch: usize,
        lengths: Option<&'a [usize]>,
        reverse: bool,
        signed: bool,
        zero: i32,
        peephole: Option<&'a [f32]>,
    }

    /// Steps by their definition, with the integer sums of the reference and gates in `f64`.
    fn check(case: &Case) {
        let &Case { n, batch, lengths, reverse, signed, zero, peephole } = case;
        let (steps, wide) = (4, n.next_multiple_of(LANES));
        let w = bytes(n * 4 * n, 3);
        let scale: Vec<f32> = (0..4 * n).map(|i| 0.004 + 0.0001 * (i % 9) as f32).collect();
        let zeros: Vec<i32> = (0..4 * n).map(|i| if zero == 0 { 0 } else { zero + (i % 3) as i32 }).collect();
        let x = random(steps * batch * 4 * wide, 5);
        let (h0, c0) = (random(batch * n, 6), random(batch * n, 7));
        let args = RecurrenceArgs { peephole, ..RecurrenceArgs::default() };
        let projected = Projected {
            data: &x,
            steps,
            batch,
            step: batch * 4 * wide,
            row: 4 * wide,
            lengths,
            reverse,
            by_blocks: false,
        };
        let mut all = Vec::new();
        for &tier in Tier::available() {
            let weights = Weights { data: &w, signed, zero: &zeros, scale: &scale };
            let packed = pack_gates(tier, &weights, n, n).unwrap();
            for pool in [&Serial as &dyn Pool, &Two] {
                let (mut h, mut c, mut y) = (h0.clone(), c0.clone(), vec![7.0; steps * batch * n]);
                let out = States { data: &mut y, step: batch * n, row: n };
                // Gates on one tier, so that only products differ.
                recur_bytes_on(Tier::best(), pool, &packed, &args, &projected, &mut h, &mut c, Some(out))
                    .unwrap();
                all.push((h, c, y));
                let (mut h, mut c, mut y) = (h0.clone(), c0.clone(), vec![7.0; steps * batch * n]);
                let out = States { data: &mut y, step: batch * n, row: n };
                recur_bytes_on(tier, pool, &packed, &args, &projected, &mut h, &mut c, Some(out)).unwrap();
                near(&y, &all[0].2);
            }
        }
        assert!(all.iter().all(|one| *one == all[0]));
        let (mut h, mut c, mut y) = (h0, c0, vec![0.0; steps * batch * n]);
        for i in 0..steps {
            let before = h.clone();
            let (lo, hi) = before.iter().fold((0f32, 0f32), |(a, b), &v| (a.min(v), b.max(v)));
            let (s, z) = ((hi - lo) / 255.0, (-lo / ((hi - lo) / 255.0)).round_ties_even());
            let code = |v: f32| ((v / s).round_ties_even() + z).clamp(0.0, 255.0) as i32 - z as i32;
            for b in 0..batch {
                let length = lengths.map_or(steps, |l| l[b]);
                if i >= length {
                    continue;
                }
                let t = if reverse { length - 1 - i } else { i };
                for u in 0..n {
                    let sum = |g: usize| {
                        let col = g * n + u;
                        let sum: i32 = (0..n)
                            .map(|k| code(before[b * n + k]) * (int(w[k * 4 * n + col], signed) - zeros[col]))
                            .sum();
                        let v = sum as f32 * (s * scale[col]) + x[(t * batch + b) * 4 * wide + g * wide + u];
                        f64::from(v)
                    };
                    let peep = |g: usize, c: f32| peephole.map_or(0.0, |p| f64::from(p[g * n + u] * c));
                    let sigmoid = |v: f64| 1.0 / (1.0 + (-v).exp());
                    let old = c[b * n + u];
                    let (i, f) = (sigmoid(sum(0) + peep(0, old)), sigmoid(sum(2) + peep(2, old)));
                    let cell = f * f64::from(old) + i * sum(3).tanh();
                    c[b * n + u] = cell as f32;
                    h[b * n + u] = (sigmoid(sum(1) + peep(1, cell as f32)) * cell.tanh()) as f32;
                }
                y[(t * batch + b) * n..][..n].copy_from_slice(&h[b * n..][..n]);
            }
        }
        near(&all[0].2, &y);
        near(&all[0].0, &h);
        near(&all[0].1, &c);
    }

    /// Beside rounding a code may be one step off where the last bit of a state decides a tie.
    fn near(a: &[f32], b: &[f32]) {
        assert_eq!(a.len(), b.len());
        for (a, b) in a.iter().zip(b) {
            assert!((a - b).abs() < 4e-3, "{a} is not {b}");
        }
        let mean = a.iter().zip(b).map(|(a, b)| (a - b).abs()).sum::<f32>() / a.len().max(1) as f32;
        assert!(mean < 5e-4, "{mean}");
    }

    #[test]
    fn steps_of_bytes_are_those_of_the_definition() {
        let sizes: &[usize] = if cfg!(miri) { &[5] } else { &[1, 5, 16, 37, 64] };
        for &n in sizes {
            let p = random(3 * n, 8);
            let plain =
                Case { n, batch: 1, lengths: None, reverse: false, signed: true, zero: 0, peephole: None };
            check(&plain);
            check(&Case { batch: 3, lengths: Some(&[4, 1, 3]), reverse: true, ..plain });
            check(&Case { batch: 2, signed: false, zero: 120, peephole: Some(&p), ..plain });
        }
    }

    #[test]
    fn wrong_sizes_are_refused() {
        static SCALE: [f32; 1] = [1.0];
        let w = |n: usize| Weights { data: &[1; 64], signed: true, zero: &[], scale: &SCALE[..n] };
        assert!(pack_gates(Tier::best(), &w(1), 4, 4).is_ok());
        assert!(pack_gates(Tier::best(), &w(1), 4, 3).is_err());
        assert!(pack_gates(Tier::best(), &w(1), usize::MAX, 4).is_err());
        let packed = pack_gates(Tier::best(), &w(0), 4, 4).unwrap();
        let x = [0.0; 2 * 64];
        let go = |x: &[f32], h: usize| {
            let x = Projected {
                data: x,
                steps: 2,
                batch: 1,
                step: 64,
                row: 64,
                lengths: None,
                reverse: false,
                by_blocks: false,
            };
            let args = RecurrenceArgs::default();
            recur_bytes(&Serial, &packed, &args, &x, &mut vec![0.0; h], &mut vec![0.0; h], None)
        };
        assert!(go(&x, 4).is_ok());
        assert!(go(&x[1..], 4).is_err());
        assert!(go(&x, 5).is_err());
        // Weights of another layer.
        let square = PackedI8::from_strided(Tier::best(), &w(1), Strides::kn(8), 8, 8).unwrap();
        let x = Projected {
            data: &x,
            steps: 1,
            batch: 1,
            step: 64,
            row: 64,
            lengths: None,
            reverse: false,
            by_blocks: false,
        };
        let args = RecurrenceArgs::default();
        assert!(recur_bytes(&Serial, &square, &args, &x, &mut [0.0; 8], &mut [0.0; 8], None).is_err());
    }
}
