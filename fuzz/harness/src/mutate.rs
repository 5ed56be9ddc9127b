//! Changes to pairs that keep them runnable: a result that does not infer, verify or run is thrown away.

pub mod control;
pub mod general;
pub mod passes;
pub mod tensors;

use crate::build::allowed;
use crate::pair::{Pair, feeds};
use crate::random::Random;
use ir::{Attr, Def, Evaluate, Feeds, Graph, Reference, Tensor, Value, ValueId, ValueType};

/// Most outputs of a mutated graph.
const OUTPUTS: usize = 4;
/// Tries to find a change that keeps the graph runnable.
const TRIES: usize = 6;

/// How large a mutated graph may be.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    pub nodes: usize,
    /// Elements of a tensor.
    pub elements: usize,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits { nodes: 32, elements: 8_000 }
    }
}

impl Limits {
    /// Room for changes of this graph.
    pub fn of(g: &Graph) -> Limits {
        let size = |v: ValueId| g.ty(v).concrete().and_then(|s| ir::budget::elements(&s).ok()).unwrap_or(0);
        let largest: usize = g.values().map(size).max().unwrap_or(0);
        let default = Limits::default();
        Limits { nodes: default.nodes + g.node_count(), elements: default.elements.max(2 * largest) }
    }
}

type Mutator = fn(&mut Graph, &Graph, &mut Random) -> Option<()>;

/// Changes of a graph; the second graph is another seed's.
const MUTATORS: &[(&str, Mutator)] = &[
    ("insert", general::insert),
    ("insert", general::insert),
    ("insert", general::insert),
    ("delete", general::delete),
    ("splice", general::splice),
    ("swap inputs", general::swap_inputs),
    ("retype", general::retype),
    ("output", general::output),
    ("dims", tensors::dims),
    ("dims", tensors::dims),
    ("broadcast", tensors::broadcast),
    ("layout", tensors::layout),
    ("attributes", tensors::attributes),
    ("attributes", tensors::attributes),
    ("quantization", tensors::quantization),
    ("edges", tensors::edges),
    ("weights", tensors::weights),
    ("constant", tensors::constant_or_input),
    ("branch", control::branch),
    ("loop", control::repeat),
];

/// A graph near this one that runs, and what was changed; `None` when no try gave one.
pub fn graph(pair: &Pair, other: &Graph, r: &mut Random, limits: Limits) -> Option<(Graph, &'static str)> {
    for _ in 0..TRIES {
        let (name, mutator) = *r.pick(MUTATORS)?;
        let mut g = pair.graph.clone();
        if mutator(&mut g, other, r).is_some()
            && let Some(g) = settled(g, pair.pipeline.seed, limits)
        {
            return Some((g, name));
        }
    }
    None
}

/// The graph compacted and typed anew, if it is sound, small and runs on inputs from the seed.
pub fn settled(mut g: Graph, seed: u64, limits: Limits) -> Option<Graph> {
    if g.outputs().len() > OUTPUTS {
        let kept = g.outputs()[g.outputs().len() - OUTPUTS..].to_vec();
        g.set_outputs(kept);
    }
    g.order().ok()?;
    g.prune();
    drop_unread_inputs(&mut g);
    if g.node_count() == 0 || g.node_count() > limits.nodes {
        return None;
    }
    let mut g = g.compacted().ok()?;
    forget_types(&mut g);
    ir::infer(&mut g).ok()?;
    ir::verify(&g).ok()?;
    let typed =
        |n: &ir::Node| allowed(n.op.signature(), n.inputs().iter().map(|v| v.and_then(|v| g.dtype(v))));
    if !scales_are_sane(&g) || !g.nodes().all(|(_, n)| typed(n)) {
        return None;
    }
    let large = |v: ValueId| {
        g.ty(v).concrete().is_some_and(|s| ir::budget::elements(&s).is_ok_and(|n| n > limits.elements))
    };
    if g.values().any(large) {
        return None;
    }
    crate::check::guarded(|| Reference.run(&g, &feeds(&g, seed), &[])).ok()?.ok()?;
    Some(g)
}

/// Types of computed values are unknown until they are inferred again, shapes of what bodies take as well.
pub fn forget_types(g: &mut Graph) {
    let computed: Vec<ValueId> = g.values().filter(|&v| g.producer(v).is_some()).collect();
    computed.into_iter().for_each(|v| g.set_type(v, ValueType::Unknown));
    for id in general::nodes(g) {
        let Ok((_, attrs)) = g.node_mut(id) else { continue };
        if attrs.iter().all(|(_, a)| !matches!(a, Attr::Graph(_))) {
            continue;
        }
        for body in attrs.graphs_mut() {
            let outer = |v: &ValueId| matches!(body.def(*v), Def::Input(_) | Def::Capture(_));
            for v in body.values().filter(outer).collect::<Vec<_>>() {
                let ty = body.dtype(v).map_or(ValueType::Unknown, ValueType::unranked);
                body.set_type(v, ty);
            }
            forget_types(body);
        }
    }
}

/// Whether an input of a node is a scale.
pub fn is_scale(n: &ir::Node, i: usize) -> bool {
    match n.op.name() {
        "QuantizeLinear" | "DequantizeLinear" => i == 1,
        "QLinearMatMul" | "QLinearConv" => matches!(i, 1 | 4 | 6),
        _ => false,
    }
}

/// Whether a scale is what a quantization can mean: positive, and far from the ends of the range.
pub fn is_sane(scale: f64) -> bool {
    (1e-12..1e12).contains(&scale)
}

/// Whether all scales that are constants are sane.
pub fn scales_are_sane(g: &Graph) -> bool {
    sane(g, &[])
}

