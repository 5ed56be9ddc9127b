//! Names in a file: unique over a graph and all graphs around it, equal weights stored once.

use ir::{DType, Def, Error, Graph, Result, Tensor, ValueId};
use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash, Hasher};

/// Larger equal tensors are shared with enclosing graphs too; small ones stay where shape inference looks for them.
const SHARED_FROM: usize = 1024;

/// Places of a tensor that its sketch looks at, and bytes at each.
const SAMPLES: usize = 32;
const SAMPLE: usize = 16;
/// Most tensors of one sketch that are compared in full.
const ALIKE: usize = 64;

/// An initializer that has to be stored, under its name.
pub struct Stored {
    pub name: String,
    pub value: ValueId,
}

/// The graphs that are being written, outermost first.
#[derive(Default)]
pub struct Names {
    scopes: Vec<Scope>,
    nodes: BTreeSet<String>,
    suffix: usize,
}

#[derive(Default)]
struct Scope {
    taken: BTreeSet<String>,
    of: BTreeMap<ValueId, String>,
    /// Stored tensors by sketch.
    weights: BTreeMap<u64, Vec<(Tensor, String)>>,
}

impl Names {
    pub fn new() -> Names {
        Names::default()
    }

    /// The name of a value of the innermost graph; empty when nothing reads it.
    pub fn of(&self, v: ValueId) -> &str {
        self.scopes.last().and_then(|s| s.of.get(&v)).map_or("", String::as_str)
    }

    /// A node name that no other node has; unnamed nodes stay unnamed.
    pub fn node(&mut self, name: &str) -> String {
        if name.is_empty() || self.nodes.insert(name.to_string()) {
            return name.to_string();
        }
        loop {
            self.suffix += 1;
            let other = format!("{name}.{}", self.suffix);
            if self.nodes.insert(other.clone()) {
                return other;
            }
        }
    }

    /// True inside a subgraph.
    pub fn nested(&self) -> bool {
        self.scopes.len() > 1
    }

    pub fn leave(&mut self) {
        self.scopes.pop();
    }

    /// Names every value of `g` and returns the initializers to store. Names of the main graph's inputs and outputs are
    /// its interface and stay; the others stay where they are free.
    pub fn enter(&mut self, g: &Graph, captures: &[String]) -> Result<Vec<Stored>> {
        let main = self.scopes.is_empty();
        self.scopes.push(Scope::default());
        for &v in g.inputs() {
            self.name(v, g.value_name(v), main)?;
        }
        for o in g.outputs() {
            if !self.named(o.value) {
                self.name(o.value, &o.name, main)?;
            } else if main && self.of(o.value) != o.name {
                return Err(Error::internal(format!("output '{}' shares a value with another", o.name)));
            }
        }
        for v in g.values() {
            if let Def::Capture(i) = g.def(v) {
                let outer = captures.get(*i).filter(|c| !c.is_empty());
                let outer = outer.ok_or_else(|| Error::internal(format!("capture {i} has no outer name")))?;
                self.insert(v, outer.clone());
            }
        }
        let counts = g.use_counts();
        let mut stored = Vec::new();
        for v in g.values().filter(|v| counts[v.index()] > 0) {
            match g.def(v) {
                Def::Initializer(t) => stored.extend(self.initializer(v, t, g.value_name(v))?),
                Def::Node(..) if !self.named(v) => self.name(v, g.value_name(v), false)?,
                _ => {}
            }
        }
        // Results that nobody reads still need a name when the operator requires them.
        for v in g.values() {
            if matches!(g.def(v), Def::Node(..)) && !self.named(v) {
                self.name(v, g.value_name(v), false)?;
            }
        }
        Ok(stored)
    }

    fn named(&self, v: ValueId) -> bool {
        self.scopes.last().is_some_and(|s| s.of.contains_key(&v))
    }

    fn insert(&mut self, v: ValueId, name: String) {
        if let Some(s) = self.scopes.last_mut() {
            s.of.insert(v, name);
        }
    }

    fn name(&mut self, v: ValueId, wanted: &str, fixed: bool) -> Result<()> {
        let free = |n: &str| !n.is_empty() && !self.scopes.iter().any(|s| s.taken.contains(n));
        let name = if free(wanted) {
            wanted.to_string()
        } else if fixed {
            return Err(Error::internal(format!("two inputs or outputs are named '{wanted}'")));
        } else {
            (1..).map(|i| format!("{wanted}.{i}")).find(|n| free(n)).unwrap_or_default()
        };
        if let Some(s) = self.scopes.last_mut() {
            s.taken.insert(name.clone());
        }
        self.insert(v, name);
        Ok(())
    }

    /// Names an initializer; an equal one that is stored already lends its name.
    fn initializer(&mut self, v: ValueId, t: &Tensor, name: &str) -> Result<Option<Stored>> {
        let key = sketch(t);
        let depth = self.scopes.len();
        let known = self.scopes.iter().enumerate().find_map(|(i, s)| {
            let near = i + 1 == depth || t.stored_bytes() >= SHARED_FROM;
            s.weights
                .get(&key)
                .filter(|_| near)?
                .iter()
                .take(ALIKE)
                .find(|(x, _)| x == t)
                .map(|(_, n)| n.clone())
        });
        if let Some(known) = known {
            self.insert(v, known);
            return Ok(None);
        }
        self.name(v, name, false)?;
        let name = self.of(v).to_string();
        if let Some(s) = self.scopes.last_mut() {
            s.weights.entry(key).or_default().push((t.clone(), name.clone()));
        }
        Ok(Some(Stored { name, value: v }))
    }
}

/// Of a mapped tensor above this size the pages around the samples are given back: the system maps many for each.
const SCATTERED: usize = 4 << 20;

/// Equal tensors have equal sketches; a few hundred bytes of a large one tell almost all others apart, without reading it.
fn sketch(t: &Tensor) -> u64 {
    let mut hasher = DefaultHasher::new();
    let bytes = t.bytes();
    (t.dtype(), t.shape(), bytes.len()).hash(&mut hasher);
    if t.dtype() == DType::String {
        t.hash(&mut hasher);
    }
    let step = (bytes.len() / SAMPLES).max(SAMPLE);
    bytes.chunks(step).for_each(|c| c[..c.len().min(SAMPLE)].hash(&mut hasher));
    if bytes.len() >= SCATTERED {
        t.release();
    }
    hasher.finish()
}
