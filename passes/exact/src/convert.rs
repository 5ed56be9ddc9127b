//! Graph into e-graph and, with a selection, back.

use crate::facts::{self, Egraph, Facts, attrs_of, operator};
use crate::language::{Children, ENode, OpId, Symbol};
use crate::rule::pad_inputs;
use egg::Id;
use ir::{Accuracy, Attr, Def, Error, Graph, Node, NodeId, Output, Result, ValueId};
use std::collections::{BTreeMap, BTreeSet};

/// An e-graph of one graph, and where its values are.
pub struct Converted {
    pub egraph: Egraph,
    /// Classes of the graph's outputs.
    pub roots: Vec<Id>,
    /// Class and e-node of every node of the graph, in topological order.
    pub chosen: Vec<(Id, ENode)>,
}

/// Rules may look into a node when it is pure, has one output and all of it is visible.
fn transparent(n: &Node) -> bool {
    n.captures().is_empty()
        && n.op.accuracy() != Accuracy::Random
        && n.attrs
            .iter()
            .all(|(_, a)| !matches!(a, Attr::Graph(_) | Attr::Graphs(_) | Attr::Tensor(_) | Attr::Tensors(_)))
        && n.outputs().len() == 1
        && n.outputs()[0].is_some()
        && !n.inputs().is_empty()
}

/// Builds the e-graph of `graph`; it is not rebuilt yet. Constants that rules make are leaves up to `largest_leaf` bytes.
pub fn enter(graph: &Graph, largest_leaf: usize) -> Result<Converted> {
    let mut egraph = Egraph::new(Facts::new(graph.meta.opset, largest_leaf));
    let mut class: BTreeMap<ValueId, Id> = BTreeMap::new();
    let mut chosen = Vec::new();
    for v in graph.values() {
        let symbol = match graph.def(v) {
            Def::Input(_) | Def::Capture(_) => {
                egraph.analysis.values.push((v, graph.ty(v).clone()));
                Symbol::Value(egraph.analysis.values.len() as u32 - 1)
            }
            Def::Initializer(t) => Symbol::Tensor(egraph.analysis.intern_tensor(t.clone())),
            _ => continue,
        };
        let node = ENode::leaf(symbol);
        let id = egraph.add(node.clone());
        mark_origin(&mut egraph, id, v);
        class.insert(v, id);
        chosen.push((id, node));
    }
    for id in graph.order()? {
        enter_node(graph, id, &mut egraph, &mut class, &mut chosen)?;
    }
    let root =
        |o: &Output| class.get(&o.value).copied().ok_or_else(|| Error::internal("an output has no value"));
    let roots = graph.outputs().iter().map(root).collect::<Result<_>>()?;
    Ok(Converted { egraph, roots, chosen })
}

fn mark_origin(egraph: &mut Egraph, id: Id, v: ValueId) {
    let data = egraph[id].data.clone();
    if data.origin.is_none() {
        egraph.set_analysis_data(id, crate::facts::Fact { origin: Some(v), ..data });
    }
}

