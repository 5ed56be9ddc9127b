//! Groups to steps: each operator kind has a file; what none of them takes is opaque.

mod attention;
mod body;
pub mod chain;
pub mod contract;
mod elements;
pub mod elementwise;
mod integer;
mod late;
pub mod little;
mod lrn;
mod movement;
mod normalize;
mod opaque;
mod pair;
mod product;
mod quantize;
mod recurrent;
mod reduce;
mod roi;
mod rotary;
mod sample;
mod scan;
pub mod typed;
pub mod window;

use crate::Precision;
use crate::group::Group;
use crate::kernel::Kernel;
use crate::packs::Packs;
use crate::stored;
use artefact::Call;
use elementwise::RowKernel;
use ir::{DType, Error, Graph, Node, NodeId, Result, Shape, ValueId};
use kernels::{PackedCodes, Tier};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// What a step does.
pub enum Work {
    /// Nothing: its output is its input's memory under another shape.
    View,
    /// A kernel call: what artefacts and stored programs hold.
    Call(Box<Call>),
    /// Anything else, which only a session can run.
    Kernel(Box<dyn Kernel>),
    /// A generated loop, linked when the code is there.
    Rows(RowKernel),
    /// As `Rows`, for other types than float32.
    Typed(typed::TypedKernel),
}

/// One step of the schedule.
pub struct Step {
    pub name: String,
    pub op: String,
    pub kind: &'static str,
    pub work: Work,
    /// Operands in the order the kernel takes them.
    pub reads: Vec<ValueId>,
    pub writes: Vec<ValueId>,
    /// (view, value it views).
    pub alias: Option<(ValueId, ValueId)>,
    pub flops: f64,
    /// Bytes of constants that the kernel holds instead of reading them as operands, as they are stored.
    pub held_bytes: f64,
}

/// What a lowering gives: the kernel, its operands and its cost.
pub struct Lowered {
    pub kind: &'static str,
    pub work: Work,
    pub reads: Vec<ValueId>,
    pub writes: Vec<ValueId>,
    pub flops: f64,
}

/// What lowerings read.
pub struct Cx<'a> {
    pub graph: &'a Graph,
    pub tier: Tier,
    pub precision: Precision,
    packs: &'a Packs,
    /// Room for weights that lie unaligned in their file, kept from one to the next.
    aligned: RefCell<Vec<f32>>,
}

impl Cx<'_> {
    pub fn shape(&self, v: ValueId) -> Option<Shape> {
        self.graph.ty(v).concrete()
    }
    /// Shape of a float32 value.
    pub fn f32_shape(&self, v: ValueId) -> Option<Shape> {
        if self.graph.dtype(v) == Some(DType::F32) { self.shape(v) } else { None }
    }
    pub fn ints(&self, v: ValueId) -> Option<Vec<i64>> {
        self.graph.constant(v)?.to_i64s().ok()
    }
    pub fn floats(&self, v: ValueId) -> Option<Vec<f32>> {
        let t = self.graph.constant(v)?;
        if t.dtype() == DType::F32 { t.to_f32s().ok() } else { None }
    }
    /// What `f` makes of float32 weights. They are read where they lie; pages of a file that held them are given back.
    /// `form` tells all that decides the result but the weights: the programs of a model share what is packed alike.
    pub fn pack<T: Clone + Send + 'static>(
        &self,
        v: ValueId,
        form: &dyn Debug,
        f: impl FnOnce(&[f32]) -> Option<T>,
    ) -> Option<T> {
        self.shared(v, form, || self.pack_alone(v, f))
    }
    /// As [`Cx::pack`] for packers that need no alignment: weights as large as half the model are not copied first.
    pub fn pack_unaligned<T: Clone + Send + 'static>(
        &self,
        v: ValueId,
        form: &dyn Debug,
        f: impl FnOnce(&[[u8; 4]]) -> Option<T>,
    ) -> Option<T> {
        self.shared(v, form, || self.read(v, f))
    }
    /// What `pack` makes of a weight, or made of it for another program of the model.
    pub fn shared<T: Clone + Send + 'static>(
        &self,
        v: ValueId,
        form: &dyn Debug,
        pack: impl FnOnce() -> Option<T>,
    ) -> Option<T> {
        self.packs.get((self.graph, v), &(self.tier, form), pack)
    }
    /// As [`Cx::pack`] for what depends on more of the program.
    pub fn pack_alone<T>(&self, v: ValueId, f: impl FnOnce(&[f32]) -> Option<T>) -> Option<T> {
        self.read(v, |cells| match bytemuck::try_cast_slice(cells) {
            Ok(weights) => f(weights),
            Err(_) => {
                let mut room = self.aligned.borrow_mut();
                if room.len() < cells.len() {
                    *room = ir::budget::filled(cells.len(), 0.0).ok()?;
                }
                let weights = room.get_mut(..cells.len())?;
                bytemuck::cast_slice_mut(weights).copy_from_slice(cells);
                f(weights)
            }
        })
    }
    fn read<T>(&self, v: ValueId, f: impl FnOnce(&[[u8; 4]]) -> Option<T>) -> Option<T> {
        let evaluated = if self.graph.constant(v).is_some() { None } else { self.graph.evaluate(v) };
        let t = evaluated.as_ref().or_else(|| self.graph.constant(v)).filter(|t| t.dtype() == DType::F32)?;
        t.prefetch();
        let packed = f(bytemuck::try_cast_slice(t.bytes()).ok()?);
        t.release();
        if evaluated.is_some() {
            stored::release(self.graph, v);
        }
        packed
    }
    /// The constant matrix that `v` is the transpose of.
    pub fn turned(&self, v: ValueId) -> Option<ValueId> {
        let n = self.graph.get(self.graph.producer(v)?).filter(|n| n.op.name() == "Transpose")?;
        let from = n.input(0).filter(|&from| self.graph.constant(from).is_some())?;
        let swaps = n.attrs.ints("perm").ok()?.is_none_or(|p| p == [1, 0]);
        (swaps && self.f32_shape(from)?.len() == 2).then_some(from)
    }
    /// Whether a weight is known now: an initializer, or an expression of them.
    pub fn is_weight(&self, v: ValueId) -> bool {
        self.graph.constant(v).is_some() || self.graph.expression(v).is_some()
    }
    /// The weight of a `k × n` product with `m` rows as its file stores it, stored as `[n, k]` or `[k, n]`, where a kernel
    /// reads that and it pays.
    pub fn coded(
        &self,
        v: ValueId,
        m: usize,
        size: (usize, usize),
        n_first: bool,
    ) -> Option<(PackedCodes, kernels::Precision)> {
        if self.graph.constant(v).is_some() {
            return None;
        }
        let precision = self.precision.packed(m);
        let form = ("codes", PackedCodes::rows_like(m), precision, size, n_first);
        let packed = self.shared(v, &form, || {
            let coded = stored::codes::Coded::of(self.graph, v)?;
            coded.pack(self.tier, (m, precision), size, n_first)
        })?;
        stored::release(self.graph, v);
        Some((packed, precision))
    }
    /// Whether a contraction of `x` with constant weights `w` runs in bfloat16.
    pub fn in_bf16(&self, x: ValueId, w: ValueId) -> bool {
        self.precision.rounds(self.graph, x, w)
    }
    /// A constant of an optional input: `Some(None)` when the input is absent.
    pub fn optional_floats(&self, v: Option<ValueId>) -> Option<Option<Vec<f32>>> {
        v.map_or(Some(None), |v| self.floats(v).map(Some))
    }
}

