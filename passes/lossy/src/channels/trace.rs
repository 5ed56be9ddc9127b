//! Finds sets of layers that make, carry and read the same channels.

use super::FEWEST;
use super::reach::{self, Carry};
use crate::method::Refusal;
use ir::{DType, Def, Dim, Graph, Kind, Node, NodeId, Use, ValueId};
use std::collections::{BTreeMap, BTreeSet};

/// What changes with the number of channels, besides the consumers' weights.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Edit {
    /// The constant read here loses entries.
    Slice { node: NodeId, port: usize, at: Carry },
    /// Attribute `group` of a depthwise convolution: `inner` per channel.
    Group { node: NodeId, inner: usize },
    /// This entry of a constant shape: `inner` per channel.
    Shape { node: NodeId, port: usize, index: usize, inner: usize },
}

/// A weight whose columns read the channels; each channel has the same number of consecutive columns.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Consumer {
    pub node: NodeId,
    pub weight: ValueId,
    pub at: Carry,
}

/// One set of channels with all that depends on it.
#[derive(Debug, Clone)]
pub struct Group {
    /// Number of channels.
    pub count: usize,
    /// Weights whose rows make the channels.
    pub producers: Vec<ValueId>,
    pub consumers: Vec<Consumer>,
    pub edits: Vec<Edit>,
    /// Values with a channel axis.
    pub carried: BTreeMap<ValueId, Carry>,
}

impl Group {
    /// Weights of depthwise convolutions on the way.
    pub fn carriers<'a>(&'a self, graph: &'a Graph) -> impl Iterator<Item = ValueId> + 'a {
        self.edits.iter().filter_map(move |e| match e {
            Edit::Group { node, .. } => graph.get(*node)?.input(1),
            _ => None,
        })
    }
}

/// All groups of the main graph, and why other layers' channels cannot go.
pub fn groups(graph: &Graph) -> (Vec<Group>, Vec<(ValueId, Refusal)>) {
    let counts = graph.use_counts();
    let (mut found, mut refused) = (Vec::new(), Vec::new());
    let mut seen = BTreeSet::new();
    for (id, node) in graph.nodes() {
        let Some((out, at, count)) = start(graph, node) else { continue };
        if !seen.insert(id) {
            continue;
        }
        let mut t = Trace::new(graph, &counts, count);
        let result = t.follow(out, at);
        seen.extend(t.producers.keys());
        match result {
            Ok(()) => found.push(t.group()),
            Err(why) => {
                let all = t.producers.into_values().chain(node.input(1)).collect::<BTreeSet<_>>();
                refused.extend(all.into_iter().map(|w| (w, why.clone())));
            }
        }
    }
    (found, refused)
}

/// The output of a layer with its channel axis and their number.
fn start(graph: &Graph, node: &Node) -> Option<(ValueId, Carry, usize)> {
    let out = node.output(0)?;
    let shape = graph.constant(node.input(1)?)?.shape();
    let rank = graph.ty(out).rank()?;
    let flag = |name| node.attrs.int_or(name, 0).unwrap_or(0) != 0;
    let (axis, count) = if node.is("Conv") && shape.len() >= 3 && groups_of(node) == 1 {
        (1, shape[0])
    } else if node.is("ConvTranspose") && shape.len() >= 3 && groups_of(node) == 1 {
        (1, shape[1])
    } else if node.is("MatMul") && shape.len() == 2 {
        (rank.checked_sub(1)?, shape[1])
    } else if node.is("Gemm") && shape.len() == 2 {
        (1, shape[usize::from(!flag("transB"))])
    } else {
        return None;
    };
    (count >= FEWEST).then_some((out, Carry { axis, inner: 1 }, count))
}

fn groups_of(node: &Node) -> usize {
    usize::try_from(node.attrs.int_or("group", 1).unwrap_or(0)).unwrap_or(0)
}

/// A value's place at a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Seat {
    In(usize),
    Out(usize),
}

type Step = Result<(), Refusal>;

struct Trace<'a> {
    graph: &'a Graph,
    uses: &'a [usize],
    count: usize,
    carried: BTreeMap<ValueId, Carry>,
    queue: Vec<ValueId>,
    producers: BTreeMap<NodeId, ValueId>,
    consumers: BTreeSet<Consumer>,
    edits: BTreeSet<Edit>,
}

