//! The e-graph language: operators with an attribute leaf first, value leaves, and projections of multi-output nodes.

use egg::{FromOp, Id, Language};
use ir::{Lookup, qualified};
use std::fmt;

/// A symbol of the language.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Symbol {
    /// An operator by (domain, name); the first child is its [`Symbol::Attrs`] leaf, then one child per formal input.
    Op(&'static str, &'static str),
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
    pub children: Vec<Id>,
}

impl ENode {
    pub fn leaf(symbol: Symbol) -> ENode {
        ENode { symbol, children: Vec::new() }
    }
}

impl Language for ENode {
    type Discriminant = Symbol;
    fn discriminant(&self) -> Symbol {
        self.symbol.clone()
    }
    /// Names of operators are those of their tables, so one name is one address; matching does little else than this.
    fn matches(&self, o: &ENode) -> bool {
        self.children.len() == o.children.len()
            && match (&self.symbol, &o.symbol) {
                (Symbol::Op(d, a), Symbol::Op(e, b)) => std::ptr::eq(*a, *b) && d == e,
                (a, b) => a == b,
            }
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
            Symbol::Op("", name) => f.write_str(name),
            Symbol::Op(domain, name) => write!(f, "{}.{name}", domain.trim_end_matches('.')),
            Symbol::Attrs(i) => write!(f, "attrs{i}"),
            Symbol::Tensor(i) => write!(f, "tensor{i}"),
            Symbol::Value(i) => write!(f, "value{i}"),
            Symbol::Absent => f.write_str("_"),
            Symbol::Project(i) => write!(f, "project{i}"),
            Symbol::Opaque(i) => write!(f, "opaque{i}"),
        }
    }
}

impl FromOp for ENode {
    type Error = String;
    /// Patterns name operators as they are printed: `Conv`, `ir.FusedConv`, and `_` for an absent input.
    fn from_op(op: &str, children: Vec<Id>) -> Result<ENode, String> {
        if op == "_" {
            return Ok(ENode::leaf(Symbol::Absent));
        }
        let (domain, name) = op.rsplit_once('.').map_or(("", op), |(d, n)| (d, n));
        let found = ops::Standard
            .operator(domain, name)
            .or_else(|| ops::Standard.operator(&format!("{domain}."), name))
            .ok_or_else(|| format!("unknown operator {op} in a pattern"))?;
        debug_assert_eq!(qualified(found), op);
        Ok(ENode { symbol: Symbol::Op(found.domain(), found.name()), children })
    }
}
