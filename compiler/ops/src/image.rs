//! Images as blocks: Col2Im, and CenterCropPad.

use crate::arith::{Number, by_number};
use crate::broadcast::axis;
use crate::conv_transpose::scatter;
use crate::index::{gather, products, strides};
use crate::typing::{one, tensor_type};
use crate::window::{WindowAttrs, check_product};
use crate::{Op, schema};
use ir::{
    Accuracy, Attrs, Dim, Error, EvalCx, InferCx, Operator, Result, Shape, Tensor, Value, ValueType, budget,
};

pub static OPERATORS: &[&dyn Operator] = &[
    &Op::new("Col2Im", &schema::COL2_IM, infer_col2im, eval_col2im).accuracy(Accuracy::Accumulated),
    &Op::new("CenterCropPad", &schema::CENTER_CROP_PAD, infer_center, eval_center).accuracy(Accuracy::Exact),
];

fn infer_col2im(cx: &InferCx) -> Result<Vec<ValueType>> {
    let dim = |a: usize| cx.shape(0).and_then(|s| s.get(a)).cloned().unwrap_or(Dim::Unknown);
    let block: Option<usize> = cx.ints(2).and_then(|b| {
        b.iter().try_fold(1usize, |n, &b| n.checked_mul(usize::try_from(b).ok()?)).filter(|&n| n > 0)
    });
    let channels = dim(1).known().zip(block).map_or(Dim::Unknown, |(n, b)| Dim::Known(n / b));
    let shape = cx.dims(1).map(|image| [dim(0), channels].into_iter().chain(image).collect());
    Ok(vec![tensor_type(cx.dtype(0)?, shape)])
}

fn lengths(v: &[i64], what: &str) -> Result<Vec<usize>> {
    let all: Option<Vec<usize>> = v.iter().map(|&n| usize::try_from(n).ok()).collect();
    all.ok_or_else(|| Error::model(format!("{what} {v:?} has a negative size")))
}

fn eval_col2im(cx: &EvalCx) -> Result<Vec<Value>> {
    let x = cx.tensor(0)?;
    let (image, block) = (lengths(&cx.ints(1)?, "image_shape")?, lengths(&cx.ints(2)?, "block_shape")?);
    Ok(one(by_number!(x.dtype(), col2im(cx.attrs, x, &image, &block))?))
}

fn col2im<T: Number>(attrs: &Attrs, x: &Tensor, image: &[usize], block: &[usize]) -> Result<Tensor> {
    let bad =
        || Error::model(format!("input {:?}, image {image:?} and block {block:?} do not fit", x.shape()));
    let &[n, rows, windows] = x.shape() else { return Err(bad()) };
    if image.len() != block.len() || image.is_empty() {
        return Err(bad());
    }
    let axes = WindowAttrs::parse(attrs, image.len(), Some(block))?.windows(image)?;
    let taps: usize = axes.iter().map(|w| w.kernel).product();
    if rows % taps != 0 || windows != axes.iter().map(|w| w.output).product::<usize>() {
        return Err(bad());
    }
    let shape: Shape = [n, rows / taps].into_iter().chain(image.iter().copied()).collect();
    check_product(shape.iter().copied())?;
    let mut y = budget::filled(budget::elements(&shape)?, T::ZERO)?;
    let plane: usize = image.iter().product();
    let data = T::read(x)?;
    for (y, x) in y.chunks_exact_mut(plane.max(1)).zip(data.chunks_exact((taps * windows).max(1))) {
        scatter(x, y, &axes);
    }
    T::write(x.dtype(), &shape, y)
}

/// Axes named by the `axes` attribute, all by default.
fn crop_axes(attrs: &Attrs, rank: usize) -> Result<Vec<usize>> {
    match attrs.ints("axes")? {
        Some(a) => a.iter().map(|&a| axis(a, rank)).collect(),
        None => Ok((0..rank).collect()),
    }
}

fn infer_center(cx: &InferCx) -> Result<Vec<ValueType>> {
    let dtype = cx.dtype(0)?;
    let Some(x) = cx.shape(0) else { return Ok(vec![tensor_type(dtype, None)]) };
    let mut shape = x.to_vec();
    let target = cx.dims(1);
    for (i, a) in crop_axes(cx.attrs, x.len())?.into_iter().enumerate() {
        shape[a] = target.as_ref().and_then(|t| t.get(i)).cloned().unwrap_or(Dim::Unknown);
    }
    Ok(vec![tensor_type(dtype, Some(shape))])
}

fn eval_center(cx: &EvalCx) -> Result<Vec<Value>> {
    let x = cx.tensor(0)?;
    let axes = crop_axes(cx.attrs, x.rank())?;
    let target = lengths(&cx.ints(1)?, "shape")?;
    if target.len() != axes.len() {
        return Err(Error::model(format!("shape holds {} sizes for {} axes", target.len(), axes.len())));
    }
    let mut shape: Shape = x.shape().into();
    axes.iter().zip(&target).for_each(|(&a, &n)| shape[a] = n);
    if x.is_empty() || budget::elements(&shape)? == 0 {
        return Ok(one(Tensor::zeros(x.dtype(), &shape)?));
    }
    budget::bytes(x.dtype(), &shape)?;
    let steps = strides(x.shape());
    let table = |a: usize| -> Vec<Option<usize>> {
        let (from, to) = (x.shape()[a], shape[a]);
        let source = |i: usize| match from >= to {
            true => Some(i + (from - to) / 2),
            false => i.checked_sub((to - from) / 2).filter(|&i| i < from),
        };
        (0..to).map(|i| source(i).map(|i| i * steps[a])).collect()
    };
    let tables: Vec<_> = (0..x.rank()).map(table).collect();
    Ok(one(gather(x, &shape, products(&tables)?.into_iter())?))
}
