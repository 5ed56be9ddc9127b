//! Loops without what they need not carry: states that every iteration hands on unchanged are read from around the loop.

use ir::{Attr, Def, Graph, NodeId, Result, Use, ValueId};

/// Makes captures of the states that bodies of Loop and Scan give back as they are. Returns how many went.
pub fn capture_invariants(graph: &mut Graph) -> Result<usize> {
    let mut captured = 0;
    for id in graph.order()? {
        let states = invariant(graph, id)?;
        if !states.is_empty() {
            capture(graph, id, &states)?;
            captured += states.len();
        }
    }
    Ok(captured)
}

/// A state that does not change: its places among the node's inputs and outputs, and the body's.
#[derive(Clone, Copy)]
struct State {
    input: usize,
    output: usize,
    body_output: usize,
}

fn invariant(graph: &Graph, id: NodeId) -> Result<Vec<State>> {
    let node = graph.node(id)?;
    let (from, carried, ahead) = match node.op.name() {
        "Loop" => (2, node.inputs().len().saturating_sub(2), 1),
        "Scan" => {
            let scans = usize::try_from(node.attrs.int_or("num_scan_inputs", 0)?).unwrap_or(usize::MAX);
            (0, node.inputs().len().saturating_sub(scans), 0)
        }
        _ => return Ok(Vec::new()),
    };
    let body = node.attrs.require_graph("body")?;
    let all = (0..carried).map(|k| State { input: from + k, output: k, body_output: ahead + k });
    let stays = |s: &State| {
        let given = node.input(s.input).is_some();
        let (taken, back) = (body.inputs().get(s.input), body.outputs().get(s.body_output));
        given && taken.zip(back).is_some_and(|(&taken, back)| source(body, back.value) == taken)
    };
    Ok(all.filter(stays).collect())
}

/// The value behind copies of it.
fn source(g: &Graph, mut v: ValueId) -> ValueId {
    while let Some(n) = g.producer(v).and_then(|p| g.get(p)).filter(|n| n.is("Identity")) {
        match n.input(0) {
            Some(x) => v = x,
            None => break,
        }
    }
    v
}

fn capture(graph: &mut Graph, id: NodeId, states: &[State]) -> Result<()> {
    let node = graph.node(id)?.clone();
    let mut captures = node.captures().to_vec();
    let mut attrs = node.attrs.clone();
    let mut body = node.attrs.require_graph("body")?.clone();
    for s in states {
        let Some(outer) = node.input(s.input) else { continue };
        let inner = body.inputs()[s.input];
        let seen = body.add_capture("captured", graph.ty(outer).clone(), captures.len());
        captures.push(outer);
        body.replace_uses(inner, seen);
    }
    let kept = |i: &usize, place: fn(&State) -> usize| !states.iter().any(|s| place(s) == *i);
    let outputs = body.outputs().to_vec().into_iter().enumerate();
    body.set_outputs(outputs.filter(|(i, _)| kept(i, |s| s.body_output)).map(|(_, o)| o).collect());
    body.prune();
    states.iter().rev().try_for_each(|s| body.remove_input(s.input))?;
    attrs.set("body", Attr::Graph(Box::new(body)));

    let inputs = node.inputs().iter().copied().enumerate();
    let inputs: Vec<_> = inputs.filter(|(i, _)| kept(i, |s| s.input)).map(|(_, v)| v).collect();
    let old: Vec<Option<ValueId>> = node.outputs().to_vec();
    let results: Vec<_> =
        old.iter().copied().enumerate().filter(|(i, _)| kept(i, |s| s.output)).map(|(_, v)| v).collect();
    let names: Vec<String> =
        results.iter().map(|v| v.map_or_else(String::new, |v| graph.value_name(v).to_string())).collect();
    let hints: Vec<&str> = names.iter().map(String::as_str).collect();
    let new = graph.add_node(&node.name, node.op, attrs, &inputs, &hints);
    graph.set_captures(new, &captures);
    let made = graph.node(new)?.outputs().to_vec();
    for (from, to) in results.iter().zip(&made) {
        if let (Some(from), Some(to)) = (*from, *to) {
            graph.set_type(to, graph.ty(from).clone());
            graph.replace_uses(from, to);
        }
    }
    for s in states {
        if let (Some(y), Some(x)) = (old.get(s.output).copied().flatten(), node.input(s.input)) {
            stand_in(graph, y, x)?;
        }
    }
    graph.remove_node(id)?;
    for (v, name) in made.iter().zip(&names) {
        if let Some(v) = v {
            graph.rename_value(*v, name);
        }
    }
    Ok(())
}

