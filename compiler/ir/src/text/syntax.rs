//! The text form as a tree, before names are resolved and operators looked up.

use super::CAPTURES;
use super::lex::Place;
use crate::{Attr, DType, Tensor, ValueType};
use std::collections::BTreeSet;

/// A typed name.
#[derive(Debug)]
pub struct Formal {
    pub name: String,
    pub ty: ValueType,
    pub place: Place,
}

/// Where a declared value comes from.
#[derive(Debug)]
pub enum Source {
    Data(Tensor),
    /// Capture of this number.
    Capture(usize),
    /// An output of some node.
    Node,
}

#[derive(Debug)]
pub struct GraphText {
    pub name: String,
    pub inputs: Vec<Formal>,
    /// Outputs and the names of their values.
    pub outputs: Vec<(Formal, String)>,
    pub values: Vec<(Formal, Source)>,
    pub nodes: Vec<NodeText>,
}

#[derive(Debug)]
pub struct NodeText {
    pub place: Place,
    pub name: String,
    /// Empty: absent.
    pub outputs: Vec<String>,
    pub domain: String,
    pub op: String,
    /// Empty: absent.
    pub inputs: Vec<String>,
    /// In name order.
    pub attrs: Vec<(String, AttrText)>,
}

#[derive(Debug)]
pub enum AttrText {
    Plain(Attr),
    Graph(Box<GraphText>),
    Graphs(Vec<GraphText>),
}

impl NodeText {
    pub fn graphs(&self) -> impl Iterator<Item = &GraphText> {
        self.attrs.iter().flat_map(|(_, a)| match a {
            AttrText::Plain(_) => &[],
            AttrText::Graph(g) => std::slice::from_ref(&**g),
            AttrText::Graphs(v) => v.as_slice(),
        })
    }

    /// The list of captured values, where it is written out.
    pub fn explicit_captures(&self) -> Option<&[String]> {
        self.attrs.iter().find_map(|(n, a)| match a {
            AttrText::Plain(Attr::Strs(v)) if n == CAPTURES => Some(v.as_slice()),
            _ => None,
        })
    }

    /// Names of outer values that the subgraphs read, each once, in order of their first use.
    pub fn captures(&self) -> Vec<&str> {
        if let Some(v) = self.explicit_captures() {
            return v.iter().map(String::as_str).collect();
        }
        let mut seen = BTreeSet::new();
        self.graphs().flat_map(GraphText::free).filter(|n| seen.insert(*n)).collect()
    }
}

impl GraphText {
    /// Names that are read and not defined here, each once, in order of their first use.
    pub fn free(&self) -> Vec<&str> {
        let mut known: BTreeSet<&str> = self.inputs.iter().map(|f| f.name.as_str()).collect();
        known.extend(
            self.values.iter().filter(|(_, s)| !matches!(s, Source::Node)).map(|(f, _)| f.name.as_str()),
        );
        known.extend(self.nodes.iter().flat_map(|n| n.outputs.iter().map(String::as_str)));
        known.insert("");
        let mut free = Vec::new();
        for n in &self.nodes {
            free.extend(n.inputs.iter().map(String::as_str).filter(|i| known.insert(i)));
            free.extend(n.captures().into_iter().filter(|i| known.insert(i)));
        }
        free.extend(self.outputs.iter().map(|(_, v)| v.as_str()).filter(|v| known.insert(v)));
        free
    }
}

/// True for words that are part of the syntax of types and literals, so that a name must be quoted.
pub fn reserved(word: &str) -> bool {
    DType::from_name(word).is_some()
        || matches!(word, "seq" | "optional" | "map" | "sparse_tensor")
        || matches!(word.to_ascii_lowercase().as_str(), "inf" | "infinity" | "nan")
}
