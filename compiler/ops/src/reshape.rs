//! The same elements under another shape, and repetitions of them.

use crate::broadcast::{axis, broadcast_dims, broadcast_shapes, broadcast_strides};
use crate::movement::{strided, volume};
use crate::typing::{list, one, tensor_type};
use crate::{Op, schema};
use ir::{Accuracy, Dim, Error, EvalCx, InferCx, Kind, Operator, Result, Shape, Value, ValueType, budget};

macro_rules! row {
    ($name:literal, $sig:ident, $infer:ident, $eval:ident) => {
        Op::new($name, &schema::$sig, $infer, $eval).kind(|_| Kind::Movement).accuracy(Accuracy::Exact)
    };
}

pub static OPERATORS: &[&dyn Operator] = &[
    &row!("Reshape", RESHAPE, infer_reshape, eval_reshape).shape_value(|cx| cx.dims(0)),
    &row!("Flatten", FLATTEN, infer_flatten, eval_flatten).shape_value(|cx| cx.dims(0)),
    &row!("Squeeze", SQUEEZE, infer_squeeze, eval_squeeze).shape_value(|cx| cx.dims(0)),
    &row!("Unsqueeze", UNSQUEEZE, infer_unsqueeze, eval_unsqueeze).shape_value(|cx| cx.dims(0)),
    &row!("Expand", EXPAND, infer_expand, eval_expand),
    &row!("Tile", TILE, infer_tile, eval_tile),
];

fn product(dims: &[Dim]) -> Option<usize> {
    dims.iter().try_fold(1usize, |n, d| n.checked_mul(d.known()?))
}

/// Target of a Reshape: 0 copies (unless `allowzero`), −1 takes what is left.
fn infer_reshape(cx: &InferCx) -> Result<Vec<ValueType>> {
    let dtype = cx.dtype(0)?;
    let allow_zero = cx.attrs.int_or("allowzero", 0)? != 0;
    let Some(raw) = targets(cx) else {
        let rank =
            cx.shape(1).and_then(|s| s.first()).and_then(Dim::known).filter(|&r| r <= budget::MAX_RANK);
        return Ok(vec![tensor_type(dtype, rank.map(|r| vec![Dim::Unknown; r]))]);
    };
    let input = cx.shape(0);
    let mut out: Vec<Dim> = Vec::new();
    for (i, t) in raw.iter().enumerate() {
        out.push(match t {
            Target::Size(0) if !allow_zero => match input {
                Some(s) => s
                    .get(i)
                    .cloned()
                    .ok_or_else(|| Error::model(format!("dimension {i} to copy does not exist")))?,
                None => Dim::Unknown,
            },
            Target::Size(n) => Dim::Known(*n),
            Target::Named(d) => d.clone(),
            Target::Rest => Dim::Unknown,
        });
    }
    // An entry of unknown size is what is left over as well, be it written as −1 or as its size, if it is the only one.
    let mut open = (0..out.len()).filter(|&i| match raw[i] {
        Target::Rest => true,
        Target::Named(Dim::Unknown) => !raw.iter().any(|t| matches!(t, Target::Rest)),
        _ => false,
    });
    if let (Some(rest), None, Some(s)) = (open.next(), open.next(), input) {
        out[rest] = remaining(s, &out, rest)?;
    }
    Ok(vec![tensor_type(dtype, Some(out))])
}

enum Target {
    Size(usize),
    Named(Dim),
    Rest,
}

fn targets(cx: &InferCx) -> Option<Vec<Target>> {
    if let Some(v) = cx.ints(1) {
        return v
            .into_iter()
            .map(|x| match x {
                -1 => Some(Target::Rest),
                x => usize::try_from(x).ok().map(Target::Size),
            })
            .collect();
    }
    // Shape arithmetic with names; an entry that is not known could be −1 as well as a size.
    let d = cx.dims(1)?;
    Some(
        d.into_iter()
            .map(|d| match d {
                Dim::Known(n) => Target::Size(n),
                d => Target::Named(d),
            })
            .collect(),
    )
}

