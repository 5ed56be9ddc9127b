//! The graph: a petgraph `StableDiGraph` of nodes and ported edges behind one wrapper, its only writer.

use crate::{Attrs, DType, Error, Operator, Result, Tensor, ValueType};
use petgraph::stable_graph::{NodeIndex, StableDiGraph};
use petgraph::visit::EdgeRef;
use rustc_hash::FxHashMap;
use smallvec::SmallVec;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};
use std::sync::Arc;

mod copy;
mod expression;

/// A value of one graph: an input, an initializer, a capture or an output of a node. Never reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ValueId(u32);

/// A node of one graph. Never reused, so a stale id finds nothing rather than another node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NodeId(u32);

impl ValueId {
    pub fn index(self) -> usize {
        self.0 as usize
    }
}
impl NodeId {
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

/// Where a value comes from.
#[derive(Debug, Clone, PartialEq)]
pub enum Def {
    Input(usize),
    Initializer(Tensor),
    /// Output `1` of node `0`.
    Node(NodeId, usize),
    /// In a subgraph: the n-th capture of the node that holds the subgraph.
    Capture(usize),
    /// Its node was removed.
    Dead,
}

#[derive(Debug, Clone, PartialEq)]
struct ValueData {
    name: Arc<str>,
    ty: ValueType,
    def: Def,
}

/// One operation. `inputs` are the operator's formals (`None`: optional and absent); `captures` are outer values that
/// its subgraphs read, in the order of the subgraphs' [`Def::Capture`] numbers.
#[derive(Debug, Clone)]
pub struct Node {
    pub name: String,
    pub op: &'static dyn Operator,
    pub attrs: Attrs,
    inputs: SmallVec<[Option<ValueId>; 4]>,
    captures: SmallVec<[ValueId; 1]>,
    outputs: SmallVec<[Option<ValueId>; 2]>,
}

impl PartialEq for Node {
    fn eq(&self, o: &Node) -> bool {
        self.name == o.name
            && *self.op == *o.op
            && self.attrs == o.attrs
            && self.inputs == o.inputs
            && self.captures == o.captures
            && self.outputs == o.outputs
    }
}

impl Node {
    pub fn inputs(&self) -> &[Option<ValueId>] {
        &self.inputs
    }
    pub fn captures(&self) -> &[ValueId] {
        &self.captures
    }
    pub fn outputs(&self) -> &[Option<ValueId>] {
        &self.outputs
    }
    /// The `i`-th input, if present.
    pub fn input(&self, i: usize) -> Option<ValueId> {
        self.inputs.get(i).copied().flatten()
    }
    pub fn output(&self, i: usize) -> Option<ValueId> {
        self.outputs.get(i).copied().flatten()
    }
    /// Every value read: inputs in order, then captures.
    pub fn reads(&self) -> impl Iterator<Item = ValueId> + '_ {
        self.inputs.iter().flatten().chain(&self.captures).copied()
    }
    /// True for the standard operator of this name.
    pub fn is(&self, name: &str) -> bool {
        self.op.domain().is_empty() && self.op.name() == name
    }
}

/// A use of a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Use {
    Input(NodeId, usize),
    Capture(NodeId, usize),
    Output(usize),
}

/// Ports of an edge: output of the source, and position among the target's reads (captures after inputs).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Port {
    pub source: usize,
    pub target: usize,
}

/// A named result of the graph.
#[derive(Debug, Clone, PartialEq)]
pub struct Output {
    pub name: String,
    pub value: ValueId,
}

/// What a model says about itself.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Meta {
    /// Opset of the standard domain the model was written for.
    pub opset: i64,
    pub producer: String,
    pub doc: String,
    pub properties: BTreeMap<String, String>,
}

/// A graph of operators; also the body of a control-flow operator.
#[derive(Debug, Clone, Default)]
pub struct Graph {
    pub name: String,
    pub meta: Meta,
    nodes: StableDiGraph<Option<Node>, Port>,
    values: Vec<ValueData>,
    /// Only asked, never walked: its order is nobody's.
    names: FxHashMap<Arc<str>, ValueId>,
    inputs: Vec<ValueId>,
    outputs: Vec<Output>,
    fresh: usize,
}

