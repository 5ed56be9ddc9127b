//! Applies a pair's passes one by one and asks the oracles after each.

use crate::bytes::{difference, lines_apart};
use crate::compress;
pub use crate::limits::set_limits;
use crate::oracle::{gathers_nothing, same};
use crate::pair::Pair;
use crate::passes::{Growth, Level, Pass, Tier};
use crate::random::Random;
use crate::shake;
use ir::{Blame, Evaluate, Feeds, Graph, Reference, Value};
use kernels::stored::{Reader, Writer};
use runtime::ThreadPool;
use std::cell::Cell;
use std::panic::AssertUnwindSafe;
use std::sync::OnceLock;
use std::time::{Duration, Instant};
use tally::{Kind, hit, key};

/// What a check costs without passes.
const CHECK: usize = 500;

/// What is wrong with a pair.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// Who noticed: "panic", "error", "verifier", "answers", "threads", "stored", "items", "bound", "bytes", "types", "determinism",
    /// "growth", "memory", "round trip".
    pub oracle: &'static str,
    /// Position and name of the pass.
    pub at: usize,
    pub pass: &'static str,
    pub message: String,
}

impl std::fmt::Display for Finding {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        write!(f, "{} after pass {} ({}): {}", self.oracle, self.at, self.pass, self.message)
    }
}

/// Why a pass's result is not judged further: what the oracle says, or nothing to judge.
pub enum Stop {
    Found(&'static str, String),
    /// The pass does not do this: unsupported, or above a limit.
    Refused,
}

impl From<ir::Error> for Stop {
    fn from(e: ir::Error) -> Stop {
        match e.blame {
            Blame::Limit | Blame::Unsupported => Stop::Refused,
            _ => Stop::Found("error", e.to_string()),
        }
    }
}

pub fn found(oracle: &'static str, message: impl ToString) -> Stop {
    Stop::Found(oracle, message.to_string())
}

/// How far a pair got.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Ran {
    /// Whether the graph runs at all.
    pub valid: bool,
    /// Passes judged.
    pub passes: usize,
    /// What it cost, in about microseconds of a core, told from passes and nodes alone.
    pub cost: usize,
    /// Whether it took longer than [`LIMIT`]: what came after was not judged.
    pub late: bool,
}

/// Longest time for one pair: a shape or a loop may make each of the dozens of runs of a check take seconds.
pub const LIMIT: Duration = Duration::from_secs(20);

thread_local! {
    /// How long the pair at hand may take.
    static UNTIL: Cell<Option<Instant>> = const { Cell::new(None) };
}

/// Whether the pair at hand is above the limit of time: nothing more is claimed of it.
pub fn late() -> bool {
    UNTIL.get().is_some_and(|t| Instant::now() > t)
}

/// Runs the pair's passes; the first thing that is wrong.
pub fn check(pair: &Pair) -> Result<Ran, Finding> {
    follow(pair).map(|(ran, _)| ran)
}

/// The same, and the graph that the passes gave.
pub fn follow(pair: &Pair) -> Result<(Ran, Graph), Finding> {
    follow_within(pair, LIMIT)
}

fn follow_within(pair: &Pair, limit: Duration) -> Result<(Ran, Graph), Finding> {
    UNTIL.set(Instant::now().checked_add(limit));
    let done = steps(pair);
    UNTIL.set(None);
    done
}

fn steps(pair: &Pair) -> Result<(Ran, Graph), Finding> {
    let mut ran = Ran { cost: CHECK, ..Ran::default() };
    let mut graph = pair.graph.clone();
    if ir::infer(&mut graph).is_err() || ir::verify(&graph).is_err() {
        return Ok((ran, graph));
    }
    let feeds = pair.feeds();
    let Ok(first) = Reference.run(&graph, &feeds, &[]) else { return Ok((ran, graph)) };
    fix_shapes(&mut graph, &feeds);
    let mut expected = first.outputs;
    ran.valid = true;
    observe("input", &graph);
    for (at, pass) in pair.pipeline.passes.iter().enumerate() {
        if late() {
            ran.late = true;
            break;
        }
        ran.cost += pass.cost(graph.node_count());
        let finding = |oracle, message| Finding { oracle, at, pass: pass.name(), message };
        let step =
            || Step { graph: &graph, feeds: &feeds, expected: &expected, seed: pair.pipeline.seed }.run(pass);
        match guarded(step) {
            Err(panic) => return Err(finding("panic", panic)),
            Ok(Err(Stop::Found(oracle, message))) => return Err(finding(oracle, message)),
            Ok(Err(Stop::Refused)) => hit(Kind::Verdict, key(pass.name()), 1),
            Ok(Ok(None)) => ran.passes += 1,
            Ok(Ok(Some((new, outputs)))) => {
                observe(pass.name(), &new);
                (graph, expected) = (new, outputs);
                ran.passes += 1;
            }
        }
    }
    ran.late |= late();
    Ok((ran, graph))
}

