//! If, Loop and Scan: operators that run subgraphs.

use crate::broadcast::axis;
use crate::concat::stack;
use crate::slice::section;
use crate::{Op, schema};
use ir::{
    DType, Dim, Error, EvalCx, Graph, InferCx, Kind, Operator, Result, Tensor, TensorType, Value, ValueType,
    budget,
};
use std::cell::Cell;
use std::thread::LocalKey;

/// Most inferences of loop bodies for one operator of the outermost graph: a body is inferred again until its types are
/// stable, which multiplies over nested loops.
const MAX_INFERENCES: usize = 10_000;

/// A count, and how many operators that share it are open, on one thread.
type Count = LocalKey<Cell<(usize, usize)>>;

thread_local! {
    static STEPS: Cell<(usize, usize)> = const { Cell::new((0, 0)) };
    static INFERENCES: Cell<(usize, usize)> = const { Cell::new((0, 0)) };
}

/// An open operator; the outermost one starts the count.
struct Counter(&'static Count);

impl Counter {
    fn open(key: &'static Count) -> Counter {
        let (n, depth) = key.get();
        key.set((if depth == 0 { 0 } else { n }, depth + 1));
        Counter(key)
    }
    /// Counts one more; gives the number before.
    fn next(&self) -> usize {
        let (n, depth) = self.0.get();
        self.0.set((n.saturating_add(1), depth));
        n
    }
}

impl Drop for Counter {
    fn drop(&mut self) {
        let (n, depth) = self.0.get();
        self.0.set((n, depth - 1));
    }
}

/// Bookkeeping of one tensor in memory, beside its elements.
const TENSOR_OVERHEAD: usize = 128;

pub static OPERATORS: &[&dyn Operator] = &[
    &Op::new("If", &schema::IF, infer_if, eval_if).kind(|_| Kind::Control),
    &Op::new("Loop", &schema::LOOP, infer_loop, eval_loop).kind(|_| Kind::Control),
    &Op::new("Scan", &schema::SCAN, infer_scan, eval_scan).kind(|_| Kind::Control),
];

fn infer_if(cx: &InferCx) -> Result<Vec<ValueType>> {
    let branch = |name: &str| (cx.subgraph)(cx.attrs.require_graph(name)?, &[]);
    // The branch not taken need not fit the shapes at hand.
    if let Some(v) = cx.ints(0) {
        return branch(if v == [0] { "else_branch" } else { "then_branch" });
    }
    let (a, b) = (branch("then_branch")?, branch("else_branch")?);
    if a.len() != b.len() {
        return Err(Error::model(format!("branches give {} and {} results", a.len(), b.len())));
    }
    for (i, (x, y)) in a.iter().zip(&b).enumerate() {
        if let (ValueType::Tensor(x), ValueType::Tensor(y)) = (x, y)
            && x.dtype != y.dtype
        {
            let (x, y) = (x.dtype, y.dtype);
            return Err(Error::model(format!(
                "branches give {x} and {y} as result {i}, which must be one type"
            )));
        }
    }
    Ok(a.iter().zip(&b).map(|(x, y)| x.join(y)).collect())
}

fn truth(v: &Value) -> Result<bool> {
    let t = v.tensor()?;
    match t.to_i64s()?.as_slice() {
        [x] => Ok(*x != 0),
        _ => Err(Error::model(format!("a condition must have one element, got shape {:?}", t.shape()))),
    }
}

fn eval_if(cx: &EvalCx) -> Result<Vec<Value>> {
    let taken = if truth(cx.value(0)?)? { "then_branch" } else { "else_branch" };
    (cx.subgraph)(cx.attrs.require_graph(taken)?, Vec::new())
}

/// A type with one more leading dim.
fn stacked(t: &ValueType, n: Dim) -> ValueType {
    match t {
        ValueType::Tensor(t) => ValueType::Tensor(TensorType {
            dtype: t.dtype,
            shape: t.shape.as_ref().map(|s| [&[n], s.as_slice()].concat()),
        }),
        _ => ValueType::Unknown,
    }
}

fn body<'a>(attrs: &'a ir::Attrs, inputs: usize, what: &str) -> Result<&'a Graph> {
    let g = attrs.require_graph("body")?;
    if g.inputs().len() != inputs {
        return Err(Error::model(format!(
            "the body takes {} inputs, {what} gives {inputs}",
            g.inputs().len()
        )));
    }
    Ok(g)
}

