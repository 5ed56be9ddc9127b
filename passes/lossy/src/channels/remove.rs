//! Takes channels out of a graph.

use super::choose::{Side, refit};
use super::reach::Carry;
use super::trace::{Consumer, Edit, Group};
use crate::layer::{self, Bias, Layer};
use crate::stats::Stats;
use ir::{Error, Graph, Result, Tensor, ValueType};

/// Keeps only the channels of `keep` (ascending) of a group. `stats` are those of each consumer's input with all its
/// channels; the consumers are refitted to what is left and their biases take the mean error. Ids stay valid. On an error
/// the graph is spoilt.
pub fn remove(graph: &mut Graph, group: &Group, keep: &[usize], stats: &[&Stats]) -> Result<()> {
    if stats.len() != group.consumers.len() || keep.is_empty() || keep.iter().any(|&c| c >= group.count) {
        return Err(Error::internal("channels to keep do not fit their group"));
    }
    for (c, s) in group.consumers.iter().zip(stats) {
        consumer(graph, c, group.count, keep, s)?;
    }
    for e in &group.edits {
        edit(graph, e, group.count, keep)?;
    }
    for &v in group.carried.keys() {
        let unknown = graph.dtype(v).map_or(ValueType::Unknown, ValueType::unranked);
        graph.set_type(v, unknown);
    }
    ir::infer(graph)?;
    for (&v, at) in &group.carried {
        let size = graph.ty(v).shape().and_then(|s| s.get(at.axis)?.known());
        if size != Some(keep.len() * at.inner) {
            let name = graph.value_name(v);
            return Err(Error::internal(format!("value '{name}' did not lose its channels")));
        }
    }
    Ok(())
}

/// The matrix of a consumer and the statistics its errors are measured by.
pub fn side<'a>(layer: &Layer, stats: &'a Stats) -> Result<Side<'a>> {
    let measured = if layer.bias.is_some() { stats.centered() } else { stats };
    Ok(Side { matrix: layer.view.matrix(&layer.tensor)?, stats: measured, price: 1.0 })
}

fn consumer(graph: &mut Graph, c: &Consumer, count: usize, keep: &[usize], stats: &Stats) -> Result<()> {
    let layer = layer::layer(graph, c.weight).ok_or_else(|| Error::internal("a consumer is not a layer"))?;
    let side = side(&layer, stats)?;
    let fitted = refit(&side, count, keep).map_err(|r| Error::internal(r.0))?;
    if let Some(site) = layer.bias {
        let shift = side.stats.shift(&(&side.matrix - &fitted));
        if shift.iter().all(|x| x.is_finite()) && shift.iter().any(|&x| x != 0.0) {
            shift_bias(graph, &layer, site, &shift)?;
        }
    }
    let whole = layer.view.tensor(&fitted)?;
    graph.set_constant(c.weight, sliced(&whole, c.at, count, keep)?);
    Ok(())
}

fn shift_bias(graph: &mut Graph, layer: &Layer, site: Bias, shift: &[f32]) -> Result<()> {
    match site {
        Bias::Constant(v) => {
            let old = graph.constant(v).ok_or_else(|| Error::internal("the bias is not a constant"))?;
            let sum = old.to_f32s()?.iter().zip(shift).map(|(a, b)| a + b).collect();
            let t = Tensor::new(old.shape(), sum)?;
            graph.set_constant(v, t);
        }
        Bias::Absent(port) => {
            let b = graph.add_initializer(&format!("{}.b", layer.weight), Tensor::vector(shift.to_vec()));
            graph.set_input(layer.node, port, Some(b));
        }
    }
    Ok(())
}

fn edit(graph: &mut Graph, e: &Edit, count: usize, keep: &[usize]) -> Result<()> {
    let number =
        |inner: usize| i64::try_from(keep.len() * inner).map_err(|_| Error::internal("too many channels"));
    match *e {
        Edit::Slice { node, port, at } => {
            replace(graph, node, port, |t| sliced(t, at, count, keep))?;
        }
        Edit::Group { node, inner } => graph.node_mut(node)?.1.set("group", number(inner)?),
        Edit::Shape { node, port, index, inner } => {
            replace(graph, node, port, |t| {
                let mut dims = t.to_i64s()?;
                *dims.get_mut(index).ok_or_else(|| Error::internal("a shape is too short"))? = number(inner)?;
                Tensor::new(t.shape(), dims)
            })?;
        }
    }
    Ok(())
}

/// Changes the constant that a node reads, if it reads one there; other readers keep the old one.
fn replace(
    graph: &mut Graph,
    node: ir::NodeId,
    port: usize,
    f: impl Fn(&Tensor) -> Result<Tensor>,
) -> Result<()> {
    let Some(v) = graph.node(node)?.input(port) else { return Ok(()) };
    let old = graph.constant(v).ok_or_else(|| Error::internal("what should be sliced is not a constant"))?;
    let new = f(old)?;
    if graph.uses(v).len() == 1 {
        graph.set_constant(v, new);
    } else {
        let name = graph.value_name(v).to_string();
        let own = graph.add_initializer(&name, new);
        graph.set_input(node, port, Some(own));
    }
    Ok(())
}

/// The entries of the channels of `keep` along an axis.
fn sliced(t: &Tensor, at: Carry, count: usize, keep: &[usize]) -> Result<Tensor> {
    let shape = t.shape();
    let width = t.dtype().storage_bytes(2) / 2;
    if shape.get(at.axis) != Some(&(count * at.inner)) || width == 0 || t.bytes().len() != width * t.len() {
        return Err(Error::internal(format!("a constant of shape {shape:?} has no such channels")));
    }
    let run = shape[at.axis + 1..].iter().product::<usize>() * at.inner * width;
    let mut bytes = Vec::new();
    for part in t.bytes().chunks_exact((run * count).max(1)) {
        keep.iter().for_each(|&c| bytes.extend_from_slice(&part[c * run..(c + 1) * run]));
    }
    let mut shape = shape.to_vec();
    shape[at.axis] = keep.len() * at.inner;
    Tensor::from_bytes(t.dtype(), &shape, bytes)
}
