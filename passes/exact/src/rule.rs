//! A rewrite rule as data, and what its right-hand side may ask and build.

use crate::facts::{self, Egraph, is_absent};
use crate::language::{Children, ENode, OpId, Symbol};
use crate::pattern::{Left, Template};
use egg::{Id, Language};
use ir::{Attrs, DType, Lookup, Shape, Tensor, ValueType};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

/// What a rule puts in place of its left side.
#[derive(Clone, Copy)]
pub enum Right {
    /// Another pattern over the same variables.
    Pattern(&'static str),
    /// Computed: `None` when a side condition fails.
    Build(fn(&mut Cx) -> Option<Id>),
}

/// Where a rule may be used.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Level {
    /// The result is standard ONNX that every runtime runs well.
    Portable,
    /// Also fuses into internal operators that only this runtime knows.
    Runtime,
}

/// One rewrite: `left ⇒ right` means both sides have equal values wherever `left` matches and `right` is built.
pub struct Rule {
    /// Verb phrase in kebab-case; appears in reports, coverage and tests.
    pub name: &'static str,
    pub left: &'static str,
    pub right: Right,
    pub level: Level,
}

impl Rule {
    pub const fn pattern(name: &'static str, left: &'static str, right: &'static str) -> Rule {
        Rule { name, left, right: Right::Pattern(right), level: Level::Portable }
    }
    pub const fn build(name: &'static str, left: &'static str, right: fn(&mut Cx) -> Option<Id>) -> Rule {
        Rule { name, left, right: Right::Build(right), level: Level::Portable }
    }
    pub const fn runtime(mut self) -> Rule {
        self.level = Level::Runtime;
        self
    }

    /// The operator at the root of the left side, without reading the rest.
    pub(crate) fn root(&self) -> Result<Symbol, String> {
        let name = self.left.trim_start_matches('(').split(char::is_whitespace).next().unwrap_or_default();
        OpId::named(name).map(Symbol::Op).map_err(|e| format!("rule {}: {e}", self.name))
    }

    /// Both sides, read once for each rule; an error when a pattern names an operator that does not exist.
    pub(crate) fn compiled(&'static self) -> Result<Arc<Compiled>, String> {
        static READ: Mutex<BTreeMap<&str, Arc<Compiled>>> = Mutex::new(BTreeMap::new());
        let mut read = READ.lock().unwrap_or_else(|e| e.into_inner());
        if let Some(c) = read.get(self.name) {
            return Ok(Arc::clone(c));
        }
        let in_rule = |e: String| format!("rule {}: {e}", self.name);
        let left = Left::parse(self.left).map_err(in_rule)?;
        let right = match self.right {
            Right::Pattern(p) => Some(Template::parse(p, &left).map_err(in_rule)?),
            Right::Build(_) => None,
        };
        let compiled = Arc::new(Compiled { rule: self, left, right });
        read.insert(self.name, Arc::clone(&compiled));
        Ok(compiled)
    }
}

/// A rule with its patterns read.
pub(crate) struct Compiled {
    pub rule: &'static Rule,
    pub left: Left,
    right: Option<Template>,
}

impl Compiled {
    /// Rewrites one match; whether that made two classes one, `None` when a side condition failed.
    pub(crate) fn apply(&self, egraph: &mut Egraph, class: Id, registers: &[Id]) -> Option<bool> {
        let new = match (&self.right, self.rule.right) {
            (Some(t), _) => Some(t.build(egraph, registers)),
            (None, Right::Build(f)) => f(&mut Cx { egraph, left: &self.left, registers, class }),
            (None, Right::Pattern(_)) => None,
        };
        new.map(|new| egraph.union(class, new))
    }
}

/// A match: the bound variables, what is known of them, and a builder for the replacement.
pub struct Cx<'a> {
    egraph: &'a mut Egraph,
    left: &'a Left,
    registers: &'a [Id],
    class: Id,
}

