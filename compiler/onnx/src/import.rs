//! ONNX messages to IR: scopes, captures, constants, functions; older operators are upgraded on the way.

use crate::external::Folder;
use crate::functions::Functions;
use crate::mmap::{self, Mapped};
use crate::opset::{self, Upgrade};
use crate::order::sorted;
use crate::prepare;
use crate::proto::{self, AttributeProto, AttributeType, GraphProto, ModelProto, NodeProto, ValueInfoProto};
use crate::tensor::{self, Source};
use crate::types::value_type;
use crate::wire;
use ir::{Attr, Attrs, Blame, Bytes, Error, Graph, Lookup, Result, Tensor, ValueId, ValueType};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Versions of the file format that are understood.
const IR_VERSIONS: std::ops::RangeInclusive<i64> = 1..=14;
/// Opsets of the standard domain that are understood.
pub const OPSETS: std::ops::RangeInclusive<i64> = 1..=28;
/// Deepest nesting of subgraphs. Inference may visit a loop's body twice, so its work can double with each level.
pub const MAX_DEPTH: usize = 12;
/// Deepest nesting of function calls.
const MAX_CALLS: usize = 32;

/// A model read from a file.
#[derive(Debug)]
pub struct Imported {
    pub graph: Graph,
    /// What is odd but harmless, such as wrong declared shapes.
    pub warnings: Vec<String>,
    /// Operators that are not known, one line each. The graph is complete only when this is empty.
    pub unsupported: Vec<String>,
    /// Bytes of the model's file and of the files of external data it uses.
    pub file_bytes: u64,
    /// Other files that hold weights.
    pub external: Vec<PathBuf>,
}

/// Reads a model file; unknown operators are an error that names all of them.
pub fn open(path: &Path, lookup: &dyn Lookup) -> Result<Imported> {
    complete(survey(path, lookup)?)
}

/// As [`open`] for a model whose external data `location` is in `file` until both are put in place.
pub fn open_moved(path: &Path, location: &str, file: &Path, lookup: &dyn Lookup) -> Result<Imported> {
    let folder = Folder::new(Some(folder_of(path))).with_moved(location, file);
    complete(read(mmap::open(path)?, folder, lookup)?)
}

/// Reads a model file and lists what is unknown instead of failing on it.
pub fn survey(path: &Path, lookup: &dyn Lookup) -> Result<Imported> {
    read(mmap::open(path)?, Folder::new(Some(folder_of(path))), lookup)
}

fn folder_of(path: &Path) -> &Path {
    match path.parent() {
        Some(p) if !p.as_os_str().is_empty() => p,
        _ => Path::new("."),
    }
}

/// Reads a model from memory; external data is refused.
pub fn from_bytes(bytes: Vec<u8>, lookup: &dyn Lookup) -> Result<Imported> {
    complete(read(Arc::new(Mapped::Read(bytes)), Folder::new(None), lookup)?)
}

fn complete(m: Imported) -> Result<Imported> {
    if m.unsupported.is_empty() { Ok(m) } else { Err(Error::unsupported(m.unsupported.join("; "))) }
}

fn read(file: Arc<Mapped>, folder: Folder, lookup: &dyn Lookup) -> Result<Imported> {
    let own_bytes = file.bytes().len() as u64;
    let skeleton = wire::skeleton(file.bytes())?;
    let model = proto::parse(&skeleton)?;
    drop(skeleton);
    if model.ir_version == 0 && model.graph.is_none() {
        return Err(Error::model("not an ONNX file: it holds neither a format version nor a graph"));
    }
    if !IR_VERSIONS.contains(&model.ir_version) {
        return Err(Error::unsupported(format!("ONNX file format version {}", model.ir_version)));
    }
    let Some(main) = model.graph.as_ref() else { return Err(Error::model("the file holds no graph")) };
    let versions = opset_versions(&model)?;
    let source = Source { file, folder };
    let functions = Functions::new(&model);
    let shared = Shared { source: &source, lookup, functions: &functions };
    let mut report = Report::default();
    let mut b = Builder::new(&shared, &versions, &main.name, None, 0);
    b.fill(main, &mut report)?;
    if model.ir_version >= 4 {
        report.warnings.extend(overridable(main));
    }
    let mut graph = b.graph;
    graph.meta.opset = versions.get("").copied().unwrap_or(1);
    graph.meta.producer = model.producer_name.clone();
    graph.meta.doc = model.doc_string.clone();
    graph.meta.properties = model.metadata_props.iter().map(|p| (p.key.clone(), p.value.clone())).collect();
    if report.unsupported.is_empty() {
        ir::verify(&graph)?;
        ir::infer(&mut graph)?;
    }
    let file_bytes = own_bytes + source.folder.bytes();
    let external = source.folder.files();
    Ok(Imported { graph, unsupported: report.lines(), warnings: report.warnings, file_bytes, external })
}

