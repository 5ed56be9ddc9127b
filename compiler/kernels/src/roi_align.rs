//! kernel: maps pooled inside of boxes at fractional positions (He et al., 2017, Mask R-CNN, section 3): ONNX `RoiAlign`.
//!
//! Samples stand on a grid, so rows and columns have their weights apart: a mean weighs rows first, which reads the map
//! by whole vectors, and then columns, which are lanes of what came of the rows.

use crate::dispatch::Tier;
use crate::error::{Error, product, same_length};
use crate::parallel::Pool;
use crate::partition::{GRAIN, Parts, ranges};
use crate::simd::{LANES, tiered};
use std::ops::Range;

/// Sizes of maps, `[batch, channels, height, width]`, and of results, `[boxes, channels, tall, wide]`; and how boxes are
/// read.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RoiAlign {
    pub batch: usize,
    pub channels: usize,
    pub height: usize,
    pub width: usize,
    pub boxes: usize,
    pub tall: usize,
    pub wide: usize,
    /// Samples along each axis of a bin; none: as many as it has pixels, rounded up.
    pub samples: usize,
    /// Pixels for one unit of a box.
    pub scale: f32,
    /// The middle of the first pixel is at 0.5; otherwise at 0, and boxes have at least one pixel.
    pub half_pixel: bool,
    /// The largest of the weighted pixels; otherwise the mean of the samples.
    pub largest: bool,
}

/// Samples along one axis of a bin, at most.
const MOST_SAMPLES: usize = 4096;
/// Taps of columns that are laid out as vectors, at most: that takes much more memory than a map does.
const MOST_TAPS: usize = 1 << 14;
/// Channels of a task.
const CHANNELS: usize = 32;

/// One axis of a box, in pixels.
#[derive(Clone, Copy)]
struct Side {
    start: f64,
    bin: f64,
    samples: usize,
}

/// Pixels of the bins along one axis, and their weights.
struct Taps {
    all: Vec<(usize, f32)>,
    bins: Vec<Bin>,
}

struct Bin {
    taps: Range<usize>,
    /// Some sample is outside of the map.
    outside: bool,
}

/// Columns that one vector holds, for up to [`LANES`] bins.
struct Piece {
    column: usize,
    columns: usize,
    lanes: Range<usize>,
}

/// For each bin one of the columns of a piece, and its weight.
struct Lanes {
    at: [i32; LANES],
    weight: [f32; LANES],
}

/// What pools one box, whatever the channel.
struct Plan {
    rows: Taps,
    columns: Taps,
    /// Pieces of each [`LANES`] bins; none where bins are pooled pixel by pixel.
    blocks: Vec<Range<usize>>,
    pieces: Vec<Piece>,
    lanes: Vec<Lanes>,
}

impl RoiAlign {
    fn side(&self, from: f32, to: f32, bins: usize) -> Result<Side, Error> {
        let (scale, shift) = (f64::from(self.scale), if self.half_pixel { 0.5 } else { 0.0 });
        let start = f64::from(from) * scale - shift;
        let length = f64::from(to) * scale - shift - start;
        let bin = if self.half_pixel { length } else { length.max(1.0) } / bins as f64;
        let samples = if self.samples > 0 { self.samples as f64 } else { bin.ceil() };
        if samples.is_nan() || samples > MOST_SAMPLES as f64 {
            return Err(Error::Limit { what: "samples along a bin of a region", most: MOST_SAMPLES });
        }
        Ok(Side { start, bin, samples: samples.max(0.0) as usize })
    }

    fn plan(&self, rows: Side, columns: Side) -> Plan {
        // Without samples along one axis there are none.
        let none = rows.samples == 0 || columns.samples == 0;
        let side = |s: Side| if none { Side { samples: 0, ..s } } else { s };
        let mut plan = Plan {
            rows: side(rows).taps(self.tall, self.height, self.largest),
            columns: side(columns).taps(self.wide, self.width, self.largest),
            blocks: Vec::new(),
            pieces: Vec::new(),
            lanes: Vec::new(),
        };
        if !self.largest && plan.columns.all.len() <= MOST_TAPS {
            plan.cut(self.width);
        }
        plan
    }
}

