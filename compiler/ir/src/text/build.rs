//! From the tree to the graph: names become values, operator names operators, and names from outside captures.

use super::lex::Place;
use super::syntax::{AttrText, GraphText, NodeText, Source};
use super::{CAPTURES, error_at};
use crate::{Attr, Attrs, Error, Graph, Lookup, Result, ValueId, ValueType};
use std::collections::BTreeMap;

/// Outer values that a subgraph sees: name, capture number, type.
type Outer<'a> = &'a [(&'a str, usize, ValueType)];

/// The graph of `text`; `outer` is `None` at the top and where a subgraph declares its captures itself.
pub fn graph(text: &GraphText, lookup: &dyn Lookup, outer: Option<Outer>) -> Result<Graph> {
    let mut g = Graph::new(&text.name);
    for f in &text.inputs {
        fresh(&g, &f.name, f.place)?;
        g.add_input(&f.name, f.ty.clone());
    }
    for (name, index, ty) in outer.unwrap_or_default() {
        g.add_capture(name, ty.clone(), *index);
    }
    let mut types: BTreeMap<&str, (&ValueType, Place)> = BTreeMap::new();
    for (f, source) in &text.values {
        if let Source::Capture(i) = source {
            fresh(&g, &f.name, f.place)?;
            g.add_capture(&f.name, f.ty.clone(), *i);
        }
    }
    for (f, source) in &text.values {
        match source {
            Source::Data(t) => {
                fresh(&g, &f.name, f.place)?;
                g.add_initializer(&f.name, t.clone());
            }
            Source::Node => {
                types.insert(&f.name, (&f.ty, f.place));
            }
            Source::Capture(_) => {}
        }
    }
    for (f, value) in &text.outputs {
        types.insert(value, (&f.ty, f.place));
    }
    for n in &text.nodes {
        node(&mut g, n, lookup, &types)?;
    }
    for (f, value) in &text.outputs {
        let v = find(&g, value, f.place)?;
        g.add_output(&f.name, v);
    }
    Ok(g)
}

fn fresh(g: &Graph, name: &str, place: Place) -> Result<()> {
    if name.is_empty() || g.find(name).is_some() {
        return Err(error_at(place, format!("'{name}' is not a new name")));
    }
    Ok(())
}

fn find(g: &Graph, name: &str, place: Place) -> Result<ValueId> {
    g.find(name).ok_or_else(|| error_at(place, format!("no value '{name}' is defined before this place")))
}

fn node(
    g: &mut Graph,
    n: &NodeText,
    lookup: &dyn Lookup,
    types: &BTreeMap<&str, (&ValueType, Place)>,
) -> Result<()> {
    let op = lookup.require(&n.domain, &n.op).map_err(|e| located(e, n.place))?;
    let optional = |name: &String| (!name.is_empty()).then(|| find(g, name, n.place)).transpose();
    let inputs: Vec<Option<ValueId>> = n.inputs.iter().map(optional).collect::<Result<_>>()?;
    let names = n.captures();
    let captures: Vec<ValueId> = names.iter().map(|c| find(g, c, n.place)).collect::<Result<_>>()?;
    let explicit = n.explicit_captures().is_some();
    let attrs = n
        .attrs
        .iter()
        .filter(|(name, _)| name != CAPTURES)
        .map(|(name, a)| {
            let sub = |text: &GraphText| {
                let outer = seen_by(text, &names, &captures, g);
                graph(text, lookup, (!explicit).then_some(&outer[..]))
            };
            let value = match a {
                AttrText::Plain(a) => a.clone(),
                AttrText::Graph(t) => Attr::Graph(Box::new(sub(t)?)),
                AttrText::Graphs(v) => Attr::Graphs(v.iter().map(sub).collect::<Result<_>>()?),
            };
            Ok((name.clone(), value))
        })
        .collect::<Result<Attrs>>()?;
    for (i, o) in n.outputs.iter().enumerate().filter(|(_, o)| !o.is_empty()) {
        fresh(g, o, n.place)?;
        if n.outputs[..i].contains(o) {
            return Err(error_at(n.place, format!("'{o}' is defined twice")));
        }
    }
    let outputs: Vec<&str> = n.outputs.iter().map(String::as_str).collect();
    let id = g.add_node(&n.name, op, attrs, &inputs, &outputs);
    if !captures.is_empty() {
        g.set_captures(id, &captures);
    }
    for o in outputs {
        if let (Some((ty, _)), Some(v)) = (types.get(o), g.find(o)) {
            g.set_type(v, (*ty).clone());
        }
    }
    Ok(())
}

/// What a subgraph reads from outside, by capture number.
fn seen_by<'a>(
    text: &GraphText,
    names: &[&'a str],
    captures: &[ValueId],
    g: &Graph,
) -> Vec<(&'a str, usize, ValueType)> {
    let free = text.free();
    names
        .iter()
        .zip(captures)
        .enumerate()
        .filter(|(_, (n, _))| free.contains(n))
        .map(|(i, (n, v))| (*n, i, g.ty(*v).clone()))
        .collect()
}

fn located(e: Error, place: Place) -> Error {
    Error { message: format!("line {} column {}: {}", place.line, place.column, e.message), ..e }
}