/// Inputs with a default value, which is what the graph computes with.
fn overridable(g: &GraphProto) -> Option<String> {
    let defaults: BTreeSet<&str> = g.initializer.iter().map(|t| t.name.as_str()).collect();
    let mut named = g.input.iter().map(|i| i.name.as_str()).filter(|i| defaults.contains(i));
    let first = named.next()?;
    let more = named.count();
    Some(format!("input '{first}' (and {more} more) has a default value and is taken as a constant"))
}

fn opset_versions(model: &ModelProto) -> Result<BTreeMap<String, i64>> {
    let versions: BTreeMap<String, i64> =
        model.opset_import.iter().map(|o| (domain(&o.domain).to_string(), o.version)).collect();
    match versions.get("") {
        Some(v) if !OPSETS.contains(v) => {
            Err(Error::unsupported(format!("opset {v} of the standard domain")))
        }
        _ => Ok(versions),
    }
}

/// "ai.onnx" is another spelling of the standard domain.
pub fn domain(d: &str) -> &str {
    if d == "ai.onnx" { "" } else { d }
}

#[derive(Default)]
pub struct Report {
    pub warnings: Vec<String>,
    /// Unknown operators: the first node that uses each, and how many do.
    unsupported: BTreeMap<(String, i64), (String, usize)>,
}

impl Report {
    fn unknown(&mut self, op: String, version: i64, node: &str) {
        self.unsupported.entry((op, version)).or_insert_with(|| (node.to_string(), 0)).1 += 1;
    }

    fn lines(&self) -> Vec<String> {
        let line = |((op, version), (node, count)): (&(String, i64), &(String, usize))| {
            let nodes = if *count == 1 { "1 node".to_string() } else { format!("{count} nodes") };
            format!("operator {op} version {version} is not known ({nodes}, first '{}')", node.escape_debug())
        };
        self.unsupported.iter().map(line).collect()
    }
}

/// What all scopes of one file share.
pub struct Shared<'a> {
    pub source: &'a Source,
    pub lookup: &'a dyn Lookup,
    pub functions: &'a Functions<'a>,
}

/// Finds the type of a name in enclosing graphs.
pub type Outer<'a> = &'a dyn Fn(&str) -> Option<ValueType>;

/// The names in sight and how to look further out.
#[derive(Default)]
pub struct Scope<'a> {
    pub names: BTreeMap<String, ValueId>,
    pub outer: Option<Outer<'a>>,
}

/// Builds one graph.
pub struct Builder<'a> {
    pub shared: &'a Shared<'a>,
    versions: &'a BTreeMap<String, i64>,
    pub graph: Graph,
    names: BTreeMap<String, ValueId>,
    outer: Option<Outer<'a>>,
    /// Names captured from enclosing graphs, in capture order (shared by all bodies of one node).
    captured: Vec<String>,
    depth: usize,
    calls: usize,
    unnamed: usize,
}