/// What −1 stands for: equal dims cancel on both sides, the rest must divide.
fn remaining(input: &[Dim], out: &[Dim], rest: usize) -> Result<Dim> {
    let mut left: Vec<Dim> = input.to_vec();
    let mut right: Vec<Dim> =
        out.iter().enumerate().filter(|(i, _)| *i != rest).map(|(_, d)| d.clone()).collect();
    right.retain(|d| match left.iter().position(|l| l == d && *d != Dim::Unknown) {
        Some(p) => {
            left.remove(p);
            false
        }
        None => true,
    });
    Ok(match (product(&left), product(&right)) {
        (Some(_), Some(0)) => Dim::Unknown,
        (Some(a), Some(b)) if a % b == 0 => Dim::Known(a / b),
        (Some(a), Some(b)) => {
            return Err(Error::model(format!("{a} elements do not divide into groups of {b}")));
        }
        _ if left.len() == 1 && right.is_empty() => left.remove(0),
        // One open size, and as many elements beside it as are asked for.
        (None, Some(b)) if b > 0 => {
            let (known, mut open): (Vec<Dim>, Vec<Dim>) = left.into_iter().partition(|d| d.known().is_some());
            match (open.pop(), open.is_empty(), product(&known)) {
                (Some(d), true, Some(a)) if a == b => d,
                _ => Dim::Unknown,
            }
        }
        _ => Dim::Unknown,
    })
}

fn eval_reshape(cx: &EvalCx) -> Result<Vec<Value>> {
    let (x, raw) = (cx.tensor(0)?, list(cx, 1)?);
    let allow_zero = cx.attrs.int_or("allowzero", 0)? != 0;
    if raw.iter().filter(|&&d| d == -1).count() > 1 {
        return Err(Error::model(format!("shape {raw:?} has more than one -1")));
    }
    let mut shape = Shape::new();
    for (i, &d) in raw.iter().enumerate() {
        shape.push(match d {
            0 if !allow_zero => *x
                .shape()
                .get(i)
                .ok_or_else(|| Error::model(format!("dimension {i} to copy does not exist")))?,
            -1 => 1,
            d => usize::try_from(d).map_err(|_| Error::model(format!("bad dimension {d}")))?,
        });
    }
    if let Some(rest) = raw.iter().position(|&d| d == -1) {
        let known = budget::elements(&shape)?;
        if known == 0 || x.len() % known != 0 {
            return Err(Error::model(format!("cannot view shape {:?} as {raw:?}", x.shape())));
        }
        shape[rest] = x.len() / known;
    }
    Ok(one(x.reshaped(&shape)?))
}

/// Split point of a Flatten; the rank itself is allowed.
fn flatten_axis(a: i64, rank: usize) -> Result<usize> {
    if a == rank as i64 { Ok(rank) } else { axis(a, rank) }
}

fn infer_flatten(cx: &InferCx) -> Result<Vec<ValueType>> {
    let shape = match cx.shape(0) {
        Some(s) => {
            let a = flatten_axis(cx.attrs.int_or("axis", 1)?, s.len())?;
            let side = |d: &[Dim]| match product(d) {
                Some(n) => Dim::Known(n),
                None => {
                    let mut open = d.iter().filter(|d| **d != Dim::Known(1));
                    match (open.next(), open.next()) {
                        (Some(d), None) => d.clone(),
                        _ => Dim::Unknown,
                    }
                }
            };
            vec![side(&s[..a]), side(&s[a..])]
        }
        None => vec![Dim::Unknown, Dim::Unknown],
    };
    Ok(vec![tensor_type(cx.dtype(0)?, Some(shape))])
}

fn eval_flatten(cx: &EvalCx) -> Result<Vec<Value>> {
    let x = cx.tensor(0)?;
    let a = flatten_axis(cx.attrs.int_or("axis", 1)?, x.rank())?;
    Ok(one(x.reshaped(&[volume(&x.shape()[..a]), volume(&x.shape()[a..])])?))
}

/// Distinct axes, sorted.
fn axes(raw: &[i64], rank: usize) -> Result<Vec<usize>> {
    let mut v: Vec<usize> = raw.iter().map(|&a| axis(a, rank)).collect::<Result<_>>()?;
    v.sort_unstable();
    if v.windows(2).any(|w| w[0] == w[1]) {
        return Err(Error::model(format!("axes {raw:?} name one twice")));
    }
    Ok(v)
}

fn infer_squeeze(cx: &InferCx) -> Result<Vec<ValueType>> {
    let dtype = cx.dtype(0)?;
    let (Some(s), known) = (cx.shape(0), cx.ints(1)) else { return Ok(vec![tensor_type(dtype, None)]) };
    let shape = match (cx.has(1), known) {
        (true, None) => None,
        (true, Some(a)) => {
            let a = axes(&a, s.len())?;
            if let Some(i) = a.iter().find(|&&i| s[i].known().is_some_and(|d| d != 1)) {
                return Err(Error::model(format!("dimension {i} is {}, not 1", s[*i])));
            }
            Some(s.iter().enumerate().filter(|(i, _)| !a.contains(i)).map(|(_, d)| d.clone()).collect())
        }
        // Which dims go depends on their sizes.
        (false, _) if s.iter().all(|d| d.known().is_some()) => {
            Some(s.iter().filter(|d| **d != Dim::Known(1)).cloned().collect())
        }
        (false, _) => None,
    };
    Ok(vec![tensor_type(dtype, shape)])
}

