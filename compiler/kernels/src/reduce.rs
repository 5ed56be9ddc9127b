//! Reductions over the middle axis of `[outer × n × inner]`.
//!
//! Elements are added in an order fixed by `n` alone: neither the tier nor the number of threads changes it. Long
//! sums are cut into blocks whose totals are added in `f64`.

use crate::dispatch::Tier;
use crate::error::{Error, product, same_length};
use crate::parallel::Pool;
use crate::partition::{GRAIN, Parts, ranges};
use crate::simd::{LANES, Simd, tiered};

/// What is computed from the elements.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reduction {
    Sum,
    Mean,
    /// NaN if one is among them.
    Max,
    /// NaN if one is among them.
    Min,
    Prod,
    /// Σ x².
    SumSquare,
    /// Σ |x|.
    L1,
    /// √Σ x².
    L2,
}

/// Elements of a row, or steps of a column, whose total is kept in `f32`.
const BLOCK: usize = 8192;
/// Steps of a column between two additions into its total.
const STEPS: usize = 64;

/// Combining two values, and an element into a value.
pub(crate) trait Fold: Copy {
    const EMPTY: f32;
    fn take<S: Simd>(self, s: S, a: S::F, x: S::F) -> S::F;
    fn join<S: Simd>(self, s: S, a: S::F, b: S::F) -> S::F;
    fn lanes<S: Simd>(self, s: S, a: S::F) -> f32;
    fn total(self, a: f64, b: f64) -> f64;
}

macro_rules! fold {
    ($name:ident, $empty:expr, |$s:ident, $a:ident, $x:ident| $take:expr, $join:ident, $lanes:ident, $total:expr) => {
        #[derive(Clone, Copy)]
        pub(crate) struct $name;
        impl Fold for $name {
            const EMPTY: f32 = $empty;
            #[inline(always)]
            fn take<S: Simd>(self, $s: S, $a: S::F, $x: S::F) -> S::F {
                $take
            }
            #[inline(always)]
            fn join<S: Simd>(self, s: S, a: S::F, b: S::F) -> S::F {
                s.$join(a, b)
            }
            #[inline(always)]
            fn lanes<S: Simd>(self, s: S, a: S::F) -> f32 {
                s.$lanes(a)
            }
            #[inline(always)]
            fn total(self, a: f64, b: f64) -> f64 {
                $total(a, b)
            }
        }
    };
}

fold!(Sum, 0.0, |s, a, x| s.add(a, x), add, sum, |a, b| a + b);
fold!(SumAbs, 0.0, |s, a, x| s.add(a, s.abs(x)), add, sum, |a, b| a + b);
fold!(SumSquare, 0.0, |s, a, x| s.fma(x, x, a), add, sum, |a, b| a + b);
fold!(Prod, 1.0, |s, a, x| s.mul(a, x), mul, product, |a, b| a * b);
fold!(Max, f32::NEG_INFINITY, |s, a, x| s.max(a, x), max, largest, |a: f64, b: f64| if a > b {
    a
} else {
    b
});
fold!(Min, f32::INFINITY, |s, a, x| s.min(a, x), min, smallest, |a: f64, b: f64| if a < b { a } else { b });

tiered! {
    /// One value from `n ≤ BLOCK` contiguous elements.
    ///
    /// # Safety
    /// `x` holds `n` elements.
    pub(crate) unsafe fn fold_block<G: Fold>(s: S; g: G, x: *const f32, n: usize) -> f32 {
        let empty = s.splat(G::EMPTY);
        let mut a = [empty; 4];
        let mut i = 0;
        while i + 4 * LANES <= n {
            for j in 0..4 {
                a[j] = g.take(s, a[j], s.load(x.add(i + j * LANES)));
            }
            i += 4 * LANES;
        }
        while i + LANES <= n {
            a[0] = g.take(s, a[0], s.load(x.add(i)));
            i += LANES;
        }
        if i < n {
            let v = g.take(s, a[0], s.load_head(x.add(i), n - i));
            a[0] = s.select(s.head(n - i), v, a[0]);
        }
        g.lanes(s, g.join(s, g.join(s, a[0], a[1]), g.join(s, a[2], a[3])))
    }
}