/// Open dims get the sizes of the inputs.
fn fix_shapes(graph: &mut Graph, feeds: &Feeds) {
    let inputs = graph.inputs().to_vec();
    for v in inputs {
        if let Some(x) = feeds.get(graph.value_name(v))
            && let Ok(ty) = graph.ty(v).merge(&x.value_type())
        {
            graph.set_type(v, ty);
        }
    }
}

/// The result, or what a panic said and where.
pub fn guarded<T>(f: impl FnOnce() -> T) -> Result<T, String> {
    crate::panics::quietly(AssertUnwindSafe(f))
}

/// Counts what the graph holds.
fn observe(pass: &str, g: &Graph) {
    let pass = key(pass);
    for (_, n) in g.nodes() {
        let op = key(n.op.name());
        let ty = n.output(0).map(|v| g.ty(v));
        let dtype = ty.and_then(|t| t.dtype()).map_or(0, |d| d.onnx() as u64);
        let rank = ty.and_then(|t| t.rank()).map_or(9, |r| r.min(6) as u64);
        hit(Kind::Operator, pass ^ op, dtype * 16 + rank);
        for from in n.reads().filter_map(|v| g.producer(v)).filter_map(|p| g.get(p)) {
            hit(Kind::Pair, pass ^ op, key(from.op.name()));
        }
        n.attrs.graphs().into_iter().for_each(|b| observe("body", b));
    }
}

struct Step<'a> {
    graph: &'a Graph,
    feeds: &'a Feeds,
    expected: &'a [Value],
    seed: u64,
}

type Next = Result<Option<(Graph, Vec<Value>)>, Stop>;

