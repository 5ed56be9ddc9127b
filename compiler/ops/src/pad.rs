//! Pad in all modes; negative pads crop.

use crate::broadcast::axis;
use crate::movement::{assemble, for_each, gather, strides, volume};
use crate::typing::{list, one, tensor_type};
use crate::{Op, schema};
use ir::{Accuracy, Dim, Error, EvalCx, InferCx, Kind, Operator, Result, Tensor, Value, ValueType, budget};

pub static OPERATORS: &[&dyn Operator] =
    &[&Op::new("Pad", &schema::PAD, infer, eval).kind(|_| Kind::Movement).accuracy(Accuracy::Exact)];

/// Pads beyond this would not fit any tensor, and coordinates could overflow.
const MAX_PAD: u64 = 1 << 48;

/// Elements added before and after each dim.
pub fn pads(rank: usize, raw: &[i64], axes: Option<Vec<i64>>) -> Result<Vec<(i64, i64)>> {
    let axes: Vec<usize> = match axes {
        Some(a) => a.into_iter().map(|a| axis(a, rank)).collect::<Result<_>>()?,
        None => (0..rank).collect(),
    };
    if raw.len() != 2 * axes.len() {
        return Err(Error::model(format!("{} pads for {} axes", raw.len(), axes.len())));
    }
    if let Some(p) = raw.iter().find(|p| p.unsigned_abs() > MAX_PAD) {
        return Err(Error::limit(format!("a pad of {p}")));
    }
    let mut out = vec![(0, 0); rank];
    for (i, &a) in axes.iter().enumerate() {
        out[a] = (raw[i], raw[axes.len() + i]);
    }
    Ok(out)
}

fn padded(n: usize, (before, after): (i64, i64)) -> Result<usize> {
    let size = i64::try_from(n).ok().and_then(|n| n.checked_add(before)).and_then(|n| n.checked_add(after));
    size.and_then(|n| usize::try_from(n).ok())
        .ok_or_else(|| Error::model(format!("pads ({before}, {after}) do not fit a dimension of {n}")))
}

fn infer(cx: &InferCx) -> Result<Vec<ValueType>> {
    let dtype = cx.dtype(0)?;
    let Some(s) = cx.shape(0) else { return Ok(vec![tensor_type(dtype, None)]) };
    let axes = if cx.has(3) { cx.ints(3).map(Some) } else { Some(None) };
    let (Some(raw), Some(axes)) = (cx.ints(1), axes) else {
        return Ok(vec![tensor_type(dtype, Some(vec![Dim::Unknown; s.len()]))]);
    };
    let shape = s
        .iter()
        .zip(pads(s.len(), &raw, axes)?)
        .map(|(d, p)| match d {
            Dim::Known(n) => padded(*n, p).map(Dim::Known),
            d if p == (0, 0) => Ok(d.clone()),
            _ => Ok(Dim::Unknown),
        })
        .collect::<Result<Vec<_>>>()?;
    Ok(vec![tensor_type(dtype, Some(shape))])
}

/// Where a coordinate of the result lies in a dimension of size `n`; `None` is the constant.
fn source(mode: &str, i: i64, n: i64) -> Result<Option<i64>> {
    if (0..n).contains(&i) {
        return Ok(Some(i));
    }
    if mode == "constant" {
        return Ok(None);
    }
    if n == 0 {
        return Err(Error::model("cannot pad an empty dimension from itself"));
    }
    Ok(Some(match mode {
        "edge" => i.clamp(0, n - 1),
        "wrap" => i.rem_euclid(n),
        "reflect" if n == 1 => 0,
        "reflect" => {
            let m = i.rem_euclid(2 * (n - 1));
            if m < n { m } else { 2 * (n - 1) - m }
        }
        m => return Err(Error::model(format!("unknown mode '{m}'"))),
    }))
}

/// A stretch of the last dim: consecutive source elements, or (`None`) fill.
type Segment = (Option<usize>, usize);

fn segments(map: &[Option<usize>]) -> Vec<Segment> {
    let mut out: Vec<Segment> = Vec::new();
    for &m in map {
        match (out.last_mut(), m) {
            (Some((Some(s), len)), Some(m)) if *s + *len == m => *len += 1,
            (Some((None, len)), None) => *len += 1,
            _ => out.push((m, 1)),
        }
    }
    out
}

