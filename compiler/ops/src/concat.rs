//! Concat.

use crate::broadcast::axis;
use crate::movement::{assemble, volume};
use crate::typing::{one, tensor_type};
use crate::{Op, schema};
use ir::{Accuracy, Dim, Error, EvalCx, InferCx, Kind, Operator, Result, Tensor, ValueType};

pub static OPERATORS: &[&dyn Operator] = &[&Op::new("Concat", &schema::CONCAT, infer, |cx: &EvalCx| {
    let a = cx.attrs.require_int("axis")?;
    Ok(one(concat(&cx.tensors()?, a)?))
})
.kind(|_| Kind::Movement)
.shape_value(|cx| {
    // Row-major order of the parts is that of the result only for lists.
    cx.rank(0).filter(|&r| r == 1)?;
    let parts: Option<Vec<Vec<Dim>>> = (0..cx.inputs.len()).map(|i| cx.dims(i)).collect();
    Some(parts?.concat())
})
.accuracy(Accuracy::Exact)];

fn infer(cx: &InferCx) -> Result<Vec<ValueType>> {
    let mut out: Option<Vec<Dim>> = None;
    let dtype = cx.dtype(0)?;
    for i in 0..cx.inputs.len() {
        if let (Some(a), Some(b)) = (dtype, cx.dtype(i)?)
            && a != b
        {
            return Err(Error::model(format!("inputs have types {a} and {b}")));
        }
        let Some(s) = cx.shape(i) else { return Ok(vec![tensor_type(dtype, None)]) };
        let a = axis(cx.attrs.require_int("axis")?, s.len())?;
        out = Some(match out {
            None => s.to_vec(),
            Some(acc) => join(acc, s, a)?,
        });
    }
    Ok(vec![tensor_type(dtype, out)])
}

fn join(acc: Vec<Dim>, s: &[Dim], a: usize) -> Result<Vec<Dim>> {
    if acc.len() != s.len() {
        return Err(Error::model("inputs differ in rank"));
    }
    acc.iter()
        .zip(s)
        .enumerate()
        .map(|(i, (x, y))| match (x, y) {
            (Dim::Known(x), Dim::Known(y)) if i == a => {
                x.checked_add(*y).map(Dim::Known).ok_or_else(|| Error::limit("a dimension overflows"))
            }
            _ if i == a => Ok(Dim::Unknown),
            _ => x.merge(y),
        })
        .collect()
}

/// Tensors of one type joined along an axis; all other dims must agree.
pub fn concat(parts: &[&Tensor], raw_axis: i64) -> Result<Tensor> {
    let first = parts.first().ok_or_else(|| Error::model("needs at least one input"))?;
    let a = axis(raw_axis, first.rank())?;
    let mut shape = first.shape().to_vec();
    shape[a] = 0;
    for t in parts {
        let same =
            t.rank() == first.rank() && (0..t.rank()).all(|i| i == a || t.shape()[i] == first.shape()[i]);
        if !same {
            return Err(Error::model(format!(
                "shapes {:?} and {:?} do not join along axis {a}",
                first.shape(),
                t.shape()
            )));
        }
        shape[a] = shape[a].checked_add(t.shape()[a]).ok_or_else(|| Error::limit("a dimension overflows"))?;
    }
    let (outer, inner) = (volume(&shape[..a]), volume(&shape[a + 1..]));
    let runs = (0..outer).flat_map(|o| {
        parts.iter().enumerate().map(move |(p, t)| {
            let len = t.shape()[a] * inner;
            (p, o * len, len)
        })
    });
    assemble(parts, &shape, runs)
}

/// Tensors of one type and shape joined along a new axis.
pub fn stack(parts: &[&Tensor], raw_axis: i64) -> Result<Tensor> {
    let first = parts.first().ok_or_else(|| Error::model("needs at least one tensor"))?;
    let a = axis(raw_axis, first.rank() + 1)?;
    let wide: Vec<Tensor> = parts
        .iter()
        .map(|t| {
            let mut s = t.shape().to_vec();
            s.insert(a.min(s.len()), 1);
            t.reshaped(&s)
        })
        .collect::<Result<_>>()?;
    concat(&wide.iter().collect::<Vec<_>>(), a as i64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn joins_along_old_and_new_axes() {
        let t = |v: Vec<i64>| Tensor::new(&[2, 1], v).unwrap();
        let (a, b) = (t(vec![1, 2]), t(vec![3, 4]));
        assert_eq!(concat(&[&a, &b], 1).unwrap().to_i64s().unwrap(), [1, 3, 2, 4]);
        let s = stack(&[&a, &b], -1).unwrap();
        assert_eq!((s.shape(), s.to_i64s().unwrap()), (&[2, 1, 2][..], vec![1, 3, 2, 4]));
        assert!(concat(&[&a, &Tensor::vector(vec![1i64])], 0).is_err());
        assert!(concat(&[&a, &Tensor::new::<f32>(&[2, 1], vec![0.0; 2]).unwrap()], 0).is_err());
        // A huge empty tensor takes no time.
        let e = Tensor::new::<i64>(&[1 << 40, 0], vec![]).unwrap();
        assert_eq!(concat(&[&e, &e], 1).unwrap().shape(), [1 << 40, 0]);
    }
}
