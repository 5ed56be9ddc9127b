//! Nearest and linear resize of `[batch × height × width × channels]` from tables of source positions.

use crate::dispatch::Tier;
use crate::error::{Error, product, same_length};
use crate::parallel::Pool;
use crate::partition::{GRAIN, Parts, ranges};
use crate::scratch;
use crate::simd::{LANES, Simd, tiered};
use crate::transpose::Element;

/// Sizes of the input; the tables have the output's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Image {
    pub batch: usize,
    pub height: usize,
    pub width: usize,
    pub channels: usize,
}

/// `out[i] = in[low[i]]·(1 - weight[i]) + in[high[i]]·weight[i]` along one axis.
#[derive(Clone, Copy, Debug)]
pub struct Taps<'a> {
    pub low: &'a [usize],
    pub high: &'a [usize],
    pub weight: &'a [f32],
}

impl Taps<'_> {
    fn check(&self, bound: usize) -> Result<usize, Error> {
        same_length("upper taps", self.low.len(), self.high.len())?;
        same_length("tap weights", self.low.len(), self.weight.len())?;
        inside(self.low, bound)?;
        inside(self.high, bound)?;
        Ok(self.low.len())
    }
}

fn inside(table: &[usize], bound: usize) -> Result<(), Error> {
    match table.iter().position(|&i| i >= bound) {
        None => Ok(()),
        Some(position) => {
            Err(Error::Index { position, index: i64::try_from(table[position]).unwrap_or(i64::MAX), bound })
        }
    }
}

fn check(image: Image, tall: usize, wide: usize, x: usize, y: usize) -> Result<(), Error> {
    let Image { batch, height, width, channels } = image;
    same_length("resize input", product("image sizes overflow", &[batch, height, width, channels])?, x)?;
    same_length("resize output", product("image sizes overflow", &[batch, tall, wide, channels])?, y)
}

/// `y[b, i, j, :] = x[b, rows[i], columns[j], :]`.
pub fn resize_nearest<T: Element>(
    pool: &dyn Pool,
    image: Image,
    x: &[T],
    rows: &[usize],
    columns: &[usize],
    y: &mut [T],
) -> Result<(), Error> {
    check(image, rows.len(), columns.len(), x.len(), y.len())?;
    inside(rows, image.height)?;
    inside(columns, image.width)?;
    let (c, from, to) = (image.channels, image.width * image.channels, columns.len() * image.channels);
    if y.is_empty() {
        return Ok(());
    }
    let whole = columns.len() / image.width;
    let repeats = (columns.len() == whole * image.width
        && columns.iter().enumerate().all(|(j, &i)| i == j / whole))
    .then_some(whole);
    let parts = Parts::of(y);
    ranges(pool, image.batch * rows.len(), GRAIN.div_ceil(to), &|range| {
        for r in range.clone() {
            let (b, i) = (r / rows.len(), r % rows.len());
            // SAFETY: tasks have disjoint rows; a row before this one in the range is finished.
            let out = unsafe { parts.part(r * to..(r + 1) * to) };
            if i > 0 && r > range.start && rows[i - 1] == rows[i] {
                // SAFETY: the row before, of this task.
                out.copy_from_slice(unsafe { parts.part((r - 1) * to..r * to) });
                continue;
            }
            let line = &x[(b * image.height + rows[i]) * from..][..from];
            match (c, repeats) {
                (1, Some(2)) => out.as_chunks_mut().0.iter_mut().zip(line).for_each(|(to, x)| *to = [*x; 2]),
                (1, Some(k)) => out.chunks_exact_mut(k).zip(line).for_each(|(to, x)| to.fill(*x)),
                (1, None) => out.iter_mut().zip(columns).for_each(|(to, &j)| *to = line[j]),
                _ => {
                    for (to, &j) in out.chunks_exact_mut(c).zip(columns) {
                        to.copy_from_slice(&line[j * c..(j + 1) * c]);
                    }
                }
            }
        }
    });
    Ok(())
}