impl Step<'_> {
    fn run(&self, pass: &Pass) -> Next {
        let graph = match pass {
            Pass::Exact { .. } | Pass::Fold | Pass::Widen => self.exact(pass)?,
            Pass::File => Some(self.file()?),
            Pass::Text => Some(self.text()?),
            Pass::Compress { method, layer, candidate, data } => {
                let choice = compress::Choice { method, layer: *layer, candidate: *candidate, data: *data };
                return self.lossy(compress::apply(self.graph, self.feeds, &choice)?);
            }
            Pass::Search { percent, methods } => {
                return self.lossy(Some(compress::search(self.graph, *percent, methods)?));
            }
            Pass::Run { tier } => {
                self.code(*tier)?;
                None
            }
        };
        let Some(graph) = graph else { return Ok(None) };
        let outputs = self.outputs(&graph)?;
        same(self.graph, self.feeds, self.expected, &outputs).map_err(|e| found("answers", e))?;
        Ok(Some((graph, outputs)))
    }

    /// The reference's answers of a pass's result, which must be sound.
    fn outputs(&self, graph: &Graph) -> Result<Vec<Value>, Stop> {
        ir::verify(graph).map_err(|e| found("verifier", e))?;
        let before: Vec<_> = self.graph.inputs().iter().map(|&v| self.graph.value_name(v)).collect();
        let after: Vec<_> = graph.inputs().iter().map(|&v| graph.value_name(v)).collect();
        if before != after {
            return Err(found("types", format!("inputs {before:?} became {after:?}")));
        }
        Ok(Reference
            .run(graph, self.feeds, &[])
            .map_err(|e| self.ended(e, "its result does not run: "))?
            .outputs)
    }

    /// An error of a run that the graph before did not have: rounding may decide that, where sizes follow from values.
    fn ended(&self, e: ir::Error, what: &str) -> Stop {
        match e.blame {
            Blame::Limit | Blame::Unsupported => Stop::Refused,
            Blame::Model | Blame::Data
                if shake::ends(self.graph, self.feeds) || gathers_nothing(self.graph, self.feeds) =>
            {
                Stop::Refused
            }
            _ => found("error", format!("{what}{e}")),
        }
    }

    /// Once more is known of shapes, a body that no run takes may fit no longer: that is the model's fault.
    fn refused(&self, e: ir::Error) -> Stop {
        let bodies = self.graph.nodes().any(|(_, n)| !n.attrs.graphs().is_empty());
        if bodies && e.blame == Blame::Model { Stop::Refused } else { e.into() }
    }

    fn exact(&self, pass: &Pass) -> Result<Option<Graph>, Stop> {
        let once = || -> Result<Option<Graph>, Stop> {
            Ok(match pass {
                Pass::Fold => Some(exact::folded(self.graph)?),
                Pass::Widen => exact::widen(self.graph)?,
                Pass::Exact { level, growth, without, order } => {
                    let options = exact::Options { level: (*level).into(), growth: (*growth).into() };
                    let fits =
                        |r: &&exact::Rule| r.level <= options.level && !without.iter().any(|w| w == r.name);
                    let mut rules: Vec<&'static exact::Rule> = exact::rules().filter(fits).collect();
                    if *order != 0 {
                        Random(*order).shuffle(&mut rules);
                    }
                    let (g, trace) =
                        exact::optimize_with(self.graph, options, &rules).map_err(|e| self.refused(e))?;
                    let mut last = 0;
                    for (rule, n) in &trace.fired {
                        hit(Kind::Rule, key(rule), last);
                        hit(Kind::Rule, key(rule), 1 + n.ilog2() as u64);
                        last = key(rule);
                    }
                    // Small constants, some of which rewriting computes.
                    let gone = trace.nodes_before.saturating_sub(trace.nodes_after);
                    let computed = (trace.folded + trace.fired.len()).max(gone);
                    if options.growth == exact::Growth::Never
                        && bytes(&g) > bytes(self.graph) + 4096 * (1 + computed)
                    {
                        let (a, b) = (bytes(self.graph), bytes(&g));
                        return Err(found("growth", format!("{a} bytes of constants became {b}")));
                    }
                    Some(g)
                }
                _ => None,
            })
        };
        let g = once()?;
        if self.seed.is_multiple_of(8) && once()? != g {
            return Err(found("determinism", "the same graph gives another result the second time"));
        }
        Ok(g)
    }

    /// Written and read; from then on nothing changes any more: names are given by the first reading.
    fn file(&self) -> Result<Graph, Stop> {
        // What is only for running here has no form in a file.
        if only_runs_here(self.graph) {
            return Err(Stop::Refused);
        }
        let read = |file: Vec<u8>| {
            let back = onnx::from_bytes(file, &ops::Standard);
            back.map(|m| m.graph)
                .map_err(|e| found("round trip", format!("what was written cannot be read: {e}")))
        };
        let mut back = read(onnx::to_bytes(self.graph, &ops::Standard)?)?;
        let second = onnx::to_bytes(&back, &ops::Standard)?;
        let again = read(second.clone())?;
        let third = onnx::to_bytes(&again, &ops::Standard)?;
        if let Some(d) = difference(&second, &third) {
            let parts = lines_apart(&ir::text::print(&back)?, &ir::text::print(&again)?);
            return Err(found("round trip", format!("written again, the file is another one: {d}; {parts}")));
        }
        ir::infer(&mut back)?;
        Ok(back)
    }

    fn text(&self) -> Result<Graph, Stop> {
        let read = |text: &str| {
            let back = ir::text::parse(text, &ops::Standard);
            back.map_err(|e| found("round trip", format!("what was printed cannot be parsed: {e}")))
        };
        let mut back = read(&ir::text::print(self.graph)?)?;
        let second = ir::text::print(&back)?;
        let third = ir::text::print(&read(&second)?)?;
        if second != third {
            return Err(found("round trip", format!("printed again: {}", lines_apart(&second, &third))));
        }
        ir::infer(&mut back)?;
        Ok(back)
    }

    /// What a lossy pass gave: the same outputs in type and rank; sizes may follow from values.
    fn lossy(&self, graph: Option<Graph>) -> Next {
        let Some(graph) = graph else { return Ok(None) };
        let outputs = match self.outputs(&graph) {
            // Other values may make indices that lie outside.
            Err(Stop::Found("error", _)) => return Err(Stop::Refused),
            other => other?,
        };
        for (i, (a, b)) in self.expected.iter().zip(&outputs).enumerate() {
            let (a, b) = (a.value_type(), b.value_type());
            if (a.dtype(), a.rank()) != (b.dtype(), b.rank()) {
                return Err(found("types", format!("output {i} was {a} and is {b}")));
            }
        }
        Ok(Some((graph, outputs)))
    }

    /// Generated code gives the reference's answers, on one thread and, bit for bit the same, on two.
    fn code(&self, tier: Tier) -> Result<(), Stop> {
        let wide = exact::widen(self.graph)?;
        let (ready, _) = exact::optimize(wide.as_ref().unwrap_or(self.graph), exact::Options::RUNTIME)
            .map_err(|e| self.refused(e))?;
        // A weight that is read in several ways is packed in each of them, and told from the others.
        let packs = codegen::Packs::default();
        packs.learn(&ready);
        let compile =
            |loops| codegen::compile_sharing(&ready, tier.into(), Default::default(), loops, &packs);
        let program = match compile(codegen::Loops::Generated) {
            Ok(p) => p,
            // A session walks such a graph by reference.
            Err(e) if matches!(e.blame, Blame::Unsupported | Blame::Model) => return Err(Stop::Refused),
            Err(e) => return Err(e.into()),
        };
        for s in program.steps() {
            let tail = (s.bytes as u64 / 4 % 16) * 64 + (s.bytes as u64).checked_ilog2().unwrap_or(0) as u64;
            hit(Kind::Kernel, key(s.kind) ^ tier as u64, tail);
            hit(Kind::Kernel, key(s.kind) ^ tier as u64, key(&s.op));
        }
        let sizes: usize = ready
            .values()
            .filter_map(|v| ready.ty(v).concrete())
            .map(|s| 8 * s.iter().product::<usize>() + 4096)
            .sum();
        if program.arena_bytes() > sizes {
            return Err(found(
                "memory",
                format!("{} bytes of arena for values of {sizes}", program.arena_bytes()),
            ));
        }
        let values: Vec<Value> = ready
            .inputs()
            .iter()
            .map(|&v| self.feeds.get(ready.value_name(v)).cloned())
            .collect::<Option<_>>()
            .ok_or(Stop::Refused)?;
        let one = program.run(&values, &kernels::Serial).map_err(|e| self.ended(e, ""))?;
        same(self.graph, self.feeds, self.expected, &one).map_err(|e| found("answers", e))?;
        // Loops of little work run as chains in a session.
        if program.steps().iter().any(|s| s.kind == "fused loop") {
            let chains =
                compile(codegen::Loops::WherePaying)?.run(&values, two()).map_err(|e| self.ended(e, ""))?;
            same(self.graph, self.feeds, self.expected, &chains)
                .map_err(|e| found("answers", format!("chains: {e}")))?;
        }
        if !identical(&one, &program.run(&values, two())?) {
            return Err(found("threads", "two threads give other bits than one"));
        }
        match self.seed % 4 {
            0 => self.stored(&program, &values, &one),
            1 => self.items(),
            2 => object(&ready, tier.into(), &values, &one),
            _ => Ok(()),
        }
    }

    /// A batch of which a session says that its items are independent gives the same when it runs item by item.
    fn items(&self) -> Result<(), Stop> {
        let mut open = exact::widen(self.graph)?.unwrap_or_else(|| self.graph.clone());
        open.prune();
        let first = |v: &Value| v.tensor().ok()?.shape().first().copied();
        let inputs: Vec<_> = open.inputs().to_vec();
        let batches: Vec<Option<usize>> =
            inputs.iter().map(|&v| self.feeds.get(open.value_name(v)).and_then(first)).collect();
        let Some(batch) = batches.iter().flatten().copied().find(|&n| n > 1) else { return Ok(()) };
        for v in open.values().collect::<Vec<_>>() {
            if open.producer(v).is_some() {
                open.set_type(v, ir::ValueType::Unknown);
            }
        }
        for (&v, n) in inputs.iter().zip(&batches) {
            let Some(mut dims) = open.ty(v).shape().filter(|_| *n == Some(batch)).map(<[ir::Dim]>::to_vec)
            else {
                continue;
            };
            let Some(dtype) = open.dtype(v) else { continue };
            dims[0] = ir::Dim::symbol("N");
            open.set_type(v, ir::ValueType::tensor(dtype, dims));
        }
        let Some(got) = runtime::one_by_one(&open, self.feeds).map_err(|e| self.refused(e))? else {
            return Ok(());
        };
        hit(Kind::Kernel, key("items"), key(open.nodes().last().map_or("", |(_, n)| n.op.name())));
        same(self.graph, self.feeds, self.expected, &got).map_err(|e| found("items", e))
    }

    /// The program as data, as artefacts carry it and later processes map it, gives the same bits.
    fn stored(&self, program: &codegen::Program, values: &[Value], expected: &[Value]) -> Result<(), Stop> {
        let mut w = Writer::default();
        if !program.store(&mut w) {
            return Ok(());
        }
        let sizes: Vec<usize> =
            values.iter().map(|v| v.tensor().map(|t| t.bytes().len())).collect::<ir::Result<_>>()?;
        let again = codegen::Program::load(&mut Reader { stream: &w.stream, bulk: w.copied() }, &sizes)
            .ok_or_else(|| found("stored", "a stored program cannot be read"))?;
        if !identical(expected, &again.run(values, &kernels::Serial)?) {
            return Err(found("stored", "a stored program gives other bits"));
        }
        Ok(())
    }
}

