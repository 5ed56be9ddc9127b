//! Pooling inside regions of interest: RoiAlign (He et al., 2017) and MaxRoiPool (Girshick, 2015).

use crate::typing::{one, tensor_type};
use crate::window::list;
use crate::{Op, schema};
use ir::{Accuracy, Attrs, Dim, Error, EvalCx, InferCx, Operator, Result, Tensor, Value, ValueType, budget};

pub static OPERATORS: &[&dyn Operator] = &[
    &Op::new("RoiAlign", &schema::ROI_ALIGN, infer_align, eval_align).accuracy(Accuracy::Accumulated),
    &Op::new("MaxRoiPool", &schema::MAX_ROI_POOL, infer_pool, eval_pool).accuracy(Accuracy::Exact),
];

fn infer(cx: &InferCx, [height, width]: [usize; 2]) -> Result<Vec<ValueType>> {
    let dim = |i: usize, a: usize| cx.shape(i).and_then(|s| s.get(a)).cloned().unwrap_or(Dim::Unknown);
    let shape = vec![dim(1, 0), dim(0, 1), Dim::Known(height), Dim::Known(width)];
    Ok(vec![tensor_type(cx.dtype(0)?, Some(shape))])
}

fn infer_align(cx: &InferCx) -> Result<Vec<ValueType>> {
    infer(cx, align_size(cx.attrs)?)
}

fn infer_pool(cx: &InferCx) -> Result<Vec<ValueType>> {
    infer(cx, pooled_shape(cx.attrs)?)
}

fn align_size(attrs: &Attrs) -> Result<[usize; 2]> {
    let get = |name: &str| {
        let n = attrs.int_or(name, 1)?;
        usize::try_from(n)
            .ok()
            .filter(|&n| n > 0)
            .ok_or_else(|| Error::model(format!("{name} {n} must be positive")))
    };
    Ok([get("output_height")?, get("output_width")?])
}

fn pooled_shape(attrs: &Attrs) -> Result<[usize; 2]> {
    match list(attrs, "pooled_shape", 2, 1)?.as_deref() {
        Some(&[h, w]) => Ok([h, w]),
        _ => Err(Error::model("pooled_shape must hold two positive sizes")),
    }
}

/// A feature map and its regions, checked.
struct Regions {
    /// (batch, channels, height, width)
    shape: [usize; 4],
    x: Vec<f64>,
    /// `columns` numbers for each region.
    rois: Vec<f64>,
    count: usize,
}

fn regions(cx: &EvalCx, columns: usize) -> Result<Regions> {
    let (x, rois) = (cx.tensor(0)?, cx.tensor(1)?);
    let (&[n, c, h, w], &[count, width]) = (x.shape(), rois.shape()) else {
        return Err(Error::model(format!(
            "input {:?} and rois {:?} must have ranks 4 and 2",
            x.shape(),
            rois.shape()
        )));
    };
    if width != columns || !x.dtype().is_float() || !rois.dtype().is_float() {
        return Err(Error::model(format!("rois {:?} must have {columns} columns", rois.shape())));
    }
    if h == 0 || w == 0 {
        return Err(Error::model(format!("input {:?} has no elements to pool", x.shape())));
    }
    Ok(Regions { shape: [n, c, h, w], x: x.to_f64s()?, rois: rois.to_f64s()?, count })
}

/// Samples along one axis of one region, at most; more would be noise and cost without bound.
const MAX_SAMPLES: f64 = 4096.0;

fn eval_align(cx: &EvalCx) -> Result<Vec<Value>> {
    let r = regions(cx, 4)?;
    let [height, width] = align_size(cx.attrs)?;
    let batches = cx.ints(2)?;
    let max = match cx.attrs.str_or("mode", "avg")? {
        "avg" => false,
        "max" => true,
        m => return Err(Error::model(format!("mode '{}' is not known", m.escape_debug()))),
    };
    let half_pixel = match cx.attrs.str_or("coordinate_transformation_mode", "half_pixel")? {
        "half_pixel" => true,
        "output_half_pixel" => false,
        m => {
            return Err(Error::model(format!(
                "coordinate_transformation_mode '{}' is not known",
                m.escape_debug()
            )));
        }
    };
    let scale = f64::from(cx.attrs.float_or("spatial_scale", 1.0)?);
    let ratio = cx.attrs.int_or("sampling_ratio", 0)? as f64;
    if batches.len() != r.count {
        return Err(Error::model(format!(
            "batch_indices holds {} values for {} rois",
            batches.len(),
            r.count
        )));
    }
    let [n, c, h, w] = r.shape;
    let mut y = budget::vec(budget::elements(&[r.count, c, height, width])?)?;
    for (roi, &batch) in r.rois.chunks_exact(4).zip(&batches) {
        let batch = usize::try_from(batch).ok().filter(|&b| b < n);
        let batch = batch.ok_or_else(|| Error::data(format!("batch_indices must lie within 0..{n}")))?;
        let shift = if half_pixel { 0.5 } else { 0.0 };
        let side = |from: usize, pooled: usize, size: usize| -> Result<Side> {
            let start = roi[from] * scale - shift;
            let length = roi[from + 2] * scale - shift - start;
            let length = if half_pixel { length } else { length.max(1.0) };
            let bin = length / pooled as f64;
            let samples = if ratio > 0.0 { ratio } else { bin.ceil() };
            if samples.is_nan() || samples > MAX_SAMPLES {
                return Err(Error::limit(format!(
                    "a region samples {samples} points, at most {MAX_SAMPLES} are taken"
                )));
            }
            Ok(Side { start, bin, samples: samples.max(0.0) as usize, size })
        };
        let rows = side(1, height, h)?.bins(height)?;
        let columns = side(0, width, w)?.bins(width)?;
        for channel in 0..c {
            let plane = &r.x[(batch * c + channel) * h * w..][..h * w];
            for (rows, columns) in rows.iter().flat_map(|r| columns.iter().map(move |c| (r, c))) {
                y.push(pool(rows, columns, plane, w, max));
            }
        }
    }
    Ok(one(Tensor::from_f64s(cx.tensor(0)?.dtype(), &[r.count, c, height, width], y)?))
}

