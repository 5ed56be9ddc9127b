//! TopK, Unique, NonZero and NonMaxSuppression.

use crate::broadcast::axis;
use crate::movement::{gather, gather_runs, strides, volume};
use crate::typing::{one, tensor_type};
use crate::{Op, schema};
use ir::{Accuracy, DType, Dim, Error, EvalCx, InferCx, Operator, Result, Tensor, Value, ValueType, budget};
use std::cmp::Ordering;

pub static OPERATORS: &[&dyn Operator] = &[
    &Op::new("TopK", &schema::TOP_K, infer_top_k, eval_top_k).accuracy(Accuracy::Exact),
    &Op::new("Unique", &schema::UNIQUE, infer_unique, eval_unique).accuracy(Accuracy::Exact),
    &Op::new("NonZero", &schema::NON_ZERO, infer_non_zero, eval_non_zero).accuracy(Accuracy::Exact),
    &Op::new("NonMaxSuppression", &schema::NON_MAX_SUPPRESSION, infer_nms, eval_nms)
        .accuracy(Accuracy::Exact),
];

/// Sort keys that order every numeric type exactly; NaN is above all.
enum Keys {
    Float(Vec<f64>),
    Int(Vec<i128>),
    Text(Vec<String>),
}

impl Keys {
    fn of(t: &Tensor) -> Result<Keys> {
        Ok(match t.dtype() {
            DType::String => Keys::Text(t.string_data()?.to_vec()),
            DType::U64 => Keys::Int(t.data::<u64>()?.iter().map(|&x| i128::from(x)).collect()),
            d if d.is_float() => Keys::Float(t.to_f64s()?),
            _ => Keys::Int(t.to_i64s()?.into_iter().map(i128::from).collect()),
        })
    }
    fn cmp(&self, a: usize, b: usize) -> Ordering {
        match self {
            Keys::Float(v) => v[a].partial_cmp(&v[b]).unwrap_or_else(|| v[a].is_nan().cmp(&v[b].is_nan())),
            Keys::Int(v) => v[a].cmp(&v[b]),
            Keys::Text(v) => v[a].cmp(&v[b]),
        }
    }
}

fn infer_top_k(cx: &InferCx) -> Result<Vec<ValueType>> {
    let shape = match cx.shape(0) {
        Some(s) => {
            let a = axis(cx.attrs.int_or("axis", -1)?, s.len())?;
            let mut s = s.to_vec();
            s[a] = cx.dims(1).and_then(|d| d.first().cloned()).unwrap_or(Dim::Unknown);
            Some(s)
        }
        None => None,
    };
    Ok(vec![tensor_type(cx.dtype(0)?, shape.clone()), tensor_type(Some(DType::I64), shape)])
}

fn eval_top_k(cx: &EvalCx) -> Result<Vec<Value>> {
    let x = cx.tensor(0)?;
    let a = axis(cx.attrs.int_or("axis", -1)?, x.rank())?;
    let n = x.shape()[a];
    let k = cx.ints(1)?.first().copied().unwrap_or(-1);
    let k =
        usize::try_from(k).ok().filter(|&k| k <= n).ok_or_else(|| Error::data(format!("k = {k} of {n}")))?;
    let largest = cx.attrs.int_or("largest", 1)? != 0;
    let keys = Keys::of(x)?;
    let (outer, inner) = (volume(&x.shape()[..a]), volume(&x.shape()[a + 1..]));
    let mut shape = x.shape().to_vec();
    shape[a] = k;
    budget::bytes(DType::I64, &shape)?;
    if volume(&shape) == 0 {
        return Ok(vec![Tensor::zeros(x.dtype(), &shape)?.into(), Tensor::zeros(DType::I64, &shape)?.into()]);
    }
    let mut picks = budget::filled(volume(&shape), 0i64)?;
    for o in 0..outer {
        for i in 0..inner {
            let at = |j: usize| (o * n + j) * inner + i;
            let mut order: Vec<usize> = (0..n).collect();
            let compare = |&p: &usize, &q: &usize| {
                let c = keys.cmp(at(p), at(q));
                (if largest { c.reverse() } else { c }).then(p.cmp(&q))
            };
            if k < n {
                order.select_nth_unstable_by(k, compare);
                order.truncate(k);
            }
            order.sort_unstable_by(compare);
            for (r, j) in order.into_iter().enumerate() {
                picks[(o * k + r) * inner + i] = j as i64;
            }
        }
    }
    let from = picks
        .iter()
        .enumerate()
        .map(|(p, &j)| (p / (k * inner).max(1) * n + j as usize) * inner + p % inner.max(1));
    let values = gather(x, &shape, from)?;
    Ok(vec![values.into(), Tensor::new(&shape, picks)?.into()])
}

