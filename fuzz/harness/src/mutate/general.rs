//! Changes of structure: insert, delete, splice, swap, retype.

use super::tensors_of;
use crate::build::{Build, Made};
use crate::families;
use crate::pair::feeds;
use crate::random::Random;
use arbitrary::Unstructured;
use ir::{Attrs, DType, Graph, NodeId, Use, ValueId};

pub(super) fn nodes(g: &Graph) -> Vec<NodeId> {
    g.nodes().map(|(id, _)| id).collect()
}

pub(super) fn node(g: &Graph, r: &mut Random) -> Option<NodeId> {
    r.pick(&nodes(g)).copied()
}

/// A new operator of any family over the values there are; something that had its type reads it.
pub fn insert(g: &mut Graph, _: &Graph, r: &mut Random) -> Option<()> {
    let made: Vec<Made> = tensors_of(g, &feeds(g, r.bits() >> 40))
        .into_iter()
        .map(|(value, tensor)| Made { value, tensor })
        .collect();
    let before = made.len();
    if before == 0 {
        return None;
    }
    let bytes = r.bytes(512);
    let mut u = Unstructured::new(&bytes);
    let mut b = Build::over(&mut u, std::mem::take(g), made);
    let placed = families::any_family(&mut b);
    let new: Vec<ValueId> = b.made[before..].iter().map(|m| m.value).collect();
    *g = b.graph;
    placed.ok()?;
    let new: Vec<ValueId> = new.into_iter().filter(|&v| g.producer(v).is_some()).collect();
    let n = *r.pick(&new)?;
    // Half of them go on into what the graph does, where that makes no cycle; the others become outputs.
    let old: Vec<ValueId> = g.values().filter(|&v| v != n && g.ty(v) == g.ty(n)).collect();
    if r.chance(1, 2)
        && let Some(&old) = r.pick(&old)
    {
        let uses: Vec<(NodeId, usize)> = inputs_that_read(g, old);
        if let Some(&(at, i)) = r.pick(&uses) {
            g.set_input(at, i, Some(n));
            if g.order().is_ok() {
                return Some(());
            }
            g.set_input(at, i, Some(old));
        }
    }
    let name = fresh_output(g);
    g.add_output(&name, n);
    Some(())
}

fn inputs_that_read(g: &Graph, v: ValueId) -> Vec<(NodeId, usize)> {
    let at = |u: Use| if let Use::Input(n, i) = u { Some((n, i)) } else { None };
    g.uses(v).into_iter().filter_map(at).collect()
}

pub(super) fn fresh_output(g: &Graph) -> String {
    (0..).map(|i| format!("y{i}")).find(|n| g.outputs().iter().all(|o| o.name != *n)).unwrap_or_default()
}

/// A node goes; what read it reads one of its inputs of the same type, or what it gave as a constant.
pub fn delete(g: &mut Graph, _: &Graph, r: &mut Random) -> Option<()> {
    let id = node(g, r)?;
    let n = g.get(id)?;
    let (old, inputs) = (n.output(0)?, n.inputs().to_vec());
    let same: Vec<ValueId> = inputs.into_iter().flatten().filter(|&v| g.ty(v) == g.ty(old)).collect();
    let new = match r.pick(&same) {
        Some(&v) => v,
        None => {
            let t = tensors_of(g, &feeds(g, 1)).into_iter().find(|(v, _)| *v == old)?.1;
            g.add_initializer("was", t)
        }
    };
    g.replace_uses(old, new);
    Some(())
}

/// Another seed's graph beside or behind this one: its inputs are values of the same type where there are.
pub fn splice(g: &mut Graph, other: &Graph, r: &mut Random) -> Option<()> {
    let mut inputs = Vec::new();
    for &v in other.inputs() {
        let same: Vec<ValueId> = g.values().filter(|&w| g.ty(w) == other.ty(v)).collect();
        inputs.push(match r.pick(&same) {
            Some(&w) => w,
            None => g.add_input(other.value_name(v), other.ty(v).clone()),
        });
    }
    for v in other.inline_into(g, &inputs, &[]).ok()? {
        let name = fresh_output(g);
        g.add_output(&name, v);
    }
    Some(())
}

/// Two inputs of a node change places, or one reads another value of its type.
pub fn swap_inputs(g: &mut Graph, _: &Graph, r: &mut Random) -> Option<()> {
    let id = node(g, r)?;
    let inputs = g.get(id)?.inputs().to_vec();
    let i = r.below(inputs.len());
    let v = inputs.get(i).copied().flatten()?;
    if inputs.len() > 1 && r.chance(1, 2) {
        let j = (i + 1 + r.below(inputs.len() - 1)) % inputs.len();
        let w = inputs[j]?;
        g.set_input(id, i, Some(w));
        g.set_input(id, j, Some(v));
        return Some(());
    }
    let same: Vec<ValueId> = g.values().filter(|&w| w != v && g.ty(w) == g.ty(v)).collect();
    g.set_input(id, i, Some(*r.pick(&same)?));
    Some(())
}

/// A node computes in another type between casts.
pub fn retype(g: &mut Graph, _: &Graph, r: &mut Random) -> Option<()> {
    let id = node(g, r)?;
    let (inputs, output) = (g.get(id)?.inputs().to_vec(), g.get(id)?.output(0)?);
    let from = g.dtype(output)?;
    let to = match from {
        DType::F32 => r.one(&[DType::F16, DType::F64, DType::BF16], DType::F16),
        DType::I64 => DType::I32,
        DType::I32 => r.one(&[DType::I64, DType::F32], DType::I64),
        DType::F16 | DType::BF16 | DType::F64 => DType::F32,
        _ => return None,
    };
    let cast = |g: &mut Graph, v: ValueId, d: DType| -> Option<ValueId> {
        Some(g.apply("", ops::standard("Cast").ok()?, Attrs::new().with("to", i64::from(d.onnx())), &[v]))
    };
    for (i, v) in inputs.iter().enumerate() {
        let Some(v) = v.filter(|&v| g.dtype(v) == Some(from)) else { continue };
        let c = cast(g, v, to)?;
        g.set_input(id, i, Some(c));
    }
    let readers = g.uses(output);
    let back = cast(g, output, from)?;
    for u in readers {
        match u {
            Use::Input(n, i) => g.set_input(n, i, Some(back)),
            Use::Output(i) => g.set_output(i, back),
            Use::Capture(..) => {}
        }
    }
    Some(())
}

/// A value in the middle becomes an output, or an output goes.
pub fn output(g: &mut Graph, _: &Graph, r: &mut Random) -> Option<()> {
    if g.outputs().len() > 1 && r.chance(1, 2) {
        let mut all = g.outputs().to_vec();
        all.remove(r.below(all.len()));
        g.set_outputs(all);
        return Some(());
    }
    let made: Vec<ValueId> = g.values().filter(|&v| g.producer(v).is_some()).collect();
    let (name, v) = (fresh_output(g), *r.pick(&made)?);
    g.add_output(&name, v);
    Some(())
}
