//! Putting chosen candidates into the graph.

use crate::shelf::{Offer, Shelf};
use ir::{Error, Graph, Result, Tensor, ValueId};
use lossy::layer::subgraph_mut;
use lossy::{Bias, Candidate, Layer, Replaces};
use std::collections::BTreeMap;

/// The graph with each chosen candidate's fragment in place of its layer, compacted and with types inferred.
pub fn compressed(graph: &Graph, chosen: &[(&Layer, &Offer)], shelf: &dyn Shelf) -> Result<Graph> {
    let mut g = graph.clone();
    let mut common: BTreeMap<u64, Vec<ValueId>> = BTreeMap::new();
    for (layer, offer) in chosen {
        let c = &offer.get(shelf)?;
        let body = body(&mut g, layer)?;
        match c.replaces {
            Replaces::Weight => {
                let out = c.fragment.inline_into(body, &[], &[])?;
                body.replace_uses(layer.value, first(&out)?);
                correct_bias(body, layer, c)?;
            }
            Replaces::Node => {
                let (_, more) = replace_node(body, layer, c)?;
                if let Some(of) = c.common {
                    // Those that came first serve all; layers of subgraphs have nothing in common with others.
                    let first = common.entry(of.id).or_insert_with(|| more.clone());
                    more.iter().zip(first.iter()).for_each(|(&v, &first)| body.replace_uses(v, first));
                }
            }
        }
        body.prune();
    }
    finish(g)
}

/// The same model with dense weights: what the compressed one computes, in the original's form, so that every
/// evaluation of the search runs at full speed.
pub fn dense(graph: &Graph, chosen: &[(&Layer, &Offer)], shelf: &dyn Shelf) -> Result<Graph> {
    use rayon::prelude::*;
    let decoded: Vec<Option<Tensor>> = chosen
        .par_iter()
        .map(|(_, o)| (o.head.replaces == Replaces::Weight).then(|| o.get(shelf)?.decode()).transpose())
        .collect::<Result<_>>()?;
    let mut g = graph.clone();
    for ((layer, offer), w) in chosen.iter().zip(decoded) {
        let body = body(&mut g, layer)?;
        match w {
            Some(w) => {
                layer.set(body, w);
                correct_bias(body, layer, &offer.head)?;
            }
            None => drop(replace_node(body, layer, &offer.get(shelf)?)?),
        }
    }
    if chosen.iter().any(|(_, o)| o.head.replaces == Replaces::Node) {
        g.prune();
        return finish(g);
    }
    Ok(g)
}

/// Puts one candidate into a graph whose ids are those of the layers: weights are decoded, and values that fragments made
/// anew are noted in `moved`.
pub fn put(
    g: &mut Graph,
    layer: &Layer,
    c: &Candidate,
    moved: &mut BTreeMap<ValueId, ValueId>,
) -> Result<()> {
    let body = body(g, layer)?;
    if c.replaces == Replaces::Weight {
        layer.set(body, c.decode()?);
        return correct_bias(body, layer, c);
    }
    let (replaced, _) = replace_node(body, layer, c)?;
    if layer.path.is_empty() {
        moved.extend(replaced);
    }
    ir::infer(g)
}

fn finish(g: Graph) -> Result<Graph> {
    let mut g = g.compacted()?;
    ir::infer(&mut g)?;
    Ok(g)
}

fn body<'a>(g: &'a mut Graph, layer: &Layer) -> Result<&'a mut Graph> {
    subgraph_mut(g, &layer.path)
        .ok_or_else(|| Error::internal(format!("no subgraph for layer '{}'", layer.name)))
}

fn first(values: &[ValueId]) -> Result<ValueId> {
    values.first().copied().ok_or_else(|| Error::internal("a fragment without output"))
}

fn correct_bias(g: &mut Graph, layer: &Layer, c: &Candidate) -> Result<()> {
    let (Some(site), Some(add)) = (layer.bias, &c.bias) else { return Ok(()) };
    match site {
        Bias::Constant(v) => {
            let old = g.constant(v).ok_or_else(|| Error::internal("the bias is not a constant"))?;
            let sum = old.to_f32s()?.iter().zip(add).map(|(a, b)| a + b).collect();
            let t = Tensor::new(old.shape(), sum)?;
            g.set_constant(v, t);
        }
        Bias::Absent(i) => {
            let b = g.add_initializer(&format!("{}.b", layer.weight), Tensor::vector::<f32>(add.clone()));
            g.set_input(layer.node, i, Some(b));
        }
    }
    Ok(())
}

/// Values with what stands for them now.
type Moved = Vec<(ValueId, ValueId)>;

/// Returns the node's outputs with what stands for them now, and the fragment's outputs behind these.
fn replace_node(g: &mut Graph, layer: &Layer, c: &Candidate) -> Result<(Moved, Vec<ValueId>)> {
    correct_bias(g, layer, c)?;
    let node = g.node(layer.node)?;
    let inputs: Vec<ValueId> =
        node.inputs().iter().flatten().copied().filter(|&v| v != layer.value).collect();
    let outputs: Vec<ValueId> = node.outputs().iter().flatten().copied().collect();
    let mut new = c.fragment.inline_into(g, &inputs, &[])?;
    let more = new.split_off(outputs.len().min(new.len()));
    let moved: Moved = outputs.into_iter().zip(new).collect();
    moved.iter().for_each(|&(old, new)| g.replace_uses(old, new));
    Ok((moved, more))
}