impl Lowered {
    /// A kernel call with one result.
    pub fn call(kind: &'static str, reads: Vec<ValueId>, write: ValueId, flops: f64, call: Call) -> Lowered {
        Lowered { kind, work: Work::Call(Box::new(call)), reads, writes: vec![write], flops }
    }
}

type Lowering = fn(&Cx, &Node) -> Option<Lowered>;

/// Lowerings of single nodes, tried in order.
static LOWERINGS: &[Lowering] = &[
    window::lower,
    attention::lower,
    elementwise::map,
    elementwise::power,
    reduce::lower,
    normalize::lower,
    movement::lower,
    quantize::lower,
    recurrent::lower,
    rotary::lower,
    lrn::lower,
    sample::lower,
    roi::lower,
    scan::lower,
];

/// Below this many bytes of weights a second thread costs more than it packs.
const WORTH_A_THREAD: usize = 1 << 20;
/// Packing is bound by memory: more threads do not help.
const MOST_THREADS: usize = 4;
/// Bytes of stack of a helping thread.
const HELPER_STACK: usize = 8 << 20;

/// Steps for all groups; weights are packed on several threads, which changes no result.
pub fn lower(
    graph: &Graph,
    groups: Vec<Group>,
    tier: Tier,
    precision: Precision,
    packs: &Packs,
) -> Result<Vec<Step>> {
    let weights: usize = graph.initializers().map(|(_, t)| t.stored_bytes()).sum();
    let helpers = if weights < WORTH_A_THREAD {
        0
    } else {
        std::thread::available_parallelism().map_or(1, usize::from).min(MOST_THREADS) - 1
    };
    let cx = || Cx { graph, tier, precision, packs, aligned: RefCell::default() };
    let pairs = Pairs::of(&cx(), &groups);
    // The largest weights first: while they are there twice, in their file and packed, little else is.
    let mut order: Vec<usize> = (0..groups.len()).collect();
    order.sort_by_cached_key(|&i| std::cmp::Reverse(weight(graph, &groups[i])));
    let next = AtomicUsize::new(0);
    // Each thread takes the next group that nobody has.
    let work = || {
        let cx = cx();
        let mut done = Vec::new();
        while let Some(&i) = order.get(next.fetch_add(1, Relaxed)) {
            done.push((i, pairs.steps(&cx, &groups, i)));
        }
        done
    };
    let mut all = std::thread::scope(|s| {
        let start = |_| std::thread::Builder::new().stack_size(HELPER_STACK).spawn_scoped(s, work).ok();
        let helpers: Vec<_> = (0..helpers).filter_map(start).collect();
        let mut all = work();
        for h in helpers {
            all.extend(h.join().map_err(|_| Error::internal("lowering failed"))?);
        }
        Ok::<_, Error>(all)
    })?;
    all.sort_unstable_by_key(|done| done.0);
    let mut steps = Vec::new();
    for (_, s) in all {
        steps.extend(s?);
    }
    Ok(steps)
}