tiered! {
    /// Whether a NaN is among `n` elements.
    ///
    /// # Safety
    /// `x` holds `n` elements.
    pub(crate) unsafe fn any_nan(s: S; x: *const f32, n: usize) -> bool {
        let mut i = 0;
        let mut found = s.is_nan(s.zero());
        while i < n {
            found = s.or_mask(found, s.is_nan(s.load_up_to(x.add(i), n - i)));
            i += LANES;
        }
        s.any(found)
    }
}

tiered! {
    /// `w ≤ 32` neighbouring columns of `n` steps at distance `inner`; `keep_nan` makes a NaN anywhere the result.
    ///
    /// # Safety
    /// `x` is valid for `w` elements at each step, `y` for `w`.
    unsafe fn fold_columns<G: Fold>(s: S; g: G, keep_nan: bool, x: *const f32, y: *mut f32, n: usize, inner: usize, w: usize) {
        let empty = s.splat(G::EMPTY);
        let (w0, w1) = (w.min(LANES), w.saturating_sub(LANES));
        let mut total = [empty; 2];
        let mut nan = [s.is_nan(s.zero()); 2];
        let mut k = 0;
        while k < n {
            let end = n.min(k + STEPS);
            let mut a = [empty; 2];
            while k < end {
                let p = x.add(k * inner);
                let v = s.load_up_to(p, w0);
                a[0] = g.take(s, a[0], v);
                if keep_nan {
                    nan[0] = s.or_mask(nan[0], s.is_nan(v));
                }
                if w1 > 0 {
                    let v = s.load_up_to(p.add(LANES), w1);
                    a[1] = g.take(s, a[1], v);
                    if keep_nan {
                        nan[1] = s.or_mask(nan[1], s.is_nan(v));
                    }
                }
                k += 1;
            }
            for j in 0..2 {
                total[j] = g.join(s, total[j], a[j]);
            }
        }
        let quiet = s.splat(f32::NAN);
        s.store_up_to(y, s.select(nan[0], quiet, total[0]), w0);
        if w1 > 0 {
            s.store_up_to(y.add(LANES), s.select(nan[1], quiet, total[1]), w1);
        }
    }
}

/// Reduces the middle axis of `x`, `[outer × n × inner]`, into `y`, `[outer × inner]`. An empty axis gives the
/// neutral element, and NaN for the mean.
pub fn reduce(
    pool: &dyn Pool,
    op: Reduction,
    x: &[f32],
    y: &mut [f32],
    outer: usize,
    n: usize,
    inner: usize,
) -> Result<(), Error> {
    reduce_on(Tier::best(), pool, op, x, y, outer, n, inner)
}

/// [`reduce`] on a chosen tier.
pub fn reduce_on(
    tier: Tier,
    pool: &dyn Pool,
    op: Reduction,
    x: &[f32],
    y: &mut [f32],
    outer: usize,
    n: usize,
    inner: usize,
) -> Result<(), Error> {
    same_length("reduction input", product("reduction sizes overflow", &[outer, n, inner])?, x.len())?;
    same_length("reduction output", product("reduction sizes overflow", &[outer, inner])?, y.len())?;
    let job = Job { tier, pool, x, outer, n, inner };
    match op {
        Reduction::Sum | Reduction::Mean => job.run(Sum, false, y),
        Reduction::Max => job.run(Max, true, y),
        Reduction::Min => job.run(Min, true, y),
        Reduction::Prod => job.run(Prod, false, y),
        Reduction::SumSquare | Reduction::L2 => job.run(SumSquare, false, y),
        Reduction::L1 => job.run(SumAbs, false, y),
    }
    match op {
        Reduction::Mean => y.iter_mut().for_each(|v| *v /= n as f32),
        Reduction::L2 => y.iter_mut().for_each(|v| *v = v.sqrt()),
        _ => {}
    }
    Ok(())
}

#[derive(Clone, Copy)]
struct Job<'a> {
    tier: Tier,
    pool: &'a dyn Pool,
    x: &'a [f32],
    outer: usize,
    n: usize,
    inner: usize,
}