impl Side {
    /// The pixels around sample `k` of bin `i` of an axis of `size` with their weights; none far outside.
    fn around(&self, i: usize, k: usize, size: usize) -> Option<[(usize, f64); 2]> {
        let x = self.start + i as f64 * self.bin + (k as f64 + 0.5) * self.bin / self.samples as f64;
        if !(x >= -1.0 && x <= size as f64) {
            return None;
        }
        let x = x.max(0.0);
        let low = x as usize;
        if low + 1 >= size {
            return Some([(size - 1, 1.0), (size - 1, 0.0)]);
        }
        let f = x - low as f64;
        Some([(low, 1.0 - f), (low + 1, f)])
    }

    /// Each pixel once for each bin: with the sum of its weights, over the number of samples, or twice, with the least and
    /// the greatest. A weight of zero stays apart, for it makes of what is infinite no number.
    fn taps(&self, bins: usize, size: usize, largest: bool) -> Taps {
        let mut taps = Taps { all: Vec::new(), bins: Vec::with_capacity(bins) };
        let mut found: Vec<(usize, f64)> = Vec::new();
        for i in 0..bins {
            let (from, mut outside) = (taps.all.len(), false);
            found.clear();
            for k in 0..self.samples {
                match self.around(i, k, size) {
                    Some(pair) => found.extend(pair),
                    None => outside = true,
                }
            }
            found.sort_unstable_by(|a, b| a.0.cmp(&b.0).then(a.1.total_cmp(&b.1)));
            for same in found.chunk_by(|a, b| a.0 == b.0) {
                let (at, least) = same[0];
                if largest {
                    taps.all.push((at, least as f32));
                    taps.all.extend(same.last().filter(|last| last.1 > least).map(|l| (at, l.1 as f32)));
                    continue;
                }
                if least == 0.0 {
                    taps.all.push((at, 0.0));
                }
                let sum: f64 = same.iter().map(|s| s.1).sum();
                if sum > 0.0 {
                    taps.all.push((at, (sum / self.samples as f64) as f32));
                }
            }
            taps.bins.push(Bin { taps: from..taps.all.len(), outside });
        }
        taps
    }
}

impl Taps {
    fn of(&self, bin: &Bin) -> &[(usize, f32)] {
        &self.all[bin.taps.clone()]
    }
}

impl Plan {
    /// Columns cut into vectors of a map of `width`.
    fn cut(&mut self, width: usize) {
        let mut found: Vec<(usize, usize, f32)> = Vec::new();
        for bins in self.columns.bins.chunks(LANES) {
            found.clear();
            for (lane, bin) in bins.iter().enumerate() {
                found.extend(self.columns.of(bin).iter().map(|&(at, w)| (at, lane, w)));
            }
            found.sort_unstable_by_key(|f| (f.0, f.1));
            let first = self.pieces.len();
            let mut rest = &found[..];
            while let Some(&(column, ..)) = rest.first() {
                let column = column.min(width.saturating_sub(LANES));
                let n = rest.partition_point(|f| f.0 < column + LANES);
                let from = self.lanes.len();
                let mut taken = [0; LANES];
                for &(at, lane, w) in &rest[..n] {
                    let slot = from + taken[lane];
                    taken[lane] += 1;
                    if slot == self.lanes.len() {
                        self.lanes.push(Lanes { at: [0; LANES], weight: [0.0; LANES] });
                    }
                    self.lanes[slot].at[lane] = (at - column) as i32;
                    self.lanes[slot].weight[lane] = w;
                }
                let columns = LANES.min(width - column);
                self.pieces.push(Piece { column, columns, lanes: from..self.lanes.len() });
                rest = &rest[n..];
            }
            self.blocks.push(first..self.pieces.len());
        }
    }

    /// Bin (`i`, `j`) of a map of `width`, pixel by pixel.
    fn bin(&self, map: &[f32], width: usize, i: usize, j: usize, largest: bool) -> f32 {
        let (row, column) = (&self.rows.bins[i], &self.columns.bins[j]);
        let rows = self.rows.of(row).iter();
        let all = rows.flat_map(|r| self.columns.of(column).iter().map(move |c| (r, c)));
        let values = all.map(|(r, c)| r.1 * c.1 * map[r.0 * width + c.0]);
        if !largest {
            return values.sum();
        }
        let best = values.fold(f32::NEG_INFINITY, f32::max);
        // A sample outside is zero, and so is a bin without samples, which has neither.
        let none = row.taps.is_empty() || column.taps.is_empty();
        if none || row.outside || column.outside { best.max(0.0) } else { best }
    }
}