fn eval(cx: &EvalCx) -> Result<Vec<Value>> {
    let x = cx.tensor(0)?;
    let mode = cx.attrs.str_or("mode", "constant")?;
    let pads = pads(x.rank(), &list(cx, 1)?, cx.has(3).then(|| list(cx, 3)).transpose()?)?;
    let fill = match cx.optional(2)? {
        Some(v) if v.len() == 1 && v.dtype() == x.dtype() => v.reshaped(&[1])?,
        Some(v) => return Err(Error::model(format!("the fill value must be one {}, got {v:?}", x.dtype()))),
        None => Tensor::zeros(x.dtype(), &[1])?,
    };
    Ok(one(pad(x, &pads, mode, &fill)?))
}

/// `x` with elements added before and after each dim; negative pads crop. `fill` is one element.
fn pad(x: &Tensor, pads: &[(i64, i64)], mode: &str, fill: &Tensor) -> Result<Tensor> {
    if !["constant", "edge", "reflect", "wrap"].contains(&mode) {
        return Err(Error::model(format!("unknown mode '{mode}'")));
    }
    let shape: Vec<usize> = x.shape().iter().zip(pads).map(|(&n, &p)| padded(n, p)).collect::<Result<_>>()?;
    budget::bytes(x.dtype(), &shape)?;
    let (Some(&width), false) = (shape.last(), shape.contains(&0)) else {
        return if shape.is_empty() { Ok(x.clone()) } else { Tensor::zeros(x.dtype(), &shape) };
    };
    let maps: Vec<Vec<Option<usize>>> = (0..x.rank())
        .map(|d| {
            let mut map = budget::vec(shape[d])?;
            for i in 0..shape[d] as i64 {
                map.push(source(mode, i - pads[d].0, x.shape()[d] as i64)?.map(|s| s as usize));
            }
            Ok(map)
        })
        .collect::<Result<_>>()?;
    let (own, outer) = (strides(x.shape()), shape.len() - 1);
    let mut bases = budget::vec::<Option<usize>>(volume(&shape[..outer]))?;
    for_each(&shape[..outer], |i| {
        bases.push(i.iter().enumerate().map(|(d, &v)| maps[d][v].map(|s| s * own[d])).sum());
    });
    let (inside, blank) = (segments(&maps[outer]), [(None, width)]);
    let fill = gather(fill, &[width], std::iter::repeat_n(0, width))?;
    let runs = bases.into_iter().flat_map(|base| {
        let parts: &[Segment] = if base.is_some() { &inside } else { &blank };
        parts.iter().map(move |&(s, len)| match (base, s) {
            (Some(b), Some(s)) => (0, b + s, len),
            _ => (1, 0, len),
        })
    });
    assemble(&[x, &fill], &shape, runs)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn padded_list(mode: &str, pads: (i64, i64)) -> Result<Vec<i64>> {
        let x = Tensor::vector(vec![1i64, 2, 3]);
        pad(&x, &[pads], mode, &Tensor::vector(vec![9i64]))?.to_i64s()
    }

    #[test]
    fn modes_say_what_lies_outside() {
        assert_eq!(padded_list("constant", (1, 2)).unwrap(), [9, 1, 2, 3, 9, 9]);
        assert_eq!(padded_list("edge", (2, 1)).unwrap(), [1, 1, 1, 2, 3, 3]);
        assert_eq!(padded_list("reflect", (3, 2)).unwrap(), [2, 3, 2, 1, 2, 3, 2, 1]);
        assert_eq!(padded_list("wrap", (2, 2)).unwrap(), [2, 3, 1, 2, 3, 1, 2]);
        assert_eq!(padded_list("constant", (-1, 1)).unwrap(), [2, 3, 9]);
        assert_eq!(padded_list("edge", (-1, -1)).unwrap(), [2]);
        assert!(padded_list("constant", (-4, 0)).is_err());
        assert!(padded_list("mirror", (1, 0)).is_err());
        assert!(pads(1, &[i64::MIN, i64::MAX], None).is_err());
    }

    #[test]
    fn outer_dims_pad_with_whole_rows() {
        let x = Tensor::from_i64s(ir::DType::I4, &[1, 2], vec![1, 2]).unwrap();
        let fill = Tensor::from_i64s(ir::DType::I4, &[1], vec![-3]).unwrap();
        let y = pad(&x, &[(1, 0), (0, 1)], "constant", &fill).unwrap();
        assert_eq!((y.shape(), y.to_i64s().unwrap()), (&[2, 3][..], vec![-3, -3, -3, 1, 2, -3]));
        let empty = Tensor::new::<f32>(&[0, 1 << 40], vec![]).unwrap();
        let zero = Tensor::vector(vec![0f32]);
        assert_eq!(pad(&empty, &[(0, 0), (0, 0)], "constant", &zero).unwrap().shape(), [0, 1 << 40]);
    }
}
