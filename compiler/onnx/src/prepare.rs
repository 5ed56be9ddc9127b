//! A graph made ready for ONNX: internal operators written out in standard ones, every output a value of its own.

use ir::{Attrs, Def, Error, Graph, Lookup, NodeId, Result, ValueId};
use std::collections::BTreeSet;

/// Rounds of expansion: an expansion may use further internal operators.
const MAX_ROUNDS: usize = 16;

/// The same graph with standard operators only, ready to be written.
pub fn prepare(graph: &Graph, lookup: &dyn Lookup) -> Result<Graph> {
    let mut g = graph.clone();
    prepare_in_place(&mut g, lookup, false)?;
    Ok(g)
}

fn prepare_in_place(g: &mut Graph, lookup: &dyn Lookup, subgraph: bool) -> Result<()> {
    expand_all(g, lookup)?;
    let holders: Vec<NodeId> =
        g.nodes().filter(|(_, n)| !n.attrs.graphs().is_empty()).map(|(id, _)| id).collect();
    for id in holders {
        for inner in g.node_mut(id)?.1.graphs_mut() {
            prepare_in_place(inner, lookup, true)?;
        }
    }
    separate_outputs(g, lookup, subgraph)
}

fn expand_all(g: &mut Graph, lookup: &dyn Lookup) -> Result<()> {
    for _ in 0..MAX_ROUNDS {
        let internal: Vec<NodeId> =
            g.nodes().filter(|(_, n)| n.op.domain() == "ir.").map(|(id, _)| id).collect();
        if internal.is_empty() {
            return Ok(());
        }
        for id in internal {
            let n = g.node(id)?;
            let (name, op) = (n.name.clone(), n.op);
            expand(g, id, lookup).map_err(|e| e.at(&name, &ir::qualified(op)))?;
        }
    }
    Err(Error::internal(format!("internal operators are left after {MAX_ROUNDS} rounds of expansion")))
}

fn expand(g: &mut Graph, id: NodeId, lookup: &dyn Lookup) -> Result<()> {
    match write_out(g, id, lookup)? {
        Some(_) => Ok(()),
        None => Err(Error::internal("has no form in standard operators")),
    }
}

/// Replaces a node by what it stands for, if it has such a form; the new outputs take the names and places of the old.
pub fn write_out(g: &mut Graph, id: NodeId, lookup: &dyn Lookup) -> Result<Option<Vec<Option<ValueId>>>> {
    let first_new = g.value_bound();
    let op = g.node(id)?.op;
    let Some(results) = op.expand(g, id, lookup)? else { return Ok(None) };
    let outputs = g.node(id)?.outputs().to_vec();
    let mut renamed = Vec::new();
    for (i, old) in outputs.into_iter().enumerate() {
        let Some(old) = old else { continue };
        let new = results.get(i).copied().flatten();
        let Some(new) = new else {
            if g.uses(old).is_empty() {
                continue;
            }
            return Err(Error::internal(format!("its expansion leaves out output {i}, which is read")));
        };
        g.set_type(new, g.ty(new).merge(g.ty(old)).unwrap_or_else(|_| g.ty(new).clone()));
        g.replace_uses(old, new);
        if new.index() >= first_new {
            renamed.push((new, g.value_name(old).to_string()));
        }
    }
    g.remove_node(id)?;
    renamed.into_iter().for_each(|(v, name)| g.rename_value(v, &name));
    Ok(Some(results))
}

/// In ONNX an output is a name, so two outputs cannot share a value, nor carry a name another value has; and runtimes
/// want what a subgraph returns to be computed in it.
fn separate_outputs(g: &mut Graph, lookup: &dyn Lookup, subgraph: bool) -> Result<()> {
    let mut claimed: BTreeSet<ValueId> = BTreeSet::new();
    for i in 0..g.outputs().len() {
        let o = g.outputs()[i].clone();
        let computed = matches!(g.def(o.value), Def::Node(..));
        let passed = !subgraph && matches!(g.def(o.value), Def::Input(_)) && g.value_name(o.value) == o.name;
        if claimed.insert(o.value) && (computed || passed) {
            continue;
        }
        let ty = g.ty(o.value).clone();
        // A node without a name would get one at the next reading.
        let name = if o.name.is_empty() { "Identity" } else { &o.name };
        let copy = g.apply(name, lookup.require("", "Identity")?, Attrs::new(), &[o.value]);
        g.rename_value(copy, &o.name);
        g.set_type(copy, ty);
        g.set_output(i, copy);
    }
    Ok(())
}
