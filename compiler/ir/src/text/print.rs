//! From the graph to text.

use super::literal::{float, quote};
use super::syntax::reserved;
use super::{CAPTURES, SideTable, literal};
use crate::{Attr, Def, Dim, Error, Graph, Node, Result, Tensor, ValueId, ValueType, qualified};
use std::collections::BTreeSet;
use std::fmt::Write;

/// IR version of ONNX in which the newest element types exist.
const IR_VERSION: i64 = 13;

/// Header and graph; tensors of more than `inline` elements go to the table.
pub fn model(g: &Graph, inline: usize) -> Result<(String, SideTable)> {
    let mut p = Printer { out: String::new(), inline, table: SideTable::new(), indent: 0 };
    p.header(g);
    p.graph(g, true)?;
    p.out.push('\n');
    Ok((p.out, p.table))
}

struct Printer {
    out: String,
    inline: usize,
    table: SideTable,
    indent: usize,
}

/// A name as written: plain when it is an identifier that means nothing else.
fn name(s: &str) -> String {
    let plain = s.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && s.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
        && !reserved(s);
    if plain { s.to_string() } else { quote(s) }
}

fn type_text(t: &ValueType) -> String {
    match t {
        ValueType::Unknown => "?".to_string(),
        ValueType::Sequence(t) => format!("seq({})", type_text(t)),
        ValueType::Optional(t) => format!("optional({})", type_text(t)),
        ValueType::Tensor(t) => match t.shape.as_deref() {
            Some([]) => t.dtype.to_string(),
            s => format!("{}[{}]", t.dtype, joined(s.unwrap_or_default().iter().map(dim))),
        },
    }
}

fn dim(d: &Dim) -> String {
    match d {
        Dim::Known(n) => n.to_string(),
        Dim::Symbol(s) => name(s),
        Dim::Unknown => "?".to_string(),
    }
}

fn joined(items: impl Iterator<Item = String>) -> String {
    items.collect::<Vec<_>>().join(", ")
}

/// The type and a space, or nothing where it is not known.
fn typed(t: &ValueType, text: &str) -> String {
    if *t == ValueType::Unknown { name(text) } else { format!("{} {}", type_text(t), name(text)) }
}

impl Printer {
    fn put(&mut self, text: std::fmt::Arguments) {
        // Writing to a string cannot fail.
        let _ = self.out.write_fmt(text);
    }
    fn line(&mut self) {
        self.put(format_args!("\n{:1$}", "", 3 * self.indent));
    }

    fn header(&mut self, g: &Graph) {
        let m = &g.meta;
        self.put(format_args!("<ir_version: {IR_VERSION}, opset_import: [\"\" : {}]", m.opset));
        for (key, text) in [("producer_name", &m.producer), ("doc_string", &m.doc)] {
            if !text.is_empty() {
                self.put(format_args!(", {key}: {}", quote(text)));
            }
        }
        if !m.properties.is_empty() {
            let pairs = joined(m.properties.iter().map(|(k, v)| format!("{}: {}", quote(k), quote(v))));
            self.put(format_args!(", metadata_props: [{pairs}]"));
        }
        self.out.push_str(">\n");
    }

    /// `explicit`: captures are declared with their numbers.
    fn graph(&mut self, g: &Graph, explicit: bool) -> Result<()> {
        let inputs = joined(g.inputs().iter().map(|&v| typed(g.ty(v), g.value_name(v))));
        let outputs = joined(g.outputs().iter().map(|o| {
            let (text, value) = (typed(g.ty(o.value), &o.name), g.value_name(o.value));
            if o.name == value { text } else { format!("{text} = {}", name(value)) }
        }));
        self.put(format_args!("{} ({inputs}) => ({outputs})", name(&g.name)));
        self.indent += 1;
        self.declarations(g, explicit)?;
        self.out.push_str(" {");
        for id in g.order()? {
            self.line();
            self.node(g, g.node(id)?)?;
        }
        self.indent -= 1;
        self.line();
        self.out.push('}');
        Ok(())
    }

    fn declarations(&mut self, g: &Graph, explicit: bool) -> Result<()> {
        let shown: BTreeSet<ValueId> = g.outputs().iter().map(|o| o.value).collect();
        let mut before = " <";
        for v in g.values() {
            let wanted = match g.def(v) {
                Def::Capture(_) => explicit,
                Def::Initializer(_) => true,
                Def::Node(..) => *g.ty(v) != ValueType::Unknown && !shown.contains(&v),
                Def::Input(_) | Def::Dead => false,
            };
            if !wanted {
                continue;
            }
            self.out.push_str(before);
            before = ",";
            self.line();
            self.put(format_args!("{}", typed(g.ty(v), g.value_name(v))));
            match g.def(v) {
                Def::Initializer(t) => {
                    self.out.push_str(" = ");
                    self.data(t)?;
                }
                Def::Capture(i) => self.put(format_args!(" = [\"capture\": \"{i}\"]")),
                _ => {}
            }
        }
        if before == "," {
            self.out.push('>');
        }
        Ok(())
    }