/// The same of a body, whose captures stand for these values of the graph around it, where they are constants.
fn sane(g: &Graph, captures: &[Option<&Tensor>]) -> bool {
    let constant = |v: ValueId| match *g.def(v) {
        Def::Capture(i) => captures.get(i).copied().flatten(),
        _ => g.constant(v),
    };
    g.nodes().all(|(_, n)| {
        let inner: Vec<Option<&Tensor>> = n.captures().iter().map(|&v| constant(v)).collect();
        n.attrs.graphs().into_iter().all(|b| sane(b, &inner))
            && n.inputs().iter().enumerate().filter(|(i, _)| is_scale(n, *i)).all(|(_, v)| {
                let data = v.and_then(constant).and_then(|t| t.to_f64s().ok()).unwrap_or_default();
                data.iter().all(|&s| is_sane(s))
            })
    })
}

/// Inputs that nothing reads would pile up: the graph without them.
pub fn drop_unread_inputs(g: &mut Graph) {
    let read = |g: &Graph, v: ValueId| !g.uses(v).is_empty();
    if g.inputs().iter().all(|&v| read(g, v)) {
        return;
    }
    let mut new = Graph::new(&g.name);
    new.meta = g.meta.clone();
    let inputs: Vec<ValueId> = g
        .inputs()
        .iter()
        .map(|&v| {
            if read(g, v) {
                new.add_input(g.value_name(v), g.ty(v).clone())
            } else {
                // Nothing reads it; the copy only has to have a place for it.
                new.add_initializer("gone", Tensor::scalar(0f32))
            }
        })
        .collect();
    let Ok(outputs) = g.inline_into(&mut new, &inputs, &[]) else { return };
    for (o, v) in g.outputs().iter().zip(outputs) {
        new.add_output(&o.name, v);
    }
    new.prune();
    *g = new;
}

/// Every value of the graph that is a tensor, with what it is on these inputs.
pub fn tensors_of(g: &Graph, feeds: &Feeds) -> Vec<(ValueId, Tensor)> {
    let values: Vec<ValueId> = g.values().collect();
    let Ok(run) = Reference.run(g, feeds, &values) else { return Vec::new() };
    let all = values.into_iter().zip(run.taps);
    all.filter_map(|(v, x)| if let Value::Tensor(t) = x { Some((v, t)) } else { None }).collect()
}

/// A bytes-to-bytes mutation for libFuzzer: `None` when the bytes are no pair and cannot become one.
pub fn bytes(target: crate::targets::Target, data: &[u8], seed: u64) -> Option<Vec<u8>> {
    let mut r = Random(seed);
    let mut pair = target.pair(data)?;
    if pair.pipeline.passes.is_empty() {
        pair.pipeline.passes = target.passes(&mut r);
    }
    // One in five changes the passes, as the loop of `compress fuzz` does after four fruitless changes of the graph.
    if r.chance(1, 5) {
        passes::mutate(&mut pair.pipeline, target, &mut r);
    } else {
        let other = target.pair(&r.bytes(256)).map_or_else(|| pair.graph.clone(), |p| p.graph);
        pair.graph = graph(&pair, &other, &mut r, Limits::default())?.0;
    }
    pair.encode().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::targets::Target;
    use std::collections::BTreeSet;

    /// Every mutator finds a place in some generated graph and gives one that runs.
    #[test]
    fn mutators_give_graphs_that_run() {
        crate::check::set_limits();
        let mut worked = BTreeSet::new();
        let mut r = Random(1);
        for seed in 0..400u64 {
            let Some(pair) = Target::Joint.pair(&crate::random_bytes(seed)) else { continue };
            let Some(other) = Target::Joint.pair(&crate::random_bytes(seed + 1)) else { continue };
            let Some((g, name)) = graph(&pair, &other.graph, &mut r, Limits::default()) else { continue };
            assert!(ir::verify(&g).is_ok());
            worked.insert(name);
        }
        let all: BTreeSet<_> = MUTATORS.iter().map(|m| m.0).collect();
        assert_eq!(worked, all);
    }

    /// Sizes were multiplied without a look at their product.
    #[test]
    fn empty_graphs_may_have_any_dims() {
        let text = "case (float[0, 1099511627776, 1099511627776] x) => (float[?, ?, ?] y) { y = Relu (x) }";
        let g = ir::text::parse(text, &ops::Standard).unwrap();
        assert!(settled(g, 1, Limits::default()).is_some());
    }

    /// Branches quantized by the scale 0 of the graph around them, which no operator defines.
    #[test]
    fn scales_of_bodies_are_looked_at() {
        let sane = |scale: &str| {
            let text = format!(
                r#"case (float[2] x, bool go) => (int8[2] y) <float s = {{{scale}}}, int8 z = {{0}}> {{
   y = If <then_branch: graph = a () => (r) {{ r = QuantizeLinear (x, s, z) }},
           else_branch: graph = b () => (r) {{ r = QuantizeLinear (x, s, z) }}> (go)
}}
"#
            );
            scales_are_sane(&ir::text::parse(&text, &ops::Standard).unwrap())
        };
        assert!(sane("0.5") && !sane("0.0"));
    }

    #[test]
    fn bytes_become_other_pairs() {
        let first = bytes(Target::Joint, &crate::random_bytes(3), 5).unwrap();
        let pair = Pair::decode(&first).unwrap();
        assert_eq!(Pair::decode(&pair.encode().unwrap()).unwrap().pipeline, pair.pipeline);
        let others: BTreeSet<_> = (0..8).filter_map(|s| bytes(Target::Joint, &first, s)).collect();
        assert!(others.len() > 2);
    }
}
