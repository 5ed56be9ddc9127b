//! Before the e-graph: constant folding on the graph itself, branches with known conditions, equal initializers merged.

use ir::{Accuracy, Error, EvalCx, Graph, NodeId, Result, Tensor, Use, Value, ValueId};
use std::collections::{BTreeMap, BTreeSet};

/// A folded result may grow to this size whatever its inputs were.
pub const SMALL_BYTES: usize = 4096;

/// Initializers above this size are freed as soon as nothing reads them.
const LARGE_BYTES: usize = 1 << 16;

/// Pages of larger mapped initializers are given back after a few words of them were read.
const SCATTERED_BYTES: usize = 4 << 20;

/// How far constant folding may expand what is stored.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Growth {
    /// The file must not grow: weights stored compressed stay so.
    Never,
    /// Memory may, except where 8-bit weights meet 8-bit activations: before integer contractions are looked for.
    Bounded,
    /// Memory may: used when the result is only run.
    Allowed,
}

/// Evaluates every node whose inputs are all initializers. Returns how many went.
pub fn fold_constants(graph: &mut Graph, growth: Growth) -> Result<usize> {
    let mut folded = 0;
    let never = growth == Growth::Never;
    let kept = if never { BTreeSet::new() } else { stored_weights(graph) };
    let mut readers = if never { Readers::new(graph) } else { Readers::default() };
    for id in graph.order()? {
        if kept.contains(&id) {
            continue;
        }
        let freed = if never { readers.freed(graph, id) } else { 0 };
        let Some(results) = evaluate(graph, id, growth, freed) else { continue };
        let outputs = graph.node(id)?.outputs().to_vec();
        let inputs: BTreeSet<ValueId> = graph.node(id)?.inputs().iter().flatten().copied().collect();
        for (v, t) in outputs.into_iter().zip(results) {
            let Some(v) = v else { continue };
            let name = graph.value_name(v).to_string();
            let new = graph.add_initializer(&name, t);
            if never {
                readers.insert(graph, v, new);
            }
            graph.replace_uses(v, new);
        }
        graph.remove_node(id)?;
        readers.forget(&inputs);
        free_unused(graph, &inputs);
        folded += 1;
    }
    Ok(folded)
}

/// Who reads each constant: its bytes go with the last of them, and only then.
#[derive(Default)]
struct Readers(BTreeMap<ValueId, Read>);

#[derive(Default)]
struct Read {
    /// Each once.
    nodes: Vec<NodeId>,
    /// Of them, those that are not computed yet.
    left: usize,
    /// A graph output or a body reads it too.
    stays: bool,
    /// All readers can be computed and together take no more bytes than it does; asked once.
    replaced: Option<bool>,
}

impl Readers {
    fn new(graph: &Graph) -> Readers {
        let mut all = Readers::default();
        for (id, n) in graph.nodes() {
            for &v in n.inputs().iter().flatten().filter(|&&v| graph.constant(v).is_some()) {
                let r = all.0.entry(v).or_default();
                if r.nodes.last() != Some(&id) {
                    r.nodes.push(id);
                    r.left += 1;
                }
            }
            n.captures().iter().for_each(|&v| all.0.entry(v).or_default().stays = true);
        }
        graph.outputs().iter().for_each(|o| all.0.entry(o.value).or_default().stays = true);
        all
    }

    /// The constant `new` is about to stand for `v`.
    fn insert(&mut self, graph: &Graph, v: ValueId, new: ValueId) {
        let stays = graph.uses(v).iter().any(|u| !matches!(u, Use::Input(..)));
        let nodes = graph.consumers(v);
        self.0.insert(new, Read { left: nodes.len(), nodes, stays, replaced: None });
    }

    fn forget(&mut self, read: &BTreeSet<ValueId>) {
        for v in read {
            if let Some(r) = self.0.get_mut(v) {
                r.left = r.left.saturating_sub(1);
            }
        }
    }