fn enter_node(
    graph: &Graph,
    id: NodeId,
    egraph: &mut Egraph,
    class: &mut BTreeMap<ValueId, Id>,
    chosen: &mut Vec<(Id, ENode)>,
) -> Result<()> {
    let n = graph.node(id)?;
    let absent = ENode::leaf(Symbol::Absent);
    let mut children = Children::new();
    for v in n.inputs().iter().copied().chain(n.captures().iter().map(|&v| Some(v))) {
        children.push(match v {
            Some(v) => *class.get(&v).ok_or_else(|| Error::internal("an input has no value"))?,
            None => egraph.add(absent.clone()),
        });
    }
    let types: Vec<_> =
        n.outputs().iter().map(|o| o.map_or(ir::ValueType::Unknown, |v| graph.ty(v).clone())).collect();
    let node = if transparent(n) {
        let i = egraph.analysis.intern_attrs(n.attrs.clone());
        let leaf = egraph.add(ENode::leaf(Symbol::Attrs(i)));
        let children = std::iter::once(leaf).chain(pad_inputs(egraph, n.op, children)).collect();
        let op = OpId::of(n.op).ok_or_else(|| Error::internal(format!("{:?} is in no table", n.op)))?;
        ENode { symbol: Symbol::Op(op), children }
    } else {
        egraph.analysis.opaque.push((id, types.clone()));
        ENode { symbol: Symbol::Opaque(egraph.analysis.opaque.len() as u32 - 1), children }
    };
    let single = transparent(n);
    // Where all dims are known there is nothing to infer.
    let known = single && types.iter().all(|t| t.concrete().is_some());
    let whole =
        if known { facts::add_typed(egraph, node.clone(), types.clone()) } else { egraph.add(node.clone()) };
    // What inference found in the graph can be more than the e-graph can infer (named dims through shape arithmetic).
    let mut data = egraph[whole].data.clone();
    for (i, t) in types.iter().enumerate() {
        match data.types.get(i).map(|d| d.merge(t)) {
            Some(Ok(m)) => data.types[i] = m,
            Some(Err(_)) => {}
            None => data.types.push(t.clone()),
        }
    }
    egraph.set_analysis_data(whole, data);
    chosen.push((whole, node));
    for (i, v) in n.outputs().iter().enumerate() {
        let Some(v) = *v else { continue };
        let at = if single {
            whole
        } else {
            let p = ENode { symbol: Symbol::Project(i as u32), children: Children::from_slice(&[whole]) };
            let at = egraph.add(p.clone());
            chosen.push((at, p));
            at
        };
        mark_origin(egraph, at, v);
        class.insert(v, at);
    }
    Ok(())
}

/// Writes the selected e-nodes as a new graph with the source's inputs, outputs and, where they survive, names.
pub fn leave(source: &Graph, egraph: &Egraph, roots: &[Id], selected: &BTreeMap<Id, ENode>) -> Result<Graph> {
    let mut w = Writer {
        source,
        egraph,
        selected,
        graph: Graph::new(&source.name),
        made: BTreeMap::new(),
        used: BTreeSet::new(),
    };
    w.graph.meta = source.meta.clone();
    for &v in source.inputs() {
        let new = w.graph.add_input(source.value_name(v), source.ty(v).clone());
        w.made.insert(Made::Outer(v), new);
    }
    for v in source.values() {
        if let Def::Capture(i) = source.def(v) {
            let new = w.graph.add_capture(source.value_name(v), source.ty(v).clone(), *i);
            w.made.insert(Made::Outer(v), new);
        }
    }
    let mut outputs = Vec::new();
    for (o, &r) in source.outputs().iter().zip(roots) {
        outputs.push(Output { name: o.name.clone(), value: w.class(r)? });
    }
    w.graph.set_outputs(outputs);
    Ok(w.graph)
}

#[derive(PartialEq, Eq, PartialOrd, Ord, Clone, Copy)]
enum Made {
    Outer(ValueId),
    Class(Id),
    /// Output `1` of the multi-output node in class `0`.
    Part(Id, u32),
}

struct Writer<'a> {
    source: &'a Graph,
    egraph: &'a Egraph,
    selected: &'a BTreeMap<Id, ENode>,
    graph: Graph,
    made: BTreeMap<Made, ValueId>,
    used: BTreeSet<String>,
}

