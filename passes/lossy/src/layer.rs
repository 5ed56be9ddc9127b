//! Layers: constants worth compressing, with the matrix they stand for and where their inputs can be seen.

use crate::patches::{Extract, Windows};
use crate::view::View;
use ir::{DType, Graph, Node, NodeId, Tensor, Use, ValueId};
use std::collections::{BTreeMap, BTreeSet};

/// Constants with fewer elements are never worth a decoding fragment.
pub const SMALLEST: usize = 512;

/// Vectors (biases, scales) below this size cost more to decode and to measure than they save.
pub const SMALLEST_VECTOR: usize = 1 << 14;

/// What a weight does in its operator.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    Conv,
    ConvTranspose,
    MatMul,
    Gemm,
    /// Rows picked by Gather.
    Embedding,
    /// Input or recurrence weights of LSTM, GRU or RNN.
    Recurrent,
    /// Any other use; only the values matter.
    Constant,
}

/// Where a layer's additive bias is, so that a method may correct the mean of its error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bias {
    /// An initializer read only here, with one entry per row.
    Constant(ValueId),
    /// Input number of the node, absent so far.
    Absent(usize),
}

/// A way from the main graph into a subgraph: nodes, and which of the node's subgraphs.
pub type Path = Vec<(NodeId, usize)>;

/// One constant float weight with all its users.
#[derive(Debug, Clone)]
pub struct Layer {
    /// Name of the first user node, or of the constant when the node has none.
    pub name: String,
    /// Name of the constant.
    pub weight: String,
    pub path: Path,
    pub value: ValueId,
    pub node: NodeId,
    /// Name of the operator of the first user.
    pub op: String,
    pub users: usize,
    pub role: Role,
    pub view: View,
    pub tensor: Tensor,
    /// The constants that it is computed from, such as integers and scales; empty where it is a constant itself.
    pub stored: Vec<Tensor>,
    pub bias: Option<Bias>,
    /// The data input of each user and how its vectors lie; empty inside subgraphs.
    pub inputs: Vec<(ValueId, Extract)>,
}

impl Layer {
    /// The tensors that the weight takes in a file now.
    pub fn tensors(&self) -> &[Tensor] {
        if self.stored.is_empty() { std::slice::from_ref(&self.tensor) } else { &self.stored }
    }

    /// Bytes the weight takes now.
    pub fn bytes(&self) -> u64 {
        self.tensors().iter().map(crate::candidate::tensor_bytes).sum()
    }

    /// Puts values of another kind or size in the weight's place.
    pub fn set(&self, graph: &mut Graph, values: Tensor) {
        if self.stored.is_empty() {
            graph.set_constant(self.value, values);
        } else {
            let v = graph.add_initializer(&self.weight, values);
            graph.replace_uses(self.value, v);
        }
    }
}

/// All layers of the graph and its subgraphs, in order of the first user.
pub fn layers(graph: &Graph) -> Vec<Layer> {
    let mut found = Vec::new();
    collect(graph, &mut Vec::new(), &mut found);
    found
}

/// The layer of one constant of the main graph, whatever its size.
pub fn layer(graph: &Graph, weight: ValueId) -> Option<Layer> {
    describe(graph, weight, graph.constant(weight)?, &Vec::new())
}

/// The graph at the end of `path`.
pub fn subgraph<'a>(graph: &'a Graph, path: &[(NodeId, usize)]) -> Option<&'a Graph> {
    path.iter().try_fold(graph, |g, (n, i)| g.get(*n)?.attrs.graphs().get(*i).copied())
}

/// The graph at the end of `path`, to edit.
pub fn subgraph_mut<'a>(graph: &'a mut Graph, path: &[(NodeId, usize)]) -> Option<&'a mut Graph> {
    let mut g = graph;
    for (n, i) in path {
        let (_, attrs) = g.node_mut(*n).ok()?;
        g = attrs.graphs_mut().into_iter().nth(*i)?;
    }
    Some(g)
}

fn collect(graph: &Graph, path: &mut Path, found: &mut Vec<Layer>) {
    let mut here: Vec<Layer> = graph
        .initializers()
        .filter(|(_, t)| t.dtype() == DType::F32 && t.len() >= least(t))
        .filter_map(|(v, t)| describe(graph, v, t, path))
        .chain(
            computed(graph)
                .into_iter()
                .filter_map(|(v, t, stored)| decoded(describe(graph, v, &t, path)?, stored)),
        )
        .collect();
    here.sort_by_key(|l| (l.node, l.value));
    found.append(&mut here);
    for (id, node) in graph.nodes() {
        for (i, body) in node.attrs.graphs().into_iter().enumerate() {
            path.push((id, i));
            collect(body, path, found);
            path.pop();
        }
    }
}

