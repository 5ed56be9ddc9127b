//! IR to ONNX bytes: standard operators at the oldest opset that holds them, in a deterministic order, weights written
//! straight from where they are.

use crate::prepare::prepare;
use crate::rope::{self, Rope};
use crate::scope::{Names, Stored};
use crate::types::is_readable;
use crate::versions;
use ir::{Attr, AttrKind, DType, Def, Dim, Error, Graph, Lookup, Node, Result, Tensor, ValueId, ValueType};
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

/// A protobuf message must stay below 2 GiB; above this, weights go to a file of their own.
pub const MAX_MESSAGE: u64 = (2 << 30) - (16 << 20);
/// External tensors start at multiples of this, so that any element type can be used where it is mapped.
const ALIGN: u64 = 64;
/// Smaller tensors stay in the model file.
const EXTERNAL_FROM: usize = 1024;

/// What was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Written {
    /// Bytes of the model file.
    pub bytes: u64,
    /// Bytes of the file of external data; 0 when there is none.
    pub external_bytes: u64,
    pub opset: i64,
    pub ir_version: i64,
}

/// The model as bytes; a model that needs external data is a limit error.
pub fn to_bytes(graph: &Graph, lookup: &dyn Lookup) -> Result<Vec<u8>> {
    let mut out = Vec::new();
    write(graph, lookup, &mut out)?;
    Ok(out)
}

/// Writes the model to one stream; a model that needs external data is a limit error: see [`save`].
pub fn write(graph: &Graph, lookup: &dyn Lookup, w: &mut dyn Write) -> Result<Written> {
    let m = Encoded::new(graph, lookup, None, MAX_MESSAGE)?;
    m.write(w).map_err(|e| Error::data(format!("cannot write the model: {e}")))?;
    Ok(m.written)
}

/// A model ready to be written: messages in memory, weights where they are.
pub struct Encoded {
    rope: Rope,
    external: Vec<(u64, Tensor)>,
    pub written: Written,
}

impl Encoded {
    /// A model file of more than `limit` bytes gets its weights in a file `data` beside it; without such a name it is a
    /// limit error.
    pub fn new(graph: &Graph, lookup: &dyn Lookup, data: Option<&str>, limit: u64) -> Result<Encoded> {
        let whole = model(graph, lookup, None)?;
        match data {
            _ if whole.rope.len() <= limit => Ok(whole),
            Some(name) => model(graph, lookup, Some(name)),
            None => Err(Error::limit(format!("{} bytes do not fit one ONNX file", whole.rope.len()))),
        }
    }

    /// Writes the model file.
    pub fn write(&self, w: &mut dyn Write) -> std::io::Result<()> {
        self.rope.write(w)
    }

    /// Writes the file of external data, when [`Written::external_bytes`] says that there is one.
    pub fn write_external(&self, w: &mut dyn Write) -> std::io::Result<()> {
        write_external(&self.external, w)
    }
}

/// Bytes that [`save`] would write, in all files.
pub fn size(graph: &Graph, lookup: &dyn Lookup) -> Result<u64> {
    let w = Encoded::new(graph, lookup, Some("model.data"), MAX_MESSAGE)?.written;
    Ok(w.bytes + w.external_bytes)
}

/// Writes the model to `path`, replacing what is there only once all is written. A model above 2 GiB gets its weights in
/// `<path>.data` beside it.
pub fn save(graph: &Graph, lookup: &dyn Lookup, path: &Path) -> Result<Written> {
    save_split(graph, lookup, path, MAX_MESSAGE)
}

/// As [`save`] with another limit of the model file's size.
pub fn save_split(graph: &Graph, lookup: &dyn Lookup, path: &Path, limit: u64) -> Result<Written> {
    let name = path.file_name().and_then(|n| n.to_str());
    let name = name.ok_or_else(|| Error::data(format!("{} is not a file name", path.display())))?;
    let data = format!("{name}.data");
    let m = Encoded::new(graph, lookup, Some(&data), limit)?;
    let mut files = Vec::new();
    if m.written.external_bytes > 0 {
        files.push(pending(&path.with_file_name(&data), |w| m.write_external(w))?);
    }
    files.push(pending(path, |w| m.write(w))?);
    files.into_iter().try_for_each(Pending::commit)?;
    Ok(m.written)
}

/// A finished file under a temporary name, removed unless committed.
struct Pending {
    temporary: PathBuf,
    target: PathBuf,
}

fn pending(target: &Path, f: impl FnOnce(&mut dyn Write) -> std::io::Result<()>) -> Result<Pending> {
    let name = target.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let temporary = target.with_file_name(format!(".{name}.{}.tmp", std::process::id()));
    let p = Pending { temporary, target: target.to_path_buf() };
    let written = File::create(&p.temporary).and_then(|file| {
        let mut w = BufWriter::with_capacity(1 << 20, file);
        f(&mut w)?;
        w.into_inner()?.sync_all()
    });
    written.map_err(|e| Error::data(format!("cannot write {}: {e}", target.display())))?;
    Ok(p)
}

