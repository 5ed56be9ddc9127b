//! kernel: images sampled at the positions of a grid (Jaderberg et al., 2015): ONNX `GridSample`, nearest and bilinear.

use crate::dispatch::Tier;
use crate::error::{Error, product, same_length};
use crate::parallel::Pool;
use crate::partition::{GRAIN, Parts, ranges};
use crate::simd::{LANES, tiered};

/// What stands outside of an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Padding {
    Zeros,
    Border,
    Reflection,
}

/// Sizes of images, `[batch, channels, height, width]`, and of results, `[batch, channels, tall, wide]`, or both with
/// channels last; and how positions are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GridSample {
    pub batch: usize,
    pub channels: usize,
    pub height: usize,
    pub width: usize,
    pub tall: usize,
    pub wide: usize,
    pub last: bool,
    /// Otherwise linear.
    pub nearest: bool,
    pub padding: Padding,
    /// -1 and 1 are the middles of the outermost pixels, not their edges.
    pub align_corners: bool,
}

/// Points whose pixels and weights are found together.
const POINTS: usize = 256;
/// No pixel: zero.
const NONE: usize = usize::MAX;

/// Pixels of a point, and their weights.
#[derive(Clone, Copy)]
struct Taps<const T: usize> {
    at: [usize; T],
    weight: [f32; T],
}

impl GridSample {
    /// Pixels along an axis of `n` around a position, and the weight of the second.
    fn along(&self, position: f32, n: usize) -> ([usize; 2], f64) {
        let (x, size) = (f64::from(position), n as f64);
        let x = match self.align_corners {
            true => (x + 1.0) / 2.0 * (size - 1.0),
            false => ((x + 1.0) * size - 1.0) / 2.0,
        };
        // Indices of far positions must stay computable.
        let x = x.clamp(-1e15, 1e15);
        let x = if self.nearest { rounded(x) } else { x };
        let (low, high) = self.borders(n);
        let x = match self.padding {
            _ if (low..=high).contains(&x) => x,
            Padding::Zeros => x,
            Padding::Border => x.clamp(0.0, size - 1.0),
            Padding::Reflection => reflected(x, low, high),
        };
        // The floor: of what is no number, zero.
        let first = x as i64;
        let first = first - i64::from(first as f64 > x);
        ([self.pixel(first, n), self.pixel(first + 1, n)], x - first as f64)
    }

    fn borders(&self, n: usize) -> (f64, f64) {
        let n = n as f64;
        if self.align_corners { (0.0, n - 1.0) } else { (-0.5, n - 0.5) }
    }

    /// The pixel that stands for index `i`, below `n`, or none.
    fn pixel(&self, i: i64, n: usize) -> usize {
        let last = n as i64 - 1;
        match self.padding {
            Padding::Zeros => usize::try_from(i).ok().filter(|&i| i < n).unwrap_or(NONE),
            Padding::Border => i.clamp(0, last) as usize,
            Padding::Reflection if (0..=last).contains(&i) => i as usize,
            Padding::Reflection => {
                let (low, high) = self.borders(n);
                (reflected(i as f64, low, high) as i64).clamp(0, last) as usize
            }
        }
    }

    fn nearest(&self, x: f32, y: f32) -> Taps<1> {
        let ([row, _], [column, _]) = (self.along(y, self.height).0, self.along(x, self.width).0);
        let outside = row == NONE || column == NONE;
        Taps { at: [if outside { NONE } else { row * self.width + column }], weight: [1.0] }
    }

    fn linear(&self, x: f32, y: f32) -> Taps<4> {
        let ((rows, down), (columns, right)) = (self.along(y, self.height), self.along(x, self.width));
        let mut taps = Taps { at: [NONE; 4], weight: [0.0; 4] };
        for (i, (row, v)) in rows.into_iter().zip([1.0 - down, down]).enumerate() {
            for (j, (column, w)) in columns.into_iter().zip([1.0 - right, right]).enumerate() {
                if row != NONE && column != NONE {
                    (taps.at[2 * i + j], taps.weight[2 * i + j]) =
                        (row * self.width + column, (v * w) as f32);
                }
            }
        }
        taps
    }
}

/// To the nearest whole number, ties to even, for what is below 2⁵¹.
fn rounded(x: f64) -> f64 {
    const MAGIC: f64 = 6_755_399_441_055_744.0;
    (x + MAGIC) - MAGIC
}

