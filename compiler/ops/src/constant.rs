//! Tensors made from attributes and sizes.

use crate::broadcast::axis;
use crate::cast::cast;
use crate::expr::evaluate;
use crate::movement::{assemble, gather, volume};
use crate::typing::{list, one, tensor_type};
use crate::{Op, schema};
use ir::{
    Accuracy, Attr, Attrs, DType, Dim, Error, EvalCx, Expr, InferCx, Kind, Operator, Result, Tensor, Value,
    ValueType, budget,
};

pub static OPERATORS: &[&dyn Operator] = &[
    &Op::new(
        "Constant",
        &schema::CONSTANT,
        |cx| Ok(vec![ValueType::of(&constant(cx.attrs)?)]),
        |cx| Ok(one(constant(cx.attrs)?)),
    ),
    &Op::new("ConstantOfShape", &schema::CONSTANT_OF_SHAPE, infer_filled, eval_filled)
        .shape_value(|cx| {
            let &[n] = cx.ints(0)?.as_slice() else { return None };
            let v = usize::try_from(*fill(cx.attrs).ok()?.to_i64s().ok()?.first()?).ok()?;
            Some(vec![Dim::Known(v); usize::try_from(n).ok().filter(|&n| n < 4096)?])
        })
        .kind(|_| Kind::Movement),
    &Op::new("Range", &schema::RANGE, infer_range, eval_range),
    &Op::new("EyeLike", &schema::EYE_LIKE, infer_eye, eval_eye).accuracy(Accuracy::Exact),
    &Op::new("OneHot", &schema::ONE_HOT, infer_one_hot, eval_one_hot).accuracy(Accuracy::Exact),
];

/// The value of a Constant node, in all attribute forms.
fn constant(attrs: &Attrs) -> Result<Tensor> {
    let mut given = attrs.iter();
    let (Some((name, value)), None) = (given.next(), given.next()) else {
        return Err(Error::model("must have exactly one attribute"));
    };
    match (name, value) {
        ("value" | "sparse_value", Attr::Tensor(t)) => Ok(t.clone()),
        ("value_float", Attr::Float(x)) => Ok(Tensor::scalar(*x)),
        ("value_floats", Attr::Floats(x)) => Ok(Tensor::vector(x.clone())),
        ("value_int", Attr::Int(x)) => Ok(Tensor::scalar(*x)),
        ("value_ints", Attr::Ints(x)) => Ok(Tensor::vector(x.clone())),
        ("value_string", Attr::Str(s)) => Tensor::strings(&[], vec![s.clone()]),
        ("value_strings", Attr::Strs(s)) => Tensor::strings(&[s.len()], s.clone()),
        (n, _) => Err(Error::model(format!("attribute '{n}' is not a form of Constant"))),
    }
}

fn fill(attrs: &Attrs) -> Result<Tensor> {
    match attrs.tensor("value")? {
        Some(t) if t.len() == 1 => t.reshaped(&[1]),
        Some(t) => Err(Error::model(format!("value must have one element, has shape {:?}", t.shape()))),
        None => Ok(Tensor::vector(vec![0f32])),
    }
}

fn infer_filled(cx: &InferCx) -> Result<Vec<ValueType>> {
    let rank = cx.shape(0).and_then(|s| s.first()).and_then(Dim::known).filter(|&r| r <= budget::MAX_RANK);
    let shape = cx.dims(0).or_else(|| rank.map(|r| vec![Dim::Unknown; r]));
    Ok(vec![tensor_type(Some(fill(cx.attrs)?.dtype()), shape)])
}

fn sizes(raw: &[i64]) -> Result<Vec<usize>> {
    raw.iter()
        .map(|&d| usize::try_from(d).map_err(|_| Error::model(format!("dimension {d} is negative"))))
        .collect()
}

fn eval_filled(cx: &EvalCx) -> Result<Vec<Value>> {
    let (shape, value) = (sizes(&list(cx, 0)?)?, fill(cx.attrs)?);
    budget::bytes(value.dtype(), &shape)?;
    if value.bytes().iter().all(|&b| b == 0) && value.dtype() != DType::String {
        return Ok(one(Tensor::zeros(value.dtype(), &shape)?));
    }
    let n = budget::elements(&shape)?;
    Ok(one(gather(&value, &shape, std::iter::repeat_n(0, n))?))
}

