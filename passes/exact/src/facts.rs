//! What the e-graph knows of every class: types, constness and small values; and the tables behind its leaves.

use crate::language::{ENode, Symbol};
use egg::{Analysis, DidMerge, EGraph, Id};
use ir::{
    Accuracy, Attrs, Error, EvalCx, Graph, InferCx, NodeId, Operator, Tensor, Value, ValueId, ValueType,
};
use rustc_hash::FxHashMap;
use std::collections::BTreeMap;

pub type Egraph = EGraph<ENode, Facts>;

/// Constants up to this many elements are computed inside the e-graph.
const SMALL: usize = 4096;

/// Knowledge about one class.
#[derive(Debug, Clone, Default)]
pub struct Fact {
    /// One type per output; a single one unless the class holds a multi-output node.
    pub types: Vec<ValueType>,
    /// Depends on initializers only.
    pub constant: bool,
    /// The value, when the class is an initializer or a small constant.
    pub value: Option<Tensor>,
    /// The value of the source graph this class stood for at the start.
    pub origin: Option<ValueId>,
}

/// Tables behind leaves, shared by the whole e-graph.
#[derive(Default)]
pub struct Facts {
    /// Opset of the source graph.
    opset: i64,
    /// Values of more bytes are known, but not put in place of what computes them: that is folding's to weigh.
    largest_leaf: usize,
    attrs: Vec<Attrs>,
    attr_index: BTreeMap<String, u32>,
    /// Numbers of the sets in `attrs` by address: most are clones of what is there.
    attr_address: FxHashMap<usize, u32>,
    tensors: Vec<Tensor>,
    tensor_index: BTreeMap<(ir::DType, Vec<usize>, Vec<u8>), u32>,
    /// The types of the node that is added next, where they are known: it is not asked for them again.
    known: Option<(ENode, Vec<ValueType>)>,
    /// Classes that were made, merged or learned something; matching clears it.
    pub touched: Vec<Id>,
    /// Graph inputs and captures.
    pub values: Vec<(ValueId, ValueType)>,
    /// Nodes that stay as they are.
    pub opaque: Vec<(NodeId, Vec<ValueType>)>,
    /// How often each rule changed the graph.
    pub fired: BTreeMap<&'static str, usize>,
    /// Classes whose types disagreed when rules merged them: evidence of an unsound rule.
    pub conflicts: Vec<String>,
}

impl Facts {
    pub fn new(opset: i64, largest_leaf: usize) -> Facts {
        Facts { opset, largest_leaf, ..Facts::default() }
    }
    pub fn opset(&self) -> i64 {
        self.opset
    }
    pub fn attrs(&self, i: u32) -> &Attrs {
        &self.attrs[i as usize]
    }
    pub fn tensor(&self, i: u32) -> &Tensor {
        &self.tensors[i as usize]
    }
    pub fn intern_attrs(&mut self, a: Attrs) -> u32 {
        if let Some(&i) = self.attr_address.get(&a.address()) {
            return i;
        }
        let next = self.attrs.len() as u32;
        let i = *self.attr_index.entry(format!("{a:?}")).or_insert(next);
        if i == next {
            self.attr_address.insert(a.address(), i);
            self.attrs.push(a);
        }
        i
    }
    /// Small tensors are interned by content; large ones are assumed distinct (the pipeline has merged equal ones).
    pub fn intern_tensor(&mut self, t: Tensor) -> u32 {
        let next = self.tensors.len() as u32;
        let i = if t.len() <= SMALL && t.dtype() != ir::DType::String {
            *self.tensor_index.entry((t.dtype(), t.shape().to_vec(), t.bytes().to_vec())).or_insert(next)
        } else {
            next
        };
        if i == next {
            self.tensors.push(t);
        }
        i
    }
}

/// Operator of an e-node.
pub fn operator(node: &ENode) -> Option<&'static dyn Operator> {
    match node.symbol {
        Symbol::Op(op) => Some(op.operator()),
        _ => None,
    }
}

/// A node of the standard operator of this name.
pub fn is_standard(node: &ENode, name: &str) -> bool {
    operator(node).is_some_and(|o| o.domain().is_empty() && o.name() == name)
}

/// Attributes of an operator e-node, read from its first child's class.
pub fn attrs_of(egraph: &Egraph, node: &ENode) -> Option<Attrs> {
    let id = *node.children.first()?;
    egraph[id].nodes.iter().find_map(|n| match n.symbol {
        Symbol::Attrs(i) => Some(egraph.analysis.attrs(i).clone()),
        _ => None,
    })
}

/// Adds a node whose output types are known; its children must be canonical.
pub fn add_typed(egraph: &mut Egraph, node: ENode, types: Vec<ValueType>) -> Id {
    egraph.analysis.known = Some((node.clone(), types));
    let id = egraph.add(node);
    egraph.analysis.known = None;
    id
}

/// Whether a class is an absent optional input.
pub fn is_absent(egraph: &Egraph, id: Id) -> bool {
    egraph[id].nodes.iter().any(|n| n.symbol == Symbol::Absent)
}