    fn data(&mut self, t: &Tensor) -> Result<()> {
        if t.len() <= self.inline {
            return literal::print(t, &mut self.out);
        }
        let location = format!("table:{}", self.table.len());
        self.put(format_args!("[\"location\": {}]", quote(&location)));
        self.table.insert(location, t.clone());
        Ok(())
    }

    fn node(&mut self, g: &Graph, n: &Node) -> Result<()> {
        if !n.name.is_empty() {
            self.put(format_args!("[{}] ", name(&n.name)));
        }
        let value = |v: &Option<ValueId>| v.map_or("\"\"".to_string(), |v| name(g.value_name(v)));
        self.put(format_args!("{}", joined(n.outputs().iter().map(value))));
        let gap = if n.outputs().is_empty() { "" } else { " " };
        self.put(format_args!("{gap}= {}", qualified(n.op)));
        let explicit = !captures_follow(g, n)?;
        if !n.attrs.is_empty() || explicit {
            let mut before = " <";
            if explicit {
                let names = joined(n.captures().iter().map(|&v| quote(g.value_name(v))));
                self.put(format_args!("{before}{}: strings = [{names}]", CAPTURES));
                before = ", ";
            }
            for (key, a) in n.attrs.iter() {
                self.put(format_args!("{before}{}: ", name(key)));
                before = ", ";
                self.attribute(a, explicit)?;
            }
            self.out.push('>');
        }
        self.put(format_args!(" ({})", joined(n.inputs().iter().map(value))));
        Ok(())
    }

    fn attribute(&mut self, a: &Attr, explicit: bool) -> Result<()> {
        match a {
            Attr::Int(x) => self.put(format_args!("int = {x}")),
            Attr::Float(x) => self.put(format_args!("float = {}", float(*x))),
            Attr::Str(s) => self.put(format_args!("string = {}", quote(s))),
            Attr::Type(t) => self.put(format_args!("type_proto = {}", type_text(t))),
            Attr::Ints(v) => self.put(format_args!("ints = [{}]", joined(v.iter().map(i64::to_string)))),
            Attr::Floats(v) => self.put(format_args!("floats = [{}]", joined(v.iter().map(|x| float(*x))))),
            Attr::Strs(v) => self.put(format_args!("strings = [{}]", joined(v.iter().map(|s| quote(s))))),
            Attr::Types(v) => self.put(format_args!("type_protos = [{}]", joined(v.iter().map(type_text)))),
            Attr::Tensor(t) => {
                self.out.push_str("tensor = ");
                self.tensor(t)?;
            }
            Attr::Tensors(v) => self.each("tensors", v, Self::tensor)?,
            Attr::Graph(g) => {
                self.out.push_str("graph = ");
                self.graph(g, explicit)?;
            }
            Attr::Graphs(v) => self.each("graphs", v, |p, g| p.graph(g, explicit))?,
        }
        Ok(())
    }

    fn each<T>(&mut self, kind: &str, items: &[T], f: impl Fn(&mut Self, &T) -> Result<()>) -> Result<()> {
        self.put(format_args!("{kind} = ["));
        for (i, x) in items.iter().enumerate() {
            self.out.push_str(if i == 0 { "" } else { ", " });
            f(self, x)?;
        }
        self.out.push(']');
        Ok(())
    }

    fn tensor(&mut self, t: &Tensor) -> Result<()> {
        self.put(format_args!("{} ", type_text(&ValueType::of(t))));
        self.data(t)
    }
}

/// True when the captures of `n` are just the outer names its subgraphs read, in order of first use: then the text needs
/// no word about them.
fn captures_follow(g: &Graph, n: &Node) -> Result<bool> {
    let missing = || Error::internal("a capture without a value");
    let mut order: Vec<usize> = Vec::new();
    for sub in n.attrs.graphs() {
        let mut declared = BTreeSet::new();
        for v in sub.values() {
            let Def::Capture(i) = *sub.def(v) else { continue };
            let outer = *n.captures().get(i).ok_or_else(missing)?;
            if sub.value_name(v) != g.value_name(outer) || !declared.insert(i) {
                return Ok(false);
            }
        }
        let reads = sub.order()?.into_iter().filter_map(|id| sub.get(id)).flat_map(Node::reads);
        let used: Vec<usize> = reads
            .chain(sub.outputs().iter().map(|o| o.value))
            .filter_map(|v| if let Def::Capture(i) = *sub.def(v) { Some(i) } else { None })
            .collect();
        if declared.iter().any(|i| !used.contains(i)) {
            return Ok(false);
        }
        used.into_iter().for_each(|i| {
            if !order.contains(&i) {
                order.push(i);
            }
        });
    }
    let distinct: BTreeSet<ValueId> = n.captures().iter().copied().collect();
    Ok(order.iter().copied().eq(0..n.captures().len()) && distinct.len() == n.captures().len())
}