fn infer_unique(cx: &InferCx) -> Result<Vec<ValueType>> {
    let shape = match (cx.attrs.int("axis")?, cx.shape(0)) {
        (None, _) => Some(vec![Dim::Unknown]),
        (Some(a), Some(s)) => {
            let a = axis(a, s.len())?;
            let mut s = s.to_vec();
            s[a] = Dim::Unknown;
            Some(s)
        }
        _ => None,
    };
    let list = || ValueType::tensor(DType::I64, vec![Dim::Unknown]);
    Ok(vec![tensor_type(cx.dtype(0)?, shape), list(), list(), list()])
}

fn eval_unique(cx: &EvalCx) -> Result<Vec<Value>> {
    let x = cx.tensor(0)?;
    let (shape, a) = match cx.attrs.int("axis")? {
        Some(a) => (x.shape().to_vec(), axis(a, x.rank())?),
        None => (vec![x.len()], 0),
    };
    let n = shape[a];
    let (outer, inner) = (volume(&shape[..a]), volume(&shape[a + 1..]));
    let cells = if x.is_empty() { 0 } else { outer };
    let keys = Keys::of(x)?;
    // Subtensor j consists of elements (o, j, i) for all o, i.
    let compare = |p: usize, q: usize| {
        (0..cells)
            .flat_map(|o| (0..inner).map(move |i| (o, i)))
            .map(|(o, i)| keys.cmp((o * n + p) * inner + i, (o * n + q) * inner + i))
            .find(|c| c.is_ne())
            .unwrap_or(Ordering::Equal)
    };
    let mut order = budget::vec(n)?;
    order.extend(0..n);
    order.sort_by(|&p, &q| compare(p, q).then(p.cmp(&q)));
    let mut groups: Vec<Vec<usize>> = Vec::new();
    for j in order {
        match groups.last_mut() {
            Some(g) if compare(g[0], j).is_eq() => g.push(j),
            _ => groups.push(vec![j]),
        }
    }
    if cx.attrs.int_or("sorted", 1)? == 0 {
        groups.sort_by_key(|g| g[0]);
    }
    let mut out = shape.clone();
    out[a] = groups.len();
    let first: Vec<usize> = groups.iter().map(|g| g[0]).collect();
    let starts = (0..outer).flat_map(|o| first.iter().map(move |&j| (o * n + j) * inner));
    let y = gather_runs(x, &out, inner, starts)?;
    let mut inverse = vec![0i64; n];
    groups.iter().enumerate().for_each(|(g, members)| members.iter().for_each(|&j| inverse[j] = g as i64));
    let counts = groups.iter().map(|g| g.len() as i64).collect();
    let list = |v: Vec<i64>| Value::Tensor(Tensor::vector(v));
    Ok(vec![y.into(), list(first.iter().map(|&j| j as i64).collect()), list(inverse), list(counts)])
}

fn infer_non_zero(cx: &InferCx) -> Result<Vec<ValueType>> {
    let rank = cx.rank(0).map_or(Dim::Unknown, |r| Dim::Known(r.max(1)));
    Ok(vec![ValueType::tensor(DType::I64, vec![rank, Dim::Unknown])])
}

fn eval_non_zero(cx: &EvalCx) -> Result<Vec<Value>> {
    let x = cx.tensor(0)?;
    let shape = if x.rank() == 0 { vec![1] } else { x.shape().to_vec() };
    let v = x.to_f64s()?;
    let n = v.iter().filter(|v| **v != 0.0).count();
    let mut found = budget::vec(n)?;
    found.extend((0..v.len()).filter(|&i| v[i] != 0.0));
    let mut columns = budget::vec(shape.len().saturating_mul(n))?;
    for (&step, &size) in strides(&shape).iter().zip(&shape) {
        columns.extend(found.iter().map(|i| (i / step % size) as i64));
    }
    Ok(one(Tensor::new(&[shape.len(), n], columns)?))
}