/// Output types of an operator over classes, or the operator's complaint.
pub fn infer(
    egraph: &Egraph,
    op: &dyn Operator,
    attrs: &Attrs,
    inputs: &[Id],
    outputs: usize,
) -> ir::Result<Vec<ValueType>> {
    let types: Vec<Option<ValueType>> = inputs
        .iter()
        .map(|&c| {
            (!is_absent(egraph, c))
                .then(|| egraph[c].data.types.first().cloned().unwrap_or(ValueType::Unknown))
        })
        .collect();
    let consts: Vec<Option<Tensor>> = inputs.iter().map(|&c| egraph[c].data.value.clone()).collect();
    let none = |_: &Graph, _: &[ValueType]| Err(Error::internal("no subgraphs in the e-graph"));
    op.infer(&InferCx { attrs, inputs: &types, consts: &consts, dims: &[], outputs, subgraph: &none })
}

fn evaluate(egraph: &Egraph, op: &dyn Operator, attrs: &Attrs, inputs: &[Id]) -> Option<Tensor> {
    let values: Vec<Option<Value>> = inputs
        .iter()
        .map(|&c| match (&egraph[c].data.value, is_absent(egraph, c)) {
            (Some(t), _) if t.len() <= SMALL => Some(Some(Value::Tensor(t.clone()))),
            (_, true) => Some(None),
            _ => None,
        })
        .collect::<Option<_>>()?;
    let none = |_: &Graph, _: Vec<Value>| Err(Error::internal("no subgraphs in the e-graph"));
    let cx = EvalCx { node: "", attrs, inputs: &values, captures: &[], outputs: 1, subgraph: &none };
    match op.eval(&cx).ok()?.into_iter().next()? {
        Value::Tensor(t) if t.len() <= SMALL => Some(t),
        _ => None,
    }
}

impl Analysis<ENode> for Facts {
    type Data = Fact;

    fn make(egraph: &mut Egraph, node: &ENode, _id: Id) -> Fact {
        let facts = &egraph.analysis;
        match &node.symbol {
            Symbol::Attrs(_) | Symbol::Absent => Fact { constant: true, ..Fact::default() },
            Symbol::Tensor(i) => {
                let t = facts.tensor(*i).clone();
                Fact { types: vec![ValueType::of(&t)], constant: true, value: Some(t), origin: None }
            }
            Symbol::Value(i) => Fact { types: vec![facts.values[*i as usize].1.clone()], ..Fact::default() },
            Symbol::Opaque(i) => Fact { types: facts.opaque[*i as usize].1.clone(), ..Fact::default() },
            Symbol::Project(i) => {
                let whole = &egraph[node.children[0]].data;
                let ty = whole.types.get(*i as usize).cloned().unwrap_or(ValueType::Unknown);
                Fact { types: vec![ty], constant: whole.constant, ..Fact::default() }
            }
            Symbol::Op(..) => {
                let known = egraph.analysis.known.take_if(|(n, _)| n == node);
                make_op(egraph, node, known.map(|(_, types)| types))
            }
        }
    }

    fn merge(&mut self, a: &mut Fact, b: Fact) -> DidMerge {
        let mut did = DidMerge(false, false);
        for (i, t) in b.types.iter().enumerate() {
            match a.types.get(i).map(|x| x.merge(t)) {
                Some(Ok(m)) => {
                    did = did | DidMerge(m != a.types[i], m != *t);
                    a.types[i] = m;
                }
                Some(Err(e)) => self.conflicts.push(e.to_string()),
                None => {
                    a.types.push(t.clone());
                    did.0 = true;
                }
            }
        }
        did.1 |= a.types.len() > b.types.len();
        did = did | DidMerge(b.constant && !a.constant, a.constant && !b.constant);
        a.constant |= b.constant;
        did = did | DidMerge(a.value.is_none() && b.value.is_some(), a.value.is_some() && b.value.is_none());
        a.value = a.value.take().or(b.value);
        did = did
            | DidMerge(a.origin.is_none() && b.origin.is_some(), a.origin.is_some() && b.origin.is_none());
        a.origin = match (a.origin, b.origin) {
            (Some(x), Some(y)) => Some(x.min(y)),
            (x, y) => x.or(y),
        };
        did
    }

    /// A class with a known small value gets a leaf for it.
    fn modify(egraph: &mut Egraph, id: Id) {
        egraph.analysis.touched.push(id);
        let Some(t) = egraph[id].data.value.clone() else { return };
        if t.stored_bytes() > egraph.analysis.largest_leaf {
            return;
        }
        if egraph[id].nodes.iter().any(|n| matches!(n.symbol, Symbol::Tensor(_))) {
            return;
        }
        let i = egraph.analysis.intern_tensor(t);
        let leaf = egraph.add(ENode::leaf(Symbol::Tensor(i)));
        egraph.union(id, leaf);
    }
}

fn make_op(egraph: &Egraph, node: &ENode, types: Option<Vec<ValueType>>) -> Fact {
    let (Some(op), Some(attrs)) = (operator(node), attrs_of(egraph, node)) else { return Fact::default() };
    let inputs = &node.children[1..];
    let types = types.unwrap_or_else(|| infer(egraph, op, &attrs, inputs, 1).unwrap_or_default());
    let constant = inputs.iter().all(|&c| egraph[c].data.constant)
        && op.accuracy() != Accuracy::Random
        && !inputs.is_empty();
    let sized = types
        .first()
        .and_then(ValueType::concrete)
        .is_some_and(|s| ir::budget::elements(&s).is_ok_and(|n| n <= SMALL));
    // Dequantization stays: it is how compressed weights are stored.
    let value = (constant && sized && types.len() == 1 && op.name() != "DequantizeLinear")
        .then(|| evaluate(egraph, op, &attrs, inputs))
        .flatten();
    Fact { types, constant, value, origin: None }
}