impl Job<'_> {
    fn run<G: Fold + Sync>(self, g: G, keep_nan: bool, y: &mut [f32]) {
        if self.n == 0 {
            return y.fill(G::EMPTY);
        }
        if self.inner != 1 {
            return self.columns(g, keep_nan, y);
        }
        let n = self.n;
        if self.outer == 1 && n >= 8 * BLOCK {
            y[0] = self.long_row(g, keep_nan);
            return;
        }
        let parts = Parts::of(y);
        ranges(self.pool, self.outer, GRAIN.div_ceil(n), &|range| {
            // SAFETY: tasks have disjoint rows.
            let out = unsafe { parts.part(range.clone()) };
            for (y, r) in out.iter_mut().zip(range) {
                let row = &self.x[r * n..(r + 1) * n];
                *y = row
                    .chunks(BLOCK)
                    .map(|b| self.block(g, keep_nan, b))
                    .reduce(|a, b| g.total(a, b))
                    .unwrap_or(0.0) as f32;
            }
        });
    }

    /// NaN, or the fold of at most `BLOCK` elements.
    fn block<G: Fold>(self, g: G, keep_nan: bool, b: &[f32]) -> f64 {
        // SAFETY: both read `b.len()` elements of `b`.
        unsafe {
            if keep_nan && any_nan(self.tier, b.as_ptr(), b.len()) {
                return f64::NAN;
            }
            f64::from(fold_block(self.tier, g, b.as_ptr(), b.len()))
        }
    }

    /// Blocks of the only row in parallel, their totals in order.
    fn long_row<G: Fold + Sync>(self, g: G, keep_nan: bool) -> f32 {
        let mut totals = vec![0f64; self.n.div_ceil(BLOCK)];
        let parts = Parts::of(&mut totals);
        ranges(self.pool, self.n.div_ceil(BLOCK), GRAIN / BLOCK, &|range| {
            // SAFETY: tasks have disjoint blocks.
            let out = unsafe { parts.part(range.clone()) };
            for (t, b) in out.iter_mut().zip(range) {
                *t = self.block(g, keep_nan, &self.x[b * BLOCK..self.n.min((b + 1) * BLOCK)]);
            }
        });
        totals
            .into_iter()
            .reduce(|a, b| if a.is_nan() || b.is_nan() { f64::NAN } else { g.total(a, b) })
            .unwrap_or(0.0) as f32
    }

    fn columns<G: Fold + Sync>(self, g: G, keep_nan: bool, y: &mut [f32]) {
        const WIDE: usize = 2 * LANES;
        let (n, inner) = (self.n, self.inner);
        let blocks = inner.div_ceil(WIDE);
        let parts = Parts::of(y);
        ranges(self.pool, self.outer * blocks, GRAIN.div_ceil(n * WIDE), &|range| {
            for t in range {
                let (o, i) = (t / blocks, t % blocks * WIDE);
                let w = WIDE.min(inner - i);
                // SAFETY: columns i..i+w of slab `o`, inside the checked lengths; tasks have disjoint columns.
                unsafe {
                    let from = self.x.as_ptr().add(o * n * inner + i);
                    let to = parts.part(o * inner + i..o * inner + i + w).as_mut_ptr();
                    fold_columns(self.tier, g, keep_nan, from, to, n, inner, w);
                }
            }
        });
    }
}