fn infer_nms(_: &InferCx) -> Result<Vec<ValueType>> {
    Ok(vec![ValueType::tensor(DType::I64, vec![Dim::Unknown, Dim::Known(3)])])
}

fn eval_nms(cx: &EvalCx) -> Result<Vec<Value>> {
    let (boxes, scores) = (cx.tensor(0)?, cx.tensor(1)?);
    let (&[b, n, 4], &[sb, classes, sn]) = (boxes.shape(), scores.shape()) else {
        return Err(Error::model("boxes must be [batch, n, 4] and scores [batch, classes, n]"));
    };
    if b != sb || n != sn {
        return Err(Error::model("boxes and scores differ in batch or count"));
    }
    if boxes.is_empty() || scores.is_empty() {
        return Ok(one(Tensor::zeros(DType::I64, &[0, 3])?));
    }
    let scalar = |i: usize, default: f64| -> Result<f64> {
        Ok(cx
            .optional(i)?
            .map(|t| t.to_f64s())
            .transpose()?
            .and_then(|v| v.first().copied())
            .unwrap_or(default))
    };
    let per_class = scalar(2, 0.0)?.max(0.0) as usize;
    let (iou, floor) = (scalar(3, 0.0)?, scalar(4, f64::NEG_INFINITY)?);
    let centered = cx.attrs.int_or("center_point_box", 0)? != 0;
    let corners: Vec<[f64; 4]> = boxes.to_f64s()?.chunks_exact(4).map(|c| corner(c, centered)).collect();
    let separable = iou >= 0.0 && corners.iter().flatten().all(|x| x.is_finite());
    let scores = scores.to_f64s()?;
    let mut picked = Vec::new();
    for bi in 0..b {
        let corners = &corners[bi * n..][..n];
        let (group, groups) = if separable { groups(corners) } else { (vec![0; n], 1) };
        for c in 0..classes {
            let score = |i: usize| scores[(bi * classes + c) * n + i];
            let mut order: Vec<usize> = (0..n).filter(|&i| score(i) > floor).collect();
            order
                .sort_by(|&p, &q| score(q).partial_cmp(&score(p)).unwrap_or(Ordering::Equal).then(p.cmp(&q)));
            let mut kept: Vec<Vec<&[f64; 4]>> = vec![Vec::new(); groups];
            let mut left = per_class;
            for i in order {
                if left == 0 {
                    break;
                }
                let (mine, kept) = (&corners[i], &mut kept[group[i]]);
                if kept.iter().all(|k| within(k, mine, iou, separable)) {
                    kept.push(mine);
                    picked.extend([bi as i64, c as i64, i as i64]);
                    left -= 1;
                }
            }
        }
    }
    Ok(one(Tensor::new(&[picked.len() / 3, 3], picked)?))
}

/// y1, x1, y2, x2 in ascending order.
fn corner(c: &[f64], centered: bool) -> [f64; 4] {
    if centered {
        let (x, y, w, h) = (c[0], c[1], c[2] / 2.0, c[3] / 2.0);
        return [y - h, x - w, y + h, x + w];
    }
    [c[0].min(c[2]), c[1].min(c[3]), c[0].max(c[2]), c[1].max(c[3])]
}

/// For each box the number of its group, and how many groups there are: boxes of different ones are apart. Models that
/// suppress each class alone move the boxes of a class away from all others.
fn groups(corners: &[[f64; 4]]) -> (Vec<usize>, usize) {
    let mut order: Vec<usize> = (0..corners.len()).collect();
    order.sort_unstable_by(|&p, &q| corners[p][0].total_cmp(&corners[q][0]));
    let (mut group, mut count, mut end) = (vec![0; corners.len()], 0, f64::NEG_INFINITY);
    for i in order {
        let [from, _, to, _] = corners[i];
        (count, end) = if from >= end { (count + 1, to) } else { (count, end.max(to)) };
        group[i] = count - 1;
    }
    (group, count)
}