impl<'a> Builder<'a> {
    pub fn new(
        shared: &'a Shared<'a>,
        versions: &'a BTreeMap<String, i64>,
        name: &str,
        outer: Option<Outer<'a>>,
        depth: usize,
    ) -> Builder<'a> {
        Builder {
            shared,
            versions,
            graph: Graph::new(name),
            names: BTreeMap::new(),
            outer,
            captured: Vec::new(),
            depth,
            calls: 0,
            unnamed: 0,
        }
    }

    /// Opset of a domain in force here.
    pub fn version(&self, domain: &str) -> i64 {
        self.versions.get(domain).copied().unwrap_or(1)
    }

    fn fill(&mut self, g: &GraphProto, report: &mut Report) -> Result<()> {
        if self.depth > MAX_DEPTH {
            return Err(Error::limit(format!("subgraphs nest deeper than {MAX_DEPTH}")));
        }
        // In the main graph an input with a default is that default; a subgraph's inputs are given by its operator.
        let main = self.outer.is_none();
        let mut defaults: BTreeSet<&str> = g.initializer.iter().map(|t| t.name.as_str()).collect();
        defaults.extend(g.sparse_initializer.iter().map(|s| s.values.name.as_str()));
        for i in &g.input {
            if !main || !defaults.contains(i.name.as_str()) {
                let ty = value_type(i.type_.as_ref()).map_err(|e| e.tensor(i.name.as_str()))?;
                let v = self.graph.add_input(&i.name, ty);
                self.define(&i.name, v)?;
            }
        }
        let hidden: BTreeSet<&str> = g.input.iter().filter(|_| !main).map(|i| i.name.as_str()).collect();
        for t in g.initializer.iter().filter(|t| !hidden.contains(t.name.as_str())) {
            let v = self.graph.add_initializer(&t.name, tensor::read(t, self.shared.source)?);
            self.define(&t.name, v)?;
        }
        for s in &g.sparse_initializer {
            let v = self.graph.add_initializer(&s.values.name, tensor::read_sparse(s, self.shared.source)?);
            self.define(&s.values.name, v)?;
        }
        let declared: BTreeMap<&str, &ValueInfoProto> =
            g.value_info.iter().chain(&g.output).map(|v| (v.name.as_str(), v)).collect();
        self.nodes(&g.node, &declared, report)?;
        for o in &g.output {
            let v = self
                .resolve(&o.name)
                .map_err(|_| Error::model(format!("output '{}' is never computed", o.name.escape_debug())));
            match v {
                Ok(v) => self.graph.add_output(&o.name, v),
                // A missing operator leaves its results undefined; that has been reported already.
                Err(_) if !report.unsupported.is_empty() => {}
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }

    /// Adds nodes in an order in which every input is defined; a file may list them in any order.
    pub fn nodes(
        &mut self,
        nodes: &[NodeProto],
        declared: &BTreeMap<&str, &ValueInfoProto>,
        report: &mut Report,
    ) -> Result<()> {
        for i in sorted(nodes)? {
            let n = &nodes[i];
            let version = self.version(domain(&n.domain));
            // What is not supported may be in another version.
            let place = |e: Error| match e.blame {
                Blame::Unsupported => e.at(label(n), &format!("{} version {version}", full_name(n))),
                _ => e.at(label(n), &full_name(n)),
            };
            self.node(n, report).map_err(place)?;
            for o in &n.output {
                if let (Some(info), Some(&v)) = (declared.get(o.as_str()), self.names.get(o.as_str())) {
                    self.declare(v, info, report);
                }
            }
        }
        Ok(())
    }

    /// Merges a declared type into what inference found; a contradiction is a warning, inference is right.
    fn declare(&mut self, v: ValueId, info: &ValueInfoProto, report: &mut Report) {
        let ty = match value_type(info.type_.as_ref()) {
            Ok(ty) => ty,
            Err(e) => {
                let here = self.graph.ty(v);
                let text = format!(
                    "declared type of '{}' is not supported ({}): it is {here} here",
                    info.name, e.message
                );
                return report.warnings.push(text);
            }
        };
        match self.graph.ty(v).merge(&ty) {
            Ok(t) => self.graph.set_type(v, t),
            Err(e) => {
                report.warnings.push(format!("declared type of '{}' is wrong: {}", info.name, e.message))
            }
        }
    }

    fn node(&mut self, n: &NodeProto, report: &mut Report) -> Result<()> {
        let domain = domain(&n.domain);
        if domain.is_empty() && n.op_type == "Constant" {
            return self.constant(n);
        }
        if let Some(f) = self.shared.functions.find(n) {
            return self.shared.functions.inline(f, n, self, report);
        }
        let mut captured = Vec::new();
        let attrs = self.attributes(&n.attribute, &mut captured, report)?;
        let inputs = self.inputs(n)?;
        let captures = captured.iter().map(|c| self.resolve(c)).collect::<Result<Vec<_>>>()?;
        let mut op = Upgrade::new(&n.op_type, domain, attrs, inputs, n.output.clone(), captures);
        op.name = if n.name.is_empty() { self.invent_name(&n.op_type) } else { n.name.clone() };
        if domain.is_empty() {
            opset::upgrade(&mut op, self.version(""), self)?;
        }
        if op.done {
            return Ok(());
        }
        match self.shared.lookup.operator(&op.domain, &op.op) {
            Some(_) => self.emit(op).map(drop),
            None => {
                let version = self.version(domain);
                report.unknown(full_name(n), version, label(n));
                for o in n.output.iter().filter(|o| !o.is_empty()) {
                    // A stand-in, so that everything else can be surveyed too.
                    let v = self.graph.add_input(o, ValueType::Unknown);
                    self.define(o, v)?;
                }
                Ok(())
            }
        }
    }

    fn invent_name(&mut self, op: &str) -> String {
        self.unnamed += 1;
        format!("{op}_{}", self.unnamed)
    }

    /// Adds the node of a finished upgrade and defines its outputs.
    pub fn emit(&mut self, op: Upgrade) -> Result<Vec<Option<ValueId>>> {
        let operator = self.shared.lookup.require(&op.domain, &op.op)?;
        let mut inputs = op.inputs;
        while inputs.last().is_some_and(Option::is_none) {
            inputs.pop();
        }
        let mut names: Vec<&str> = op.outputs.iter().map(String::as_str).collect();
        while names.last().is_some_and(|n| n.is_empty()) {
            names.pop();
        }
        ir::check_form(operator, &op.attrs, &inputs, names.len())?;
        let id = self.graph.add_node(&op.name, operator, op.attrs, &inputs, &names);
        if !op.captures.is_empty() {
            self.graph.set_captures(id, &op.captures);
        }
        let mut outputs = self.graph.node(id)?.outputs().to_vec();
        // What other domains have as functions of standard operators is written out.
        let written = match op.domain.is_empty() {
            true => None,
            false => prepare::write_out(&mut self.graph, id, self.shared.lookup)?,
        };
        match written {
            Some(w) => outputs = w,
            // Types as we go: some upgrades depend on ranks. Errors surface in the inference after import.
            None => drop(ir::infer_node(&mut self.graph, id)),
        }
        for (i, name) in op.outputs.iter().enumerate().filter(|(_, name)| !name.is_empty()) {
            match outputs.get(i).copied().flatten() {
                Some(v) => self.define(name, v)?,
                None => return Err(Error::unsupported(format!("{} with output {i}", op.op))),
            }
        }
        Ok(outputs)
    }

    /// Adds an operator made by an upgrade, with one unnamed output.
    pub fn apply(&mut self, op: &str, attrs: Attrs, inputs: &[ValueId]) -> Result<ValueId> {
        let operator = self.shared.lookup.require("", op)?;
        let name = self.invent_name(op);
        let v = self.graph.apply(&name, operator, attrs, inputs);
        if let Some(id) = self.graph.producer(v) {
            drop(ir::infer_node(&mut self.graph, id));
        }
        Ok(v)
    }

    fn inputs(&mut self, n: &NodeProto) -> Result<Vec<Option<ValueId>>> {
        n.input.iter().map(|i| if i.is_empty() { Ok(None) } else { self.resolve(i).map(Some) }).collect()
    }

    /// Binds a name in this scope, once.
    pub fn define(&mut self, name: &str, v: ValueId) -> Result<()> {
        match self.names.insert(name.to_string(), v) {
            None => Ok(()),
            Some(_) => Err(Error::model(format!("value '{}' is defined twice", name.escape_debug()))),
        }
    }

    /// Swaps the names in sight, for inlining a function body: it sees its arguments and nothing around the call.
    pub fn swap_scope(&mut self, scope: Scope<'a>) -> Scope<'a> {
        let names = std::mem::replace(&mut self.names, scope.names);
        Scope { names, outer: std::mem::replace(&mut self.outer, scope.outer) }
    }

    /// As [`Builder::swap_scope`] for the opset versions in force.
    pub fn swap_versions(&mut self, versions: &'a BTreeMap<String, i64>) -> &'a BTreeMap<String, i64> {
        std::mem::replace(&mut self.versions, versions)
    }

    /// Enters one more level of function calls, bounded.
    pub fn nested<T>(&mut self, f: impl FnOnce(&mut Self) -> Result<T>) -> Result<T> {
        if self.calls >= MAX_CALLS {
            return Err(Error::limit(format!("functions nest deeper than {MAX_CALLS}")));
        }
        self.calls += 1;
        let result = f(self);
        self.calls -= 1;
        result
    }

    /// The value of a name here or, as a new capture, in an enclosing graph.
    pub fn resolve(&mut self, name: &str) -> Result<ValueId> {
        if let Some(&v) = self.names.get(name) {
            return Ok(v);
        }
        let Some(ty) = self.outer.and_then(|o| o(name)) else {
            return Err(Error::model(format!("value '{}' is read but never defined", name.escape_debug())));
        };
        let index = self.captured.iter().position(|c| c == name).unwrap_or_else(|| {
            self.captured.push(name.to_string());
            self.captured.len() - 1
        });
        let v = self.graph.add_capture(name, ty, index);
        self.names.insert(name.to_string(), v);
        Ok(v)
    }

    fn type_of(&self, name: &str) -> Option<ValueType> {
        match self.names.get(name) {
            Some(&v) => Some(self.graph.ty(v).clone()),
            None => self.outer.and_then(|o| o(name)),
        }
    }

    fn attributes(
        &self,
        list: &[AttributeProto],
        captured: &mut Vec<String>,
        report: &mut Report,
    ) -> Result<Attrs> {
        let mut attrs = Attrs::new();
        // In name order, so that captures are numbered by the order in which attributes are kept.
        let mut list: Vec<&AttributeProto> = list.iter().collect();
        list.sort_by(|a, b| a.name.cmp(&b.name));
        for a in list {
            if !a.ref_attr_name.is_empty() {
                return Err(Error::model(format!(
                    "attribute '{}' refers to a function's outside one",
                    a.name
                )));
            }
            let value = self
                .attribute(a, captured, report)
                .map_err(|e| Error { message: format!("attribute '{}': {}", a.name, e.message), ..e })?;
            attrs.set(&a.name, value);
        }
        Ok(attrs)
    }

    fn attribute(&self, a: &AttributeProto, captured: &mut Vec<String>, report: &mut Report) -> Result<Attr> {
        let utf8 = |s: &Vec<u8>| {
            String::from_utf8(s.clone()).map_err(|_| Error::unsupported("a string that is not UTF-8"))
        };
        let source = self.shared.source;
        Ok(match attribute_type(a) {
            AttributeType::FLOAT => Attr::Float(a.f),
            AttributeType::INT => Attr::Int(a.i),
            AttributeType::STRING => Attr::Str(utf8(&a.s)?),
            AttributeType::TENSOR => Attr::Tensor(tensor::read(a.t.get_or_default(), source)?),
            AttributeType::SPARSE_TENSOR => {
                Attr::Tensor(tensor::read_sparse(a.sparse_tensor.get_or_default(), source)?)
            }
            AttributeType::GRAPH => {
                Attr::Graph(Box::new(self.body(a.g.get_or_default(), captured, report)?))
            }
            AttributeType::TYPE_PROTO => Attr::Type(value_type(a.tp.as_ref())?),
            AttributeType::FLOATS => Attr::Floats(a.floats.clone()),
            AttributeType::INTS => Attr::Ints(a.ints.clone()),
            AttributeType::STRINGS => Attr::Strs(a.strings.iter().map(utf8).collect::<Result<_>>()?),
            AttributeType::TENSORS => {
                Attr::Tensors(a.tensors.iter().map(|t| tensor::read(t, source)).collect::<Result<_>>()?)
            }
            AttributeType::GRAPHS => {
                Attr::Graphs(a.graphs.iter().map(|g| self.body(g, captured, report)).collect::<Result<_>>()?)
            }
            AttributeType::TYPE_PROTOS => {
                Attr::Types(a.type_protos.iter().map(|t| value_type(Some(t))).collect::<Result<_>>()?)
            }
            t => return Err(Error::unsupported(format!("attributes of type {t:?}"))),
        })
    }

    /// A subgraph; what it reads from here is appended to `captured`.
    fn body(&self, g: &GraphProto, captured: &mut Vec<String>, report: &mut Report) -> Result<Graph> {
        let outer = |name: &str| self.type_of(name);
        let mut b = Builder::new(self.shared, self.versions, &g.name, Some(&outer), self.depth + 1);
        b.captured = std::mem::take(captured);
        b.calls = self.calls;
        b.fill(g, report)?;
        *captured = b.captured;
        Ok(b.graph)
    }

    /// `Constant` in all its attribute forms.
    fn constant(&mut self, n: &NodeProto) -> Result<()> {
        let (Some(name), [a]) = (n.output.first(), n.attribute.as_slice()) else {
            return Err(Error::model("must have one output and one attribute"));
        };
        let value = self.attribute(a, &mut Vec::new(), &mut Report::default())?;
        let t = match (a.name.as_str(), value) {
            ("value" | "sparse_value", Attr::Tensor(t)) => t,
            ("value_float", Attr::Float(x)) => Tensor::scalar(x),
            ("value_floats", Attr::Floats(x)) => Tensor::vector(x),
            ("value_int", Attr::Int(x)) => Tensor::scalar(x),
            ("value_ints", Attr::Ints(x)) => Tensor::vector(x),
            ("value_string", Attr::Str(s)) => Tensor::strings(&[], vec![s])?,
            ("value_strings", Attr::Strs(s)) => Tensor::strings(&[s.len()], s)?,
            (other, _) => return Err(Error::model(format!("attribute '{other}' is not a form of Constant"))),
        };
        let v = self.graph.add_initializer(name, t);
        self.define(name, v)
    }

    /// Adds a small constant made by an upgrade.
    pub fn add_constant(&mut self, name: &str, t: Tensor) -> ValueId {
        self.graph.add_initializer(name, t)
    }
}

/// Old files leave the type out; the field that is set tells it.
fn attribute_type(a: &AttributeProto) -> AttributeType {
    match a.type_.enum_value() {
        Ok(AttributeType::UNDEFINED) | Err(_) => {}
        Ok(t) => return t,
    }
    if a.g.is_some() {
        AttributeType::GRAPH
    } else if a.t.is_some() {
        AttributeType::TENSOR
    } else if !a.ints.is_empty() {
        AttributeType::INTS
    } else if !a.floats.is_empty() {
        AttributeType::FLOATS
    } else if !a.strings.is_empty() {
        AttributeType::STRINGS
    } else if !a.s.is_empty() {
        AttributeType::STRING
    } else if a.f != 0.0 {
        AttributeType::FLOAT
    } else {
        AttributeType::INT
    }
}

/// What to call a node in messages: its name, or else what it computes.
fn label(n: &NodeProto) -> &str {
    let output = n.output.iter().find(|o| !o.is_empty()).map_or("", String::as_str);
    if n.name.is_empty() { output } else { &n.name }
}

fn full_name(n: &NodeProto) -> String {
    match domain(&n.domain) {
        "" => n.op_type.clone(),
        d => format!("{d}.{}", n.op_type),
    }
}

#[cfg(test)]
mod tests;
