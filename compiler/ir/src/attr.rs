//! Attributes of a node: an ordered map with typed getters.

use crate::{Error, Graph, Result, Tensor, ValueType};
use std::collections::BTreeMap;
use std::sync::Arc;

/// An attribute value; subgraphs belong to control-flow operators.
#[derive(Debug, Clone, PartialEq)]
pub enum Attr {
    Int(i64),
    Float(f32),
    Str(String),
    Tensor(Tensor),
    Graph(Box<Graph>),
    Type(ValueType),
    Ints(Vec<i64>),
    Floats(Vec<f32>),
    Strs(Vec<String>),
    Tensors(Vec<Tensor>),
    Graphs(Vec<Graph>),
    Types(Vec<ValueType>),
}

macro_rules! into_attr {
    ($($t:ty => $v:ident),* $(,)?) => {$( impl From<$t> for Attr { fn from(x: $t) -> Attr { Attr::$v(x.into()) } } )*};
}
into_attr! { i64 => Int, f32 => Float, &str => Str, String => Str, Tensor => Tensor, Vec<i64> => Ints, Vec<f32> => Floats, Vec<String> => Strs, ValueType => Type }

/// Attributes by name, in name order. Clones share them until one is changed.
#[derive(Clone, Default)]
pub struct Attrs(Option<Arc<Map>>);

type Map = BTreeMap<String, Attr>;

static NONE: Map = Map::new();

impl Attrs {
    pub fn new() -> Attrs {
        Attrs::default()
    }
    /// Builder style: `Attrs::new().with("axis", 1)`.
    pub fn with(mut self, name: &str, value: impl Into<Attr>) -> Attrs {
        self.set(name, value);
        self
    }
    fn map(&self) -> &Map {
        self.0.as_deref().unwrap_or(&NONE)
    }
    fn map_mut(&mut self) -> &mut Map {
        Arc::make_mut(self.0.get_or_insert_default())
    }
    /// Equal for clones that nobody changed, 0 without attributes. Two sets with one address alive at the same time are
    /// equal; equal sets may have several.
    pub fn address(&self) -> usize {
        self.0.as_ref().map_or(0, |m| Arc::as_ptr(m) as usize)
    }
    pub fn set(&mut self, name: &str, value: impl Into<Attr>) {
        self.map_mut().insert(name.to_string(), value.into());
    }
    pub fn remove(&mut self, name: &str) -> Option<Attr> {
        if self.has(name) { self.map_mut().remove(name) } else { None }
    }
    pub fn get(&self, name: &str) -> Option<&Attr> {
        self.map().get(name)
    }
    pub fn has(&self, name: &str) -> bool {
        self.map().contains_key(name)
    }
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Attr)> {
        self.map().iter().map(|(k, v)| (k.as_str(), v))
    }
    pub fn iter_mut(&mut self) -> impl Iterator<Item = (&str, &mut Attr)> {
        self.map_mut().iter_mut().map(|(k, v)| (k.as_str(), v))
    }
    pub fn is_empty(&self) -> bool {
        self.map().is_empty()
    }
    pub fn len(&self) -> usize {
        self.map().len()
    }

    pub fn int(&self, name: &str) -> Result<Option<i64>> {
        self.typed(name, "an int", |a| if let Attr::Int(x) = a { Some(*x) } else { None })
    }
    pub fn int_or(&self, name: &str, default: i64) -> Result<i64> {
        Ok(self.int(name)?.unwrap_or(default))
    }
    pub fn float(&self, name: &str) -> Result<Option<f32>> {
        self.typed(name, "a float", |a| if let Attr::Float(x) = a { Some(*x) } else { None })
    }
    pub fn float_or(&self, name: &str, default: f32) -> Result<f32> {
        Ok(self.float(name)?.unwrap_or(default))
    }
    pub fn str(&self, name: &str) -> Result<Option<&str>> {
        self.typed(name, "a string", |a| if let Attr::Str(x) = a { Some(x.as_str()) } else { None })
    }
    pub fn str_or<'a>(&'a self, name: &str, default: &'a str) -> Result<&'a str> {
        Ok(self.str(name)?.unwrap_or(default))
    }
    pub fn ints(&self, name: &str) -> Result<Option<&[i64]>> {
        // An empty list carries no element type in some producers' files.
        self.typed(name, "a list of ints", |a| match a {
            Attr::Ints(x) => Some(x.as_slice()),
            Attr::Floats(x) if x.is_empty() => Some(&[]),
            _ => None,
        })
    }
    pub fn floats(&self, name: &str) -> Result<Option<&[f32]>> {
        self.typed(name, "a list of floats", |a| match a {
            Attr::Floats(x) => Some(x.as_slice()),
            Attr::Ints(x) if x.is_empty() => Some(&[]),
            _ => None,
        })
    }
    pub fn strs(&self, name: &str) -> Result<Option<&[String]>> {
        self.typed(name, "a list of strings", |a| match a {
            Attr::Strs(x) => Some(x.as_slice()),
            Attr::Ints(x) if x.is_empty() => Some(&[]),
            _ => None,
        })
    }
    pub fn tensor(&self, name: &str) -> Result<Option<&Tensor>> {
        self.typed(name, "a tensor", |a| if let Attr::Tensor(x) = a { Some(x) } else { None })
    }
    pub fn graph(&self, name: &str) -> Result<Option<&Graph>> {
        self.typed(name, "a graph", |a| if let Attr::Graph(x) = a { Some(&**x) } else { None })
    }
    pub fn require_graph(&self, name: &str) -> Result<&Graph> {
        self.graph(name)?.ok_or_else(|| Error::model(format!("attribute '{name}' is missing")))
    }
    pub fn require_int(&self, name: &str) -> Result<i64> {
        self.int(name)?.ok_or_else(|| Error::model(format!("attribute '{name}' is missing")))
    }
    pub fn require_ints(&self, name: &str) -> Result<&[i64]> {
        self.ints(name)?.ok_or_else(|| Error::model(format!("attribute '{name}' is missing")))
    }
    /// Every subgraph, in attribute order.
    pub fn graphs(&self) -> Vec<&Graph> {
        self.map()
            .values()
            .flat_map(|a| match a {
                Attr::Graph(g) => vec![&**g],
                Attr::Graphs(v) => v.iter().collect(),
                _ => vec![],
            })
            .collect()
    }
    pub fn graphs_mut(&mut self) -> Vec<&mut Graph> {
        if self.graphs().is_empty() {
            return Vec::new();
        }
        self.map_mut()
            .values_mut()
            .flat_map(|a| match a {
                Attr::Graph(g) => vec![&mut **g],
                Attr::Graphs(v) => v.iter_mut().collect(),
                _ => vec![],
            })
            .collect()
    }

    fn typed<'a, T>(
        &'a self,
        name: &str,
        what: &str,
        f: impl Fn(&'a Attr) -> Option<T>,
    ) -> Result<Option<T>> {
        match self.map().get(name) {
            None => Ok(None),
            Some(a) => {
                f(a).map(Some).ok_or_else(|| Error::model(format!("attribute '{name}' is not {what}")))
            }
        }
    }
}

impl FromIterator<(String, Attr)> for Attrs {
    fn from_iter<I: IntoIterator<Item = (String, Attr)>>(i: I) -> Attrs {
        let map: Map = i.into_iter().collect();
        Attrs((!map.is_empty()).then(|| Arc::new(map)))
    }
}

impl PartialEq for Attrs {
    fn eq(&self, o: &Attrs) -> bool {
        self.map() == o.map()
    }
}

impl std::fmt::Debug for Attrs {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Attrs").field(self.map()).finish()
    }
}
