//! Control flow around a node: a branch, a loop.

use super::general::node;
use crate::random::Random;
use ir::{Attr, Attrs, Graph, NodeId, Tensor, ValueId};

/// The node in a body of its own; captures are the values it reads, in this order. Nodes with subgraphs stay.
fn body(g: &Graph, id: NodeId, name: &str) -> Option<(Graph, Vec<ValueId>, ValueId)> {
    let n = g.get(id)?;
    if !n.attrs.graphs().is_empty() || n.outputs().len() != 1 || !n.captures().is_empty() {
        return None;
    }
    let mut b = Graph::new(name);
    b.meta = g.meta.clone();
    let mut captures: Vec<ValueId> = Vec::new();
    let mut inner: Vec<ValueId> = Vec::new();
    let mut inputs = Vec::new();
    for v in n.inputs() {
        inputs.push(v.map(|v| match captures.iter().position(|c| *c == v) {
            Some(i) => inner[i],
            None => {
                let c = b.add_capture(g.value_name(v), g.ty(v).clone(), captures.len());
                captures.push(v);
                inner.push(c);
                c
            }
        }));
    }
    let new = b.add_node(&n.name, n.op, n.attrs.clone(), &inputs, &["inner"]);
    let y = b.get(new)?.output(0)?;
    Some((b, captures, y))
}

/// The node in one branch; the other gives the same, or zeros of its shape.
pub fn branch(g: &mut Graph, _: &Graph, r: &mut Random) -> Option<()> {
    let id = node(g, r)?;
    let (mut yes, captures, y) = body(g, id, "yes")?;
    let old = g.get(id)?.output(0)?;
    yes.add_output("r", y);
    let mut no = yes.clone();
    no.name = "no".into();
    if r.chance(1, 2)
        && let (Some(d), Some(s)) = (g.dtype(old), g.ty(old).concrete())
    {
        no = Graph::new("no");
        let z = no.add_initializer("zeros", Tensor::zeros(d, &s).ok()?);
        no.add_output("r", z);
    }
    let condition = match r.below(3) {
        0 => g.add_input("condition", ir::ValueType::known(ir::DType::Bool, &[])),
        c => g.add_initializer("condition", Tensor::scalar(c == 1)),
    };
    let (a, b) = if r.chance(1, 2) { (yes, no) } else { (no, yes) };
    let attrs = Attrs::new()
        .with("then_branch", Attr::Graph(Box::new(a)))
        .with("else_branch", Attr::Graph(Box::new(b)));
    let new = g.add_node("", ops::standard("If").ok()?, attrs, &[Some(condition)], &["chosen"]);
    g.set_captures(new, &captures);
    let y = g.get(new)?.output(0)?;
    g.replace_uses(old, y);
    Some(())
}

/// The node in a loop of a few turns: the state is its result where its type allows, so that turns build on each other.
pub fn repeat(g: &mut Graph, _: &Graph, r: &mut Random) -> Option<()> {
    let id = node(g, r)?;
    let n = g.get(id)?;
    let old = n.output(0)?;
    let state = n.inputs().iter().flatten().copied().find(|&v| g.ty(v) == g.ty(old))?;
    let (mut b, captures, y) = body(g, id, "turn")?;
    let turns = r.below(4) as i64;
    b.add_input("i", ir::ValueType::known(ir::DType::I64, &[]));
    let go = b.add_input("go", ir::ValueType::known(ir::DType::Bool, &[]));
    let carried = b.add_input("carried", g.ty(state).clone());
    // The inner node reads the carried value where it read the state.
    let at = captures.iter().position(|c| *c == state)?;
    let inner = b.values().find(|&v| *b.def(v) == ir::Def::Capture(at))?;
    b.replace_uses(inner, carried);
    b.add_output("more", go);
    b.add_output("next", y);
    let scan = r.chance(1, 3);
    if scan {
        b.add_output("seen", y);
    }
    let trips = g.add_initializer("trips", Tensor::scalar(turns));
    let go = g.add_initializer("go", Tensor::scalar(true));
    let outs: &[&str] = if scan { &["last", "all"] } else { &["last"] };
    let attrs = Attrs::new().with("body", Attr::Graph(Box::new(b)));
    let new = g.add_node("", ops::standard("Loop").ok()?, attrs, &[Some(trips), Some(go), Some(state)], outs);
    g.set_captures(new, &captures);
    let y = g.get(new)?.output(0)?;
    g.replace_uses(old, y);
    if let Some(all) = g.get(new)?.output(1) {
        let name = super::general::fresh_output(g);
        g.add_output(&name, all);
    }
    Some(())
}