/// Pools `x` inside of `boxes`, `[boxes, 4]`: columns and rows from, columns and rows to; each in the image that `of` says.
///
/// # Errors
/// [`Error::Index`] for an image that is not there, [`Error::Limit`] for a box that has too many samples,
/// [`Error::Shape`] for maps without pixels, [`Error::Length`] where lengths do not fit.
pub fn roi_align(
    tier: Tier,
    pool: &dyn Pool,
    g: &RoiAlign,
    x: &[f32],
    boxes: &[f32],
    of: &[i64],
    y: &mut [f32],
) -> Result<(), Error> {
    let what = "sizes of pooled regions";
    let (plane, cells) = (product(what, &[g.height, g.width])?, product(what, &[g.tall, g.wide])?);
    same_length("maps of regions", product(what, &[g.batch, g.channels, plane])?, x.len())?;
    same_length("regions", product(what, &[g.boxes, 4])?, boxes.len())?;
    same_length("images of regions", g.boxes, of.len())?;
    same_length("pooled regions", product(what, &[g.boxes, g.channels, cells])?, y.len())?;
    if plane == 0 {
        return Err(Error::Shape { what });
    }
    let placed = |(position, (b, &index)): (usize, (&[f32], &i64))| {
        let outside = Error::Index { position, index, bound: g.batch };
        let image = usize::try_from(index).ok().filter(|&i| i < g.batch).ok_or(outside)?;
        Ok((image, g.side(b[1], b[3], g.tall)?, g.side(b[0], b[2], g.wide)?))
    };
    let each = boxes.chunks_exact(4).zip(of).enumerate();
    let placed = each.map(placed).collect::<Result<Vec<_>, Error>>()?;
    if y.is_empty() {
        return Ok(());
    }
    let y = Parts::of(y);
    let blocks = g.channels.div_ceil(CHANNELS);
    let grain = GRAIN.div_ceil(CHANNELS.min(g.channels).saturating_mul(cells));
    ranges(pool, g.boxes * blocks, grain, &|tasks| {
        let mut last: Option<(usize, Plan)> = None;
        for t in tasks {
            let (b, first) = (t / blocks, t % blocks * CHANNELS);
            let (image, rows, columns) = placed[b];
            let known = last.take().filter(|l| l.0 == b);
            let (_, plan) = last.insert(known.unwrap_or_else(|| (b, g.plan(rows, columns))));
            let count = CHANNELS.min(g.channels - first);
            let x = &x[(image * g.channels + first) * plane..][..count * plane];
            let from = (b * g.channels + first) * cells;
            // SAFETY: tasks have channels of their own.
            let y = unsafe { y.part(from..from + count * cells) };
            for (map, y) in x.chunks_exact(plane).zip(y.chunks_exact_mut(cells)) {
                if !plan.blocks.is_empty() {
                    // SAFETY: the plan's pixels lie inside of a map of the sizes it was made for, and so do its bins.
                    unsafe { averaged(tier, plan, map.as_ptr(), g.width, y.as_mut_ptr(), g.wide) };
                    // Lanes without a weight must not count.
                    if y.iter().all(|y| y.is_finite()) {
                        continue;
                    }
                }
                for (i, y) in y.chunks_exact_mut(g.wide).enumerate() {
                    y.iter_mut().enumerate().for_each(|(j, y)| *y = plan.bin(map, g.width, i, j, g.largest));
                }
            }
        }
    });
    Ok(())
}