    /// Bytes that the node's results may take because it is computed.
    fn freed(&mut self, graph: &Graph, id: NodeId) -> usize {
        let Some(n) = graph.get(id) else { return 0 };
        let inputs: BTreeSet<ValueId> = n.inputs().iter().flatten().copied().collect();
        let mut bytes = 0usize;
        for v in inputs {
            let (Some(t), Some(r)) = (graph.constant(v), self.0.get_mut(&v)) else { continue };
            let own = t.stored_bytes();
            let more = match r {
                Read { stays: true, .. } => 0,
                Read { left: 0 | 1, .. } => own,
                Read { nodes, replaced, .. } => {
                    let all = || {
                        let sizes = nodes.iter().map(|&n| computed_bytes(graph, n));
                        sizes.sum::<Option<usize>>().is_some_and(|sum| sum <= own)
                    };
                    if *replaced.get_or_insert_with(all) { computed_bytes(graph, id).unwrap_or(0) } else { 0 }
                }
            };
            bytes = bytes.saturating_add(more);
        }
        bytes
    }
}

/// Bytes of what a node gives, where they are known and the node can be computed now.
fn computed_bytes(graph: &Graph, id: NodeId) -> Option<usize> {
    let n = graph.get(id).filter(|n| computes(graph, n, Growth::Never))?;
    if !n.inputs().iter().flatten().all(|&v| graph.constant(v).is_some()) {
        return None;
    }
    n.outputs().iter().flatten().map(|&v| typed_bytes(graph, v)).sum()
}

fn typed_bytes(graph: &Graph, v: ValueId) -> Option<usize> {
    let t = graph.ty(v);
    let n = t.concrete()?.iter().try_fold(1usize, |n, &d| n.checked_mul(d))?;
    n.checked_mul(t.dtype()?.bits()).map(|bits| bits.div_ceil(8))
}

/// Fewest elements of a weight that stays as it is stored.
const LEAST_STORED: usize = 4096;

/// Nodes that decode weights of contractions from less than two thirds of their bytes, and do nothing else: code
/// generation reads such weights as they are stored.
fn stored_weights(graph: &Graph) -> BTreeSet<NodeId> {
    let weight = |n: &ir::Node| match n.op.name() {
        "Conv" | "MatMul" | "Gemm" | "FusedConv" | "FusedMatMul" | "FusedGemm" => n.input(1),
        _ => None,
    };
    let mut found = BTreeSet::new();
    for (_, n) in graph.nodes() {
        let Some(nodes) = weight(n).and_then(|w| graph.expression(w)) else { continue };
        let ty = weight(n).map(|w| graph.ty(w));
        let elements = ty.and_then(|t| t.concrete()).and_then(|s| ir::budget::elements(&s).ok()).unwrap_or(0);
        let mut leaves: BTreeSet<ValueId> = BTreeSet::new();
        for id in &nodes {
            leaves.extend(graph.get(*id).into_iter().flat_map(|n| n.inputs().iter().flatten()));
        }
        let stored: usize = leaves.iter().filter_map(|&v| graph.constant(v)).map(Tensor::stored_bytes).sum();
        let float = ty.and_then(ir::ValueType::dtype) == Some(ir::DType::F32);
        // A table of words that is also the last product would be there twice.
        let turned =
            |t: ValueId| graph.constant(t).is_some_and(|t| t.shape().len() == 2) && graph.uses(t).len() > 1;
        let shared = match nodes[..] {
            [only] => {
                graph.get(only).is_some_and(|t| t.op.name() == "Transpose" && t.input(0).is_some_and(turned))
            }
            _ => false,
        };
        if float && elements >= LEAST_STORED && shared && matches!(n.op.name(), "MatMul" | "Gemm") {
            found.extend(&nodes);
        }
        if float && elements >= LEAST_STORED && stored.saturating_mul(3) < elements.saturating_mul(8) {
            found.extend(nodes);
        }
    }
    // What anything else reads is computed once, here.
    loop {
        let read_elsewhere = |id: &NodeId| {
            let outputs = graph.get(*id).map(|n| n.outputs().to_vec()).unwrap_or_default();
            outputs.into_iter().flatten().any(|v| {
                graph.uses(v).iter().any(|u| match u {
                    Use::Input(user, i) => {
                        let decodes = found.contains(user);
                        let weighs = *i == 1 && graph.get(*user).and_then(weight) == Some(v);
                        !decodes && !weighs
                    }
                    _ => true,
                })
            })
        };
        let elsewhere: Vec<NodeId> = found.iter().copied().filter(read_elsewhere).collect();
        if elsewhere.is_empty() {
            return found;
        }
        found.retain(|id| !elsewhere.contains(id));
    }
}