/// Lets `x` be read where `y` was; an output that is an input or a constant needs a node to carry its name in a file.
fn stand_in(graph: &mut Graph, y: ValueId, x: ValueId) -> Result<()> {
    let named = graph.uses(y).iter().any(|u| matches!(u, Use::Output(_)));
    if named && !matches!(graph.def(x), Def::Node(..)) {
        let copy = graph.apply("", ops::standard("Identity")?, ir::Attrs::new(), &[x]);
        graph.set_type(copy, graph.ty(x).clone());
        graph.replace_uses(y, copy);
    } else {
        graph.replace_uses(y, x);
    }
    Ok(())
}

/// What bodies capture of constants becomes constants of theirs, so that they are folded: for running only, as each
/// body then has its own.
pub fn constants_inward(graph: &mut Graph) -> Result<()> {
    for id in graph.order()? {
        let node = graph.node(id)?;
        let known: Vec<_> = node.captures().iter().map(|&v| graph.constant(v).cloned()).collect();
        if known.iter().all(Option::is_none) {
            continue;
        }
        let (_, attrs) = graph.node_mut(id)?;
        for body in attrs.graphs_mut() {
            for v in body.values().collect::<Vec<_>>() {
                if let Def::Capture(i) = *body.def(v)
                    && let Some(Some(t)) = known.get(i)
                    && !body.uses(v).is_empty()
                {
                    let c = body.add_initializer("constant", t.clone());
                    body.replace_uses(v, c);
                }
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use crate::{Options, optimize};
    use ir::{Evaluate, Feeds, Graph, Tensor, Value};

    const LOOP: &str = "
case (int64 n, float[2] x, float[2] w) => (float[2] h, float[2] same, float[2] y, float[p, 2] all) <bool yes = {1}> {
  h, kept, same, all = Loop (n, yes, x, w, x) <body = b (int64 i, bool go, float[2] s, float[2] k, float[2] q)
      => (bool go, float[2] t, float[2] k2, float[2] q, float[2] t) {
    k2 = Identity (k)
    u = Mul (s, k)
    t = Add (u, q)
  }>
  y = Add (kept, h)
}
";

    fn run(g: &Graph, n: i64) -> Vec<Tensor> {
        let t = |v: [f32; 2]| Value::from(Tensor::vector(v.to_vec()));
        let feeds = Feeds::from([
            ("n".to_string(), Tensor::scalar(n).into()),
            ("x".to_string(), t([1.0, -2.0])),
            ("w".to_string(), t([0.5, 3.0])),
        ]);
        let outputs = ir::Reference.run(g, &feeds, &[]).unwrap().outputs;
        outputs.into_iter().map(|v| v.tensor().unwrap().clone()).collect()
    }

    #[test]
    fn states_that_stay_are_captures() {
        let g = ir::text::parse(LOOP, &ops::Standard).unwrap();
        for options in [Options::PORTABLE, Options::RUNTIME] {
            let (o, _) = optimize(&g, options).unwrap();
            let (_, node) = o.nodes().find(|(_, n)| n.is("Loop")).unwrap();
            assert_eq!((node.inputs().len(), node.outputs().len(), node.captures().len()), (3, 2, 2));
            for n in [0, 1, 4] {
                assert_eq!(run(&g, n), run(&o, n));
            }
        }
    }
}