/// The two elements around a sample with their weights; none far outside the map.
type Taps = Option<[(usize, f64); 2]>;

/// One axis of a region.
struct Side {
    start: f64,
    /// Length of one bin.
    bin: f64,
    samples: usize,
    /// Elements of the feature map.
    size: usize,
}

impl Side {
    /// Those of sample `k` of bin `i`.
    fn taps(&self, i: usize, k: usize) -> Taps {
        let x = self.start + i as f64 * self.bin + (k as f64 + 0.5) * self.bin / self.samples as f64;
        if !(x >= -1.0 && x <= self.size as f64) {
            return None;
        }
        let x = x.max(0.0);
        let low = x as usize;
        if low + 1 >= self.size {
            return Some([(self.size - 1, 1.0), (self.size - 1, 0.0)]);
        }
        let f = x - low as f64;
        Some([(low, 1.0 - f), (low + 1, f)])
    }

    /// The taps of all samples of each bin.
    fn bins(&self, bins: usize) -> Result<Vec<Vec<Taps>>> {
        budget::check(bins.saturating_mul(self.samples + 1).saturating_mul(size_of::<Taps>()))?;
        Ok((0..bins).map(|i| (0..self.samples).map(|k| self.taps(i, k)).collect()).collect())
    }
}

/// Mean or maximum over the samples of a bin of a map of `width`; the maximum is over weighted elements, as the
/// specification's reference has it.
fn pool(rows: &[Taps], columns: &[Taps], plane: &[f64], width: usize, max: bool) -> f64 {
    let (mut sum, mut best) = (0.0, f64::NEG_INFINITY);
    for (rows, columns) in rows.iter().flat_map(|r| columns.iter().map(move |c| (r, c))) {
        let Some((rows, columns)) = rows.as_ref().zip(columns.as_ref()) else {
            best = best.max(0.0);
            continue;
        };
        for r in rows {
            for c in columns {
                let v = r.1 * c.1 * plane[r.0 * width + c.0];
                sum += v;
                best = best.max(v);
            }
        }
    }
    match (max, rows.len() * columns.len()) {
        (true, 0) => 0.0,
        (true, _) => best,
        (false, n) => sum / n.max(1) as f64,
    }
}

fn eval_pool(cx: &EvalCx) -> Result<Vec<Value>> {
    let r = regions(cx, 5)?;
    let [height, width] = pooled_shape(cx.attrs)?;
    let scale = f64::from(cx.attrs.float_or("spatial_scale", 1.0)?);
    let [n, c, h, w] = r.shape;
    budget::check(height.saturating_add(width).saturating_mul(size_of::<(usize, usize)>()))?;
    let mut y = budget::vec(budget::elements(&[r.count, c, height, width])?)?;
    for roi in r.rois.chunks_exact(5) {
        if !(roi[0] >= 0.0 && roi[0] < n as f64) {
            return Err(Error::data(format!("the batch of a region must lie within 0..{n}")));
        }
        let bins = |from: usize, pooled: usize, size: usize| -> Vec<(usize, usize)> {
            let (start, end) = ((roi[from] * scale).round(), (roi[from + 2] * scale).round());
            let bin = (end - start + 1.0).max(1.0) / pooled as f64;
            let clip = |v: f64| v.clamp(0.0, size as f64) as usize;
            (0..pooled)
                .map(|i| {
                    (clip((i as f64 * bin).floor() + start), clip(((i + 1) as f64 * bin).ceil() + start))
                })
                .collect()
        };
        let (rows, columns) = (bins(2, height, h), bins(1, width, w));
        for channel in 0..c {
            let plane = &r.x[(roi[0] as usize * c + channel) * h * w..][..h * w];
            for (&(top, bottom), &(left, right)) in
                rows.iter().flat_map(|r| columns.iter().map(move |c| (r, c)))
            {
                let cells = (top..bottom).flat_map(|i| (left..right).map(move |j| plane[i * w + j]));
                y.push(cells.reduce(f64::max).unwrap_or(0.0));
            }
        }
    }
    Ok(one(Tensor::from_f64s(cx.tensor(0)?.dtype(), &[r.count, c, height, width], y)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_interpolate_and_stop_outside() {
        let side = |start| Side { start, bin: 1.0, samples: 1, size: 2 };
        assert_eq!(side(0.0).taps(0, 0), Some([(0, 0.5), (1, 0.5)]));
        assert_eq!(side(5.0).taps(0, 0), None);
        assert_eq!(side(1.0).taps(0, 0), Some([(1, 1.0), (1, 0.0)]));
        assert_eq!(side(f64::NAN).taps(0, 0), None);
    }
}