/// Lets go of large initializers that nothing reads any more: chains that decode weights would pile up until the end.
fn free_unused(graph: &mut Graph, values: &BTreeSet<ValueId>) {
    for &v in values {
        let large = graph.constant(v).is_some_and(|t| t.stored_bytes() > LARGE_BYTES);
        if large && graph.uses(v).is_empty() {
            graph.set_constant(v, Tensor::vector::<u8>(Vec::new()));
        }
    }
}

/// Whether a node is one that may be computed, once its inputs are known.
fn computes(graph: &Graph, node: &ir::Node, growth: Growth) -> bool {
    let keeps_weights_packed = node.op.name() == "DequantizeLinear"
        && (growth == Growth::Never || growth == Growth::Bounded && meets_bytes(graph, node));
    node.op.accuracy() != Accuracy::Random && node.attrs.graphs().is_empty() && !keeps_weights_packed
}

/// The node's results, if all it reads is known; `freed`: bytes they may take where the file must not grow.
fn evaluate(graph: &Graph, id: NodeId, growth: Growth, freed: usize) -> Option<Vec<Tensor>> {
    let node = graph.get(id).filter(|n| computes(graph, n, growth))?;
    let inputs: Vec<Option<Value>> = node
        .inputs()
        .iter()
        .map(|v| match v {
            Some(v) => graph.constant(*v).map(|t| Some(Value::Tensor(t.clone()))),
            None => Some(None),
        })
        .collect::<Option<_>>()?;
    let bytes_in: usize =
        inputs.iter().flatten().filter_map(|v| v.tensor().ok()).map(Tensor::stored_bytes).sum();
    let limit = if growth == Growth::Never {
        freed.max(SMALL_BYTES)
    } else {
        bytes_in.saturating_mul(16).max(1 << 24)
    };
    if node.outputs().iter().flatten().filter_map(|&v| typed_bytes(graph, v)).any(|n| n > limit) {
        return None;
    }
    let none = |_: &Graph, _: Vec<Value>| Err(Error::internal("no subgraph"));
    let cx = EvalCx {
        node: &node.name,
        attrs: &node.attrs,
        inputs: &inputs,
        captures: &[],
        outputs: node.outputs().len(),
        subgraph: &none,
    };
    // A node that fails on constants is left for the run to report.
    let results: Vec<Tensor> = node
        .op
        .eval(&cx)
        .ok()?
        .into_iter()
        .map(|v| if let Value::Tensor(t) = v { Some(t) } else { None })
        .collect::<Option<_>>()?;
    let bytes_out: usize = results.iter().map(Tensor::stored_bytes).sum();
    (bytes_out <= limit && results.len() >= node.outputs().len()).then_some(results)
}

/// Movements that bytes may make in place of the values they stand for, or that go into the contraction.
const MOVES: &[&str] = &[
    "Reshape",
    "Transpose",
    "Squeeze",
    "Unsqueeze",
    "Flatten",
    "Slice",
    "Concat",
    "Resize",
    "Pad",
    "MaxPool",
];
/// Movements looked through.
const MOST_MOVES: usize = 8;

