//! kernel: rotary position embeddings (Su et al., "RoFormer", 2021): pairs of features turned by the angle of their position.

use crate::dispatch::Tier;
use crate::error::{Error, product, same_length};
use crate::gather::wrapped;
use crate::parallel::Pool;
use crate::partition::{Parts, ranges};
use crate::simd::{LANES, tiered};

/// Sizes of `x`: `[batch, heads, length, size]`, or `[batch, length, heads, size]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rotary {
    pub batch: usize,
    pub heads: usize,
    pub length: usize,
    pub size: usize,
    pub heads_first: bool,
    /// Pairs of a head that are turned, at most `size / 2`; what is behind them stays.
    pub half: usize,
    /// A pair is two neighbours, and not feature `i` and feature `half + i`.
    pub interleaved: bool,
}

impl Rotary {
    /// Elements of `x`, and rows of the tables where positions do not pick them, when the sizes fit.
    fn sizes(&self) -> Result<(usize, usize), Error> {
        let what = "heads of a rotary embedding";
        if self.half > self.size / 2 {
            return Err(Error::Shape { what });
        }
        Ok((
            product(what, &[self.batch, self.heads, self.length, self.size])?,
            product(what, &[self.batch, self.length])?,
        ))
    }

    fn at(&self, b: usize, h: usize, i: usize) -> usize {
        let row = match self.heads_first {
            true => (b * self.heads + h) * self.length + i,
            false => (b * self.length + i) * self.heads + h,
        };
        row * self.size
    }
}

/// Elements that are worth a task.
const GRAIN: usize = 16 * 1024;

/// Turns `x` into `y` by rows of `half` cosines and sines: that of each batch and position, or those which `positions` name.
///
/// # Errors
/// [`Error::Index`] for a position outside the tables, others where lengths do not fit.
pub fn rotary(
    tier: Tier,
    pool: &dyn Pool,
    r: &Rotary,
    x: &[f32],
    [cos, sin]: [&[f32]; 2],
    positions: Option<&[i64]>,
    y: &mut [f32],
) -> Result<(), Error> {
    let (elements, rows) = r.sizes()?;
    same_length("rotated input", elements, x.len())?;
    same_length("rotated result", elements, y.len())?;
    same_length("sines", cos.len(), sin.len())?;
    if elements == 0 {
        return Ok(());
    }
    match positions {
        None => same_length("cosines", rows * r.half, cos.len())?,
        Some(p) => same_length("positions", rows, p.len())?,
    }
    let bound = cos.len().checked_div(r.half).unwrap_or(usize::MAX);
    for (position, &index) in positions.unwrap_or_default().iter().enumerate() {
        if index < 0 || wrapped(index, bound).is_none() {
            return Err(Error::Index { position, index, bound });
        }
    }
    let parts = Parts::of(y);
    ranges(pool, rows * r.heads, GRAIN.div_ceil(r.size.max(1)), &|heads| {
        for at in heads {
            let (row, h) = (at / r.heads, at % r.heads);
            let (b, i) = (row / r.length, row % r.length);
            let table = positions.map_or(row, |p| p[row] as usize) * r.half;
            let start = r.at(b, h, i);
            // SAFETY: heads are disjoint parts of the result.
            let y = unsafe { parts.part(start..start + r.size) };
            let x = &x[start..start + r.size];
            let (cos, sin) = (&cos[table..table + r.half], &sin[table..table + r.half]);
            y[2 * r.half..].copy_from_slice(&x[2 * r.half..]);
            if r.interleaved {
                let pairs = x.chunks_exact(2).zip(y.chunks_exact_mut(2));
                for ((x, y), (c, s)) in pairs.zip(cos.iter().zip(sin)) {
                    [y[0], y[1]] = [c * x[0] - s * x[1], s * x[0] + c * x[1]];
                }
            } else {
                // SAFETY: head and tables hold what the sizes say.
                unsafe {
                    turn(tier.usable(), x.as_ptr(), y.as_mut_ptr(), cos.as_ptr(), sin.as_ptr(), r.half)
                };
            }
        }
    });
    Ok(())
}

tiered! {
    /// Feature `i` and feature `half + i` of one head; products are rounded before they are added, as by definition.
    ///
    /// # Safety
    /// `x` and `y` hold `2 · half` elements, the tables `half`.
    unsafe fn turn(s: S; x: *const f32, y: *mut f32, cos: *const f32, sin: *const f32, half: usize) {
        for i in (0..half).step_by(LANES) {
            let n = half - i;
            let (low, high) = (s.load_up_to(x.add(i), n), s.load_up_to(x.add(half + i), n));
            let (c, t) = (s.load_up_to(cos.add(i), n), s.load_up_to(sin.add(i), n));
            s.store_up_to(y.add(i), s.sub(s.mul(c, low), s.mul(t, high)), n);
            s.store_up_to(y.add(half + i), s.add(s.mul(t, low), s.mul(c, high)), n);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parallel::Serial;
    use crate::testing::{Two, random};

    #[test]
    fn pairs_are_turned_as_by_definition() {
        for &tier in Tier::available() {
            for (size, half) in [(4, 2), (64, 32), (80, 20), (7, 3), (38, 19), (2, 0)] {
                for (heads_first, interleaved) in [(false, false), (false, true), (true, false), (true, true)]
                {
                    let r = Rotary { batch: 2, heads: 3, length: 5, size, heads_first, half, interleaved };
                    let x = random(30 * size, 1);
                    let (cos, sin) = (random(11 * half, 2), random(11 * half, 3));
                    let positions: Vec<i64> = (0..10).map(|i| i * 7 % 11).collect();
                    let run = |pool: &dyn Pool| {
                        let mut y = vec![f32::NAN; x.len()];
                        rotary(tier, pool, &r, &x, [&cos, &sin], Some(&positions), &mut y).unwrap();
                        y
                    };
                    let y = run(&Serial);
                    assert_eq!(y, run(&Two));
                    for (b, h, i) in (0..30).map(|k| (k / 15, k / 5 % 3, k % 5)) {
                        let at = r.at(b, h, i);
                        let row = positions[b * 5 + i] as usize * half;
                        let mut want = x[at..at + size].to_vec();
                        for p in 0..half {
                            let (j, k) = if interleaved { (2 * p, 2 * p + 1) } else { (p, half + p) };
                            let (c, s, u, v) = (cos[row + p], sin[row + p], x[at + j], x[at + k]);
                            (want[j], want[k]) = (c * u - s * v, s * u + c * v);
                        }
                        assert_eq!(y[at..at + size], want, "{tier:?} {r:?}");
                    }
                }
            }
        }
    }

    #[test]
    fn what_does_not_fit_is_an_error() {
        let r =
            Rotary { batch: 1, heads: 1, length: 2, size: 4, heads_first: true, half: 2, interleaved: false };
        let run = |r: &Rotary, tables: usize, positions: Option<&[i64]>| {
            let table = vec![0.5; tables];
            rotary(Tier::Portable, &Serial, r, &[1.0; 8], [&table, &table], positions, &mut [0.0; 8])
        };
        assert!(run(&r, 4, None).is_ok() && run(&r, 6, Some(&[2, 0])).is_ok());
        assert!(run(&r, 6, None).is_err() && run(&r, 4, Some(&[0])).is_err());
        assert!(run(&Rotary { half: 3, ..r }, 6, None).is_err());
        for p in [-1, 2, i64::MAX] {
            assert!(matches!(run(&r, 4, Some(&[0, p])), Err(Error::Index { position: 1, .. })));
        }
    }
}