/// Whether two boxes overlap by no more than `iou`, the quotient of their common area and that of both. `separable`: all
/// is finite, and boxes that are apart, which most are, overlap by no more.
fn within(a: &[f64; 4], b: &[f64; 4], iou: f64, separable: bool) -> bool {
    if separable && (a[2] <= b[0] || b[2] <= a[0] || a[3] <= b[1] || b[3] <= a[1]) {
        return true;
    }
    let side = |lo: usize, hi: usize| (a[hi].min(b[hi]) - a[lo].max(b[lo])).max(0.0);
    let area = |r: &[f64; 4]| (r[2] - r[0]) * (r[3] - r[1]);
    let common = side(0, 2) * side(1, 3);
    let union = area(a) + area(b) - common;
    (if union <= 0.0 { 0.0 } else { common / union }) <= iou
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::apply;
    use ir::Attrs;
    use proptest::prelude::*;

    fn suppressed(boxes: &[f32], scores: &[f32], most: i64, iou: f32, centered: i64) -> Vec<i64> {
        let n = scores.len();
        let inputs = [
            Tensor::new(&[1, n, 4], boxes.to_vec()).unwrap(),
            Tensor::new(&[1, 1, n], scores.to_vec()).unwrap(),
            Tensor::vector(vec![most]),
            Tensor::vector(vec![iou]),
        ];
        let attrs = Attrs::new().with("center_point_box", centered);
        let picked = apply("NonMaxSuppression", attrs, &inputs).unwrap().to_i64s().unwrap();
        picked.chunks_exact(3).map(|p| p[2]).collect()
    }

    /// By the definition: every box against all that are kept.
    fn plain(boxes: &[f32], scores: &[f32], most: i64, iou: f32, centered: i64) -> Vec<i64> {
        let corners: Vec<[f64; 4]> = boxes
            .chunks_exact(4)
            .map(|c| corner(&[c[0], c[1], c[2], c[3]].map(f64::from), centered != 0))
            .collect();
        let mut order: Vec<usize> = (0..scores.len()).collect();
        order.sort_by(|&p, &q| scores[q].total_cmp(&scores[p]).then(p.cmp(&q)));
        let mut kept: Vec<i64> = Vec::new();
        for i in order {
            let fits = |&k: &i64| within(&corners[k as usize], &corners[i], f64::from(iou), false);
            if (kept.len() as i64) < most && kept.iter().all(fits) {
                kept.push(i as i64);
            }
        }
        kept
    }

    proptest! {
        #[test]
        fn groups_of_boxes_change_nothing(
            boxes in prop::collection::vec(-8i8..8, 4 * 24),
            scores in prop::collection::vec(0u8..9, 24),
            (far, most) in (prop::bool::ANY, 0i64..30),
            iou in prop::sample::select(vec![-0.5f32, 0.0, 0.3, 0.7, f32::NAN]),
            infinite in prop::bool::weighted(0.2),
            centered in 0i64..2,
        ) {
            let step = if far { 9.0 } else { 1.0 };
            let mut boxes: Vec<f32> =
                boxes.iter().enumerate().map(|(i, &x)| f32::from(x) + step * (i / 16) as f32).collect();
            if infinite {
                (boxes[9], boxes[22]) = (f32::INFINITY, f32::NAN);
            }
            let scores: Vec<f32> = scores.iter().map(|&s| f32::from(s)).collect();
            prop_assert_eq!(
                suppressed(&boxes, &scores, most, iou, centered),
                plain(&boxes, &scores, most, iou, centered)
            );
        }
    }

    #[test]
    fn places_of_what_is_not_zero() {
        let places = |shape: &[usize], x: Vec<f32>| {
            let y = apply("NonZero", Attrs::new(), &[Tensor::new(shape, x).unwrap()]).unwrap();
            (y.shape().to_vec(), y.to_i64s().unwrap())
        };
        let x = vec![0.0, 1.0, -0.0, f32::NAN, 0.0, 2.0];
        assert_eq!(places(&[2, 3], x), (vec![2, 3], vec![0, 1, 1, 1, 0, 2]));
        assert_eq!(places(&[], vec![3.0]), (vec![1, 1], vec![0]));
        assert_eq!(places(&[], vec![0.0]), (vec![1, 0], vec![]));
        assert_eq!(places(&[2, 0, 3], vec![]), (vec![3, 0], vec![]));
    }
}