/// A dequantized constant is read by a contraction whose other operand is dequantized while running, moved or not.
fn meets_bytes(graph: &Graph, dequantize: &ir::Node) -> bool {
    let Some(y) = dequantize.output(0) else { return false };
    let made_of_bytes = |mut v: ValueId| {
        for _ in 0..MOST_MOVES {
            let Some(n) = graph.producer(v).and_then(|p| graph.get(p)) else { return false };
            if n.is("DequantizeLinear") {
                return n.input(0).is_some_and(|x| graph.constant(x).is_none());
            }
            match n.input(0).filter(|_| MOVES.iter().any(|m| n.is(m))) {
                Some(x) => v = x,
                None => return false,
            }
        }
        false
    };
    let side_by_side = |c: &ir::Node| {
        let weight = c.input(1).and_then(|w| graph.ty(w).concrete());
        c.is("ConvTranspose")
            && c.input(2).is_none_or(|b| graph.constant(b).is_some())
            && weight.is_some_and(|w| ops::conv_transpose::side_by_side(&c.attrs, &w).is_some())
    };
    graph.consumers(y).iter().filter_map(|&c| graph.get(c)).any(|c| {
        (c.is("Conv") || c.is("MatMul") || c.is("Gemm") || side_by_side(c))
            && c.inputs().iter().flatten().any(|&v| made_of_bytes(v))
    })
}

/// Replaces every `If` whose condition is an initializer by the branch it takes.
pub fn inline_branches(graph: &mut Graph) -> Result<usize> {
    let mut inlined = 0;
    while let Some((id, branch)) = known_branch(graph)? {
        let node = graph.node(id)?.clone();
        let values = branch.inline_into(graph, &[], node.captures())?;
        for (old, new) in node.outputs().iter().zip(values) {
            if let Some(old) = old {
                graph.replace_uses(*old, new);
            }
        }
        graph.remove_node(id)?;
        inlined += 1;
    }
    Ok(inlined)
}

fn known_branch(graph: &Graph) -> Result<Option<(NodeId, Graph)>> {
    for (id, n) in graph.nodes() {
        if !n.is("If") {
            continue;
        }
        let Some(t) = n.input(0).and_then(|c| graph.constant(c)) else { continue };
        let Some(&taken) = t.to_i64s()?.first() else { continue };
        let branch = n.attrs.require_graph(if taken != 0 { "then_branch" } else { "else_branch" })?;
        return Ok(Some((id, branch.clone())));
    }
    Ok(None)
}

/// Replaces shape arithmetic by what it gives, where inference followed it to numbers: sizes that are known stay known
/// beside others that are open. What is not small is no arithmetic of shapes, though inference may know it.
pub fn fold_shapes(graph: &mut Graph, known: &BTreeMap<ValueId, Vec<usize>>) -> Result<usize> {
    let mut folded = 0;
    for id in graph.order()? {
        let node = graph.node(id)?;
        let Some(v) = node.output(0).filter(|_| node.outputs().len() == 1) else { continue };
        let small = |sizes: &&Vec<usize>| size_of_val(&sizes[..]) <= SMALL_BYTES;
        let (Some(sizes), ir::ValueType::Tensor(t)) = (known.get(&v).filter(small), graph.ty(v)) else {
            continue;
        };
        let Some(shape) = graph.ty(v).concrete().filter(|s| s.iter().product::<usize>() == sizes.len())
        else {
            continue;
        };
        let values = sizes.iter().map(|&n| i64::try_from(n)).collect::<Result<Vec<i64>, _>>();
        let Ok(values) = values else { continue };
        let new = Tensor::from_i64s(t.dtype, &shape, values)?;
        let name = graph.value_name(v).to_string();
        let new = graph.add_initializer(&name, new);
        graph.replace_uses(v, new);
        graph.remove_node(id)?;
        folded += 1;
    }
    Ok(folded)
}

/// Makes initializers with equal type, shape and bytes one. Returns how many went.
pub fn merge_equal_initializers(graph: &mut Graph) -> Result<usize> {
    let mut by_size: BTreeMap<(ir::DType, Vec<usize>), Vec<ValueId>> = BTreeMap::new();
    for (v, t) in graph.initializers() {
        by_size.entry((t.dtype(), t.shape().to_vec())).or_default().push(v);
    }
    let mut merged = 0;
    for group in by_size.into_values().filter(|g| g.len() > 1) {
        let mut kept: BTreeMap<u64, Vec<ValueId>> = BTreeMap::new();
        for v in group {
            let Some(t) = graph.constant(v) else { continue };
            let slot = kept.entry(fingerprint(t)).or_default();
            match slot.iter().find(|&&k| graph.constant(k) == Some(t)).copied() {
                Some(k) => {
                    graph.replace_uses(v, k);
                    merged += 1;
                }
                None => slot.push(v),
            }
        }
    }
    Ok(merged)
}