/// Contractions that run as one with the next, by place.
struct Pairs {
    /// For the second of two, the first.
    firsts: BTreeMap<usize, usize>,
}

impl Pairs {
    fn of(cx: &Cx, groups: &[Group]) -> Pairs {
        Pairs { firsts: pair::find(cx, groups).into_iter().map(|(first, second)| (second, first)).collect() }
    }

    /// Steps of the group at `i`; the first of two waits for the second, its only reader.
    fn steps(&self, cx: &Cx, groups: &[Group], i: usize) -> Result<Vec<Step>> {
        if self.firsts.values().any(|&first| first == i) {
            return Ok(Vec::new());
        }
        let Some(&first) = self.firsts.get(&i) else { return steps_of(cx, &groups[i]) };
        if let (Some(l), Group::Contraction { root, .. }) =
            (pair::lower(cx, &groups[first], &groups[i]), &groups[i])
        {
            return Ok(vec![named(cx, cx.graph.node(*root)?, l)]);
        }
        Ok([steps_of(cx, &groups[first])?, steps_of(cx, &groups[i])?].into_iter().flatten().collect())
    }
}

fn steps_of(cx: &Cx, g: &Group) -> Result<Vec<Step>> {
    if let Some(s) = fused(cx, g)? {
        return Ok(vec![s]);
    }
    // No kernel takes the group as a whole: its nodes run one by one.
    nodes_of(g).iter().map(|&id| single(cx, id)).collect()
}

fn nodes_of(g: &Group) -> &[NodeId] {
    match g {
        Group::Single(id) => std::slice::from_ref(id),
        Group::Chain(c) => std::slice::from_ref(&c.root),
        Group::Contraction { nodes, .. } | Group::Elementwise(nodes) => nodes,
    }
}

/// Bytes of weights that a group reads, those that are computed from constants as floats.
fn weight(graph: &Graph, g: &Group) -> usize {
    let read = nodes_of(g).iter().filter_map(|&id| graph.get(id)).flat_map(|n| n.inputs().iter().flatten());
    let bytes = |v: ValueId| match graph.constant(v) {
        Some(t) => Some(t.stored_bytes()),
        None => {
            graph.expression(v).and_then(|_| ir::budget::bytes(DType::F32, &graph.ty(v).concrete()?).ok())
        }
    };
    read.filter_map(|&v| bytes(v)).sum()
}

fn fused(cx: &Cx, group: &Group) -> Result<Option<Step>> {
    let (node, lowered) = match group {
        Group::Single(_) => return Ok(None),
        Group::Contraction { root, finish, .. } => {
            let node = cx.graph.node(*root)?;
            (node, contract::lower(cx, node, finish))
        }
        Group::Chain(c) => (cx.graph.node(c.root)?, Some(chain::lower(cx, c))),
        Group::Elementwise(nodes) => {
            let last = nodes.last().copied().ok_or_else(|| Error::internal("an empty group"))?;
            let lowered = elementwise::fuse(cx, nodes).or_else(|| typed::fuse(cx, nodes));
            (cx.graph.node(last)?, lowered)
        }
    };
    Ok(lowered.map(|l| named(cx, node, l)))
}

fn named(cx: &Cx, node: &Node, l: Lowered) -> Step {
    let held = node.inputs().iter().flatten().filter(|v| !l.reads.contains(v));
    let held_bytes = held.filter_map(|&v| cx.graph.constant(v)).map(|t| t.bytes().len() as f64).sum();
    Step {
        name: node.name.clone(),
        op: ir::qualified(node.op),
        kind: l.kind,
        work: l.work,
        reads: l.reads,
        writes: l.writes,
        alias: None,
        flops: l.flops,
        held_bytes,
    }
}

fn single(cx: &Cx, id: NodeId) -> Result<Step> {
    let node = cx.graph.node(id)?;
    if let Some((out, from)) = movement::view(cx, node) {
        let l = Lowered { kind: "view", work: Work::View, reads: vec![from], writes: vec![out], flops: 0.0 };
        return Ok(Step { alias: Some((out, from)), ..named(cx, node, l) });
    }
    let alone = match node.output(0) {
        Some(o) => contract::lower(cx, node, &contract::Finish::of(node, o)?),
        None => None,
    };
    match alone.or_else(|| LOWERINGS.iter().find_map(|f| f(cx, node))) {
        Some(l) => Ok(named(cx, node, l)),
        None => Ok(named(cx, node, opaque::lower(cx, node)?)),
    }
}