impl PartialEq for Graph {
    /// Equal ids, names and contents: what a deterministic rebuild of the same graph gives.
    fn eq(&self, o: &Graph) -> bool {
        self.name == o.name
            && self.values == o.values
            && self.inputs == o.inputs
            && self.outputs == o.outputs
            && self.nodes.node_weights().eq(o.nodes.node_weights())
    }
}

impl Graph {
    pub fn new(name: &str) -> Graph {
        Graph { name: name.to_string(), ..Graph::default() }
    }

    // ---- reading ----

    pub fn inputs(&self) -> &[ValueId] {
        &self.inputs
    }
    pub fn outputs(&self) -> &[Output] {
        &self.outputs
    }
    /// The node; a removed or foreign id is an internal error.
    pub fn node(&self, id: NodeId) -> Result<&Node> {
        self.get(id).ok_or_else(|| Error::internal(format!("no node {}", id.0)))
    }
    pub fn get(&self, id: NodeId) -> Option<&Node> {
        self.nodes.node_weight(NodeIndex::new(id.index()))?.as_ref()
    }
    /// Live nodes in creation order.
    pub fn nodes(&self) -> impl Iterator<Item = (NodeId, &Node)> {
        self.nodes.node_indices().filter_map(|i| Some((NodeId(i.index() as u32), self.nodes[i].as_ref()?)))
    }
    pub fn node_count(&self) -> usize {
        self.nodes().count()
    }
    /// Upper bound of node ids, for dense side tables.
    pub fn node_bound(&self) -> usize {
        self.nodes.node_count()
    }
    pub fn value_bound(&self) -> usize {
        self.values.len()
    }
    /// Live values in creation order.
    pub fn values(&self) -> impl Iterator<Item = ValueId> + '_ {
        (0..self.values.len()).filter(|&i| self.values[i].def != Def::Dead).map(|i| ValueId(i as u32))
    }
    pub fn value_name(&self, v: ValueId) -> &str {
        &self.values[v.index()].name
    }
    pub fn def(&self, v: ValueId) -> &Def {
        &self.values[v.index()].def
    }
    pub fn ty(&self, v: ValueId) -> &ValueType {
        &self.values[v.index()].ty
    }
    pub fn find(&self, name: &str) -> Option<ValueId> {
        self.names.get(name).copied()
    }
    /// The tensor of an initializer.
    pub fn constant(&self, v: ValueId) -> Option<&Tensor> {
        match self.def(v) {
            Def::Initializer(t) => Some(t),
            _ => None,
        }
    }
    /// The node that makes `v`.
    pub fn producer(&self, v: ValueId) -> Option<NodeId> {
        match self.def(v) {
            Def::Node(n, _) => Some(*n),
            _ => None,
        }
    }
    pub fn initializers(&self) -> impl Iterator<Item = (ValueId, &Tensor)> {
        self.values.iter().enumerate().filter_map(|(i, d)| match &d.def {
            Def::Initializer(t) => Some((ValueId(i as u32), t)),
            _ => None,
        })
    }

    /// Every use of `v`, ordered by node, port, then graph outputs.
    pub fn uses(&self, v: ValueId) -> Vec<Use> {
        let mut uses: Vec<Use> = match self.def(v) {
            Def::Node(n, port) => self
                .nodes
                .edges(NodeIndex::new(n.index()))
                .filter(|e| e.weight().source == *port)
                .filter_map(|e| self.use_at(NodeId(e.target().index() as u32), e.weight().target))
                .collect(),
            _ => self.nodes().flat_map(|(id, n)| node_uses(id, n, v)).collect(),
        };
        uses.extend(
            self.outputs.iter().enumerate().filter(|(_, o)| o.value == v).map(|(i, _)| Use::Output(i)),
        );
        uses.sort();
        uses
    }

    fn use_at(&self, id: NodeId, port: usize) -> Option<Use> {
        let n = self.get(id)?.inputs.len();
        Some(if port < n { Use::Input(id, port) } else { Use::Capture(id, port - n) })
    }

    /// Nodes that read `v`, each once, in id order.
    pub fn consumers(&self, v: ValueId) -> Vec<NodeId> {
        let set: BTreeSet<NodeId> = self
            .uses(v)
            .into_iter()
            .filter_map(|u| match u {
                Use::Input(n, _) | Use::Capture(n, _) => Some(n),
                Use::Output(_) => None,
            })
            .collect();
        set.into_iter().collect()
    }

    /// All use counts at once, by value index: for passes that would otherwise ask [`Graph::uses`] of every value.
    pub fn use_counts(&self) -> Vec<usize> {
        let mut counts = vec![0; self.values.len()];
        for (_, n) in self.nodes() {
            n.reads().for_each(|v| counts[v.index()] += 1);
        }
        self.outputs.iter().for_each(|o| counts[o.value.index()] += 1);
        counts
    }

    /// Nodes so that producers come first; ties by id, so the order depends on the graph alone.
    pub fn order(&self) -> Result<Vec<NodeId>> {
        let bound = self.node_bound();
        let (mut missing, mut users) = (vec![0usize; bound], vec![Vec::new(); bound]);
        for (id, n) in self.nodes() {
            for p in n.reads().filter_map(|v| self.producer(v)) {
                missing[id.index()] += 1;
                users[p.index()].push(id);
            }
        }
        let mut ready: BinaryHeap<std::cmp::Reverse<NodeId>> = self
            .nodes()
            .filter(|(id, _)| missing[id.index()] == 0)
            .map(|(id, _)| std::cmp::Reverse(id))
            .collect();
        let mut order = Vec::with_capacity(bound);
        while let Some(std::cmp::Reverse(id)) = ready.pop() {
            order.push(id);
            for u in &users[id.index()] {
                missing[u.index()] -= 1;
                if missing[u.index()] == 0 {
                    ready.push(std::cmp::Reverse(*u));
                }
            }
        }
        if order.len() < self.node_count() {
            let stuck: Vec<&str> = self
                .nodes()
                .filter(|(id, _)| missing[id.index()] > 0)
                .map(|(_, n)| n.name.as_str())
                .take(4)
                .collect();
            return Err(Error::model(format!("the graph has a cycle through nodes {stuck:?}")));
        }
        Ok(order)
    }

    /// The petgraph view, for algorithms (dominators, components, isomorphism, DOT). Removed nodes are `None`.
    pub fn view(&self) -> &StableDiGraph<Option<Node>, Port> {
        &self.nodes
    }

    // ---- writing ----

    /// A name no value of this graph has, starting with `base`.
    pub fn fresh_name(&mut self, base: &str) -> String {
        let base = if base.is_empty() { "v" } else { base };
        if !self.names.contains_key(base) {
            return base.to_string();
        }
        loop {
            self.fresh += 1;
            let name = format!("{base}.{}", self.fresh);
            if !self.names.contains_key(name.as_str()) {
                return name;
            }
        }
    }

    fn add_value(&mut self, name: &str, ty: ValueType, def: Def) -> ValueId {
        let free = !name.is_empty() && !self.names.contains_key(name);
        let name = if free { Arc::from(name) } else { Arc::from(self.fresh_name(name)) };
        self.push_value(name, ty, def)
    }

    /// As `add_value`, sharing the name with another graph unless it is taken here.
    fn add_shared(&mut self, name: &Arc<str>, ty: ValueType, def: Def) -> ValueId {
        if name.is_empty() || self.names.contains_key(name) {
            return self.add_value(name, ty, def);
        }
        self.push_value(Arc::clone(name), ty, def)
    }

    fn push_value(&mut self, name: Arc<str>, ty: ValueType, def: Def) -> ValueId {
        let id = ValueId(self.values.len() as u32);
        self.names.insert(name.clone(), id);
        self.values.push(ValueData { name, ty, def });
        id
    }

    pub fn add_input(&mut self, name: &str, ty: ValueType) -> ValueId {
        let v = self.add_value(name, ty, Def::Input(self.inputs.len()));
        self.inputs.push(v);
        v
    }
    pub fn add_initializer(&mut self, name: &str, t: Tensor) -> ValueId {
        self.add_value(name, ValueType::of(&t), Def::Initializer(t))
    }
    /// A value of the enclosing graph, seen from this subgraph.
    pub fn add_capture(&mut self, name: &str, ty: ValueType, index: usize) -> ValueId {
        self.add_value(name, ty, Def::Capture(index))
    }
    pub fn add_output(&mut self, name: &str, value: ValueId) {
        self.outputs.push(Output { name: name.to_string(), value });
    }
    pub fn set_output(&mut self, i: usize, value: ValueId) {
        self.outputs[i].value = value;
    }
    /// Removes an input that nothing reads; those behind it move up.
    pub fn remove_input(&mut self, i: usize) -> Result<()> {
        let v = *self.inputs.get(i).ok_or_else(|| Error::internal(format!("no input {i}")))?;
        if !self.uses(v).is_empty() {
            return Err(Error::internal(format!("input '{}' is still read", self.value_name(v))));
        }
        self.inputs.remove(i);
        self.kill(v);
        for (at, v) in self.inputs.iter().enumerate().skip(i) {
            self.values[v.index()].def = Def::Input(at);
        }
        Ok(())
    }
    /// Replaces the list of outputs.
    pub fn set_outputs(&mut self, outputs: Vec<Output>) {
        self.outputs = outputs;
    }
    pub fn set_type(&mut self, v: ValueId, ty: ValueType) {
        self.values[v.index()].ty = ty;
    }
    /// Replaces an initializer's tensor and type.
    pub fn set_constant(&mut self, v: ValueId, t: Tensor) {
        let d = &mut self.values[v.index()];
        d.ty = ValueType::of(&t);
        d.def = Def::Initializer(t);
    }

    /// Adds a node; `outputs` are name hints, empty for an absent optional output.
    pub fn add_node(
        &mut self,
        name: &str,
        op: &'static dyn Operator,
        attrs: Attrs,
        inputs: &[Option<ValueId>],
        outputs: &[&str],
    ) -> NodeId {
        let id = NodeId(self.nodes.node_count() as u32);
        let outputs = outputs
            .iter()
            .enumerate()
            .map(|(i, o)| (!o.is_empty()).then(|| self.add_value(o, ValueType::Unknown, Def::Node(id, i))))
            .collect();
        let node = Node {
            name: name.to_string(),
            op,
            attrs,
            inputs: inputs.into(),
            captures: SmallVec::new(),
            outputs,
        };
        self.nodes.add_node(Some(node));
        self.connect(id);
        id
    }

    /// Adds a node with one output and returns that output.
    pub fn apply(
        &mut self,
        name: &str,
        op: &'static dyn Operator,
        attrs: Attrs,
        inputs: &[ValueId],
    ) -> ValueId {
        let inputs: Vec<_> = inputs.iter().copied().map(Some).collect();
        let hint = if name.is_empty() { op.name() } else { name };
        let id = self.add_node(name, op, attrs, &inputs, &[hint]);
        let v = ValueId(self.values.len() as u32 - 1);
        debug_assert_eq!(self.get(id).and_then(|n| n.output(0)), Some(v));
        v
    }

    fn connect(&mut self, id: NodeId) {
        let to = NodeIndex::new(id.index());
        let Some(node) = self.get(id) else { return };
        let reads: Vec<(usize, ValueId)> = node
            .inputs
            .iter()
            .enumerate()
            .filter_map(|(i, v)| Some((i, (*v)?)))
            .chain(node.captures.iter().enumerate().map(|(i, &v)| (node.inputs.len() + i, v)))
            .collect();
        for (target, v) in reads {
            if let Def::Node(from, source) = *self.def(v) {
                self.nodes.add_edge(NodeIndex::new(from.index()), to, Port { source, target });
            }
        }
    }

    fn disconnect(&mut self, id: NodeId) {
        let edges: Vec<_> = self
            .nodes
            .edges_directed(NodeIndex::new(id.index()), petgraph::Direction::Incoming)
            .map(|e| e.id())
            .collect();
        for e in edges {
            self.nodes.remove_edge(e);
        }
    }

    fn edit(&mut self, id: NodeId, f: impl FnOnce(&mut Node)) {
        self.disconnect(id);
        if let Some(n) = self.nodes.node_weight_mut(NodeIndex::new(id.index())).and_then(Option::as_mut) {
            f(n);
        }
        self.connect(id);
    }

    /// Changes operator or attributes in place; inputs and outputs have their own setters.
    pub fn node_mut(&mut self, id: NodeId) -> Result<(&mut &'static dyn Operator, &mut Attrs)> {
        match self.nodes.node_weight_mut(NodeIndex::new(id.index())).and_then(Option::as_mut) {
            Some(n) => Ok((&mut n.op, &mut n.attrs)),
            None => Err(Error::internal(format!("no node {}", id.0))),
        }
    }
    pub fn rename_node(&mut self, id: NodeId, name: &str) {
        self.edit(id, |n| n.name = name.to_string());
    }
    pub fn set_inputs(&mut self, id: NodeId, inputs: &[Option<ValueId>]) {
        self.edit(id, |n| n.inputs = inputs.into());
    }
    pub fn set_input(&mut self, id: NodeId, i: usize, v: Option<ValueId>) {
        self.edit(id, |n| {
            while n.inputs.len() <= i {
                n.inputs.push(None);
            }
            n.inputs[i] = v;
            while n.inputs.last().is_some_and(Option::is_none) {
                n.inputs.pop();
            }
        });
    }
    pub fn set_captures(&mut self, id: NodeId, captures: &[ValueId]) {
        self.edit(id, |n| n.captures = captures.into());
    }
    /// Drops an optional output nobody reads.
    pub fn drop_output(&mut self, id: NodeId, i: usize) {
        if let Some(v) = self.get(id).and_then(|n| n.output(i)) {
            self.edit(id, |n| n.outputs[i] = None);
            self.kill(v);
        }
    }

    fn kill(&mut self, v: ValueId) {
        let d = &mut self.values[v.index()];
        d.def = Def::Dead;
        let name = std::mem::replace(&mut d.name, Arc::from(""));
        self.names.remove(&name);
    }

    /// Makes every reader of `old`, graph outputs included, read `new`.
    pub fn replace_uses(&mut self, old: ValueId, new: ValueId) {
        if old == new {
            return;
        }
        for u in self.uses(old) {
            match u {
                Use::Input(n, i) => self.edit(n, |n| n.inputs[i] = Some(new)),
                Use::Capture(n, i) => self.edit(n, |n| n.captures[i] = new),
                Use::Output(i) => self.outputs[i].value = new,
            }
        }
    }

    /// Renames a value; a taken name gets a suffix.
    pub fn rename_value(&mut self, v: ValueId, name: &str) {
        if self.value_name(v) != name {
            let name: Arc<str> = self.fresh_name(name).into();
            let old = std::mem::replace(&mut self.values[v.index()].name, Arc::clone(&name));
            self.names.remove(&old);
            self.names.insert(name, v);
        }
    }

    /// Removes a node whose outputs nobody reads; an error otherwise.
    pub fn remove_node(&mut self, id: NodeId) -> Result<()> {
        let outputs: Vec<ValueId> = self.node(id)?.outputs.iter().flatten().copied().collect();
        if let Some(v) = outputs.iter().find(|v| !self.uses(**v).is_empty()) {
            return Err(Error::internal(format!("value '{}' is still read", self.value_name(*v))));
        }
        self.disconnect(id);
        self.nodes[NodeIndex::new(id.index())] = None;
        outputs.into_iter().for_each(|v| self.kill(v));
        Ok(())
    }

    /// One more than the highest capture number.
    pub fn capture_count(&self) -> usize {
        self.values.iter().map(|d| if let Def::Capture(i) = d.def { i + 1 } else { 0 }).max().unwrap_or(0)
    }

    /// Names of the standard-domain dtype and shape of the graph's inputs, for messages.
    pub fn input_summary(&self) -> String {
        self.inputs
            .iter()
            .map(|&v| format!("{}: {}", self.value_name(v), self.ty(v)))
            .collect::<Vec<_>>()
            .join(", ")
    }

    /// Gives captures new numbers; those mapped to `None` must have no readers and go.
    pub fn renumber_captures(&mut self, number: &dyn Fn(usize) -> Option<usize>) {
        for i in 0..self.values.len() {
            if let Def::Capture(old) = self.values[i].def {
                match number(old) {
                    Some(new) => self.values[i].def = Def::Capture(new),
                    None => self.kill(ValueId(i as u32)),
                }
            }
        }
    }

    /// Dtype of a value when known.
    pub fn dtype(&self, v: ValueId) -> Option<DType> {
        self.ty(v).dtype()
    }
}

fn node_uses(id: NodeId, n: &Node, v: ValueId) -> Vec<Use> {
    let inputs = n.inputs.iter().enumerate().filter(|(_, x)| **x == Some(v)).map(|(i, _)| Use::Input(id, i));
    let captures = n.captures.iter().enumerate().filter(|(_, x)| **x == v).map(|(i, _)| Use::Capture(id, i));
    inputs.chain(captures).collect()
}
