//! Reductions along axes.

use super::{Cx, axis};
use ir::{Attrs, Result, ValueId};

/// One reduction: its input's shape, with 1 where it was reduced.
struct Reduced {
    shape: Vec<usize>,
    kept: Vec<usize>,
}

impl Reduced {
    fn of(cx: &Cx) -> Result<Reduced> {
        let shape = cx.shape(0)?.to_vec();
        let axes = cx.ints(1)?.unwrap_or_default();
        let none = axes.is_empty() && cx.node.attrs.int_or("noop_with_empty_axes", 0)? != 0;
        let axes = axes.iter().map(|&a| axis(a, shape.len())).collect::<Result<Vec<_>>>()?;
        let reduced = |a: usize| !none && (axes.is_empty() || axes.contains(&a));
        let kept = shape.iter().enumerate().map(|(a, &d)| if reduced(a) { 1 } else { d }).collect();
        Ok(Reduced { shape, kept })
    }

    /// Elements that give one result.
    fn count(&self) -> f64 {
        self.shape.iter().product::<usize>() as f64 / self.kept.iter().product::<usize>().max(1) as f64
    }

    /// A result, or its gradient, with the axes that were reduced.
    fn wide(&self, cx: &mut Cx, v: ValueId) -> Result<ValueId> {
        cx.b.reshape(v, &self.kept)
    }
}

pub fn sum(cx: &mut Cx) -> Result<Vec<Option<ValueId>>> {
    let (r, g) = (Reduced::of(cx)?, cx.g()?);
    let g = r.wide(cx, g)?;
    let d = cx.b.expand(g, &r.shape)?;
    Ok(cx.first(d))
}

pub fn mean(cx: &mut Cx) -> Result<Vec<Option<ValueId>>> {
    let (r, g) = (Reduced::of(cx)?, cx.g()?);
    let x = cx.x(0)?;
    let share = cx.b.number(x, 1.0 / r.count())?;
    let g = cx.b.op("Mul", &[g, share])?;
    let g = r.wide(cx, g)?;
    let d = cx.b.expand(g, &r.shape)?;
    Ok(cx.first(d))
}

/// The gradient times a factor of the input's shape; `of` makes it from input, wide result and wide gradient.
fn scaled(
    cx: &mut Cx,
    of: impl Fn(&mut Cx, ValueId, ValueId) -> Result<ValueId>,
) -> Result<Vec<Option<ValueId>>> {
    let (r, g, x, y) = (Reduced::of(cx)?, cx.g()?, cx.x(0)?, cx.y()?);
    let (g, y) = (r.wide(cx, g)?, r.wide(cx, y)?);
    let factor = of(cx, x, y)?;
    let d = cx.b.op("Mul", &[factor, g])?;
    Ok(cx.first(d))
}

/// To the greatest or least elements, in equal parts.
pub fn extreme(cx: &mut Cx) -> Result<Vec<Option<ValueId>>> {
    let r = Reduced::of(cx)?;
    let axes: Vec<usize> = (0..r.shape.len()).filter(|&a| r.shape[a] != r.kept[a]).collect();
    scaled(cx, |cx, x, y| {
        let hit = cx.b.op("Equal", &[x, y])?;
        let to = i64::from(cx.b.dtype(x)?.onnx());
        let hit = cx.b.with("Cast", Attrs::new().with("to", to), &[hit])?;
        let count = cx.b.sum(hit, &axes, true)?;
        cx.b.op("Div", &[hit, count])
    })
}

pub fn product(cx: &mut Cx) -> Result<Vec<Option<ValueId>>> {
    scaled(cx, |cx, x, y| cx.b.op("Div", &[y, x]))
}

pub fn log_sum_exp(cx: &mut Cx) -> Result<Vec<Option<ValueId>>> {
    scaled(cx, |cx, x, y| {
        let below = cx.b.op("Sub", &[x, y])?;
        cx.b.op("Exp", &[below])
    })
}

pub fn sum_square(cx: &mut Cx) -> Result<Vec<Option<ValueId>>> {
    scaled(cx, |cx, x, _| cx.b.op("Add", &[x, x]))
}

pub fn l1(cx: &mut Cx) -> Result<Vec<Option<ValueId>>> {
    scaled(cx, |cx, x, _| cx.b.op("Sign", &[x]))
}

pub fn l2(cx: &mut Cx) -> Result<Vec<Option<ValueId>>> {
    scaled(cx, |cx, x, y| cx.b.op("Div", &[x, y]))
}

pub fn log_sum(cx: &mut Cx) -> Result<Vec<Option<ValueId>>> {
    let shape = cx.shape(0)?.to_vec();
    scaled(cx, |cx, _, y| {
        let below = cx.b.op("Neg", &[y])?;
        let inverse = cx.b.op("Exp", &[below])?;
        cx.b.expand(inverse, &shape)
    })
}

/// A running sum from the other end.
pub fn cumulative(cx: &mut Cx) -> Result<Vec<Option<ValueId>>> {
    let (g, at) = (cx.g()?, cx.x(1)?);
    let mut attrs = cx.node.attrs.clone();
    attrs.set("reverse", i64::from(attrs.int_or("reverse", 0)? == 0));
    let d = cx.b.with("CumSum", attrs, &[g, at])?;
    Ok(cx.first(d))
}