/// The object file that `compress build` writes, loaded into this process, gives the same bits.
#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
fn object(ready: &Graph, tier: kernels::Tier, values: &[Value], expected: &[Value]) -> Result<(), Stop> {
    let linked = match codegen::Linked::new(ready, tier) {
        Ok(l) => l,
        // What needs more than kernels has no object.
        Err(e) if e.blame == Blame::Unsupported => return Ok(()),
        Err(e) => return Err(e.into()),
    };
    let inputs = values.iter().map(Value::tensor).collect::<ir::Result<Vec<_>>>()?;
    let got: Vec<Value> = match linked.run(&inputs) {
        Ok(t) => t.into_iter().map(Value::from).collect(),
        Err(e) if e.blame == Blame::Unsupported => return Ok(()),
        Err(e) => return Err(found("object", e)),
    };
    hit(Kind::Kernel, key("object"), key(ready.nodes().last().map_or("", |(_, n)| n.op.name())));
    if identical(expected, &got) { Ok(()) } else { Err(found("object", "an object gives other bits")) }
}

#[cfg(not(all(target_arch = "x86_64", target_os = "linux")))]
fn object(_: &Graph, _: kernels::Tier, _: &[Value], _: &[Value]) -> Result<(), Stop> {
    Ok(())
}

/// Whether operators without a form in files are in the graph or its bodies.
pub fn only_runs_here(g: &Graph) -> bool {
    g.nodes()
        .any(|(_, n)| n.op.domain().starts_with("ir.") || n.attrs.graphs().into_iter().any(only_runs_here))
}