/// A carried value may change shape from one iteration to the next; its element type may not.
fn loose(t: &ValueType) -> ValueType {
    match t {
        ValueType::Tensor(t) => ValueType::unranked(t.dtype),
        ValueType::Unknown => ValueType::Unknown,
        ValueType::Sequence(t) => ValueType::Sequence(Box::new(loose(t))),
        ValueType::Optional(t) => ValueType::Optional(Box::new(loose(t))),
    }
}

/// The body without declared shapes of its inputs, which need not hold in every iteration.
fn undeclared(g: &Graph) -> Graph {
    let mut g = g.clone();
    for v in g.inputs().to_vec() {
        let t = loose(g.ty(v));
        g.set_type(v, t);
    }
    g
}

fn infer_loop(cx: &InferCx) -> Result<Vec<ValueType>> {
    let carried = cx.inputs.len().saturating_sub(2);
    let g = body(cx.attrs, carried + 2, "Loop")?;
    let initial: Vec<ValueType> =
        (2..cx.inputs.len()).map(|i| cx.input(i).cloned()).collect::<Result<_>>()?;
    let (g, counter) = (undeclared(g), Counter::open(&INFERENCES));
    let run = |state: &[ValueType]| {
        if counter.next() >= MAX_INFERENCES {
            return Err(Error::limit("nested loops take too many inferences"));
        }
        let mut ins = vec![ValueType::known(DType::I64, &[]), ValueType::known(DType::Bool, &[])];
        ins.extend_from_slice(state);
        (cx.subgraph)(&g, &ins)
    };
    let all_loose = || initial.iter().map(loose).collect::<Vec<_>>();
    let mut state = initial.clone();
    let mut stable = false;
    let mut results = run(&state).or_else(|_| run(&all_loose()))?;
    for _ in 0..3 {
        let next: Vec<ValueType> = state.iter().zip(results.iter().skip(1)).map(|(a, b)| a.join(b)).collect();
        stable = next == state;
        if stable {
            break;
        }
        state = next;
        results = run(&state).or_else(|_| run(&all_loose()))?;
    }
    if !stable {
        state = all_loose();
        results = run(&state)?;
    }
    let out: Vec<ValueType> = state
        .iter()
        .zip(results.iter().skip(1))
        .map(|(a, b)| a.join(b))
        .chain(results.iter().skip(1 + carried).map(|t| stacked(t, Dim::Unknown)))
        .collect();
    Ok(out)
}

fn eval_loop(cx: &EvalCx) -> Result<Vec<Value>> {
    let carried = cx.inputs.len().saturating_sub(2);
    let g = body(cx.attrs, carried + 2, "Loop")?;
    let trips = cx.optional_ints(0)?.and_then(|v| v.first().copied()).unwrap_or(i64::MAX);
    let mut go = if cx.has(1) { truth(cx.value(1)?)? } else { true };
    let mut state: Vec<Value> = (2..cx.inputs.len()).map(|i| cx.value(i).cloned()).collect::<Result<_>>()?;
    let scans = g
        .outputs()
        .len()
        .checked_sub(1 + carried)
        .ok_or_else(|| Error::model("the body gives too few results"))?;
    let (mut pile, counter, since) = (Pile::new(scans), Counter::open(&STEPS), budget::work());
    let mut i = 0;
    while go && i < trips {
        budget::check_steps(counter.next())?;
        budget::check_work(since)?;
        let mut ins = vec![Tensor::scalar(i).into(), Tensor::scalar(go).into()];
        ins.append(&mut state);
        let mut results = (cx.subgraph)(g, ins)?.into_iter();
        go = truth(&results.next().ok_or_else(|| Error::model("the body gives no condition"))?)?;
        state = results.by_ref().take(carried).collect();
        pile.push(results)?;
        i += 1;
    }
    if i == 0 && scans > 0 {
        let types = [Tensor::scalar(0i64).into(), Tensor::scalar(go).into()];
        let types: Vec<ValueType> = types.iter().chain(&state).map(Value::value_type).collect();
        // Inference does the same where the first iteration does not fit.
        let loosely = || {
            let all = types.iter().enumerate().map(|(i, t)| if i < 2 { t.clone() } else { loose(t) });
            typed(g, &all.collect::<Vec<_>>(), cx)
        };
        let typed = typed(g, &types, cx).or_else(loosely);
        state.extend(pile.stacked(typed.as_ref().unwrap_or(g), 1 + carried, &[], &[])?);
    } else {
        state.extend(pile.stacked(g, 1 + carried, &[], &[])?);
    }
    Ok(state)
}