/// FNV-1a over the first and last bytes; equality is checked in full by the caller. More would only read more pages.
fn fingerprint(t: &Tensor) -> u64 {
    const ENDS: usize = 128;
    let bytes = t.bytes();
    let (first, rest) = bytes.split_at(bytes.len().min(ENDS));
    let last = &rest[rest.len().saturating_sub(ENDS)..];
    let mix = |h: u64, &b: &u8| (h ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3);
    let hash = first.iter().chain(last).fold(0xcbf2_9ce4_8422_2325, mix);
    // The system maps many pages around each end.
    if t.stored_bytes() >= SCATTERED_BYTES {
        t.release();
    }
    hash
}

/// Applies `f` to the bodies of control-flow nodes, with types of captures passed inward.
pub fn for_each_body(graph: &mut Graph, f: &mut dyn FnMut(&mut Graph) -> Result<()>) -> Result<()> {
    for id in graph.order()? {
        if graph.node(id)?.attrs.graphs().is_empty() {
            continue;
        }
        let types: Vec<_> = graph.node(id)?.captures().iter().map(|&v| graph.ty(v).clone()).collect();
        let (_, attrs) = graph.node_mut(id)?;
        for body in attrs.graphs_mut() {
            ir::infer_with(body, &[], &types)?;
            f(body)?;
        }
        drop_unused_captures(graph, id)?;
    }
    Ok(())
}

/// Removes captures that no body reads any more, renumbering the rest.
fn drop_unused_captures(graph: &mut Graph, id: NodeId) -> Result<()> {
    let captures = graph.node(id)?.captures().to_vec();
    let mut used = vec![false; captures.len()];
    for body in graph.node(id)?.attrs.graphs() {
        for v in body.values() {
            if let ir::Def::Capture(i) = body.def(v)
                && !body.uses(v).is_empty()
                && let Some(u) = used.get_mut(*i)
            {
                *u = true;
            }
        }
    }
    if used.iter().all(|&u| u) {
        return Ok(());
    }
    let number: Vec<usize> = used
        .iter()
        .scan(0, |n, &u| {
            let i = *n;
            *n += usize::from(u);
            Some(i)
        })
        .collect();
    let kept: Vec<ValueId> = captures.iter().zip(&used).filter(|(_, u)| **u).map(|(&v, _)| v).collect();
    let (_, attrs) = graph.node_mut(id)?;
    for body in attrs.graphs_mut() {
        body.renumber_captures(&|i| used.get(i).copied().unwrap_or(false).then(|| number[i]));
    }
    graph.set_captures(id, &kept);
    Ok(())
}

/// Removes `Identity` nodes and dropout at inference, also where their result is a graph output.
pub fn drop_identities(graph: &mut Graph) -> Result<usize> {
    let mut dropped = 0;
    for id in graph.order()? {
        let n = graph.node(id)?;
        let inference = |i: usize| {
            n.input(i).is_none_or(|v| graph.constant(v).is_some_and(|t| t.to_i64s().is_ok_and(|x| x == [0])))
        };
        let unmasked = n.output(1).is_none_or(|mask| graph.uses(mask).is_empty());
        let same = n.is("Identity") || (n.is("Dropout") && unmasked && inference(2));
        let (true, Some(x), Some(y)) = (same, n.input(0), n.output(0)) else { continue };
        let only_output = graph.uses(y).iter().all(|u| matches!(u, Use::Output(_)));
        let source_is_input = !matches!(graph.def(x), ir::Def::Node(..));
        if only_output && source_is_input {
            // An output that is an input or a constant needs a node to carry its name in a file.
            continue;
        }
        graph.replace_uses(y, x);
        graph.remove_node(id)?;
        dropped += 1;
    }
    Ok(dropped)
}

