//! Pooling.

use super::linear::{spread, windows};
use super::{Build, Cx, Written};
use ir::{Attrs, Error, EvalCx, Node, Result, Tensor, Value, ValueId};

/// Every window's gradient, over the elements it averages, to those elements.
pub fn average(cx: &mut Cx) -> Result<Vec<Option<ValueId>>> {
    let (g, shape) = (cx.g()?, cx.shape(0)?);
    let axes = windows(cx, &shape)?;
    let dtype = cx.b.dtype(cx.x(0)?)?;
    // The average of ones is the share of the divisor that lies inside the input; the rest follows from geometry.
    let one: Vec<usize> = [1, 1].into_iter().chain(axes.iter().map(|a| a.input)).collect();
    let ones = Tensor::from_f64s(dtype, &one, vec![1.0; one.iter().product()])?;
    let share = evaluated(&cx.node, &[Some(ones)])?;
    let plane: Vec<usize> = axes.iter().map(|a| a.output).collect();
    let inside = |mut at: usize| -> usize {
        let mut count = 1;
        for (a, &n) in axes.iter().zip(&plane).rev() {
            count *= a.taps_at(at % n).len();
            at /= n;
        }
        count.max(1)
    };
    let weights: Vec<f64> = share.to_f64s()?.iter().enumerate().map(|(i, s)| s / inside(i) as f64).collect();
    let weights = Tensor::from_f64s(dtype, share.shape(), weights)?;
    let weights = cx.b.constant(weights);
    let g = cx.b.op("Mul", &[g, weights])?;
    let kernel: Vec<usize> = [shape[1], 1].into_iter().chain(axes.iter().map(|a| a.kernel)).collect();
    let x = cx.x(0)?;
    let ones = cx.b.fill(x, &kernel, 1.0)?;
    let d = spread(cx, g, ones, &axes, shape[1])?;
    Ok(cx.first(d))
}

/// To the first greatest element of each window.
pub fn max(cx: &mut Cx) -> Result<Vec<Option<ValueId>>> {
    let (g, x, shape) = (cx.g()?, cx.x(0)?, cx.shape(0)?);
    if cx.node.attrs.int_or("storage_order", 0)? != 0 {
        return Err(Error::unsupported("no derivative is known with indices in column-major order"));
    }
    let id = cx.b.graph.add_node(
        "gradient.MaxPool",
        ops::standard("MaxPool")?,
        cx.node.attrs.clone(),
        &[Some(x)],
        &["gradient.max", "gradient.where"],
    );
    let places = cx.b.graph.node(id)?.output(1).ok_or_else(|| Error::internal("no indices"))?;
    let d = scattered(cx.b, x, g, places, &shape)?;
    Ok(cx.first(d))
}

/// A tensor of `shape` with `g` added at flat positions.
pub fn scattered(
    b: &mut Build,
    like: ValueId,
    g: ValueId,
    places: ValueId,
    shape: &[usize],
) -> Result<ValueId> {
    let flat = b.ints(&[-1]);
    let (g, places) = (b.op("Reshape", &[g, flat])?, b.op("Reshape", &[places, flat])?);
    let zeros = b.fill(like, &[shape.iter().product()], 0.0)?;
    let attrs = Attrs::new().with("axis", 0i64).with("reduction", "add");
    let d = b.with("ScatterElements", attrs, &[zeros, places, g])?;
    b.reshape(d, shape)
}

/// What the first output of a node is for these inputs.
pub fn evaluated(node: &Node, inputs: &[Option<Tensor>]) -> Result<Tensor> {
    let inputs: Vec<Option<Value>> = inputs.iter().map(|t| t.clone().map(Value::Tensor)).collect();
    let none = |_: &ir::Graph, _: Vec<Value>| Err(Error::internal("no subgraph is expected"));
    let cx = EvalCx {
        node: &node.name,
        attrs: &node.attrs,
        inputs: &inputs,
        captures: &[],
        outputs: 1,
        subgraph: &none,
    };
    let found = node.op.eval(&cx)?;
    Ok(found.first().ok_or_else(|| Error::internal("no output"))?.tensor()?.clone())
}

fn global(b: &mut Build, node: &Node, reduce: &str) -> Written {
    let x = node.input(0).ok_or_else(|| Error::model("input 0 is missing"))?;
    let axes: Vec<usize> = (2..b.shape(x)?.len()).collect();
    let axes = b.sizes(&axes);
    Ok(Some(vec![Some(b.op(reduce, &[x, axes])?)]))
}

pub fn global_average(b: &mut Build, node: &Node) -> Written {
    global(b, node, "ReduceMean")
}

pub fn global_max(b: &mut Build, node: &Node) -> Written {
    global(b, node, "ReduceMax")
}
