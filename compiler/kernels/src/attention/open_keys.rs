//! Which keys a mask leaves: sequences that are filled up to one length have few.

use super::{Attention, Heads, PANEL};
use crate::dispatch::Tier;
use crate::simd::{LANES, tiered};
use std::ops::Range;

/// A weight of `e^-x` is zero from here on, with room for what rounding does to scores.
const FAR: f32 = 100.0;

impl Attention<'_> {
    /// The keys between the first and the last that the mask leaves to the queries. The weights of the others are exactly zero, which bounds of the scores say before there are any.
    ///
    /// # Safety
    /// As [`Attention::head`].
    pub(super) unsafe fn open_keys(
        &self,
        tier: Tier,
        b: usize,
        h: usize,
        queries: Range<usize>,
    ) -> Range<usize> {
        let all = 0..self.keys;
        let Some(m) =
            self.mask.filter(|m| (m.query == 0 || self.queries == 1) && m.key == 1 && self.causal.is_none())
        else {
            return all;
        };
        let start = b * m.batch + h * m.head;
        let Some(mask) = m.data.get(start..start + self.keys) else { return all };
        let added = |m: f32| self.fill_of(m).unwrap_or(m);
        let best = mask.iter().map(|&m| added(m)).fold(f32::NEG_INFINITY, f32::max);
        let closed = |m: f32, by: f32| added(m) < best - by;
        let open = |by: f32| {
            let first = mask.iter().position(|&m| !closed(m, by))?;
            Some(first..mask.iter().rposition(|&m| !closed(m, by))? + 1)
        };
        if !best.is_finite() || open(FAR).is_none_or(|o| o.len() + PANEL / 4 > self.keys) {
            return all;
        }
        let kv = h / (self.heads / self.kv_heads);
        // SAFETY: rows of the head, which the check found in the operands; keys may have their positions side by side.
        let most = |t: &Heads<'_>, head: usize, positions: Range<usize>, width: usize| unsafe {
            let (s, n) = (t.strides, positions.len());
            let start = b * s.batch + head * s.head + positions.start * s.position;
            let (rows, step, width) = if s.lane == 1 { (n, s.position, width) } else { (width, s.lane, n) };
            largest(tier, t.data.as_ptr().wrapping_add(start), rows, step, width)
        };
        let values = most(&self.v, kv, all.clone(), self.value_dim);
        let scores =
            most(&self.q, h, queries, self.dim) * self.scale.abs() * most(&self.k, kv, all.clone(), self.dim);
        // Zero times what is not finite would not be zero.
        let bound = 2.0 * (self.dim as f32 * scores) + FAR;
        if !(values.is_finite() && bound.is_finite()) {
            return all;
        }
        open(bound).unwrap_or(all)
    }

    /// What a score becomes whatever it was.
    fn fill_of(&self, mask: f32) -> Option<f32> {
        let fill = self.mask.and_then(|m| m.fill)?;
        Some(if mask == 0.0 { fill } else { 0.0 })
    }
}

tiered! {
    /// The largest magnitude of `rows` rows of `width` elements, infinite where one is not finite.
    ///
    /// # Safety
    /// `x` is valid for reading rows of `width` elements at distance `step`.
    unsafe fn largest(s: S; x: *const f32, rows: usize, step: usize, width: usize) -> f32 {
        let (mut most, mut none) = (s.zero(), s.zero());
        for r in 0..rows {
            let mut i = 0;
            while i < width {
                let x = s.load_up_to(x.wrapping_add(r * step + i), width - i);
                most = s.max(most, s.abs(x));
                none = s.fma(x, s.zero(), none);
                i += LANES;
            }
        }
        if s.any(s.is_nan(none)) { f32::INFINITY } else { s.largest(most) }
    }
}

#[cfg(test)]
mod tests {
    use super::super::*;
    use crate::parallel::Serial;
    use std::ops::Range;

    const HEADS: usize = 3;
    const N: usize = 70;
    const D: usize = 20;