tiered! {
    /// Means of all bins of one channel, if all pixels are finite.
    ///
    /// # Safety
    /// `x` holds the rows and columns of `plan`, in rows of `width`; `y` its bins, in rows of `wide`.
    unsafe fn averaged(s: S; plan: &Plan, x: *const f32, width: usize, y: *mut f32, wide: usize) {
        for (i, bin) in plan.rows.bins.iter().enumerate() {
            let rows = plan.rows.of(bin);
            for (block, pieces) in plan.blocks.iter().enumerate() {
                let mut out = s.zero();
                for p in &plan.pieces[pieces.clone()] {
                    let mut sum = s.zero();
                    for &(row, w) in rows {
                        let from = s.load_up_to(x.add(row * width + p.column), p.columns);
                        sum = s.fma(from, s.splat(w), sum);
                    }
                    for l in &plan.lanes[p.lanes.clone()] {
                        let picked = s.permute(sum, s.load_i(l.at.as_ptr()));
                        out = s.fma(picked, s.load(l.weight.as_ptr()), out);
                    }
                }
                s.store_up_to(y.add(i * wide + block * LANES), out, wide - block * LANES);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parallel::Serial;
    use crate::testing::{Two, random};

    const BASE: RoiAlign = RoiAlign {
        batch: 2,
        channels: 3,
        height: 9,
        width: 40,
        boxes: 5,
        tall: 3,
        wide: 20,
        samples: 2,
        scale: 0.5,
        half_pixel: true,
        largest: false,
    };
    const BOXES: [f32; 20] = [
        0.0, 0.0, 80.0, 18.0, -9.0, 3.0, 7.5, 3.0, 70.0, 12.0, 20.0, 2.0, 1e9, -1e9, 3.0, 4.0, 5.0, 6.0, 7.0,
        9.5,
    ];

    fn run(tier: Tier, pool: &dyn Pool, g: &RoiAlign, x: &[f32], boxes: &[f32]) -> Vec<f32> {
        let mut y = vec![9.0; g.boxes * g.channels * g.tall * g.wide];
        roi_align(tier, pool, g, x, boxes, &[0, 1, 1, 0, 1][..g.boxes], &mut y).unwrap();
        y
    }

    /// Sample by sample, in f64.
    fn plain(g: &RoiAlign, x: &[f32], boxes: &[f32]) -> Vec<f64> {
        let mut y = Vec::new();
        for (b, of) in boxes.chunks_exact(4).zip([0, 1, 1, 0, 1]) {
            let (rows, columns) = (g.side(b[1], b[3], g.tall).unwrap(), g.side(b[0], b[2], g.wide).unwrap());
            for c in 0..g.channels {
                let map = &x[(of * g.channels + c) * g.height * g.width..];
                for (i, j) in (0..g.tall).flat_map(|i| (0..g.wide).map(move |j| (i, j))) {
                    let (mut sum, mut best) = (0.0, f64::NEG_INFINITY);
                    let n = rows.samples * columns.samples;
                    for k in 0..n {
                        let (a, b) = (k / columns.samples, k % columns.samples);
                        let (r, c) = (rows.around(i, a, g.height), columns.around(j, b, g.width));
                        let Some((r, c)) = r.zip(c) else {
                            best = best.max(0.0);
                            continue;
                        };
                        for (r, c) in r.iter().flat_map(|r| c.iter().map(move |c| (r, c))) {
                            let v = r.1 * c.1 * f64::from(map[r.0 * g.width + c.0]);
                            (sum, best) = (sum + v, best.max(v));
                        }
                    }
                    y.push(match (g.largest, n) {
                        (_, 0) => 0.0,
                        (true, _) => best,
                        (false, n) => sum / n as f64,
                    });
                }
            }
        }
        y
    }

    #[test]
    fn tiers_and_threads_agree_with_single_samples() {
        for (largest, half_pixel) in [(false, false), (false, true), (true, false), (true, true)] {
            for (samples, channels, wide, width) in
                [(2, 3, 20, 40), (1, 70, 7, 40), (0, 2, 3, 40), (3, 1, 1, 5), (5, 33, 33, 40)]
            {
                let g = RoiAlign { samples, channels, wide, width, largest, half_pixel, ..BASE };
                let mut x = random(2 * channels * 9 * width, 1);
                let mut boxes = BOXES;
                if samples == 0 {
                    boxes[12..14].fill(3.0);
                } else {
                    boxes[19] = f32::NAN;
                }
                for special in [false, true] {
                    if special {
                        let n = x.len();
                        (x[7], x[n - 3], x[n / 2 + 9]) = (f32::INFINITY, f32::NAN, f32::NEG_INFINITY);
                    }
                    let want = plain(&g, &x, &boxes);
                    for &tier in Tier::available() {
                        let y = run(tier, &Serial, &g, &x, &boxes);
                        let two = run(tier, &Two, &g, &x, &boxes);
                        assert!(y.iter().zip(&two).all(|(a, b)| a.to_bits() == b.to_bits()));
                        for (i, (&y, &w)) in y.iter().zip(&want).enumerate() {
                            let same = (f64::from(y) - w).abs() < 2e-6 || y.is_nan() && w.is_nan();
                            assert!(same || f64::from(y) == w, "{tier:?} {g:?} {i}: {y} is not {w}");
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn many_columns_are_pooled_pixel_by_pixel() {
        let g = RoiAlign {
            channels: 1,
            height: 1,
            width: 20_000,
            boxes: 1,
            tall: 1,
            wide: 5,
            samples: 0,
            ..BASE
        };
        let (x, boxes) = (random(2 * 20_000, 3), [0.5, 0.0, 40_000.0, 2.0]);
        let (rows, columns) = (g.side(0.0, 2.0, 1).unwrap(), g.side(0.5, 40_000.0, 5).unwrap());
        assert!(g.plan(rows, columns).columns.all.len() > MOST_TAPS);
        let y = run(Tier::best(), &Serial, &g, &x, &boxes);
        let want = plain(&g, &x, &boxes);
        assert!(y.iter().zip(&want).all(|(&y, w)| (f64::from(y) - w).abs() < 1e-5), "{y:?} {want:?}");
    }

    #[test]
    fn a_box_of_one_pixel_is_that_pixel() {
        let g = RoiAlign { batch: 1, channels: 1, height: 2, width: 2, boxes: 1, tall: 1, wide: 1, ..BASE };
        let g = RoiAlign { samples: 1, scale: 1.0, ..g };
        let x = [1.0, 2.0, 3.0, 6.0];
        assert_eq!(run(Tier::best(), &Serial, &g, &x, &[1.0, 1.0, 2.0, 2.0]), [6.0]);
        assert_eq!(run(Tier::best(), &Serial, &g, &x, &[0.0, 0.0, 2.0, 2.0]), [3.0]);
        assert_eq!(run(Tier::best(), &Serial, &g, &x, &[9.0, 0.0, 12.0, 2.0]), [0.0]);
    }

    #[test]
    fn what_does_not_fit_is_an_error() {
        let run = |g: &RoiAlign, boxes: &[f32], of: &[i64]| {
            let x = vec![1.0; g.batch * g.channels * g.height * g.width];
            let mut y = vec![0.0; g.boxes * g.channels * g.tall.min(9) * g.wide];
            roi_align(Tier::best(), &Serial, g, &x, boxes, of, &mut y)
        };
        assert!(run(&BASE, &BOXES, &[0; 5]).is_ok());
        assert!(run(&BASE, &BOXES[1..], &[0; 5]).is_err());
        assert!(run(&BASE, &BOXES, &[0; 4]).is_err());
        assert!(run(&RoiAlign { tall: usize::MAX, ..BASE }, &BOXES, &[0; 5]).is_err());
        assert!(run(&RoiAlign { height: 0, ..BASE }, &BOXES, &[0; 5]).is_err());
        assert!(run(&RoiAlign { boxes: 0, ..BASE }, &[], &[]).is_ok());
        assert!(run(&RoiAlign { channels: 0, ..BASE }, &BOXES, &[0; 5]).is_ok());
        for index in [-1, 2, i64::MAX, i64::MIN] {
            let e = Err(Error::Index { position: 1, index, bound: 2 });
            assert_eq!(run(&BASE, &BOXES, &[0, index, 0, 0, 0]), e);
        }
        let limit = |g: &RoiAlign, boxes: &[f32]| matches!(run(g, boxes, &[0; 5]), Err(Error::Limit { .. }));
        assert!(limit(&RoiAlign { samples: 0, ..BASE }, &BOXES));
        assert!(limit(&RoiAlign { samples: usize::MAX, ..BASE }, &BOXES));
        assert!(limit(&RoiAlign { samples: 0, ..BASE }, &[f32::NAN; 20]));
        assert!(limit(&RoiAlign { samples: 0, ..BASE }, &[f32::INFINITY; 20]));
        assert!(!limit(&BASE, &[f32::INFINITY; 20]));
    }
}
