//! Running a graph: the trait all engines implement, and the reference walk over operator semantics.

use crate::{Attrs, Def, Error, EvalCx, Graph, NodeId, Result, Tensor, Value, ValueId};
use std::collections::BTreeMap;
use std::time::Duration;

/// Values by graph-input name.
pub type Feeds = BTreeMap<String, Value>;

/// Results of a run: graph outputs in order, then the tapped values in the order asked.
#[derive(Debug, Clone)]
pub struct Outcome {
    pub outputs: Vec<Value>,
    pub taps: Vec<Value>,
}

/// An engine that runs graphs.
pub trait Evaluate: Sync {
    /// Runs `graph` on `inputs`; `taps` are extra values to return.
    fn run(&self, graph: &Graph, inputs: &Feeds, taps: &[ValueId]) -> Result<Outcome>;
    /// Lets go of everything kept between runs: the next graph is another one.
    fn forget(&self) {}
    /// Whether several threads may run graphs at the same time, each run on its own thread.
    fn side_by_side(&self) -> bool {
        false
    }
    /// An engine of the same results whose runs go side by side; `None` where there is no other.
    fn apart(&self) -> Option<Box<dyn Evaluate>> {
        None
    }
    /// Wall times of single runs of each graph on its inputs. The graphs take `turns` turns, so that what slows the
    /// machine down for a while slows all of them; each runs for about `span` in total. A graph that does not run has no
    /// times. `None` when this engine's speed means nothing.
    fn times(
        &self,
        _graphs: &[(&Graph, &Feeds)],
        _turns: usize,
        _span: Duration,
    ) -> Option<Vec<Vec<Duration>>> {
        None
    }
}

/// Walks the graph and evaluates each operator's reference semantics.
#[derive(Debug, Clone, Copy, Default)]
pub struct Reference;

impl Evaluate for Reference {
    fn side_by_side(&self) -> bool {
        true
    }
    fn run(&self, graph: &Graph, inputs: &Feeds, taps: &[ValueId]) -> Result<Outcome> {
        let mut values = Vec::with_capacity(graph.inputs().len());
        for &v in graph.inputs() {
            let name = graph.value_name(v);
            let x = inputs.get(name).ok_or_else(|| {
                Error::data(format!("input '{name}' is missing; the model takes {}", graph.input_summary()))
            })?;
            graph
                .ty(v)
                .merge(&x.value_type())
                .map_err(|e| Error { blame: crate::Blame::Data, ..e.tensor(name) })?;
            values.push(x.clone());
        }
        walk(graph, values, &[], taps, false)
    }
}

/// Runs a subgraph on formal inputs and captures with the reference semantics.
pub fn run_subgraph(graph: &Graph, inputs: Vec<Value>, captures: &[Value]) -> Result<Vec<Value>> {
    Ok(walk(graph, inputs, captures, &[], true)?.outputs)
}

/// Work of subgraphs is counted: a loop may run them very often.
fn walk(
    graph: &Graph,
    inputs: Vec<Value>,
    captures: &[Value],
    taps: &[ValueId],
    counted: bool,
) -> Result<Outcome> {
    let order = graph.order()?;
    let last = last_use(graph, &order, taps);
    let mut env: BTreeMap<ValueId, Value> = graph.inputs().iter().copied().zip(inputs).collect();
    for (i, &id) in order.iter().enumerate() {
        let node = graph.node(id)?;
        let results = step(graph, id, &env, captures, counted)
            .map_err(|e| e.at(&node.name, &crate::qualified(node.op)))?;
        for (o, v) in node.outputs().iter().zip(results) {
            if let Some(o) = o {
                env.insert(*o, v);
            }
        }
        env.retain(|v, _| last[v.index()] > i);
    }
    let get = |v: ValueId| lookup(graph, v, &env, captures);
    Ok(Outcome {
        outputs: graph.outputs().iter().map(|o| get(o.value)).collect::<Result<_>>()?,
        taps: taps.iter().map(|&t| get(t)).collect::<Result<_>>()?,
    })
}

fn step(
    graph: &Graph,
    id: NodeId,
    env: &BTreeMap<ValueId, Value>,
    captures: &[Value],
    counted: bool,
) -> Result<Vec<Value>> {
    let node = graph.node(id)?;
    let get = |v: ValueId| lookup(graph, v, env, captures);
    let inputs: Vec<Option<Value>> =
        node.inputs().iter().map(|v| v.map(get).transpose()).collect::<Result<_>>()?;
    let caps: Vec<Value> = node.captures().iter().map(|&v| get(v)).collect::<Result<_>>()?;
    let subgraph = |g: &Graph, ins: Vec<Value>| run_subgraph(g, ins, &caps);
    let cx = EvalCx {
        node: &node.name,
        attrs: &node.attrs,
        inputs: &inputs,
        captures: &caps,
        outputs: node.outputs().len(),
        subgraph: &subgraph,
    };
    let results = node.op.eval(&cx)?;
    if counted {
        let all = inputs.iter().flatten().chain(&results);
        crate::budget::add_work(all.filter_map(|v| v.tensor().ok()).map(Tensor::len).sum());
    }
    let wanted = node.outputs().iter().rposition(Option::is_some).map_or(0, |p| p + 1);
    if results.len() < wanted {
        return Err(too_few_results(&node.attrs, results.len(), wanted));
    }
    Ok(results)
}

/// A node gave fewer results than are read: a body's doing where there is one.
pub fn too_few_results(attrs: &Attrs, given: usize, read: usize) -> Error {
    let text = format!("gives {given} results, {read} are read");
    if attrs.graphs().is_empty() { Error::internal(text) } else { Error::model(text) }
}

fn lookup(graph: &Graph, v: ValueId, env: &BTreeMap<ValueId, Value>, captures: &[Value]) -> Result<Value> {
    match graph.def(v) {
        Def::Initializer(t) => Ok(Value::Tensor(t.clone())),
        Def::Capture(i) => {
            captures.get(*i).cloned().ok_or_else(|| Error::internal(format!("capture {i} is missing")))
        }
        _ => env
            .get(&v)
            .cloned()
            .ok_or_else(|| Error::model(format!("value '{}' is never computed", graph.value_name(v)))),
    }
}

/// Position in `order` of the last reader of each value; `usize::MAX` for outputs and taps.
fn last_use(graph: &Graph, order: &[NodeId], taps: &[ValueId]) -> Vec<usize> {
    let mut last = vec![0usize; graph.value_bound()];
    for (i, &id) in order.iter().enumerate() {
        graph.get(id).into_iter().flat_map(|n| n.reads()).for_each(|v| last[v.index()] = i);
    }
    let kept = graph.outputs().iter().map(|o| o.value).chain(taps.iter().copied());
    kept.for_each(|v| last[v.index()] = usize::MAX);
    last
}