#[cfg(test)]
mod tests {
    /// A float constant of 8 rows of 512, read by the slices [from, to) of its rows.
    fn sliced(parts: &[(usize, usize)], output: bool) -> usize {
        let values: Vec<String> = (0..4096).map(|i| format!("{i}.5")).collect();
        let slices: String = parts
            .iter()
            .enumerate()
            .map(|(i, (a, b))| {
                let (a, b) = (format!("int64[1] a{i} = {{{a}}}"), format!("int64[1] b{i} = {{{b}}}"));
                format!(", {a}, {b}")
            })
            .collect();
        let nodes: String = (0..parts.len())
            .map(|i| format!("  s{i} = Slice (c, a{i}, b{i}, axis)\n  y{i} = Add (x, s{i})\n"))
            .collect();
        let mut outputs: Vec<String> = (0..parts.len()).map(|i| format!("float[n{i}, 512] y{i}")).collect();
        if output {
            outputs.push("float[8, 512] z = c".into());
        }
        let text = format!(
            "case (float[1, 512] x) => ({}) <float[8, 512] c = {{{}}}, int64[1] axis = {{0}}{slices}> {{\n{nodes}}}\n",
            outputs.join(", "),
            values.join(","),
        );
        let graph = ir::text::parse(&text, &ops::Standard).unwrap();
        let (g, _) = crate::optimize(&graph, crate::Options::PORTABLE).unwrap();
        g.initializers().map(|(_, t)| t.stored_bytes()).sum()
    }

    #[test]
    fn what_a_folded_constant_frees_counts_once() {
        let whole = 8 * 512 * 4;
        // Together the parts are the constant; both replace it.
        assert_eq!(sliced(&[(0, 4), (4, 8)], false), whole);
        let more = |parts: &[(usize, usize)], output| sliced(parts, output) - whole;
        assert!(more(&[(0, 5), (2, 8)], false) < 200);
        assert!(more(&[(0, 4), (4, 8)], true) < 200);
        // The last reader takes its place.
        assert_eq!(sliced(&[(1, 8)], false), 7 * 512 * 4);
    }

    /// Inference knows places that TopK gives, and what is computed of them.
    #[test]
    fn integers_that_inference_knows_do_not_make_a_file_grow() {
        let values: Vec<String> = (0..1548).map(|i| format!("{}.0", i * 7 % 31)).collect();
        let text = format!(
            "case () => (y, z, w) <int64[1] k = {{3}}, float[1,43,6,6] c = {{{}}}> {{
                v, y = TopK (c, k)
                z = Add (y, y)
                w = Mul (z, y)
            }}",
            values.join(",")
        );
        let graph = ir::text::parse(&text, &ops::Standard).unwrap();
        let stored = |g: &ir::Graph| g.initializers().map(|(_, t)| t.stored_bytes()).sum::<usize>();
        let (g, _) = crate::optimize(&graph, crate::Options::PORTABLE).unwrap();
        assert!(stored(&g) <= stored(&graph), "{} {}", stored(&g), stored(&graph));
    }

    #[test]
    fn a_table_that_is_also_the_last_product_is_not_there_twice() {
        let values: Vec<String> = (0..1 << 17).map(|i| format!("{i}.5")).collect();
        let nodes = "  e = Gather (c, i)\n  t = Transpose <perm = [1, 0]> (c)\n  y = MatMul (e, t)\n";
        let text = format!(
            "case (int64[3] i) => (float[3, 2048] y) <float[2048, 64] c = {{{}}}> {{\n{nodes}}}\n",
            values.join(",")
        );
        let graph = ir::text::parse(&text, &ops::Standard).unwrap();
        let (g, _) = crate::optimize(&graph, crate::Options::RUNTIME).unwrap();
        let bytes: usize = g.initializers().map(|(_, t)| t.stored_bytes()).sum();
        assert!(bytes < (4 << 17) + 64, "{bytes} bytes of initializers");
    }
}