/// The body with the types that its values would have: what an empty pile is does not depend on what was inferred before.
/// Nothing for a body that does not fit.
fn typed(g: &Graph, inputs: &[ValueType], cx: &EvalCx) -> Option<Graph> {
    let mut typed = undeclared(g);
    let captures: Vec<ValueType> = cx.captures.iter().map(Value::value_type).collect();
    ir::infer_with(&mut typed, inputs, &captures).ok().map(|()| typed)
}

/// Tensors that pile up over the iterations, one list per scan output.
struct Pile {
    lists: Vec<Vec<Tensor>>,
    bytes: usize,
}

impl Pile {
    fn new(outputs: usize) -> Pile {
        Pile { lists: vec![Vec::new(); outputs], bytes: 0 }
    }

    fn push(&mut self, results: impl Iterator<Item = Value>) -> Result<()> {
        for (list, v) in self.lists.iter_mut().zip(results) {
            let t = v.tensor()?;
            self.bytes = self.bytes.saturating_add(t.stored_bytes()).saturating_add(TENSOR_OVERHEAD);
            list.push(t.clone());
        }
        budget::check(self.bytes)
    }

    /// Each list stacked along its axis; an empty one gives an empty tensor of the body's declared type.
    fn stacked(self, g: &Graph, first: usize, axes: &[i64], reversed: &[bool]) -> Result<Vec<Value>> {
        self.lists
            .into_iter()
            .enumerate()
            .map(|(k, mut list)| {
                let along = axes.get(k).copied().unwrap_or(0);
                if list.is_empty() {
                    return Ok(nothing(g, first + k, along)?.into());
                }
                if reversed.get(k) == Some(&true) {
                    list.reverse();
                }
                Ok(stack(&list.iter().collect::<Vec<_>>(), along)?.into())
            })
            .collect()
    }
}

/// What zero iterations give: size 0 along the new axis, unknown dims 0.
fn nothing(g: &Graph, output: usize, along: i64) -> Result<Tensor> {
    let ty = g.outputs().get(output).map(|o| g.ty(o.value).clone()).unwrap_or(ValueType::Unknown);
    let mut shape: Vec<usize> =
        ty.shape().unwrap_or_default().iter().map(|d| d.known().unwrap_or(0)).collect();
    let at = axis(along, shape.len() + 1)?;
    shape.insert(at, 0);
    Tensor::zeros(ty.dtype().unwrap_or(DType::F32), &shape)
}

/// How a Scan splits its inputs and outputs.
struct Layout {
    states: usize,
    scans: usize,
    input_axes: Vec<i64>,
    output_axes: Vec<i64>,
    input_reversed: Vec<bool>,
    output_reversed: Vec<bool>,
}

fn layout(attrs: &ir::Attrs, inputs: usize, g: &Graph) -> Result<Layout> {
    let scans = usize::try_from(attrs.require_int("num_scan_inputs")?).ok().filter(|&m| m > 0 && m <= inputs);
    let scans = scans.ok_or_else(|| Error::model("num_scan_inputs does not fit the inputs"))?;
    let states = inputs - scans;
    let outs = g
        .outputs()
        .len()
        .checked_sub(states)
        .ok_or_else(|| Error::model("the body gives too few results"))?;
    let ints = |name: &str, n: usize| -> Result<Vec<i64>> {
        match attrs.ints(name)? {
            Some(v) if v.len() == n => Ok(v.to_vec()),
            Some(v) => Err(Error::model(format!("{name} has {} entries for {n}", v.len()))),
            None => Ok(vec![0; n]),
        }
    };
    let flags = |name: &str, n: usize| Ok::<_, Error>(ints(name, n)?.into_iter().map(|x| x != 0).collect());
    Ok(Layout {
        states,
        scans,
        input_axes: ints("scan_input_axes", scans)?,
        output_axes: ints("scan_output_axes", outs)?,
        input_reversed: flags("scan_input_directions", scans)?,
        output_reversed: flags("scan_output_directions", outs)?,
    })
}