/// Bytes that all decoded weights of a graph may take: those beyond stay as they are.
const DECODED: usize = 1 << 30;

/// Weights that operators compute from smaller constants, such as integers and their scales: each with those.
fn computed(graph: &Graph) -> Vec<(ValueId, Tensor, Vec<Tensor>)> {
    let (mut found, mut room) = (Vec::new(), DECODED);
    let read = graph.nodes().flat_map(|(_, n)| n.inputs().iter().take(3).flatten());
    let read: BTreeSet<ValueId> = read.copied().filter(|v| graph.dtype(*v) == Some(DType::F32)).collect();
    for v in read {
        let Some(order) = graph.expression(v) else { continue };
        let Some(constants) = own_constants(graph, v, &order) else { continue };
        let size = |v: ValueId| {
            let t = graph.ty(v);
            ir::budget::bytes(t.dtype()?, &t.concrete()?).ok().filter(|b| *b <= room)
        };
        let steps = order.iter().filter_map(|id| graph.get(*id)).flat_map(|n| n.outputs().iter().flatten());
        let stored: usize = constants.iter().map(|t| t.stored_bytes()).sum();
        let fits = steps.copied().all(|o| size(o).is_some());
        let Some(bytes) = size(v).filter(|b| fits && stored <= *b) else { continue };
        let Some(t) = graph.evaluate(v).filter(|t| t.len() >= least(t)) else { continue };
        room -= bytes;
        found.push((v, t, constants));
    }
    found
}

/// The constants of an expression that nothing else needs, neither them nor what is computed on the way.
fn own_constants(graph: &Graph, v: ValueId, order: &[NodeId]) -> Option<Vec<Tensor>> {
    let mut constants = BTreeMap::new();
    for n in order.iter().filter_map(|id| graph.get(*id)) {
        for &x in n.inputs().iter().flatten() {
            let small = graph.constant(x).is_some_and(|t| t.len() < SMALLEST);
            if graph.uses(x).len() > 1 && !small {
                return None;
            }
            constants.extend(graph.constant(x).map(|t| (x, t.clone())));
        }
        let alone = n.outputs().iter().flatten().all(|&o| o == v || graph.uses(o).len() == 1);
        alone.then_some(())?;
    }
    Some(constants.into_values().collect())
}

/// What is no operator's weight but a step on the way to one is left alone.
fn decoded(l: Layer, stored: Vec<Tensor>) -> Option<Layer> {
    (l.role != Role::Constant).then_some(Layer { stored, ..l })
}

fn least(t: &Tensor) -> usize {
    let axes = t.shape().iter().filter(|&&d| d > 1).count();
    if axes > 1 { SMALLEST } else { SMALLEST_VECTOR }
}

fn describe(graph: &Graph, value: ValueId, tensor: &Tensor, path: &Path) -> Option<Layer> {
    let uses = graph.uses(value);
    let reads: Vec<(NodeId, usize)> = uses
        .iter()
        .filter_map(|u| match u {
            Use::Input(n, i) => Some((*n, *i)),
            _ => None,
        })
        .collect();
    let seats: Vec<Seat> = reads
        .iter()
        .map(|&(n, i)| graph.get(n).map_or_else(|| Seat::constant(tensor), |n| seat(n, i, tensor)))
        .collect();
    // The most telling use decides the view; others that see the same matrix add their inputs.
    let first = (0..seats.len()).min_by_key(|&i| (seats[i].role, i));
    let fallback = Seat::constant(tensor);
    let chosen = first.map_or(&fallback, |i| &seats[i]);
    let node = first
        .map(|i| reads[i].0)
        .or_else(|| uses.iter().find_map(|u| if let Use::Capture(n, _) = u { Some(*n) } else { None }))?;
    let user = graph.get(node)?;
    let inputs = if path.is_empty() {
        let of = |(s, (n, _)): (&Seat, &(NodeId, usize))| {
            (s.view == chosen.view).then_some(())?;
            Some((graph.get(*n)?.input(0)?, s.extract.clone()?))
        };
        seats.iter().zip(&reads).filter_map(of).collect()
    } else {
        Vec::new()
    };
    let name = if user.name.is_empty() { graph.value_name(value) } else { &user.name };
    Some(Layer {
        name: name.to_string(),
        weight: graph.value_name(value).to_string(),
        path: path.clone(),
        value,
        node,
        op: user.op.name().to_string(),
        users: uses.len(),
        role: chosen.role,
        view: chosen.view.clone(),
        tensor: tensor.clone(),
        stored: Vec::new(),
        bias: if uses.len() == 1 { bias(graph, node, user, chosen) } else { None },
        inputs,
    })
}