fn infer_range(cx: &InferCx) -> Result<Vec<ValueType>> {
    let n = match (cx.constant(0), cx.constant(1), cx.constant(2)) {
        (Some(a), Some(b), Some(c)) => Dim::Known(range_len(a, b, c)?),
        _ => match (cx.dims(0), cx.dims(1), cx.ints(2)) {
            // 0..n in steps of 1 has the size that n names.
            (Some(a), Some(b), Some(c)) if a == [Dim::Known(0)] && c == [1] && b.len() == 1 => b[0].clone(),
            _ => Dim::Unknown,
        },
    };
    Ok(vec![tensor_type(cx.dtype(0)?, Some(vec![n]))])
}

/// max(ceil((limit − start) / delta), 0)
fn range_len(start: &Tensor, limit: &Tensor, delta: &Tensor) -> Result<usize> {
    if [start, limit, delta].iter().any(|t| t.len() != 1 || t.dtype() != start.dtype()) {
        return Err(Error::model("start, limit and delta must be scalars of one type"));
    }
    let n = if start.dtype().is_int() {
        let at = |t: &Tensor| t.to_i64s().map(|v| i128::from(v[0]));
        let (a, b, d) = (at(start)?, at(limit)?, at(delta)?);
        if d == 0 {
            return Err(Error::model("delta is 0"));
        }
        let span = if d > 0 { b - a } else { a - b };
        if span <= 0 { 0 } else { (span + d.abs() - 1) / d.abs() }
    } else {
        let at = |t: &Tensor| t.to_f64s().map(|v| v[0]);
        let n = ((at(limit)? - at(start)?) / at(delta)?).ceil();
        if !n.is_finite() {
            return Err(Error::model(format!("a range of {n} elements")));
        }
        n.max(0.0) as i128
    };
    let n = usize::try_from(n).map_err(|_| Error::limit("the range is too long"))?;
    budget::bytes(start.dtype(), &[n])?;
    Ok(n)
}

fn eval_range(cx: &EvalCx) -> Result<Vec<Value>> {
    let (start, limit, delta) = (cx.tensor(0)?, cx.tensor(1)?, cx.tensor(2)?);
    let n = range_len(start, limit, delta)?;
    budget::check(n.saturating_mul(16))?;
    let dtype = start.dtype();
    if dtype.is_int() {
        let (a, d) = (start.to_i64s()?[0], delta.to_i64s()?[0]);
        let v = (0..n as i64).map(|i| a.wrapping_add(i.wrapping_mul(d))).collect();
        return Ok(one(Tensor::from_i64s(dtype, &[n], v)?));
    }
    // Half types count in float32 (or float64) and round once at the end.
    let wide = match (dtype, cx.attrs.int_or("stash_type", 1)?) {
        (DType::F16 | DType::BF16, 1) => DType::F32,
        (DType::F16 | DType::BF16, 11) => DType::F64,
        (DType::F16 | DType::BF16, t) => return Err(Error::model(format!("stash_type {t} is not 1 or 11"))),
        _ => dtype,
    };
    let i = Tensor::from_f64s(wide, &[n], (0..n).map(|i| i as f64).collect())?;
    let (a, d) = (cast(&start.reshaped(&[])?, wide, true)?, cast(&delta.reshaped(&[])?, wide, true)?);
    let y = evaluate(&(Expr::In(1) + Expr::In(0) * Expr::In(2)), &[&i, &a, &d])?;
    Ok(one(cast(&y, dtype, true)?))
}

fn eye_dtype(attrs: &Attrs, input: Option<DType>) -> Result<Option<DType>> {
    Ok(if attrs.has("dtype") {
        let d = attrs.require_int("dtype")?;
        Some(
            i32::try_from(d)
                .ok()
                .and_then(DType::from_onnx)
                .ok_or_else(|| Error::unsupported(format!("element type number {d}")))?,
        )
    } else {
        input
    })
}

fn infer_eye(cx: &InferCx) -> Result<Vec<ValueType>> {
    Ok(vec![tensor_type(eye_dtype(cx.attrs, cx.dtype(0)?)?, cx.shape(0).map(<[Dim]>::to_vec))])
}

fn eval_eye(cx: &EvalCx) -> Result<Vec<Value>> {
    let x = cx.tensor(0)?;
    let [rows, columns] = *x.shape() else { return Err(Error::model("input must have 2 dims")) };
    let k = cx.attrs.int_or("k", 0)?;
    let dtype = eye_dtype(cx.attrs, Some(x.dtype()))?.unwrap_or(DType::F32);
    budget::bytes(DType::F64, x.shape())?;
    let v = (0..rows * columns)
        .map(|i| f64::from(u8::from((i % columns) as i64 - (i / columns) as i64 == k)))
        .collect();
    let t = Tensor::new::<f64>(x.shape(), v)?;
    Ok(one(cast(&t, dtype, true)?))
}