tiered! {
    /// `y = a + w·(b - a)`.
    ///
    /// # Safety
    /// All hold `n` elements.
    unsafe fn blend(s: S; a: *const f32, b: *const f32, w: f32, y: *mut f32, n: usize) {
        let mut i = 0;
        while i < n {
            s.store_up_to(y.add(i), between(s, a.add(i), b.add(i), w, n - i), n - i);
            i += LANES;
        }
    }
}

#[inline(always)]
unsafe fn between<S: Simd>(s: S, a: *const f32, b: *const f32, w: f32, n: usize) -> S::F {
    // SAFETY: both hold `min(n, 16)` elements.
    let (a, b) = unsafe { (s.load_up_to(a, n), s.load_up_to(b, n)) };
    s.fma(s.splat(w), s.sub(b, a), a)
}

tiered! {
    /// As [`blend_columns`] for groups of one element.
    ///
    /// # Safety
    /// The taps lie inside the line; `y` holds an element for each.
    unsafe fn blend_elements(s: S; line: *const f32, taps: &Taps<'_>, y: *mut f32) {
        let (mut a, mut b) = ([0.0; LANES], [0.0; LANES]);
        for (at, low) in taps.low.chunks(LANES).enumerate() {
            let (at, n) = (at * LANES, low.len());
            for (k, (&low, &high)) in low.iter().zip(&taps.high[at..]).enumerate() {
                (a[k], b[k]) = (*line.add(low), *line.add(high));
            }
            let (a, b) = (s.load(a.as_ptr()), s.load(b.as_ptr()));
            let w = s.load_up_to(taps.weight.as_ptr().add(at), n);
            s.store_up_to(y.add(at), s.fma(w, s.sub(b, a), a), n);
        }
    }
}

tiered! {
    /// Each group of `c` elements of `y` between two groups of `line`.
    ///
    /// # Safety
    /// The taps lie inside the line, in groups of `c`; `y` holds a group for each.
    unsafe fn blend_columns(s: S; line: *const f32, taps: &Taps<'_>, c: usize, y: *mut f32) {
        for (j, ((&low, &high), &w)) in taps.low.iter().zip(taps.high).zip(taps.weight).enumerate() {
            let (a, b, y) = (line.add(low * c), line.add(high * c), y.add(j * c));
            let mut i = 0;
            while i < c {
                s.store_up_to(y.add(i), between(s, a.add(i), b.add(i), w, c - i), c - i);
                i += LANES;
            }
        }
    }
}

/// Bilinear: rows are blended by `rows`, then columns by `columns`.
pub fn resize_linear(
    pool: &dyn Pool,
    image: Image,
    x: &[f32],
    rows: Taps<'_>,
    columns: Taps<'_>,
    y: &mut [f32],
) -> Result<(), Error> {
    resize_linear_on(Tier::best(), pool, image, x, rows, columns, y)
}