fn eval_squeeze(cx: &EvalCx) -> Result<Vec<Value>> {
    let x = cx.tensor(0)?;
    let drop = match cx.has(1).then(|| list(cx, 1)).transpose()? {
        Some(a) => axes(&a, x.rank())?,
        None => (0..x.rank()).filter(|&i| x.shape()[i] == 1).collect(),
    };
    if let Some(i) = drop.iter().find(|&&i| x.shape()[i] != 1) {
        return Err(Error::model(format!("dimension {i} is {}, not 1", x.shape()[*i])));
    }
    let shape: Shape = (0..x.rank()).filter(|i| !drop.contains(i)).map(|i| x.shape()[i]).collect();
    Ok(one(x.reshaped(&shape)?))
}

fn unsqueezed<T: Clone>(shape: &[T], raw: &[i64], unit: T) -> Result<Vec<T>> {
    if shape.len() + raw.len() > budget::MAX_RANK {
        return Err(Error::limit("too many dimensions"));
    }
    let mut out = shape.to_vec();
    for a in axes(raw, shape.len() + raw.len())? {
        out.insert(a, unit.clone());
    }
    Ok(out)
}

fn infer_unsqueeze(cx: &InferCx) -> Result<Vec<ValueType>> {
    let shape = match (cx.shape(0), cx.ints(1)) {
        (Some(s), Some(a)) => Some(unsqueezed(s, &a, Dim::Known(1))?),
        _ => None,
    };
    Ok(vec![tensor_type(cx.dtype(0)?, shape)])
}

fn eval_unsqueeze(cx: &EvalCx) -> Result<Vec<Value>> {
    let x = cx.tensor(0)?;
    Ok(one(x.reshaped(&unsqueezed(x.shape(), &list(cx, 1)?, 1)?)?))
}

fn infer_expand(cx: &InferCx) -> Result<Vec<ValueType>> {
    let shape = match (cx.shape(0), cx.dims(1)) {
        (Some(s), Some(t)) => Some(broadcast_dims(&[s, &t])?),
        _ => None,
    };
    Ok(vec![tensor_type(cx.dtype(0)?, shape)])
}

fn sizes(raw: &[i64]) -> Result<Shape> {
    raw.iter()
        .map(|&d| usize::try_from(d).map_err(|_| Error::model(format!("dimension {d} is negative"))))
        .collect()
}

fn eval_expand(cx: &EvalCx) -> Result<Vec<Value>> {
    let x = cx.tensor(0)?;
    let shape = broadcast_shapes(&[x.shape(), &sizes(&list(cx, 1)?)?])?;
    let steps: Vec<isize> = broadcast_strides(x.shape(), &shape).into_iter().map(|s| s as isize).collect();
    Ok(one(strided(x, &shape, 0, &steps)?))
}

fn infer_tile(cx: &InferCx) -> Result<Vec<ValueType>> {
    let shape = match (cx.shape(0), cx.ints(1)) {
        (Some(s), Some(r)) if s.len() == r.len() => Some(
            s.iter()
                .zip(sizes(&r)?)
                .map(|(d, r)| match d {
                    Dim::Known(n) => {
                        n.checked_mul(r).map(Dim::Known).ok_or_else(|| Error::limit("a dimension overflows"))
                    }
                    d if r == 1 => Ok(d.clone()),
                    _ => Ok(Dim::Unknown),
                })
                .collect::<Result<Vec<_>>>()?,
        ),
        (Some(s), Some(r)) => {
            return Err(Error::model(format!("{} repeats for {} dimensions", r.len(), s.len())));
        }
        (Some(s), None) => Some(vec![Dim::Unknown; s.len()]),
        _ => None,
    };
    Ok(vec![tensor_type(cx.dtype(0)?, shape)])
}

fn eval_tile(cx: &EvalCx) -> Result<Vec<Value>> {
    let (x, repeats) = (cx.tensor(0)?, sizes(&list(cx, 1)?)?);
    if repeats.len() != x.rank() {
        return Err(Error::model(format!("{} repeats for {} dimensions", repeats.len(), x.rank())));
    }
    // Each dim splits into (repeat, size) with stride 0 on the repeat.
    let (mut split, mut steps, mut shape) = (Vec::new(), Vec::new(), Shape::new());
    for ((&d, &r), s) in x.shape().iter().zip(&repeats).zip(crate::movement::strides(x.shape())) {
        split.extend([r, d]);
        steps.extend([0, s as isize]);
        shape.push(d.checked_mul(r).ok_or_else(|| Error::limit("a dimension overflows"))?);
    }
    budget::elements(&shape)?;
    Ok(one(strided(x, &split, 0, &steps)?.reshaped(&shape)?))
}
