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
        walk(graph, ordered(graph, inputs)?, &[], taps, How { counted: false, alter: None })
    }
}

impl Reference {
    /// Runs `graph` with every value that is fed, constant or computed, in bodies as well, replaced by what `alter` makes
    /// of it: which results does rounding decide, and what stands on the way to them? The graph is the one that the value
    /// is of.
    pub fn run_altered(
        &self,
        graph: &Graph,
        inputs: &Feeds,
        alter: &dyn Fn(&Graph, ValueId, Value) -> Value,
    ) -> Result<Vec<Value>> {
        let values = ordered(graph, inputs)?;
        let values = graph.inputs().iter().zip(values).map(|(&v, x)| alter(graph, v, x)).collect();
        Ok(walk(graph, values, &[], &[], How { counted: false, alter: Some(alter) })?.outputs)
    }
}

/// The graph's inputs in its order.
fn ordered(graph: &Graph, inputs: &Feeds) -> Result<Vec<Value>> {
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
    Ok(values)
}

/// Runs a subgraph on formal inputs and captures with the reference semantics.
pub fn run_subgraph(graph: &Graph, inputs: Vec<Value>, captures: &[Value]) -> Result<Vec<Value>> {
    let how = How { counted: true, alter: None };
    Ok(walk(graph, inputs, captures, &[], how)?.outputs)
}

type Alter<'a> = &'a dyn Fn(&Graph, ValueId, Value) -> Value;

/// How the nodes of a graph or of a body are run.
#[derive(Clone, Copy)]
struct How<'a> {
    /// Work of subgraphs is counted: a loop may run them very often.
    counted: bool,
    alter: Option<Alter<'a>>,
}

fn walk(
    graph: &Graph,
    inputs: Vec<Value>,
    captures: &[Value],
    taps: &[ValueId],
    how: How,
) -> Result<Outcome> {
    let order = graph.order()?;
    let last = last_use(graph, &order, taps);
    let mut env: BTreeMap<ValueId, Value> = graph.inputs().iter().copied().zip(inputs).collect();
    for (i, &id) in order.iter().enumerate() {
        let node = graph.node(id)?;
        let results =
            step(graph, id, &env, captures, how).map_err(|e| e.at(&node.name, &crate::qualified(node.op)))?;
        for (o, v) in node.outputs().iter().zip(results) {
            if let Some(o) = o {
                let v = match how.alter {
                    Some(alter) => alter(graph, *o, v),
                    None => v,
                };
                env.insert(*o, v);
            }
        }
        env.retain(|v, _| last[v.index()] > i);
    }
    let get = |v: ValueId| lookup(graph, v, &env, captures, how);
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
    how: How,
) -> Result<Vec<Value>> {
    let node = graph.node(id)?;
    let get = |v: ValueId| lookup(graph, v, env, captures, how);
    let inputs: Vec<Option<Value>> =
        node.inputs().iter().map(|v| v.map(get).transpose()).collect::<Result<_>>()?;
    let caps: Vec<Value> = node.captures().iter().map(|&v| get(v)).collect::<Result<_>>()?;
    let subgraph = |g: &Graph, mut ins: Vec<Value>| {
        if let Some(alter) = how.alter {
            ins = g.inputs().iter().zip(ins).map(|(&v, x)| alter(g, v, x)).collect();
        }
        Ok(walk(g, ins, &caps, &[], How { counted: true, alter: how.alter })?.outputs)
    };
    let cx = EvalCx {
        node: &node.name,
        attrs: &node.attrs,
        inputs: &inputs,
        captures: &caps,
        outputs: node.outputs().len(),
        subgraph: &subgraph,
    };
    let results = node.op.eval(&cx)?;
    if how.counted {
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

fn lookup(
    graph: &Graph,
    v: ValueId,
    env: &BTreeMap<ValueId, Value>,
    captures: &[Value],
    how: How,
) -> Result<Value> {
    match graph.def(v) {
        Def::Initializer(t) => {
            let t = Value::Tensor(t.clone());
            Ok(match how.alter {
                Some(alter) => alter(graph, v, t),
                None => t,
            })
        }
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
