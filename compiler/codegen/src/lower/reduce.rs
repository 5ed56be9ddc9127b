//! Reductions over neighbouring axes.

use super::{Cx, Lowered, Work};
use artefact::Call;
use ir::{DType, Node};
use kernels::reduce::{Extreme, Reduction};
use kernels::topk::TopK;

pub fn lower(cx: &Cx, n: &Node) -> Option<Lowered> {
    if !n.op.domain().is_empty() {
        return None;
    }
    let op = match n.op.name() {
        "ReduceSum" => Reduction::Sum,
        "ReduceMean" => Reduction::Mean,
        "ReduceMax" => Reduction::Max,
        "ReduceMin" => Reduction::Min,
        "ReduceProd" => Reduction::Prod,
        "ReduceSumSquare" => Reduction::SumSquare,
        "ReduceL1" => Reduction::L1,
        "ReduceL2" => Reduction::L2,
        "TopK" => return top_k(cx, n),
        "ReduceLogSumExp" => return log_sum_exp(cx, n),
        "ArgMax" => return arg(cx, n, Extreme::Max),
        "ArgMin" => return arg(cx, n, Extreme::Min),
        _ => return None,
    };
    let (x, y) = (n.input(0)?, n.output(0)?);
    let [outer, size, inner] = sizes(cx, n)?;
    let call = Call::Reduce { op, outer, size, inner };
    Some(Lowered::call("reduction", vec![x], y, (outer * size * inner) as f64, call))
}

/// Elements before, along and after the reduced axes.
fn sizes(cx: &Cx, n: &Node) -> Option<[usize; 3]> {
    let shape = cx.f32_shape(n.input(0)?)?;
    let mut axes: Vec<usize> = match n.input(1) {
        None if n.attrs.int_or("noop_with_empty_axes", 0).ok()? != 0 => return None,
        None => (0..shape.len()).collect(),
        Some(a) => {
            let a = cx.ints(a)?;
            a.iter().map(|&a| ops::broadcast::axis(a, shape.len()).ok()).collect::<Option<_>>()?
        }
    };
    axes.sort_unstable();
    if axes.is_empty() || shape.contains(&0) {
        return None;
    }
    // Dims of size 1 do not matter, neither reduced nor between.
    axes.retain(|&d| shape[d] != 1);
    let (Some(&first), Some(&last)) = (axes.first(), axes.last()) else {
        return Some([shape.iter().product(), 1, 1]);
    };
    if (first..=last).any(|d| !axes.contains(&d) && shape[d] != 1) {
        return None;
    }
    let outer: usize = shape[..first].iter().product();
    let size: usize = shape[first..=last].iter().product();
    let inner: usize = shape[last + 1..].iter().product();
    Some([outer, size, inner])
}

fn log_sum_exp(cx: &Cx, n: &Node) -> Option<Lowered> {
    let [outer, size, inner] = sizes(cx, n)?;
    let flops = 12.0 * (outer * size) as f64;
    let call = Call::LogSumExp { size };
    (inner == 1).then_some(Lowered::call("reduction", vec![n.input(0)?], n.output(0)?, flops, call))
}

fn top_k(cx: &Cx, n: &Node) -> Option<Lowered> {
    let (x, values, places) = (n.input(0)?, n.output(0)?, n.output(1)?);
    let shape = cx.f32_shape(x)?;
    let axis = ops::broadcast::axis(n.attrs.int_or("axis", -1).ok()?, shape.len()).ok()?;
    let (size, &[k]) = (shape[axis], &cx.ints(n.input(1)?)?[..]) else { return None };
    let k = usize::try_from(k).ok().filter(|&k| k <= size)?;
    let (outer, inner) = (shape[..axis].iter().product(), shape[axis + 1..].iter().product());
    let picked: usize = cx.f32_shape(values)?.iter().product();
    if shape.contains(&0)
        || cx.shape(places)?.iter().product::<usize>() != picked
        || u32::try_from(size).is_err()
    {
        return None;
    }
    let call =
        Call::TopK(TopK { outer, n: size, inner, k, largest: n.attrs.int_or("largest", 1).ok()? != 0 });
    Some(Lowered {
        kind: "reduction",
        work: Work::Call(Box::new(call)),
        reads: vec![x],
        writes: vec![values, places],
        flops: (outer * size * inner) as f64,
    })
}

fn arg(cx: &Cx, n: &Node, which: Extreme) -> Option<Lowered> {
    let (x, y) = (n.input(0)?, n.output(0)?);
    let shape = cx.f32_shape(x)?;
    let axis = ops::broadcast::axis(n.attrs.int_or("axis", 0).ok()?, shape.len()).ok()?;
    if cx.graph.dtype(y) != Some(DType::I64) || shape.contains(&0) {
        return None;
    }
    let select_last = n.attrs.int_or("select_last_index", 0).ok()? != 0;
    let outer: usize = shape[..axis].iter().product();
    let inner: usize = shape[axis + 1..].iter().product();
    let size = shape[axis];
    let call = Call::Arg { which, select_last, outer, size, inner };
    Some(Lowered::call("reduction", vec![x], y, (outer * size * inner) as f64, call))
}