impl Pending {
    fn commit(self) -> Result<()> {
        fs::rename(&self.temporary, &self.target)
            .map_err(|e| Error::data(format!("cannot write {}: {e}", self.target.display())))
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        // After a commit the temporary name is gone and this does nothing.
        drop(fs::remove_file(&self.temporary));
    }
}

fn model(graph: &Graph, lookup: &dyn Lookup, external: Option<&str>) -> Result<Encoded> {
    let g = prepare(graph, lookup)?;
    let opset = versions::opset(&g, g.meta.opset);
    let ir_version = versions::format(&g, opset);
    let mut w = Writer { external: external.map(|name| External { name, end: 0, tensors: Vec::new() }) };
    let mut m = Rope::new();
    m.int(1, ir_version);
    m.text(2, if g.meta.producer.is_empty() { "compress" } else { &g.meta.producer });
    m.text_if(6, &g.meta.doc);
    m.message(7, w.graph(&g, &mut Names::new(), &[])?);
    for (domain, version) in domains(&g, opset) {
        let mut o = Rope::new();
        o.text(1, &domain);
        o.int(2, version);
        m.message(8, o);
    }
    for (k, v) in &g.meta.properties {
        m.message(14, entry(k, v));
    }
    let (external, external_bytes) = w.external.map_or((Vec::new(), 0), |e| (e.tensors, e.end));
    let written = Written { bytes: m.len(), external_bytes, opset, ir_version };
    Ok(Encoded { rope: m, external, written })
}

/// Opset imports: the standard domain, and for any other the newest version its operators came with.
fn domains(g: &Graph, opset: i64) -> BTreeMap<String, i64> {
    fn visit(g: &Graph, found: &mut BTreeMap<String, i64>) {
        for (_, n) in g.nodes() {
            if !n.op.domain().is_empty() {
                let since = n.op.signature().since.last().map_or(1, |&v| i64::from(v));
                let version = found.entry(n.op.domain().to_string()).or_insert(1);
                *version = since.max(*version);
            }
            n.attrs.graphs().into_iter().for_each(|g| visit(g, found));
        }
    }
    let mut found = BTreeMap::from([(String::new(), opset)]);
    visit(g, &mut found);
    found
}

fn entry(key: &str, value: &str) -> Rope {
    let mut e = Rope::new();
    e.text(1, key);
    e.text(2, value);
    e
}

fn write_external(tensors: &[(u64, Tensor)], w: &mut dyn Write) -> std::io::Result<()> {
    let mut at = 0u64;
    for (offset, t) in tensors {
        (at..*offset).try_for_each(|_| w.write_all(&[0]))?;
        rope::put(t, w)?;
        at = offset + t.bytes().len() as u64;
    }
    Ok(())
}

/// Where external tensors go.
struct External<'a> {
    name: &'a str,
    end: u64,
    tensors: Vec<(u64, Tensor)>,
}

struct Writer<'a> {
    external: Option<External<'a>>,
}