impl Writer<'_> {
    fn node(&self, id: Id) -> Result<&ENode> {
        self.selected.get(&self.egraph.find(id)).ok_or_else(|| Error::internal("a class has no selection"))
    }

    /// The value of a class, writing what it needs first (an explicit stack: graphs are deep).
    fn class(&mut self, root: Id) -> Result<ValueId> {
        let mut stack = vec![(self.egraph.find(root), false)];
        while let Some((id, ready)) = stack.pop() {
            if self.done(id)? {
                continue;
            }
            let node = self.node(id)?.clone();
            if ready {
                self.write(id, &node)?;
                continue;
            }
            stack.push((id, true));
            stack.extend(node.children.iter().rev().map(|&c| (self.egraph.find(c), false)));
        }
        self.value(root)
    }

    fn done(&self, id: Id) -> Result<bool> {
        Ok(match self.node(id)?.symbol {
            Symbol::Attrs(_) | Symbol::Absent => true,
            _ => {
                self.made.contains_key(&Made::Class(id)) || self.made.contains_key(&Made::Part(id, u32::MAX))
            }
        })
    }

    fn value(&self, id: Id) -> Result<ValueId> {
        let id = self.egraph.find(id);
        let key = match self.node(id)?.symbol {
            Symbol::Value(i) => Made::Outer(self.egraph.analysis.values[i as usize].0),
            _ => Made::Class(id),
        };
        self.made.get(&key).copied().ok_or_else(|| Error::internal("a class was not written"))
    }

    fn write(&mut self, id: Id, node: &ENode) -> Result<()> {
        let origin = self.egraph[id].data.origin;
        let hint = origin.map(|v| self.source.value_name(v).to_string());
        match &node.symbol {
            Symbol::Value(i) => {
                let v = self.made[&Made::Outer(self.egraph.analysis.values[*i as usize].0)];
                self.made.insert(Made::Class(id), v);
            }
            Symbol::Tensor(i) => {
                let t = self.egraph.analysis.tensor(*i).clone();
                let v = self.graph.add_initializer(hint.as_deref().unwrap_or("constant"), t);
                self.made.insert(Made::Class(id), v);
            }
            Symbol::Project(i) => {
                let whole = self.egraph.find(node.children[0]);
                let v = *self
                    .made
                    .get(&Made::Part(whole, *i))
                    .ok_or_else(|| Error::internal("an output of a node was not written"))?;
                if let Some(h) = hint {
                    self.graph.rename_value(v, &h);
                }
                self.made.insert(Made::Class(id), v);
            }
            Symbol::Opaque(i) => self.write_opaque(id, node, *i)?,
            Symbol::Op(..) => self.write_op(id, node, hint)?,
            Symbol::Attrs(_) | Symbol::Absent => {}
        }
        Ok(())
    }

    fn write_opaque(&mut self, id: Id, node: &ENode, i: u32) -> Result<()> {
        let old = self.source.node(self.egraph.analysis.opaque[i as usize].0)?;
        let all: Vec<Option<ValueId>> =
            node.children.iter().map(|&c| self.input(c)).collect::<Result<_>>()?;
        let (inputs, captures) = all.split_at(old.inputs().len());
        let names: Vec<String> = old
            .outputs()
            .iter()
            .map(|o| o.map_or(String::new(), |v| self.source.value_name(v).to_string()))
            .collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let new = self.graph.add_node(&old.name, old.op, old.attrs.clone(), inputs, &names);
        let captures: Vec<ValueId> = captures.iter().flatten().copied().collect();
        if !captures.is_empty() {
            self.graph.set_captures(new, &captures);
        }
        self.finish(id, new, true)
    }

    fn input(&self, c: Id) -> Result<Option<ValueId>> {
        if self.node(c)?.symbol == Symbol::Absent { Ok(None) } else { self.value(c).map(Some) }
    }

    fn write_op(&mut self, id: Id, node: &ENode, hint: Option<String>) -> Result<()> {
        let op = operator(node).ok_or_else(|| Error::internal(format!("no operator {node}")))?;
        let attrs = attrs_of(self.egraph, node)
            .ok_or_else(|| Error::internal(format!("{node} has no attributes")))?;
        let mut inputs: Vec<Option<ValueId>> =
            node.children[1..].iter().map(|&c| self.input(c)).collect::<Result<_>>()?;
        while inputs.last().is_some_and(Option::is_none) {
            inputs.pop();
        }
        let multiple = self.multiple(id);
        let name = self.node_name(id, node);
        let outputs: Vec<String> = match multiple {
            0 => vec![hint.unwrap_or_else(|| format!("{name}_out"))],
            n => (0..n).map(|i| format!("{name}_out{i}")).collect(),
        };
        let outputs: Vec<&str> = outputs.iter().map(String::as_str).collect();
        let new = self.graph.add_node(&name, op, attrs, &inputs, &outputs);
        self.finish(id, new, multiple > 0)
    }

    /// Number of projected outputs of a class, 0 when it is a plain value.
    fn multiple(&self, id: Id) -> usize {
        let is_projection =
            |n: &ENode| if let Symbol::Project(i) = n.symbol { Some(i as usize + 1) } else { None };
        self.egraph[id]
            .parents()
            .flat_map(|p| self.egraph[p].nodes.iter())
            .filter(|n| n.children.first().is_some_and(|&c| self.egraph.find(c) == id))
            .filter_map(is_projection)
            .max()
            .unwrap_or(0)
    }

    fn finish(&mut self, id: Id, new: NodeId, parts: bool) -> Result<()> {
        let outputs = self.graph.node(new)?.outputs().to_vec();
        for (i, o) in outputs.into_iter().enumerate() {
            let Some(v) = o else { continue };
            if let Some(t) = self.egraph[id].data.types.get(i) {
                self.graph.set_type(v, t.clone());
            }
            if parts {
                self.made.insert(Made::Part(id, i as u32), v);
                self.made.insert(Made::Part(id, u32::MAX), v);
            } else if i == 0 {
                self.made.insert(Made::Class(id), v);
            }
        }
        Ok(())
    }

    /// The name of the source node this one stands for: for a layer the node that held its weight, otherwise the node
    /// whose value it computes. Names stay unique.
    fn node_name(&mut self, id: Id, node: &ENode) -> String {
        let by_weight = match operator(node).map(|o| o.name()) {
            Some(
                "Conv" | "Gemm" | "MatMul" | "ConvTranspose" | "FusedConv" | "FusedConvTranspose"
                | "FusedGemm" | "FusedMatMul",
            ) => node.children.get(2).and_then(|&w| self.weight_owner(w)),
            _ => None,
        };
        let by_origin = || {
            let v = self.egraph[id].data.origin?;
            Some(self.source.get(self.source.producer(v)?)?.name.clone())
        };
        let base = by_weight.or_else(by_origin).unwrap_or_else(|| format!("{node}").to_lowercase());
        let mut name = base.clone();
        let mut k = 1;
        while !self.used.insert(name.clone()) {
            name = format!("{base}.{k}");
            k += 1;
        }
        name
    }

    /// The source node that read the initializer behind a (possibly rescaled or reshaped) weight.
    fn weight_owner(&self, id: Id) -> Option<String> {
        let mut id = self.egraph.find(id);
        for _ in 0..16 {
            let data = &self.egraph[id].data;
            if let Some(v) = data.origin
                && self.source.constant(v).is_some()
            {
                let owner = *self.source.consumers(v).first()?;
                return Some(self.source.get(owner)?.name.clone());
            }
            let node = self.selected.get(&id)?;
            let next = node.children.iter().skip(1).copied().filter(|&c| self.egraph[c].data.constant);
            // The largest constant operand carries the weight; scales and shapes are small.
            id = self.egraph.find(next.max_by_key(|&c| size(self.egraph, c))?);
        }
        None
    }
}

fn size(egraph: &Egraph, id: Id) -> usize {
    let t = egraph[id].data.types.first().and_then(ir::ValueType::concrete);
    t.and_then(|s| ir::budget::elements(&s).ok()).unwrap_or(0)
}