    fn values(seed: usize) -> Vec<f32> {
        (0..HEADS * N * D).map(|i| ((i * 7919 + seed) % 2003) as f32 / 500.0 - 2.0).collect()
    }

    /// The result with a mask for each query, of which no key is left out, or one for all.
    fn run(tier: Tier, mask: &[f32], fill: Option<f32>, each: bool, v: &[f32]) -> (Vec<f32>, Range<usize>) {
        let strides = HeadStrides { batch: HEADS * N * D, head: N * D, position: D, lane: 1 };
        let (q, k) = (values(1), values(2));
        let of = |data| Heads { data, strides };
        let repeated = mask.repeat(if each { N } else { 1 });
        let query = if each { N } else { 0 };
        let a = Attention {
            q: of(&q),
            k: of(&k),
            v: of(v),
            mask: Some(ScoreMask { data: &repeated, fill, batch: 0, head: 0, query, key: 1 }),
            causal: None,
            scale: 0.3,
            softcap: 0.0,
            batch: 1,
            heads: HEADS,
            kv_heads: HEADS,
            queries: N,
            keys: N,
            dim: D,
            value_dim: D,
            unseen: f32::NAN,
            guard: false,
        };
        // SAFETY: all of the operands' rows.
        let open = unsafe { a.open_keys(tier, 0, 1, 0..N) };
        assert!(!each || open == (0..N));
        let mut y = vec![7.0; HEADS * N * D];
        attention_on(tier, &Serial, &a, &mut y, strides).unwrap();
        (y, open)
    }

    #[test]
    fn keys_that_are_left_out_had_no_weight() {
        for (low, fill) in
            [(f32::MIN, None), (-10_000.0, None), (0.0, Some(f32::NEG_INFINITY)), (0.0, Some(-1e9))]
        {
            let live = if fill.is_some() { 1.0 } else { -0.25 };
            for open in [0..23, 0..1, 40..70, 5..9, 0..0, 0..70] {
                let mask: Vec<f32> = (0..N).map(|i| if open.contains(&i) { live } else { low }).collect();
                let v = values(3);
                for &tier in Tier::available() {
                    let (all, _) = run(tier, &mask, fill, true, &v);
                    let (some, left) = run(tier, &mask, fill, false, &v);
                    let few = !open.is_empty() && open.len() < N / 2;
                    assert_eq!(left, if few { open.clone() } else { 0..N }, "{tier:?}");
                    for (a, b) in all.iter().zip(&some) {
                        let same = (a - b).abs() <= 1e-6 || a.is_nan() && b.is_nan();
                        assert!(
                            same && (open.start > 0 || a.to_bits() == b.to_bits()),
                            "{tier:?} {open:?} {a} {b}"
                        );
                    }
                }
            }
        }
    }

    #[test]
    fn what_is_not_finite_is_not_left_out() {
        let mask: Vec<f32> = (0..N).map(|i| if i < 9 { 0.0 } else { f32::MIN }).collect();
        let mut v = values(3);
        v[(N + 50) * D + 4] = f32::INFINITY;
        for &tier in Tier::available() {
            let (y, _) = run(tier, &mask, None, false, &v);
            assert!(
                y[N * D..2 * N * D].iter().enumerate().all(|(i, y)| y.is_nan() == (i % D == 4)),
                "{tier:?}"
            );
        }
    }

    #[test]
    fn a_mask_that_scores_outweigh_closes_nothing() {
        let mask: Vec<f32> = (0..N).map(|i| if i < 9 { 0.0 } else { -105.0 }).collect();
        let v = values(3);
        for &tier in Tier::available() {
            let ((all, _), (some, left)) =
                (run(tier, &mask, None, true, &v), run(tier, &mask, None, false, &v));
            assert_eq!(left, 0..N);
            assert!(all.iter().zip(&some).all(|(a, b)| a.to_bits() == b.to_bits()), "{tier:?}");
        }
    }
}
