//! MaxUnpool: puts pooled maxima back where their indices say.

use crate::index::{gather, products};
use crate::typing::{one, tensor_type};
use crate::window::{WindowAttrs, check_product};
use crate::{Op, schema};
use ir::{Accuracy, Attrs, Dim, Error, EvalCx, InferCx, Operator, Result, Shape, Value, ValueType, budget};

pub static OPERATORS: &[&dyn Operator] =
    &[&Op::new("MaxUnpool", &schema::MAX_UNPOOL, infer, eval).accuracy(Accuracy::Exact)];

/// The shape that was pooled: (x−1)·stride − pads + kernel.
fn unpooled(attrs: &Attrs, x: &[usize]) -> Result<Shape> {
    if x.len() < 3 {
        return Err(Error::model(format!(
            "input {x:?} needs a batch, channels and at least one spatial axis"
        )));
    }
    let a = WindowAttrs::parse(attrs, x.len() - 2, None)?;
    let mut shape: Shape = x[..2].into();
    for (i, &n) in x[2..].iter().enumerate() {
        let reach = n.checked_sub(1).and_then(|n| n.checked_mul(a.strides[i]));
        let size = reach.and_then(|r| {
            r.checked_add(a.kernel[i])?.checked_sub(a.pads_begin[i].checked_add(a.pads_end[i])?)
        });
        shape.push(
            size.ok_or_else(|| Error::model(format!("axis {i}: {n} pooled elements cannot be unpooled")))?,
        );
    }
    check_product(shape.iter().copied())?;
    Ok(shape)
}

fn infer(cx: &InferCx) -> Result<Vec<ValueType>> {
    let dtype = cx.dtype(0)?;
    let known: Option<Vec<usize>> = cx.shape(0).and_then(|x| x.iter().map(Dim::known).collect());
    let shape = match (cx.has(2), known) {
        (true, _) => cx.dims(2).or_else(|| cx.rank(0).map(|r| vec![Dim::Unknown; r])),
        (false, Some(x)) => Some(unpooled(cx.attrs, &x)?.into_iter().map(Dim::Known).collect()),
        (false, None) => cx.shape(0).map(|x| {
            let spatial = x.iter().skip(2).map(|_| Dim::Unknown);
            x.iter().take(2).cloned().chain(spatial).collect()
        }),
    };
    Ok(vec![tensor_type(dtype, shape)])
}

fn eval(cx: &EvalCx) -> Result<Vec<Value>> {
    let (x, index) = (cx.tensor(0)?, cx.tensor(1)?);
    if x.shape() != index.shape() {
        return Err(Error::model(format!("indices {:?} do not fit input {:?}", index.shape(), x.shape())));
    }
    let inner = unpooled(cx.attrs, x.shape())?;
    let n = budget::elements(&inner)?;
    budget::bytes(x.dtype(), &inner)?;
    let mut from = budget::filled(n, None)?;
    for (i, &at) in index.to_i64s()?.iter().enumerate() {
        let slot = usize::try_from(at).ok().and_then(|at| from.get_mut(at));
        *slot.ok_or_else(|| Error::data(format!("index {at} is outside {inner:?}")))? = Some(i);
    }
    let y = gather(x, &inner, from.into_iter())?;
    let Some(target) = cx.optional_ints(2)? else { return Ok(one(y)) };
    let target: Option<Shape> = target.iter().map(|&n| usize::try_from(n).ok()).collect();
    let target = target.filter(|t| t.len() == inner.len() && t.iter().zip(&inner).all(|(t, n)| t >= n));
    let target = target.ok_or_else(|| Error::model(format!("output_shape must be at least {inner:?}")))?;
    budget::bytes(x.dtype(), &target)?;
    let steps = crate::index::strides(&inner);
    let tables: Vec<Vec<Option<usize>>> = (0..inner.len())
        .map(|a| (0..target[a]).map(|i| (i < inner[a]).then_some(i * steps[a])).collect())
        .collect();
    Ok(one(gather(&y, &target, products(&tables)?.into_iter())?))
}