/// Same bits, but for which NaN it is: of two operands that are none the one that stands first is taken, and tiles of other
/// heights are compiled with others in front.
pub fn identical(a: &[Value], b: &[Value]) -> bool {
    a.len() == b.len()
        && a.iter().zip(b).all(|(a, b)| match (a, b) {
            (Value::Tensor(a), Value::Tensor(b)) if a.dtype() != ir::DType::String => {
                let alike = |(x, y): (&[u8], &[u8])| x == y || nan(a.dtype(), x) && nan(a.dtype(), y);
                let size = (a.dtype().bits() / 8).max(1);
                (b.dtype(), b.shape(), b.bytes().len()) == (a.dtype(), a.shape(), a.bytes().len())
                    && a.bytes().chunks(size).zip(b.bytes().chunks(size)).all(alike)
            }
            _ => a == b,
        })
}

/// Whether an element is no number.
fn nan(dtype: ir::DType, x: &[u8]) -> bool {
    match (dtype, x) {
        (ir::DType::F32, &[a, b, c, d]) => f32::from_ne_bytes([a, b, c, d]).is_nan(),
        (ir::DType::F64, &[a, b, c, d, e, f, g, h]) => f64::from_ne_bytes([a, b, c, d, e, f, g, h]).is_nan(),
        (ir::DType::F16, &[a, b]) => u16::from_ne_bytes([a, b]) & 0x7fff > 0x7c00,
        (ir::DType::BF16, &[a, b]) => u16::from_ne_bytes([a, b]) & 0x7fff > 0x7f80,
        _ => false,
    }
}