fn infer_one_hot(cx: &InferCx) -> Result<Vec<ValueType>> {
    let shape = match cx.shape(0) {
        Some(s) => {
            let a = axis(cx.attrs.int_or("axis", -1)?, s.len() + 1)?;
            let depth = cx.constant(1).and_then(|t| t.to_f64s().ok()).and_then(|v| v.first().copied());
            let mut s = s.to_vec();
            s.insert(a, depth.filter(|d| *d >= 0.0).map_or(Dim::Unknown, |d| Dim::Known(d as usize)));
            Some(s)
        }
        None => None,
    };
    Ok(vec![tensor_type(cx.dtype(2)?, shape)])
}

fn eval_one_hot(cx: &EvalCx) -> Result<Vec<Value>> {
    let (indices, values) = (cx.tensor(0)?, cx.tensor(2)?);
    let depth = cx.tensor(1)?.to_f64s()?.first().copied().unwrap_or(-1.0);
    if !(0.0..1e15).contains(&depth) || values.shape() != [2] {
        return Err(Error::model("depth must be a size and values [off, on]"));
    }
    let depth = depth as usize;
    let a = axis(cx.attrs.int_or("axis", -1)?, indices.rank() + 1)?;
    let mut shape = indices.shape().to_vec();
    shape.insert(a, depth);
    budget::bytes(values.dtype(), &shape)?;
    let inner = volume(&shape[a + 1..]);
    let raw = indices.to_f64s()?;
    let n = depth as f64;
    let hot: Vec<Option<usize>> = raw
        .iter()
        .map(|&i| {
            let j = if i < 0.0 { i + n } else { i };
            (0.0..n).contains(&j).then_some(j as usize)
        })
        .collect();
    let runs = (0..budget::elements(&shape)?).map(|i| {
        let (outer, d, j) = (i / (inner * depth), i / inner % depth, i % inner);
        (0, usize::from(hot[outer * inner + j] == Some(d)), 1)
    });
    Ok(one(assemble(&[values], &shape, runs)?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::apply;

    fn range(a: i64, b: i64, d: i64) -> Result<Vec<i64>> {
        apply("Range", Attrs::new(), &[a, b, d].map(Tensor::scalar))?.to_i64s()
    }

    #[test]
    fn ranges_end_before_their_limit() {
        assert_eq!(range(3, 9, 3).unwrap(), [3, 6]);
        assert_eq!(range(10, 4, -2).unwrap(), [10, 8, 6]);
        assert_eq!(range(1, 1, 1).unwrap(), Vec::<i64>::new());
        assert_eq!(range(i64::MIN, i64::MAX, i64::MAX).unwrap(), [i64::MIN, -1, i64::MAX - 1]);
        assert!(range(0, 5, 0).is_err() && range(i64::MIN, i64::MAX, 1).is_err());
        let f = [0f32, 1.0, 0.25].map(Tensor::scalar);
        let y = apply("Range", Attrs::new(), &f).unwrap();
        assert_eq!(y.to_f64s().unwrap(), [0.0, 0.25, 0.5, 0.75]);
        let nan = [0f32, f32::NAN, 0.25].map(Tensor::scalar);
        assert!(apply("Range", Attrs::new(), &nan).is_err());
    }

    #[test]
    fn one_hot_wraps_negatives_and_leaves_strangers_cold() {
        let inputs = |depth: i64| {
            [Tensor::vector(vec![-1i64, 5, 0]), Tensor::scalar(depth), Tensor::vector(vec![0i64, 7])]
        };
        let y = apply("OneHot", Attrs::new().with("axis", 0), &inputs(2)).unwrap();
        assert_eq!((y.shape(), y.to_i64s().unwrap()), (&[2, 3][..], vec![0, 0, 7, 7, 0, 0]));
        assert!(apply("OneHot", Attrs::new(), &inputs(-1)).is_err());
        assert!(apply("OneHot", Attrs::new(), &inputs(1 << 60)).is_err());
    }

    #[test]
    fn fills_of_impossible_size_are_refused() {
        let fill = |v: Vec<i64>| apply("ConstantOfShape", Attrs::new(), &[Tensor::vector(v)]);
        assert_eq!(fill(vec![2, 0]).unwrap().shape(), [2, 0]);
        assert!(
            fill(vec![-1]).is_err() && fill(vec![1 << 40, 1 << 40]).is_err() && fill(vec![1; 70]).is_err()
        );
    }
}