/// [`resize_linear`] on a chosen tier.
pub fn resize_linear_on(
    tier: Tier,
    pool: &dyn Pool,
    image: Image,
    x: &[f32],
    rows: Taps<'_>,
    columns: Taps<'_>,
    y: &mut [f32],
) -> Result<(), Error> {
    let (tall, wide) = (rows.check(image.height)?, columns.check(image.width)?);
    check(image, tall, wide, x.len(), y.len())?;
    if y.is_empty() {
        return Ok(());
    }
    let (c, from, to) = (image.channels, image.width * image.channels, wide * image.channels);
    crate::partition::rows(pool, y, to, &|first, out| {
        scratch::with(from, |line| {
            for (r, out) in out.chunks_exact_mut(to).enumerate() {
                let (b, i) = ((first + r) / tall, (first + r) % tall);
                let row = |h: usize| x[(b * image.height + h) * from..][..from].as_ptr();
                let (low, high, w) = (row(rows.low[i]), row(rows.high[i]), rows.weight[i]);
                // SAFETY: rows hold `from` elements; taps were checked against the width.
                unsafe {
                    blend(tier, low, high, w, line.as_mut_ptr(), from);
                    match c {
                        1 => blend_elements(tier, line.as_ptr(), &columns, out.as_mut_ptr()),
                        _ => blend_columns(tier, line.as_ptr(), &columns, c, out.as_mut_ptr()),
                    }
                }
            }
        });
    });
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parallel::Serial;

    fn values(n: usize) -> Vec<f32> {
        (0..n).map(|i| ((i * 7919) % 1009) as f32 / 100.0).collect()
    }

    #[test]
    fn nearest_copies_pixels() {
        for channels in [1, 3, 20] {
            let image = Image { batch: 2, height: 3, width: 4, channels };
            let x = values(2 * 12 * channels);
            let rows = [0, 0, 2, 2, 1];
            let twice: Vec<usize> = (0..8).map(|j| j / 2).collect();
            let thrice: Vec<usize> = (0..12).map(|j| j / 3).collect();
            for columns in [&[3, 0, 1, 1, 2, 3][..], &twice, &thrice, &[0, 1, 2, 3], &[0, 0, 1]] {
                let wide = columns.len();
                let mut y = vec![0.0; 10 * wide * channels];
                resize_nearest(&Serial, image, &x, &rows, columns, &mut y).unwrap();
                for (i, y) in y.iter().enumerate() {
                    let (c, j) = (i % channels, i / channels % wide);
                    let (r, b) = (i / channels / wide % 5, i / channels / wide / 5);
                    assert_eq!(*y, x[((b * 3 + rows[r]) * 4 + columns[j]) * channels + c]);
                }
            }
        }
    }

    #[test]
    fn linear_matches_the_formula() {
        for channels in [1, 3, 16, 37] {
            let image = Image { batch: 2, height: 3, width: 4, channels };
            let x = values(2 * 12 * channels);
            let rows = Taps { low: &[0, 0, 1, 2], high: &[0, 1, 2, 2], weight: &[0.0, 0.25, 0.5, 1.0] };
            let low: Vec<usize> = (0..19).map(|j| j * 7 % 4).collect();
            let high: Vec<usize> = low.iter().map(|&j| (j + 1).min(3)).collect();
            let weight: Vec<f32> = (0..19).map(|j| (j * 5 % 11) as f32 / 10.0).collect();
            let columns = Taps { low: &low, high: &high, weight: &weight };
            for &tier in Tier::available() {
                let mut y = vec![0.0; 2 * 4 * 19 * channels];
                resize_linear_on(tier, &Serial, image, &x, rows, columns, &mut y).unwrap();
                for (i, y) in y.iter().enumerate() {
                    let (c, j) = (i % channels, i / channels % 19);
                    let (r, b) = (i / channels / 19 % 4, i / channels / 76);
                    let at = |h: usize, w: usize| f64::from(x[((b * 3 + h) * 4 + w) * channels + c]);
                    let (u, v) = (f64::from(rows.weight[r]), f64::from(columns.weight[j]));
                    let across = |h| at(h, columns.low[j]) * (1.0 - v) + at(h, columns.high[j]) * v;
                    let want = across(rows.low[r]) * (1.0 - u) + across(rows.high[r]) * u;
                    assert!((f64::from(*y) - want).abs() < 1e-5);
                }
            }
        }
    }

    #[test]
    fn taps_outside_the_image_are_refused() {
        let image = Image { batch: 1, height: 2, width: 2, channels: 1 };
        let (x, mut y) = ([0.0; 4], [0.0; 2]);
        assert!(resize_nearest(&Serial, image, &x, &[0], &[0, 2], &mut y).is_err());
        assert!(resize_nearest(&Serial, image, &x, &[0], &[0], &mut y).is_err());
        let good = Taps { low: &[0], high: &[1], weight: &[0.5] };
        let two = Taps { low: &[0, 1], high: &[1, 1], weight: &[0.5, 0.5] };
        assert!(resize_linear(&Serial, image, &x, good, two, &mut y).is_ok());
        assert!(resize_linear(&Serial, image, &x, Taps { high: &[2], ..good }, two, &mut y).is_err());
        assert!(resize_linear(&Serial, image, &x, Taps { weight: &[], ..good }, two, &mut y).is_err());
    }
}