/// Folded at the borders until it is inside.
fn reflected(x: f64, low: f64, high: f64) -> f64 {
    let range = high - low;
    if range <= 0.0 {
        return low;
    }
    let below = x < low;
    let outside = if below { low - x } else { x - high };
    if outside <= 0.0 {
        return x;
    }
    let flips = (outside / range).floor();
    let rest = outside - flips * range;
    if (flips % 2.0 == 0.0) == below { low + rest } else { high - rest }
}

/// Samples `x` at the positions of `grid`, `[batch, tall, wide, 2]`, columns first.
///
/// # Errors
/// [`Error::Shape`] for images without pixels, [`Error::Length`] where lengths do not fit.
pub fn grid_sample(
    tier: Tier,
    pool: &dyn Pool,
    g: &GridSample,
    x: &[f32],
    grid: &[f32],
    y: &mut [f32],
) -> Result<(), Error> {
    let what = "sizes of sampled images";
    let points = product(what, &[g.tall, g.wide])?;
    let plane = product(what, &[g.height, g.width])?;
    same_length("sampled images", product(what, &[g.batch, g.channels, plane])?, x.len())?;
    same_length("sampling grid", product(what, &[g.batch, points, 2])?, grid.len())?;
    same_length("samples", product(what, &[g.batch, g.channels, points])?, y.len())?;
    if y.is_empty() {
        return Ok(());
    }
    if plane == 0 {
        return Err(Error::Shape { what });
    }
    let y = Parts::of(y);
    let blocks = points.div_ceil(POINTS);
    let grain = GRAIN.div_ceil(POINTS.min(points).saturating_mul(g.channels.saturating_add(8)));
    ranges(pool, g.batch * blocks, grain, &|tasks| {
        for t in tasks {
            let (b, first) = (t / blocks, t % blocks * POINTS);
            let count = POINTS.min(points - first);
            let x = &x[b * g.channels * plane..][..g.channels * plane];
            let positions = &grid[(b * points + first) * 2..][..count * 2];
            // SAFETY: tasks have points of their own.
            let part = |c: usize, from: usize, n: usize| unsafe {
                let start = b * g.channels * points + c * points + from;
                y.part(start..start + n)
            };
            let rows = |c: usize| part(c, first, count);
            let pixels = || part(0, first * g.channels, count * g.channels);
            if g.nearest {
                let mut taps = [Taps { at: [NONE], weight: [0.0] }; POINTS];
                found(&mut taps[..count], positions, |x, y| g.nearest(x, y));
                sampled(tier, g, x, &taps[..count], rows, pixels);
            } else {
                let mut taps = [Taps { at: [NONE; 4], weight: [0.0; 4] }; POINTS];
                found(&mut taps[..count], positions, |x, y| g.linear(x, y));
                sampled(tier, g, x, &taps[..count], rows, pixels);
            }
        }
    });
    Ok(())
}

fn found<const T: usize>(to: &mut [Taps<T>], positions: &[f32], f: impl Fn(f32, f32) -> Taps<T>) {
    for (to, position) in to.iter_mut().zip(positions.chunks_exact(2)) {
        *to = f(position[0], position[1]);
    }
}

/// One block of points of one image into its parts of the channels, or into its pixels.
fn sampled<'a, const T: usize>(
    tier: Tier,
    g: &GridSample,
    x: &[f32],
    taps: &[Taps<T>],
    rows: impl Fn(usize) -> &'a mut [f32],
    pixels: impl Fn() -> &'a mut [f32],
) {
    if g.last {
        for (to, taps) in pixels().chunks_exact_mut(g.channels).zip(taps) {
            let mut from = [(std::ptr::null(), 0.0); T];
            let mut count = 0;
            for (&at, &w) in taps.at.iter().zip(&taps.weight).filter(|(at, _)| **at != NONE) {
                from[count] = (x[at * g.channels..][..g.channels].as_ptr(), w);
                count += 1;
            }
            // SAFETY: pixels and the result hold as many channels.
            unsafe { mixed(tier, &from[..count], to.as_mut_ptr(), g.channels) };
        }
        return;
    }
    let inside = taps.iter().all(|t| !t.at.contains(&NONE));
    for (c, from) in x.chunks_exact(g.height * g.width).enumerate() {
        let to = rows(c).iter_mut().zip(taps);
        if inside {
            to.for_each(|(y, t)| *y = t.at.iter().zip(t.weight).map(|(&at, w)| w * from[at]).sum());
        } else {
            let value = |at: usize, w: f32| if at == NONE { 0.0 } else { w * from[at] };
            to.for_each(|(y, t)| *y = t.at.iter().zip(t.weight).map(|(&at, w)| value(at, w)).sum());
        }
    }
}

