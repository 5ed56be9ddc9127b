//! A layer cut out of its model, to be timed by itself: the operator and the element-wise operators that run in one step
//! with it, between values that are floats or, where the neighbours compute with integers, bytes.

use crate::apply::compressed;
use crate::clock::Piece;
use crate::shelf::{Offer, Shelf};
use ir::{Attrs, DType, Graph, Kind, NodeId, Output, Result, Tensor, Use, ValueId, ValueType};
use lossy::{Layer, Role};

/// Most element-wise operators that belong to a layer.
const FOLLOWERS: usize = 4;

/// Where a layer begins and ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Site {
    /// What the layer's operator reads besides constants.
    pub input: ValueId,
    /// What the last operator of the step gives.
    pub output: ValueId,
    nodes: Vec<NodeId>,
}

/// A quantization of a layer's input: scale and zero point.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Quantized {
    pub scale: f32,
    pub zero: u8,
}

/// Whether values between layers are bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ports {
    pub bytes_in: bool,
    pub bytes_out: bool,
}

impl Ports {
    pub const FLOATS: Ports = Ports { bytes_in: false, bytes_out: false };
    pub const ALL: [Ports; 4] = [
        Ports::FLOATS,
        Ports { bytes_in: true, bytes_out: false },
        Ports { bytes_in: false, bytes_out: true },
        Ports { bytes_in: true, bytes_out: true },
    ];

    pub fn index(self) -> usize {
        usize::from(self.bytes_in) + 2 * usize::from(self.bytes_out)
    }

    fn text(self) -> String {
        let kind = |bytes: bool| if bytes { "bytes" } else { "floats" };
        format!("{} to {}", kind(self.bytes_in), kind(self.bytes_out))
    }
}

/// The site of a layer; `graph` has the types of a run. `None` for layers that are not timed: bodies of control flow, tables,
/// recurrences, and what has no sizes.
pub fn site(graph: &Graph, layer: &Layer) -> Option<Site> {
    let timed = matches!(layer.role, Role::Conv | Role::ConvTranspose | Role::MatMul | Role::Gemm);
    if !layer.path.is_empty() || layer.users != 1 || !timed {
        return None;
    }
    let node = graph.get(layer.node)?;
    let (input, mut output) = (node.input(0)?, node.output(0)?);
    let float = |v: ValueId| graph.dtype(v) == Some(DType::F32) && graph.ty(v).concrete().is_some();
    if graph.constant(input).is_some() || !float(input) || !float(output) {
        return None;
    }
    let mut nodes = vec![layer.node];
    while nodes.len() <= FOLLOWERS {
        let [Use::Input(next, _)] = graph.uses(output)[..] else { break };
        let Some(n) = graph.get(next) else { break };
        let same = n.output(0).is_some_and(|v| graph.ty(v) == graph.ty(output));
        if !same || n.outputs().len() != 1 || !matches!(n.op.kind(&n.attrs), Kind::Elementwise(_)) {
            break;
        }
        let Some(v) = n.output(0) else { break };
        output = v;
        nodes.push(next);
    }
    Some(Site { input, output, nodes })
}

/// The input quantization of a candidate with integer activations.
pub fn quantized(offer: &Offer) -> Option<Quantized> {
    let f = &offer.head.fragment;
    let x = *f.inputs().first()?;
    let [Use::Input(q, 0)] = f.uses(x)[..] else { return None };
    let n = f.get(q).filter(|n| n.is("QuantizeLinear"))?;
    let scale = *f.constant(n.input(1)?)?.to_f32s().ok()?.first()?;
    let zero = f.constant(n.input(2)?).filter(|t| t.dtype() == DType::U8)?.to_i64s().ok()?;
    Some(Quantized { scale, zero: u8::try_from(*zero.first()?).ok()? })
}

/// The layer at `site` as it would run with this candidate, or as it is.
pub fn piece(
    graph: &Graph,
    layer: &Layer,
    site: &Site,
    offer: Option<&Offer>,
    ports: Ports,
    shelf: &dyn Shelf,
) -> Result<Piece> {
    let mut g = graph.clone();
    let recipe = offer.map_or("keep", |o| &o.head.recipe);
    let form =
        if ports == Ports::FLOATS { recipe.to_string() } else { format!("{recipe}, {}", ports.text()) };
    // What reads the input outside of the piece goes, so all uses may be replaced.
    let mut end = site.output;
    if ports.bytes_out {
        end = quantize(&mut g, end, Quantized { scale: 0.0625, zero: 128 })?;
    }
    g.set_outputs(vec![Output { name: "y".into(), value: end }]);
    let outer: Vec<ValueId> = site
        .nodes
        .iter()
        .filter_map(|&n| g.get(n))
        .flat_map(|n| n.reads().collect::<Vec<_>>())
        .filter(|&v| g.constant(v).is_none() && !g.producer(v).is_some_and(|p| site.nodes.contains(&p)))
        .collect();
    for v in outer {
        let ty = g.ty(v).clone();
        let bytes = offer.filter(|_| ports.bytes_in && v == site.input).and_then(quantized);
        let new = match (bytes, ty.concrete()) {
            (Some(q), Some(shape)) => {
                let x = g.add_input("bytes", ValueType::known(DType::U8, &shape));
                dequantize(&mut g, x, q)?
            }
            _ => g.add_input("x", ty),
        };
        g.replace_uses(v, new);
    }
    let chosen: Vec<(&Layer, &Offer)> = offer.map(|o| (layer, o)).into_iter().collect();
    g.prune();
    Ok(Piece { graph: alone(&compressed(&g, &chosen, shelf)?)?, op: layer.op.clone(), form })
}

fn constants(g: &mut Graph, q: Quantized) -> [ValueId; 2] {
    [g.add_initializer("s", Tensor::scalar(q.scale)), g.add_initializer("z", Tensor::scalar(q.zero))]
}

fn quantize(g: &mut Graph, x: ValueId, q: Quantized) -> Result<ValueId> {
    let [s, z] = constants(g, q);
    Ok(g.apply("out", ops::standard("QuantizeLinear")?, Attrs::new(), &[x, s, z]))
}

fn dequantize(g: &mut Graph, x: ValueId, q: Quantized) -> Result<ValueId> {
    let [s, z] = constants(g, q);
    Ok(g.apply("in", ops::standard("DequantizeLinear")?, Attrs::new(), &[x, s, z]))
}

/// The graph without the inputs that nothing reads.
fn alone(g: &Graph) -> Result<Graph> {
    let mut new = Graph::new("piece");
    let counts = g.use_counts();
    let mut inputs: Vec<Option<ValueId>> = Vec::new();
    for &v in g.inputs() {
        let read = counts[v.index()] > 0;
        inputs.push(read.then(|| new.add_input(g.value_name(v), g.ty(v).clone())));
    }
    let any = inputs.iter().flatten().copied().next();
    let any = any.unwrap_or_else(|| new.add_initializer("none", Tensor::scalar(0f32)));
    let inputs: Vec<ValueId> = inputs.into_iter().map(|v| v.unwrap_or(any)).collect();
    for (v, o) in g.inline_into(&mut new, &inputs, &[])?.into_iter().zip(g.outputs()) {
        new.add_output(&o.name, v);
    }
    ir::infer(&mut new)?;
    Ok(new)
}