fn two() -> &'static ThreadPool {
    static POOL: OnceLock<ThreadPool> = OnceLock::new();
    POOL.get_or_init(|| ThreadPool::new(2))
}

/// Bytes of a graph's constants, subgraphs included.
pub fn bytes(g: &Graph) -> usize {
    let own: usize = g.initializers().map(|(_, t)| t.stored_bytes()).sum();
    let inner = g.nodes().flat_map(|(_, n)| n.attrs.graphs()).map(bytes).sum::<usize>();
    own + inner
}

impl From<Level> for exact::Level {
    fn from(l: Level) -> exact::Level {
        match l {
            Level::Portable => exact::Level::Portable,
            Level::Runtime => exact::Level::Runtime,
        }
    }
}

impl From<Growth> for exact::Growth {
    fn from(g: Growth) -> exact::Growth {
        match g {
            Growth::Never => exact::Growth::Never,
            Growth::Bounded => exact::Growth::Bounded,
            Growth::Allowed => exact::Growth::Allowed,
        }
    }
}

impl From<Tier> for kernels::Tier {
    fn from(t: Tier) -> kernels::Tier {
        match t {
            Tier::Portable => kernels::Tier::Portable,
            Tier::Avx2 => kernels::Tier::Avx2.usable(),
            Tier::Avx512 => kernels::Tier::Avx512.usable(),
            Tier::Best => kernels::Tier::best(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::passes::Pipeline;

    /// A sum of several NaNs cast to float64 was another on two threads.
    #[test]
    fn nan_is_alike_in_every_type() {
        let tensor = |x: [f64; 3]| vec![Value::from(ir::Tensor::vector(x.to_vec()))];
        assert!(identical(&tensor([1.0, f64::NAN, -0.0]), &tensor([1.0, -f64::NAN, -0.0])));
        assert!(!identical(&tensor([1.0, f64::NAN, -0.0]), &tensor([1.0, f64::NAN, 0.0])));
        assert!(!identical(&tensor([1.0, f64::NAN, 2.0]), &tensor([1.0, 3.0, 2.0])));
    }

    /// Objects are compared where they can be made: of how many graphs that is.
    #[test]
    #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
    fn most_graphs_have_an_object() {
        set_limits();
        let (mut graphs, mut objects) = (0, 0);
        for seed in 0..150 {
            let Some(case) = crate::targets::generated(&crate::random_bytes(seed)) else { continue };
            let Ok((ready, _)) = exact::optimize(&case.graph, exact::Options::RUNTIME) else { continue };
            graphs += 1;
            objects += usize::from(codegen::Linked::new(&ready, kernels::Tier::best()).is_ok());
        }
        println!("{objects} of {graphs}");
        assert!(objects > 60 && 2 * objects > graphs, "{objects} of {graphs}");
    }

    /// Of a pair above the limit nothing is claimed: one pass, each run of which took seconds, held the loop for minutes.
    #[test]
    fn pairs_above_the_limit_end() {
        let text = "case (float[2] x) => (float[2] y) { y = Relu (x) }";
        let graph = ir::text::parse(text, &ops::Standard).unwrap();
        let pair = Pair { graph, pipeline: Pipeline::new(1, vec![Pass::RUN]) };
        let (ran, _) = follow_within(&pair, Duration::ZERO).unwrap();
        assert!(ran.valid && ran.late && ran.passes == 0, "{ran:?}");
        assert!(!check(&pair).unwrap().late && !late());
    }
}