tiered! {
    /// `y = Σ w·x`.
    ///
    /// # Safety
    /// All hold `n` elements.
    unsafe fn mixed(s: S; from: &[(*const f32, f32)], y: *mut f32, n: usize) {
        for i in (0..n).step_by(LANES) {
            let mut sum = s.zero();
            for &(x, w) in from {
                sum = s.fma(s.load_up_to(x.add(i), n - i), s.splat(w), sum);
            }
            s.store_up_to(y.add(i), sum, n - i);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parallel::Serial;
    use crate::testing::{Two, random};

    const BASE: GridSample = GridSample {
        batch: 2,
        channels: 3,
        height: 4,
        width: 5,
        tall: 20,
        wide: 19,
        last: false,
        nearest: false,
        padding: Padding::Zeros,
        align_corners: true,
    };

    fn turned(x: &[f32], [batch, channels, plane]: [usize; 3]) -> Vec<f32> {
        let at = |i: usize| (i / (channels * plane), i / channels % plane, i % channels);
        let from = |(b, p, c): (usize, usize, usize)| x[(b * channels + c) * plane + p];
        (0..batch * channels * plane).map(|i| from(at(i))).collect()
    }

    #[test]
    fn layouts_tiers_and_threads_agree() {
        for channels in [1, 3, 37] {
            for padding in [Padding::Zeros, Padding::Border, Padding::Reflection] {
                for (nearest, align_corners) in [(false, false), (false, true), (true, false), (true, true)] {
                    let g = GridSample { channels, padding, nearest, align_corners, ..BASE };
                    let x = random(2 * channels * 20, 1);
                    let mut grid: Vec<f32> = random(2 * 380 * 2, 2).iter().map(|x| 2.0 * x).collect();
                    grid[..5].copy_from_slice(&[f32::INFINITY, f32::MIN, 1e30, -1.0, 1.0]);
                    let mut y = vec![9.0; 2 * channels * 380];
                    grid_sample(Tier::best(), &Serial, &g, &x, &grid, &mut y).unwrap();
                    let mut same = vec![9.0; y.len()];
                    grid_sample(Tier::best(), &Two, &g, &x, &grid, &mut same).unwrap();
                    assert_eq!(y, same);
                    let wanted = turned(&y, [2, channels, 380]);
                    for &tier in Tier::available() {
                        let g = GridSample { last: true, ..g };
                        let x = turned(&x, [2, channels, 20]);
                        let mut y = vec![9.0; y.len()];
                        grid_sample(tier, &Two, &g, &x, &grid, &mut y).unwrap();
                        assert!(y.iter().zip(&wanted).all(|(y, w)| (y - w).abs() < 1e-6), "{tier:?} {g:?}");
                    }
                }
            }
        }
    }

    #[test]
    fn between_pixels_is_their_mean() {
        let g = GridSample { batch: 1, channels: 1, height: 2, width: 2, tall: 1, wide: 3, ..BASE };
        let run = |g: &GridSample| {
            let (grid, mut y) = ([0.0, 0.0, -1.0, 0.0, f32::NAN, 9.0], [7.0; 3]);
            grid_sample(Tier::best(), &Serial, g, &[1.0, 2.0, 3.0, 6.0], &grid, &mut y).unwrap();
            y
        };
        assert_eq!(run(&g), [3.0, 2.0, 0.0]);
        assert_eq!(run(&GridSample { nearest: true, padding: Padding::Border, ..g }), [1.0, 1.0, 3.0]);
    }

    #[test]
    fn what_does_not_fit_is_an_error() {
        let run = |g: &GridSample, x: usize, grid: usize, y: usize| {
            let (x, grid, mut y) = (vec![1.0; x], vec![0.0; grid], vec![0.0; y]);
            grid_sample(Tier::best(), &Serial, g, &x, &grid, &mut y)
        };
        assert!(run(&BASE, 120, 1520, 2280).is_ok());
        assert!(run(&BASE, 119, 1520, 2280).is_err());
        assert!(run(&BASE, 120, 1519, 2280).is_err());
        assert!(run(&BASE, 120, 1520, 2279).is_err());
        assert!(run(&GridSample { height: 0, ..BASE }, 0, 1520, 2280).is_err());
        assert!(run(&GridSample { tall: usize::MAX, ..BASE }, 120, 1520, 2280).is_err());
        assert!(run(&GridSample { channels: 0, ..BASE }, 0, 1520, 0).is_ok());
    }
}
