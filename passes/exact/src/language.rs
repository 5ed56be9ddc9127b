//! The e-graph language: operators with an attribute leaf first, value leaves, and projections of multi-output nodes.

use egg::{Id, Language};
use ir::{Operator, qualified};
use rustc_hash::FxHashMap;
use smallvec::SmallVec;
use std::fmt;
use std::sync::LazyLock;

/// Every operator by domain and name, and the way back: symbols compare as numbers.
struct Numbered {
    operators: Vec<&'static dyn Operator>,
    numbers: FxHashMap<(&'static str, &'static str), u16>,
}

static NUMBERED: LazyLock<Numbered> = LazyLock::new(|| {
    let mut operators: Vec<_> = ops::FAMILIES.iter().flat_map(|f| f.iter().copied()).collect();
    operators.sort_by_key(|o| (o.domain(), o.name()));
    let numbers = operators.iter().zip(0..).map(|(o, i)| ((o.domain(), o.name()), i)).collect();
    Numbered { operators, numbers }
});

/// An operator by its number in the order of domains and names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct OpId(u16);

impl OpId {
    /// The number of an operator; `None` when it is not one of the tables.
    pub fn of(op: &dyn Operator) -> Option<OpId> {
        NUMBERED.numbers.get(&(op.domain(), op.name())).copied().map(OpId)
    }
    /// The operator that is printed so: `Conv`, `ir.FusedConv`.
    pub fn named(printed: &str) -> Result<OpId, String> {
        // Domains of internal operators end in the dot.
        let (domain, name) = printed.split_at(printed.rfind('.').map_or(0, |dot| dot + 1));
        let number =
            [domain, domain.trim_end_matches('.')].iter().find_map(|d| NUMBERED.numbers.get(&(*d, name)));
        number.copied().map(OpId).ok_or_else(|| format!("unknown operator {printed} in a pattern"))
    }
    /// How many operators there are.
    pub fn count() -> usize {
        NUMBERED.operators.len()
    }
    /// The number, below [`OpId::count`].
    pub fn index(self) -> usize {
        usize::from(self.0)
    }
    /// The operator of a number.
    pub fn operator(self) -> &'static dyn Operator {
        NUMBERED.operators[self.index()]
    }
}

/// A symbol of the language.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Symbol {
    /// An operator; the first child is its [`Symbol::Attrs`] leaf, then one child per formal input.
    Op(OpId),
    /// An interned attribute set.
    Attrs(u32),
    /// An interned tensor.
    Tensor(u32),
    /// A graph input or capture, by number in the facts.
    Value(u32),
    /// An absent optional input.
    Absent,
    /// Output `i` of a node with several.
    Project(u32),
    /// A node rules must not look into (subgraphs, randomness), by number in the facts.
    Opaque(u32),
}

/// An e-node.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ENode {
    pub symbol: Symbol,
    pub children: Children,
}

/// Operators with more inputs are rare.
pub type Children = SmallVec<[Id; 6]>;

impl ENode {
    pub fn leaf(symbol: Symbol) -> ENode {
        ENode { symbol, children: Children::new() }
    }
}

impl Language for ENode {
    type Discriminant = Symbol;
    fn discriminant(&self) -> Symbol {
        self.symbol
    }
    fn matches(&self, o: &ENode) -> bool {
        self.symbol == o.symbol && self.children.len() == o.children.len()
    }
    fn children(&self) -> &[Id] {
        &self.children
    }
    fn children_mut(&mut self) -> &mut [Id] {
        &mut self.children
    }
}

impl fmt::Display for ENode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.symbol {
            Symbol::Op(op) => f.write_str(&qualified(op.operator())),
            Symbol::Attrs(i) => write!(f, "attrs{i}"),
            Symbol::Tensor(i) => write!(f, "tensor{i}"),
            Symbol::Value(i) => write!(f, "value{i}"),
            Symbol::Absent => f.write_str("_"),
            Symbol::Project(i) => write!(f, "project{i}"),
            Symbol::Opaque(i) => write!(f, "opaque{i}"),
        }
    }
}
