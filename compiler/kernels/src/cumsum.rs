//! Running sums along the middle axis of `[outer × n × inner]`: ONNX `CumSum`, added one after the other as it says.

use crate::error::{Error, product, same_length};
use crate::parallel::Pool;
use crate::partition::{GRAIN, Parts, ranges};

/// Sizes, and which elements a sum holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CumSum {
    pub outer: usize,
    pub n: usize,
    pub inner: usize,
    /// Without its own element.
    pub exclusive: bool,
    /// From the end on.
    pub reverse: bool,
}

/// What is summed; integers wrap.
pub trait Addend: Copy + Default + Send + Sync {
    fn plus(self, other: Self) -> Self;
}

macro_rules! addend {
    ($($t:ty: |$a:ident, $b:ident| $sum:expr;)*) => {$(
        impl Addend for $t {
            #[inline(always)]
            fn plus(self, other: Self) -> Self {
                let ($a, $b) = (self, other);
                $sum
            }
        }
    )*};
}
addend! {
    f32: |a, b| a + b;
    f64: |a, b| a + b;
    i32: |a, b| a.wrapping_add(b);
    i64: |a, b| a.wrapping_add(b);
}

/// Columns whose sums are kept together.
const COLUMNS: usize = 256;
/// Rows that are summed side by side: each addition waits for the one before it.
const ROWS: usize = 4;

/// The sums of `x`.
///
/// # Errors
/// [`Error::Length`] where lengths do not fit, [`Error::Shape`] for sizes that overflow.
pub fn cumsum<T: Addend>(pool: &dyn Pool, c: &CumSum, x: &[T], y: &mut [T]) -> Result<(), Error> {
    let elements = product("sizes of running sums", &[c.outer, c.n, c.inner])?;
    same_length("summed elements", elements, x.len())?;
    same_length("running sums", elements, y.len())?;
    if elements == 0 {
        return Ok(());
    }
    let y = Parts::of(y);
    if c.inner == 1 {
        let groups = c.outer.div_ceil(ROWS);
        ranges(pool, groups, GRAIN.div_ceil(c.n.saturating_mul(ROWS)), &|tasks| {
            for t in tasks {
                let part = t * ROWS * c.n..c.outer.min((t + 1) * ROWS) * c.n;
                // SAFETY: tasks have rows of their own.
                let (x, y) = (&x[part.clone()], unsafe { y.part(part) });
                if x.len() == ROWS * c.n {
                    rows::<T, ROWS>(c, x, y);
                } else {
                    let each = x.chunks_exact(c.n).zip(y.chunks_exact_mut(c.n));
                    each.for_each(|(x, y)| rows::<T, 1>(c, x, y));
                }
            }
        });
        return Ok(());
    }
    let blocks = c.inner.div_ceil(COLUMNS);
    let grain = GRAIN.div_ceil(c.n.saturating_mul(COLUMNS.min(c.inner)));
    ranges(pool, c.outer * blocks, grain, &|tasks| {
        for t in tasks {
            let (block, first) = (t / blocks * c.n, t % blocks * COLUMNS);
            let width = COLUMNS.min(c.inner - first);
            let mut kept = [T::default(); COLUMNS];
            let sums = &mut kept[..width];
            for j in 0..c.n {
                let j = if c.reverse { c.n - 1 - j } else { j };
                let start = (block + j) * c.inner + first;
                // SAFETY: tasks have columns of their own.
                let (x, y) = (&x[start..start + width], unsafe { y.part(start..start + width) });
                if c.exclusive {
                    y.copy_from_slice(sums);
                }
                sums.iter_mut().zip(x).for_each(|(sum, x)| *sum = sum.plus(*x));
                if !c.exclusive {
                    y.copy_from_slice(sums);
                }
            }
        }
    });
    Ok(())
}

fn rows<T: Addend, const R: usize>(c: &CumSum, x: &[T], y: &mut [T]) {
    let mut sums = [T::default(); R];
    let step = |j: usize| {
        for (r, sum) in sums.iter_mut().enumerate() {
            let at = r * c.n + j;
            let next = sum.plus(x[at]);
            y[at] = if c.exclusive { *sum } else { next };
            *sum = next;
        }
    };
    if c.reverse { (0..c.n).rev().for_each(step) } else { (0..c.n).for_each(step) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parallel::Serial;
    use crate::testing::{Two, random};

    fn wanted<T: Addend>(c: &CumSum, x: &[T]) -> Vec<T> {
        let mut y = x.to_vec();
        for (o, i) in (0..c.outer).flat_map(|o| (0..c.inner).map(move |i| (o, i))) {
            let mut sum = T::default();
            for j in 0..c.n {
                let j = if c.reverse { c.n - 1 - j } else { j };
                let at = (o * c.n + j) * c.inner + i;
                let next = sum.plus(x[at]);
                y[at] = if c.exclusive { sum } else { next };
                sum = next;
            }
        }
        y
    }

    #[test]
    fn sums_run_as_by_definition() {
        for (outer, n, inner) in [(1, 7, 1), (19, 40, 1), (300, 60, 1), (3, 5, 4), (2, 90, 300), (1, 1, 513)]
        {
            for (exclusive, reverse) in [(false, false), (false, true), (true, false), (true, true)] {
                let c = CumSum { outer, n, inner, exclusive, reverse };
                let x = random(outer * n * inner, 5);
                let whole: Vec<i64> = x.iter().map(|x| (f64::from(*x) * 1e19) as i64).collect();
                for pool in [&Serial as &dyn Pool, &Two] {
                    let mut y = vec![9.0; x.len()];
                    cumsum(pool, &c, &x, &mut y).unwrap();
                    assert_eq!(y, wanted(&c, &x), "{c:?}");
                    let mut y = vec![9; x.len()];
                    cumsum(pool, &c, &whole, &mut y).unwrap();
                    assert_eq!(y, wanted(&c, &whole), "{c:?}");
                }
            }
        }
    }

    #[test]
    fn what_does_not_fit_is_an_error() {
        let c = CumSum { outer: 2, n: 3, inner: 2, exclusive: false, reverse: false };
        assert!(cumsum(&Serial, &c, &[1; 12], &mut [0; 12]).is_ok());
        assert!(cumsum(&Serial, &c, &[1; 11], &mut [0; 12]).is_err());
        assert!(cumsum(&Serial, &CumSum { n: usize::MAX, ..c }, &[1; 12], &mut [0; 12]).is_err());
        assert!(cumsum::<i32>(&Serial, &CumSum { n: 0, ..c }, &[], &mut []).is_ok());
    }
}