impl Writer<'_> {
    /// One `GraphProto`; `captures` are the outer names of its captures.
    fn graph(&mut self, g: &Graph, names: &mut Names, captures: &[String]) -> Result<Rope> {
        let stored = names.enter(g, captures)?;
        let mut m = Rope::new();
        for id in g.order()? {
            let node = g.node(id)?;
            m.message(1, self.node(node, names).map_err(|e| e.at(&node.name, &ir::qualified(node.op)))?);
        }
        m.text(2, if g.name.is_empty() { "graph" } else { &g.name });
        for Stored { name, value } in &stored {
            if let Def::Initializer(t) = g.def(*value) {
                m.message(5, self.tensor(t, name)?);
            }
        }
        for &v in g.inputs() {
            m.message(11, value_info(names.of(v), g.ty(v)));
        }
        for o in g.outputs() {
            let ty = if names.nested() { without_shape(g.ty(o.value)) } else { g.ty(o.value).clone() };
            m.message(12, value_info(names.of(o.value), &ty));
        }
        names.leave();
        Ok(m)
    }

    fn node(&mut self, n: &Node, names: &mut Names) -> Result<Rope> {
        let mut m = Rope::new();
        let label = |v: &Option<ValueId>| v.map_or("", |v| names.of(v)).to_string();
        let trimmed = |list: &[Option<ValueId>]| -> Vec<String> {
            let used = list.iter().rposition(Option::is_some).map_or(0, |i| i + 1);
            list.iter().take(used).map(label).collect()
        };
        trimmed(n.inputs()).iter().for_each(|i| m.text(1, i));
        trimmed(n.outputs()).iter().for_each(|o| m.text(2, o));
        m.text_if(3, &names.node(&n.name));
        m.text(4, n.op.name());
        let captures: Vec<String> = n.captures().iter().map(|&v| names.of(v).to_string()).collect();
        for (name, a) in n.attrs.iter().filter(|(a, _)| keeps(n, a)) {
            let a = self.attribute(n, name, a, names, &captures);
            m.message(
                5,
                a.map_err(|e| Error { message: format!("attribute '{name}': {}", e.message), ..e })?,
            );
        }
        m.text_if(7, n.op.domain());
        Ok(m)
    }

    fn attribute(
        &mut self,
        n: &Node,
        name: &str,
        a: &Attr,
        names: &mut Names,
        captures: &[String],
    ) -> Result<Rope> {
        let mut m = Rope::new();
        m.text(1, name);
        let kind = match a {
            Attr::Float(x) => {
                m.float(2, *x);
                1
            }
            Attr::Int(x) => {
                m.int(3, *x);
                2
            }
            Attr::Str(s) => {
                m.text(4, s);
                3
            }
            Attr::Tensor(t) => {
                m.message(5, self.tensor(t, "")?);
                4
            }
            Attr::Graph(g) => {
                m.message(6, self.graph(g, names, captures)?);
                5
            }
            Attr::Ints(v) if v.is_empty() => kind_of_empty(n, name, 7),
            Attr::Floats(v) if v.is_empty() => kind_of_empty(n, name, 6),
            Attr::Floats(v) => {
                m.floats(7, v);
                6
            }
            Attr::Ints(v) => {
                m.ints(8, v);
                7
            }
            Attr::Strs(v) => {
                v.iter().for_each(|s| m.text(9, s));
                8
            }
            Attr::Tensors(v) => {
                for t in v {
                    m.message(10, self.tensor(t, "")?);
                }
                9
            }
            Attr::Graphs(v) => {
                for g in v {
                    m.message(11, self.graph(g, names, captures)?);
                }
                10
            }
            Attr::Type(t) => {
                m.message(14, type_proto(t));
                13
            }
            Attr::Types(v) => {
                v.iter().for_each(|t| m.message(15, type_proto(t)));
                14
            }
        };
        m.int(20, kind);
        Ok(m)
    }

    fn tensor(&mut self, t: &Tensor, name: &str) -> Result<Rope> {
        let mut m = Rope::new();
        let dims: Vec<i64> = t.shape().iter().map(|&d| i64::try_from(d).unwrap_or(i64::MAX)).collect();
        if !dims.is_empty() {
            m.ints(1, &dims);
        }
        m.int(2, i64::from(t.dtype().onnx()));
        m.text_if(8, name);
        let external = self.external.as_mut().filter(|_| t.bytes().len() >= EXTERNAL_FROM);
        if t.dtype() == DType::String {
            t.string_data()?.iter().for_each(|s| m.text(6, s));
        } else if let Some(e) = external {
            let offset = e.end.next_multiple_of(ALIGN);
            let len = t.bytes().len() as u64;
            e.end = offset + len;
            e.tensors.push((offset, t.clone()));
            m.message(13, entry("location", e.name));
            m.message(13, entry("offset", &offset.to_string()));
            m.message(13, entry("length", &len.to_string()));
            m.int(14, 1);
        } else {
            m.data(9, t);
        }
        Ok(m)
    }
}

/// Attributes the standard does not define are leftovers of old files and mean nothing.
fn keeps(n: &Node, attr: &str) -> bool {
    !n.op.domain().is_empty() || versions::defines(n.op.name(), attr)
}

/// An empty list does not tell its element type; the operator does.
fn kind_of_empty(n: &Node, name: &str, otherwise: i64) -> i64 {
    let formal = n.op.signature().attrs.iter().find(|f| f.name == name);
    match formal.map(|f| f.kind) {
        Some(AttrKind::Floats) => 6,
        Some(AttrKind::Ints) => 7,
        Some(AttrKind::Strs) => 8,
        _ => otherwise,
    }
}

fn value_info(name: &str, t: &ValueType) -> Rope {
    let mut m = Rope::new();
    m.text(1, name);
    if *t != ValueType::Unknown && is_readable(t) {
        m.message(2, type_proto(t));
    }
    m
}

/// Shapes of branches that are never taken can differ between inference engines, and nobody needs them.
fn without_shape(t: &ValueType) -> ValueType {
    t.dtype().map_or_else(|| t.clone(), ValueType::unranked)
}

fn type_proto(t: &ValueType) -> Rope {
    let (mut m, mut inner) = (Rope::new(), Rope::new());
    match t {
        ValueType::Unknown => {}
        ValueType::Tensor(t) => {
            inner.int(1, i64::from(t.dtype.onnx()));
            if let Some(shape) = &t.shape {
                inner.message(2, shape_proto(shape));
            }
            m.message(1, inner);
        }
        ValueType::Sequence(e) => {
            inner.message(1, type_proto(e));
            m.message(4, inner);
        }
        ValueType::Optional(e) => {
            inner.message(1, type_proto(e));
            m.message(9, inner);
        }
    }
    m
}

fn shape_proto(shape: &[Dim]) -> Rope {
    let mut m = Rope::new();
    for d in shape {
        let mut dim = Rope::new();
        match d {
            Dim::Known(n) => dim.int(1, i64::try_from(*n).unwrap_or(i64::MAX)),
            Dim::Symbol(s) => dim.text(2, s),
            Dim::Unknown => {}
        }
        m.message(1, dim);
    }
    m
}

#[cfg(test)]
mod tests;