impl<'a> Trace<'a> {
    fn new(graph: &'a Graph, uses: &'a [usize], count: usize) -> Trace<'a> {
        Trace {
            graph,
            uses,
            count,
            carried: BTreeMap::new(),
            queue: Vec::new(),
            producers: BTreeMap::new(),
            consumers: BTreeSet::new(),
            edits: BTreeSet::new(),
        }
    }

    fn group(self) -> Group {
        Group {
            count: self.count,
            producers: self.producers.into_values().collect(),
            consumers: self.consumers.into_iter().collect(),
            edits: self.edits.into_iter().collect(),
            carried: self.carried,
        }
    }

    fn follow(&mut self, value: ValueId, at: Carry) -> Step {
        self.carry(value, at)?;
        while let Some(v) = self.queue.pop() {
            let at = self.carried[&v];
            match self.graph.def(v) {
                Def::Node(n, port) => self.node(*n, Seat::Out(*port), at)?,
                _ => return refuse("the channels come from outside the graph"),
            }
            for u in self.graph.uses(v) {
                match u {
                    Use::Input(n, port) => self.node(n, Seat::In(port), at)?,
                    Use::Capture(..) => return refuse("a subgraph reads the channels"),
                    Use::Output(_) => return refuse("the channels are an output of the model"),
                }
            }
        }
        if self.consumers.is_empty() {
            return refuse("no layer reads the channels");
        }
        Ok(())
    }

    /// Notes that `v` has the channels along this axis.
    fn carry(&mut self, v: ValueId, at: Carry) -> Step {
        if let Some(&known) = self.carried.get(&v) {
            return if known == at { Ok(()) } else { refuse("two axes would carry the same channels") };
        }
        let size = self.graph.ty(v).shape().and_then(|s| s.get(at.axis)).and_then(Dim::known);
        if size != self.count.checked_mul(at.inner) {
            return refuse("the size of the channel axis is not known");
        }
        self.carried.insert(v, at);
        self.queue.push(v);
        Ok(())
    }

    fn slice(&mut self, node: NodeId, port: usize, axis: usize, inner: usize) {
        self.edits.insert(Edit::Slice { node, port, at: Carry { axis, inner } });
    }

    fn node(&mut self, id: NodeId, seat: Seat, at: Carry) -> Step {
        let Some(node) = self.graph.get(id) else { return refuse("a node is missing") };
        let name = node.op.name();
        let lost = || refuse(format!("{name} mixes or reads the channels"));
        if !node.op.domain().is_empty() {
            return lost();
        }
        if matches!(node.op.kind(&node.attrs), Kind::Elementwise(_)) {
            return self.elementwise(id, node, seat, at);
        }
        match name {
            "Conv" | "ConvTranspose" => self.convolution(id, node, seat, at),
            "MatMul" | "Gemm" => self.product(id, node, seat, at),
            "BatchNormalization" | "InstanceNormalization" if at.axis == 1 => {
                if self.outputs(node) > 1 {
                    return lost();
                }
                (1..node.inputs().len()).try_for_each(|p| self.vector(id, node, p, at.inner))?;
                self.mapped(node, seat, at, Some)
            }
            "MaxPool" | "AveragePool" | "LpPool" | "GlobalAveragePool" | "GlobalMaxPool" | "GlobalLpPool"
                if at.axis == 1 && self.outputs(node) == 1 =>
            {
                self.mapped(node, seat, at, Some)
            }
            _ if self.spared(node, name, at.axis) => self.mapped(node, seat, at, Some),
            "Transpose" | "ReduceMean" | "ReduceSum" | "ReduceMax" | "ReduceMin" | "ReduceL2" => {
                let rank = node.input(0).and_then(|v| self.graph.ty(v).rank()).unwrap_or(0);
                let map = if name == "Transpose" {
                    reach::transposed(node, rank)
                } else {
                    reach::reduced(self.graph, node, rank)
                };
                let Some(map) = map else { return lost() };
                self.mapped(node, seat, at, |i| map.get(i).copied().flatten())
            }
            "Reshape" | "Flatten" | "Squeeze" | "Unsqueeze" => self.reshape(id, node, seat, at),
            "Concat" => self.concat(node, seat, at),
            "Shape" if self.shape_is_unread(node, at) => Ok(()),
            _ => lost(),
        }
    }

    fn outputs(&self, node: &Node) -> usize {
        node.outputs().iter().flatten().count()
    }

    /// The rank of input 0.
    fn rank(&self, node: &Node) -> usize {
        node.input(0).and_then(|v| self.graph.ty(v).rank()).unwrap_or(0)
    }

    fn spared(&self, node: &Node, name: &str, axis: usize) -> bool {
        let rank = self.rank(node);
        match name {
            "Resize" => reach::resize_spares(self.graph, node, axis, rank),
            "Pad" => reach::pad_spares(self.graph, node, axis, rank),
            "Slice" => reach::slice_spares(self.graph, node, axis, rank),
            _ => false,
        }
    }

    /// Carries the channels between input 0 and output 0, given where input axes are in the output.
    fn mapped(&mut self, node: &Node, seat: Seat, at: Carry, map: impl Fn(usize) -> Option<usize>) -> Step {
        let found = match seat {
            Seat::In(0) => map(at.axis).zip(node.output(0)),
            Seat::Out(0) => (0..self.rank(node)).find(|&i| map(i) == Some(at.axis)).zip(node.input(0)),
            _ => None,
        };
        match found {
            Some((axis, v)) => self.carry(v, Carry { axis, ..at }),
            None => refuse(format!("{} mixes or reads the channels", node.op.name())),
        }
    }

    /// Slices a constant of one entry per channel.
    fn vector(&mut self, id: NodeId, node: &Node, port: usize, inner: usize) -> Step {
        let Some(v) = node.input(port) else {
            // A refit may give it a bias before its rows go.
            self.slice(id, port, 0, inner);
            return Ok(());
        };
        let size = self.graph.constant(v).map(|t| t.shape().to_vec());
        match size.as_deref() {
            Some(&[n]) if Some(n) == self.count.checked_mul(inner) => {
                self.slice(id, port, 0, inner);
                Ok(())
            }
            _ => refuse(format!("a parameter of {} is not a constant per channel", node.op.name())),
        }
    }

    fn elementwise(&mut self, id: NodeId, node: &Node, seat: Seat, at: Carry) -> Step {
        let here = match seat {
            Seat::In(p) => node.input(p),
            Seat::Out(p) => node.output(p),
        };
        let Some(rank) = here.and_then(|v| self.graph.ty(v).rank()) else {
            return refuse("a rank is not known");
        };
        // Shapes are aligned at their last axes.
        let back = rank - at.axis;
        for (port, v) in node.inputs().iter().enumerate().filter_map(|(i, v)| Some((i, (*v)?))) {
            let Some(shape) = self.graph.ty(v).shape() else { return refuse("a rank is not known") };
            let Some(axis) = shape.len().checked_sub(back) else { continue };
            match shape[axis].known() {
                Some(1) => {}
                Some(n) if Some(n) == self.count.checked_mul(at.inner) => {
                    if self.graph.constant(v).is_some() {
                        self.slice(id, port, axis, at.inner);
                    } else {
                        self.carry(v, Carry { axis, ..at })?;
                    }
                }
                _ => return refuse("the size of the channel axis is not known"),
            }
        }
        for v in node.outputs().iter().flatten() {
            let Some(axis) = self.graph.ty(*v).rank().and_then(|r| r.checked_sub(back)) else {
                return refuse("a rank is not known");
            };
            self.carry(*v, Carry { axis, ..at })?;
        }
        Ok(())
    }

    /// The constant weight of a layer, which nothing else may read.
    fn weight(&self, node: &Node) -> Result<(ValueId, &'a [usize]), Refusal> {
        let v = node.input(1).ok_or_else(|| Refusal::new("a weight is missing"))?;
        let t = self.graph.constant(v).filter(|t| t.dtype() == DType::F32);
        let Some(t) = t else { return Err(Refusal::new("a weight is not a constant of float32")) };
        if self.uses.get(v.index()) != Some(&1) {
            return Err(Refusal::new("a weight is shared"));
        }
        Ok((v, t.shape()))
    }

    fn convolution(&mut self, id: NodeId, node: &Node, seat: Seat, at: Carry) -> Step {
        let (w, shape) = self.weight(node)?;
        let (groups, plain) = (groups_of(node), node.is("Conv"));
        if at.axis != 1 || shape.len() < 3 {
            return refuse("the channels are not along the channel axis of a convolution");
        }
        match seat {
            Seat::In(0) if groups == 1 => {
                let axis = usize::from(plain);
                self.consumers.insert(Consumer { node: id, weight: w, at: Carry { axis, ..at } });
                Ok(())
            }
            Seat::Out(0) if groups == 1 => {
                self.producers.insert(id, w);
                self.slice(id, 1, usize::from(!plain), at.inner);
                self.vector(id, node, 2, at.inner)
            }
            Seat::In(0) | Seat::Out(0) if plain && groups > 1 && shape[1] == 1 => {
                let multiple = shape[0] / groups;
                let inner = if seat == Seat::In(0) { at.inner } else { at.inner / multiple.max(1) };
                if multiple == 0 || Some(groups) != self.count.checked_mul(inner) {
                    return refuse("a depthwise convolution does not fit its channels");
                }
                let out = inner * multiple;
                self.edits.insert(Edit::Group { node: id, inner });
                self.slice(id, 1, 0, out);
                self.vector(id, node, 2, out)?;
                let ends = node.input(0).zip(node.output(0));
                let Some((x, y)) = ends else { return refuse("a convolution without input") };
                self.carry(x, Carry { axis: 1, inner })?;
                self.carry(y, Carry { axis: 1, inner: out })
            }
            _ if groups > 1 => refuse("a grouped convolution ties channels to groups"),
            _ => refuse("the channels are a weight or a bias"),
        }
    }

    fn product(&mut self, id: NodeId, node: &Node, seat: Seat, at: Carry) -> Step {
        let (w, shape) = self.weight(node)?;
        let gemm = node.is("Gemm");
        let flag = |name| gemm && node.attrs.int_or(name, 0).unwrap_or(0) != 0;
        let here = if seat == Seat::In(0) { node.input(0) } else { node.output(0) };
        let last = here.and_then(|v| self.graph.ty(v).rank()) == Some(at.axis + 1);
        if shape.len() != 2 || flag("transA") || !last {
            return refuse(format!("the channels are not the last axis of {}", node.op.name()));
        }
        let inputs = usize::from(flag("transB"));
        match seat {
            Seat::In(0) => {
                self.consumers.insert(Consumer { node: id, weight: w, at: Carry { axis: inputs, ..at } });
                Ok(())
            }
            Seat::Out(0) => {
                self.producers.insert(id, w);
                self.slice(id, 1, 1 - inputs, at.inner);
                self.addend(id, node, at.inner)
            }
            _ => refuse("the channels are a weight or a bias"),
        }
    }

    /// The third input of Gemm, broadcast to its output.
    fn addend(&mut self, id: NodeId, node: &Node, inner: usize) -> Step {
        let Some(c) = node.input(2) else { return self.vector(id, node, 2, inner) };
        let Some(t) = self.graph.constant(c) else { return refuse("a bias is not a constant") };
        match t.shape().last() {
            None | Some(1) => {}
            Some(_) => self.slice(id, 2, t.rank() - 1, inner),
        }
        Ok(())
    }

    fn reshape(&mut self, id: NodeId, node: &Node, seat: Seat, at: Carry) -> Step {
        let lost = || refuse(format!("the channel axis is lost in {}", node.op.name()));
        let (Some(x), Some(y)) = (node.input(0), node.output(0)) else { return lost() };
        let (from, to) = match seat {
            Seat::In(0) => (x, y),
            Seat::Out(0) => (y, x),
            _ => return refuse("the channels are a shape"),
        };
        let shapes = self.graph.ty(from).shape().zip(self.graph.ty(to).shape());
        let there = shapes.and_then(|(a, b)| reach::reshaped(a, b, at, self.count));
        let Some(there) = there else { return lost() };
        if node.is("Reshape") {
            let out = if seat == Seat::In(0) { there } else { at };
            let target = node.input(1).and_then(|v| self.graph.constant(v)).and_then(|t| t.to_i64s().ok());
            if target.as_deref().and_then(|t| t.get(out.axis)).is_some_and(|&d| d > 0) {
                self.edits.insert(Edit::Shape { node: id, port: 1, index: out.axis, inner: out.inner });
            }
        }
        self.carry(to, there)
    }

    /// Channels pass a concatenation of another axis.
    fn concat(&mut self, node: &Node, seat: Seat, at: Carry) -> Step {
        let here = match seat {
            Seat::In(p) => node.input(p),
            Seat::Out(p) => node.output(p),
        };
        let rank = here.and_then(|v| self.graph.ty(v).rank()).unwrap_or(0);
        let along = node.attrs.int_or("axis", 0).ok().and_then(|a| reach::front(a, rank));
        if along.is_none_or(|a| a == at.axis) {
            return refuse("Concat joins the channels with others");
        }
        for v in node.inputs().iter().chain(node.outputs()).flatten() {
            self.carry(*v, at)?;
        }
        Ok(())
    }

    /// True when only other axes are picked from this Shape.
    fn shape_is_unread(&self, node: &Node, at: Carry) -> bool {
        let whole = !node.attrs.has("start") && !node.attrs.has("end");
        let Some(out) = node.output(0).filter(|_| whole) else { return false };
        let rank = self.rank(node);
        let picks_another = |u: &Use| {
            let Use::Input(n, 0) = *u else { return false };
            let Some(gather) = self.graph.get(n).filter(|g| g.is("Gather")) else { return false };
            let indices = gather.input(1).and_then(|v| self.graph.constant(v)).and_then(|t| t.to_i64s().ok());
            indices.is_some_and(|i| i.iter().all(|&i| reach::front(i, rank).is_some_and(|i| i != at.axis)))
        };
        self.graph.uses(out).iter().all(picks_another)
    }
}

fn refuse<T>(why: impl Into<String>) -> Result<T, Refusal> {
    Err(Refusal::new(why))
}