/// A weight's place in one operator.
struct Seat {
    role: Role,
    view: View,
    extract: Option<Extract>,
}

impl Seat {
    fn constant(t: &Tensor) -> Seat {
        Seat { role: Role::Constant, view: View::leading(t.shape(), 1), extract: None }
    }
}

fn seat(node: &Node, input: usize, t: &Tensor) -> Seat {
    let shape = t.shape();
    let standard = node.op.domain().is_empty();
    match (node.op.name(), input) {
        ("Conv", 1) if standard && shape.len() >= 3 => conv(node, shape).unwrap_or_else(|| Seat::constant(t)),
        ("ConvTranspose", 1) if standard && shape.len() >= 3 => {
            let groups = usize::try_from(node.attrs.int_or("group", 1).unwrap_or(1)).unwrap_or(1).max(1);
            let view = View { run: (shape[0] / groups).max(1), ..View::trailing(shape) };
            Seat { role: Role::ConvTranspose, view, extract: Some(Extract::Channels) }
        }
        ("MatMul", 1) if standard && shape.len() == 2 => {
            Seat { role: Role::MatMul, view: View::trailing(shape), extract: Some(Extract::Rows) }
        }
        ("Gemm", 1) if standard && shape.len() == 2 => gemm(node, shape),
        ("Gather", 0) if standard && shape.len() == 2 && node.attrs.int_or("axis", 0) == Ok(0) => {
            Seat { role: Role::Embedding, view: View::leading(shape, 1), extract: None }
        }
        ("LSTM" | "GRU" | "RNN", 1 | 2) if standard && shape.len() == 3 => {
            let extract = (input == 1).then_some(Extract::Rows);
            Seat { role: Role::Recurrent, view: View::split(shape, 2), extract }
        }
        _ => Seat::constant(t),
    }
}

fn conv(node: &Node, shape: &[usize]) -> Option<Seat> {
    let windows = Windows::of(&node.attrs, &shape[2..]).ok()?;
    if !shape[0].is_multiple_of(windows.groups) {
        return None;
    }
    let view = View::leading(shape, windows.groups);
    let extract = if windows.is_pointwise() && windows.groups == 1 {
        Extract::Channels
    } else {
        Extract::Windows(windows)
    };
    Some(Seat { role: Role::Conv, view, extract: Some(extract) })
}

fn gemm(node: &Node, shape: &[usize]) -> Seat {
    let flag = |name| node.attrs.int_or(name, 0).unwrap_or(0) != 0;
    let view = if flag("transB") { View::leading(shape, 1) } else { View::trailing(shape) };
    Seat { role: Role::Gemm, view, extract: (!flag("transA")).then_some(Extract::Rows) }
}

/// The bias that a correction may change: the operator's own, or a vector added right after.
fn bias(graph: &Graph, id: NodeId, node: &Node, seat: &Seat) -> Option<Bias> {
    match seat.role {
        Role::Conv | Role::Gemm => {
            let scaled = |n: &str| node.attrs.float_or(n, 1.0) != Ok(1.0);
            if seat.role == Role::Gemm && (scaled("alpha") || scaled("beta")) {
                return None;
            }
            match node.input(2) {
                None => Some(Bias::Absent(2)),
                Some(b) => own_vector(graph, b, seat.view.rows),
            }
        }
        Role::MatMul => {
            let users = graph.uses(node.output(0)?);
            let [Use::Input(next, port)] = users[..] else { return None };
            let add = graph.get(next)?;
            if !add.is("Add") || port > 1 || next == id {
                return None;
            }
            own_vector(graph, add.input(1 - port)?, seat.view.rows)
        }
        _ => None,
    }
}

fn own_vector(graph: &Graph, v: ValueId, rows: usize) -> Option<Bias> {
    let t = graph.constant(v)?;
    let fits = t.dtype() == DType::F32 && t.len() == rows && t.shape().last() == Some(&rows);
    (fits && graph.uses(v).len() == 1).then_some(Bias::Constant(v))
}
