//! Pad in all modes; negative pads crop.

use crate::broadcast::axis;
use crate::movement::{assemble, for_each, strides};
use crate::typing::{one, tensor_type};
use crate::{Op, schema};
use ir::{Accuracy, Dim, Error, EvalCx, InferCx, Kind, Operator, Result, Tensor, Value, ValueType, budget};

pub static OPERATORS: &[&dyn Operator] =
    &[&Op::new("Pad", &schema::PAD, infer, eval).kind(|_| Kind::Movement).accuracy(Accuracy::Exact)];

/// Elements added before and after each dim.
pub fn pads(rank: usize, raw: &[i64], axes: Option<Vec<i64>>) -> Result<Vec<(i64, i64)>> {
    let axes: Vec<usize> = match axes {
        Some(a) => a.into_iter().map(|a| axis(a, rank)).collect::<Result<_>>()?,
        None => (0..rank).collect(),
    };
    if raw.len() != 2 * axes.len() {
        return Err(Error::model(format!("{} pads for {} axes", raw.len(), axes.len())));
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

fn eval(cx: &EvalCx) -> Result<Vec<Value>> {
    let x = cx.tensor(0)?;
    let mode = cx.attrs.str_or("mode", "constant")?;
    let pads = pads(x.rank(), &cx.ints(1)?, cx.optional_ints(3)?)?;
    let fill = match cx.optional(2)? {
        Some(v) if v.len() == 1 && v.dtype() == x.dtype() => v.reshaped(&[1])?,
        Some(v) => return Err(Error::model(format!("the fill value must be one {}, got {v:?}", x.dtype()))),
        None => Tensor::zeros(x.dtype(), &[1])?,
    };
    let shape: Vec<usize> =
        x.shape().iter().zip(&pads).map(|(&n, &p)| padded(n, p)).collect::<Result<_>>()?;
    budget::bytes(x.dtype(), &shape)?;
    let maps: Vec<Vec<Option<usize>>> = (0..x.rank())
        .map(|d| {
            (0..shape[d] as i64)
                .map(|i| Ok(source(mode, i - pads[d].0, x.shape()[d] as i64)?.map(|s| s as usize)))
                .collect::<Result<Vec<_>>>()
        })
        .collect::<Result<_>>()?;
    let own = strides(x.shape());
    let mut at = budget::vec::<Option<usize>>(budget::elements(&shape)?)?;
    for_each(&shape, |i| {
        let from: Option<usize> = i.iter().enumerate().map(|(d, &v)| maps[d][v].map(|s| s * own[d])).sum();
        at.push(from);
    });
    let runs = at.into_iter().map(|a| a.map_or((1, 0, 1), |i| (0, i, 1)));
    Ok(one(assemble(&[x, &fill], &shape, runs)?))
}