/// Which extreme is looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extreme {
    Max,
    Min,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::arg::arg_reduce;
    use crate::parallel::Serial;

    const ALL: [Reduction; 8] = [
        Reduction::Sum,
        Reduction::Mean,
        Reduction::Max,
        Reduction::Min,
        Reduction::Prod,
        Reduction::SumSquare,
        Reduction::L1,
        Reduction::L2,
    ];

    fn exact(op: Reduction, v: &[f64]) -> f64 {
        let sum = v.iter().sum::<f64>();
        let squares = v.iter().map(|x| x * x).sum::<f64>();
        match op {
            Reduction::Sum => sum,
            Reduction::Mean => sum / v.len() as f64,
            Reduction::Max => v.iter().copied().fold(f64::NEG_INFINITY, f64::max),
            Reduction::Min => v.iter().copied().fold(f64::INFINITY, f64::min),
            Reduction::Prod => v.iter().product(),
            Reduction::SumSquare => squares,
            Reduction::L1 => v.iter().map(|x| x.abs()).sum(),
            Reduction::L2 => squares.sqrt(),
        }
    }

    fn values(n: usize) -> Vec<f32> {
        (0..n).map(|i| 1.0 + (((i * 7919) % 1009) as f32 - 500.0) / 9000.0).collect()
    }

    #[test]
    fn every_reduction_matches_f64_on_every_tier() {
        let shapes =
            [(1, 1, 1), (3, 5, 1), (2, 64, 1), (2, 77, 1), (2, 9, 5), (1, 70, 33), (2, 130, 48), (4, 3, 100)];
        for (outer, n, inner) in shapes {
            let x = values(outer * n * inner);
            for op in ALL {
                for &tier in Tier::available() {
                    let mut y = vec![0.0; outer * inner];
                    reduce_on(tier, &Serial, op, &x, &mut y, outer, n, inner).unwrap();
                    for (j, y) in y.iter().enumerate() {
                        let at = |k| x[(j / inner * n + k) * inner + j % inner];
                        let v: Vec<f64> = (0..n).map(|k| f64::from(at(k))).collect();
                        let want = exact(op, &v);
                        assert!(
                            (f64::from(*y) - want).abs() <= 1e-5 * want.abs(),
                            "{op:?} {tier:?} {y} {want}"
                        );
                    }
                }
            }
        }
    }

    struct Many;
    impl Pool for Many {
        fn threads(&self) -> usize {
            5
        }
        fn run(&self, tasks: usize, f: &(dyn Fn(usize) + Sync)) {
            (0..tasks).rev().for_each(f);
        }
    }

    #[test]
    fn sums_are_the_same_bits_for_any_tier_and_thread_count() {
        let n = if cfg!(miri) { 70_000 } else { 300_001 };
        let x = values(n);
        let mut first = None;
        for &tier in Tier::available() {
            for pool in [&Serial as &dyn Pool, &Many] {
                let mut y = [0.0];
                reduce_on(tier, pool, Reduction::Sum, &x, &mut y, 1, n, 1).unwrap();
                assert_eq!(y[0].to_bits(), *first.get_or_insert(y[0].to_bits()));
            }
        }
        let want: f64 = x.iter().map(|v| f64::from(*v)).sum();
        assert!((f64::from(f32::from_bits(first.unwrap())) / want - 1.0).abs() < 1e-7);
    }

    #[test]
    fn nan_is_the_extreme() {
        for n in [3, 40] {
            for inner in [1, 5, 20] {
                for bad in 0..n {
                    let mut x = values(n * inner);
                    x[bad * inner] = f32::NAN;
                    for &tier in Tier::available() {
                        for op in [Reduction::Max, Reduction::Min] {
                            let mut y = vec![0.0; inner];
                            reduce_on(tier, &Serial, op, &x, &mut y, 1, n, inner).unwrap();
                            assert!(y[0].is_nan() && y[1..].iter().all(|y| y.is_finite()));
                        }
                    }
                    let mut at = vec![0; inner];
                    arg_reduce(&Serial, Extreme::Max, true, &x, &mut at, 1, n, inner).unwrap();
                    assert_eq!(at[0], bad as i64);
                }
            }
        }
    }

    #[test]
    fn ties_go_to_the_end_asked_for() {
        let x = [1.0, 3.0, 3.0, 0.0, 0.0];
        for (which, last, want) in [
            (Extreme::Max, false, 1),
            (Extreme::Max, true, 2),
            (Extreme::Min, false, 3),
            (Extreme::Min, true, 4),
        ] {
            let mut y = [9];
            arg_reduce(&Serial, which, last, &x, &mut y, 1, 5, 1).unwrap();
            assert_eq!(y, [want]);
        }
        assert!(arg_reduce(&Serial, Extreme::Max, false, &[], &mut [0], 1, 0, 1).is_err());
    }

    #[test]
    fn an_empty_axis_gives_the_neutral_element() {
        let mut y = [5.0; 2];
        reduce(&Serial, Reduction::Prod, &[], &mut y, 1, 0, 2).unwrap();
        assert_eq!(y, [1.0; 2]);
        reduce(&Serial, Reduction::Mean, &[], &mut y, 1, 0, 2).unwrap();
        assert!(y[0].is_nan());
    }
}