impl Cx<'_> {
    /// The class bound to a variable such as "?x".
    pub fn id(&self, var: &str) -> Option<Id> {
        self.registers.get(self.left.register(var)?).copied()
    }
    /// The classes that `...` stands for.
    pub fn rest(&self) -> Vec<Id> {
        self.left.rest().and_then(|r| self.registers.get(r..)).unwrap_or_default().to_vec()
    }
    /// The class that matched.
    pub fn class(&self) -> Id {
        self.class
    }
    /// The opset of the model.
    pub fn opset(&self) -> i64 {
        self.egraph.analysis.opset()
    }
    /// The attribute set bound to a variable.
    pub fn attrs(&self, var: &str) -> Option<Attrs> {
        let id = self.id(var)?;
        self.egraph[id].nodes.iter().find_map(|n| match n.symbol {
            Symbol::Attrs(i) => Some(self.egraph.analysis.attrs(i).clone()),
            _ => None,
        })
    }
    pub fn absent(&self, id: Id) -> bool {
        is_absent(self.egraph, id)
    }
    pub fn constant(&self, id: Id) -> bool {
        self.egraph[id].data.constant && !self.absent(id)
    }
    /// The tensor of an initializer or small constant.
    pub fn value(&self, id: Id) -> Option<Tensor> {
        self.egraph[id].data.value.clone()
    }
    /// Whether a constant is what it was made of, as zeros are whatever scales them. Putting it into a pattern in place of the
    /// other one would make an expression a part of itself, and rewriting would never end.
    pub fn unchanged(&self, new: Id, old: Id) -> bool {
        let same = || matches!((self.value(new), self.value(old)), (Some(a), Some(b)) if a == b);
        self.egraph.find(new) == self.egraph.find(old) || same()
    }
    /// The single element of a small constant, as f64.
    pub fn scalar(&self, id: Id) -> Option<f64> {
        let t = self.value(id)?;
        if t.len() == 1 { t.to_f64s().ok()?.first().copied() } else { None }
    }
    /// Whether a constant may be multiplied into or divided out of others: its elements are 0 or far from overflow and
    /// underflow, so that regrouping makes no infinity or NaN that the original did not have.
    pub fn tame(&self, id: Id) -> bool {
        let Some(t) = self.value(id) else { return false };
        if !t.dtype().is_float() {
            return true;
        }
        let most: f64 = if t.dtype() == DType::F16 { 240.0 } else { 1e18 };
        let fits = |x: f64| x == 0.0 || (most.recip()..=most).contains(&x.abs());
        every(&t, fits)
    }
    /// As [`Cx::tame`], and no element is 0.
    pub fn divides(&self, id: Id) -> bool {
        self.value(id).is_some_and(|t| every(&t, |x| x != 0.0)) && self.tame(id)
    }
    /// A small integer constant's elements.
    pub fn ints(&self, id: Id) -> Option<Vec<i64>> {
        self.value(id)?.to_i64s().ok()
    }
    pub fn ty(&self, id: Id) -> Option<&ValueType> {
        self.egraph[id].data.types.first()
    }
    pub fn dtype(&self, id: Id) -> Option<DType> {
        self.ty(id)?.dtype()
    }
    pub fn rank(&self, id: Id) -> Option<usize> {
        self.ty(id)?.rank()
    }
    /// The shape when all dims are known.
    pub fn shape(&self, id: Id) -> Option<Shape> {
        self.ty(id)?.concrete()
    }
    /// Attributes and children of an operator node of the class, if it has one of this name.
    pub fn find(&self, id: Id, name: &str) -> Option<(Attrs, Vec<Id>)> {
        self.nodes(id, name).next()
    }
    /// As [`Cx::find`], of all of them.
    pub fn nodes(&self, id: Id, name: &str) -> impl Iterator<Item = (Attrs, Vec<Id>)> {
        let nodes = self.egraph[id].nodes.iter().filter(move |n| facts::is_standard(n, name));
        nodes.filter_map(|n| Some((facts::attrs_of(self.egraph, n)?, n.children()[1..].to_vec())))
    }

    /// Adds a tensor.
    pub fn tensor(&mut self, t: Tensor) -> Id {
        let i = self.egraph.analysis.intern_tensor(t);
        self.egraph.add(ENode::leaf(Symbol::Tensor(i)))
    }
    pub fn int_vector(&mut self, v: &[i64]) -> Id {
        self.tensor(Tensor::vector(v.to_vec()))
    }
    /// Adds a standard operator; `None` when it does not exist or refuses these inputs.
    pub fn op(&mut self, name: &str, attrs: Attrs, inputs: &[Id]) -> Option<Id> {
        self.op_in("", name, attrs, inputs)
    }
    /// Adds an operator of any domain. Missing trailing inputs are filled as absent.
    pub fn op_in(&mut self, domain: &str, name: &str, attrs: Attrs, inputs: &[Id]) -> Option<Id> {
        let op = ops::Standard.operator(domain, name)?;
        let inputs = pad_inputs(self.egraph, op, inputs.into());
        let i = self.egraph.analysis.intern_attrs(attrs.clone());
        let leaf = self.egraph.add(ENode::leaf(Symbol::Attrs(i)));
        let children = std::iter::once(leaf).chain(inputs.iter().map(|&c| self.egraph.find(c))).collect();
        let node = ENode { symbol: Symbol::Op(OpId::of(op)?), children };
        // Rules match again in every round: what exists was inferred then.
        if let Some(id) = self.egraph.lookup(node.clone()) {
            return Some(id);
        }
        let types = facts::infer(self.egraph, op, &attrs, &inputs, 1).ok()?;
        types.first()?;
        Some(facts::add_typed(self.egraph, node, types))
    }
    pub fn none(&mut self) -> Id {
        self.egraph.add(ENode::leaf(Symbol::Absent))
    }
}

/// Whether all elements of a tensor of numbers fit; stops at the first that does not.
pub fn every(t: &Tensor, mut fits: impl FnMut(f64) -> bool) -> bool {
    if t.dtype() == DType::F32 {
        return t.bytes().as_chunks::<4>().0.iter().all(|b| fits(f64::from(f32::from_ne_bytes(*b))));
    }
    t.to_f64s().is_ok_and(|v| v.into_iter().all(fits))
}

/// Children of an operator are its formal inputs, absent ones included, so that patterns have one arity per operator.
pub fn pad_inputs(egraph: &mut Egraph, op: &dyn ir::Operator, mut inputs: Children) -> Children {
    let formals = op.signature().inputs;
    if formals.last().is_some_and(|f| f.arity == ir::Arity::Variadic) {
        return inputs;
    }
    while inputs.len() < formals.len() {
        inputs.push(egraph.add(ENode::leaf(Symbol::Absent)));
    }
    inputs
}
