//! ScatterElements and ScatterND with reductions.

use crate::broadcast::axis;
use crate::expr::evaluate;
use crate::gather::{nd_offsets, wrap_index};
use crate::movement::{assemble, for_each, strides};
use crate::typing::{like_first, one};
use crate::{Op, schema};
use ir::{Binary, Error, EvalCx, Expr, Operator, Result, Tensor, Value, budget};

pub static OPERATORS: &[&dyn Operator] = &[
    &Op::new("ScatterElements", &schema::SCATTER_ELEMENTS, like_first, eval_elements),
    &Op::new("ScatterND", &schema::SCATTER_ND, like_first, eval_nd),
];

fn reduction(cx: &EvalCx) -> Result<Option<Binary>> {
    Ok(match cx.attrs.str_or("reduction", "none")? {
        "none" => None,
        "add" => Some(Binary::Add),
        "mul" => Some(Binary::Mul),
        "max" => Some(Binary::Max),
        "min" => Some(Binary::Min),
        r => return Err(Error::model(format!("unknown reduction '{r}'"))),
    })
}

/// Writes update `k` (a run of elements) at element `at[k]`, in order.
fn scatter(x: &Tensor, updates: &Tensor, at: &[usize], run: usize, op: Option<Binary>) -> Result<Tensor> {
    if updates.dtype() != x.dtype() || at.len().checked_mul(run) != Some(updates.len()) {
        return Err(Error::model(format!("updates {:?} do not fit", updates.shape())));
    }
    let mut from: Vec<Option<usize>> = budget::filled(x.len(), None)?;
    let Some(op) = op else {
        for (k, &a) in at.iter().enumerate() {
            (0..run).for_each(|j| from[a + j] = Some(k * run + j));
        }
        let runs = from.into_iter().enumerate().map(|(i, f)| f.map_or((0, i, 1), |u| (1, u, 1)));
        return assemble(&[x, updates], x.shape(), runs);
    };
    // Several updates may meet one element: apply them in rounds, each round at most one per element.
    let mut rounds: Vec<Vec<(usize, usize)>> = Vec::new();
    let mut depth: Vec<u32> = budget::filled(x.len(), 0)?;
    for (k, &a) in at.iter().enumerate() {
        for j in 0..run {
            let d = depth[a + j] as usize;
            depth[a + j] += 1;
            if rounds.len() == d {
                rounds.push(Vec::new());
            }
            rounds[d].push((a + j, k * run + j));
        }
    }
    let mut y = x.reshaped(&[x.len()])?;
    let flat = updates.reshaped(&[updates.len()])?;
    for round in rounds {
        let n = round.len();
        let left = crate::movement::gather(&y, &[n], round.iter().map(|r| r.0))?;
        let right = crate::movement::gather(&flat, &[n], round.iter().map(|r| r.1))?;
        let new = evaluate(&Expr::binary(op, Expr::In(0), Expr::In(1)), &[&left, &right])?;
        let mut to: Vec<Option<usize>> = vec![None; y.len()];
        round.iter().enumerate().for_each(|(i, r)| to[r.0] = Some(i));
        let runs = to.into_iter().enumerate().map(|(i, f)| f.map_or((0, i, 1), |u| (1, u, 1)));
        y = assemble(&[&y, &new], &[x.len()], runs)?;
    }
    y.reshaped(x.shape())
}

fn eval_elements(cx: &EvalCx) -> Result<Vec<Value>> {
    let (x, indices, updates) = (cx.tensor(0)?, cx.tensor(1)?, cx.tensor(2)?);
    let a = axis(cx.attrs.int_or("axis", 0)?, x.rank())?;
    let fits = indices.rank() == x.rank()
        && updates.shape() == indices.shape()
        && (0..x.rank()).all(|d| d == a || indices.shape()[d] <= x.shape()[d]);
    if !fits {
        return Err(Error::model(format!("indices {:?} do not fit data {:?}", indices.shape(), x.shape())));
    }
    let (own, values) = (strides(x.shape()), indices.to_i64s()?);
    let (mut at, mut bad, mut k) = (budget::vec(values.len())?, None, 0);
    for_each(indices.shape(), |i| {
        match wrap_index(values[k], x.shape()[a]) {
            Ok(j) => at.push(i.iter().enumerate().map(|(d, &i)| own[d] * if d == a { j } else { i }).sum()),
            Err(e) => bad = Some(e),
        }
        k += 1;
    });
    match bad {
        Some(e) => Err(e),
        None => Ok(one(scatter(x, updates, &at, 1, reduction(cx)?)?)),
    }
}

fn eval_nd(cx: &EvalCx) -> Result<Vec<Value>> {
    let (x, indices, updates) = (cx.tensor(0)?, cx.tensor(1)?, cx.tensor(2)?);
    let (at, _, run) = nd_offsets(x.shape(), indices, 0)?;
    Ok(one(scatter(x, updates, &at, run, reduction(cx)?)?))
}