fn infer_scan(cx: &InferCx) -> Result<Vec<ValueType>> {
    let g = body(cx.attrs, cx.inputs.len(), "Scan")?;
    let l = layout(cx.attrs, cx.inputs.len(), g)?;
    let mut length = Dim::Unknown;
    let mut ins = Vec::new();
    for i in 0..cx.inputs.len() {
        let t = cx.input(i)?;
        ins.push(match (i.checked_sub(l.states), t.dtype(), t.shape()) {
            (Some(k), Some(d), Some(s)) => {
                let a = axis(l.input_axes[k], s.len())?;
                length = length.merge(&s[a])?;
                let mut s = s.to_vec();
                s.remove(a);
                ValueType::tensor(d, s)
            }
            (Some(_), Some(d), None) => ValueType::unranked(d),
            _ => t.clone(),
        });
    }
    let results = (cx.subgraph)(g, &ins)?;
    results
        .iter()
        .enumerate()
        .map(|(i, t)| {
            let Some(k) = i.checked_sub(l.states) else { return Ok(t.join(&ins[i])) };
            Ok(match (t.dtype(), t.shape()) {
                (Some(d), Some(s)) => {
                    let mut s = s.to_vec();
                    let a = axis(l.output_axes[k], s.len() + 1)?;
                    s.insert(a, length.clone());
                    ValueType::tensor(d, s)
                }
                (Some(d), None) => ValueType::unranked(d),
                _ => ValueType::Unknown,
            })
        })
        .collect()
}

fn eval_scan(cx: &EvalCx) -> Result<Vec<Value>> {
    let g = body(cx.attrs, cx.inputs.len(), "Scan")?;
    let l = layout(cx.attrs, cx.inputs.len(), g)?;
    let mut state: Vec<Value> = (0..l.states).map(|i| cx.value(i).cloned()).collect::<Result<_>>()?;
    let scanned: Vec<&Tensor> = (0..l.scans).map(|k| cx.tensor(l.states + k)).collect::<Result<_>>()?;
    let axes: Vec<usize> =
        scanned.iter().zip(&l.input_axes).map(|(t, &a)| axis(a, t.rank())).collect::<Result<_>>()?;
    let length = scanned[0].shape()[axes[0]];
    if scanned.iter().zip(&axes).any(|(t, &a)| t.shape()[a] != length) {
        return Err(Error::model("scanned inputs differ in length"));
    }
    let (mut pile, counter) = (Pile::new(l.output_axes.len()), Counter::open(&STEPS));
    let since = budget::work();
    for step in 0..length {
        budget::check_steps(counter.next())?;
        budget::check_work(since)?;
        let mut ins = state;
        for (k, t) in scanned.iter().enumerate() {
            let i = if l.input_reversed[k] { length - 1 - step } else { step };
            ins.push(entry(t, axes[k], i)?.into());
        }
        let mut results = (cx.subgraph)(g, ins)?.into_iter();
        state = results.by_ref().take(l.states).collect();
        pile.push(results)?;
    }
    if length == 0 {
        let entries = scanned.iter().zip(&axes).map(|(t, &a)| {
            let mut shape = t.shape().to_vec();
            shape.remove(a);
            ValueType::known(t.dtype(), &shape)
        });
        let types: Vec<ValueType> = state.iter().map(Value::value_type).chain(entries).collect();
        let typed = typed(g, &types, cx);
        let body = typed.as_ref().unwrap_or(g);
        state.extend(pile.stacked(body, l.states, &l.output_axes, &l.output_reversed)?);
    } else {
        state.extend(pile.stacked(g, l.states, &l.output_axes, &l.output_reversed)?);
    }
    Ok(state)
}

/// Entry `i` along an axis, without that axis.
fn entry(t: &Tensor, axis: usize, i: usize) -> Result<Tensor> {
    let mut shape = t.shape().to_vec();
    shape.remove(axis);
    section(t, axis, i, 1)?.reshaped(&shape)
}
