//! A compiled graph: steps, their operands resolved to places, constants, and the generated schedule.

mod side;
mod stored;
mod words;

use crate::clif::{Assembler, Body, Code, Schedule};
use crate::kernel::{self, Io, Kernel};
use crate::lower::{Step, Work};
use crate::plan::{Place, Plan, static_bytes};
use artefact::Call;
use ir::budget::Charge;
use ir::{DType, Error, Graph, Result, Shape, Tensor, Value, ValueId};
use kernels::{Memory, Pool};
pub use side::Side;
use std::cell::RefCell;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex};
use words::{Spares, Words};

/// An operand of a step, ready to be resolved with a run's base pointers.
#[derive(Debug, Clone, Copy)]
enum Operand {
    Arena(usize, usize),
    Input(usize, usize),
    Output(usize, usize),
    /// Address of an initializer's bytes, which the program keeps.
    Constant(usize, usize),
    Boxed(usize),
}

/// What a step runs.
enum Action {
    Call(Box<Call>),
    Kernel(Box<dyn Kernel>),
}

struct Prepared {
    name: String,
    op: String,
    kind: &'static str,
    action: Action,
    operands: Vec<Operand>,
    inputs: usize,
    flops: f64,
    held_bytes: f64,
}

impl Prepared {
    /// Operands whose bytes count.
    fn read_whole(&self) -> &[Operand] {
        match &self.action {
            // Of a table only some rows are read, as many bytes as are written.
            Action::Call(c) if matches!(**c, Call::Gather { .. }) => {
                self.operands.get(1..).unwrap_or_default()
            }
            _ => &self.operands,
        }
    }
}

/// What a step is, for profiles.
#[derive(Debug, Clone)]
pub struct StepInfo {
    pub name: String,
    pub op: String,
    pub kind: &'static str,
    pub flops: f64,
    /// Of operands read and written, constants not counted.
    pub bytes: f64,
    /// Of constants, as they are stored.
    pub constant_bytes: f64,
}

impl StepInfo {
    /// Whether no kernel takes it.
    pub fn by_reference(&self) -> bool {
        self.kind == kernel::REFERENCE
    }

    /// Whether what it computes and moves is known before it runs.
    pub fn is_sized(&self) -> bool {
        !matches!(self.kind, kernel::REFERENCE | kernel::LATE)
    }
}

enum OutputSlot {
    Static(DType, Shape, usize),
    Boxed(usize),
    /// An initializer of text, or of elements smaller than a byte.
    Constant(Tensor),
}

/// A graph compiled for concrete input shapes.
pub struct Program {
    /// Bytes of each input.
    inputs: Vec<usize>,
    steps: Vec<Prepared>,
    /// Generated for programs that were compiled here; others are a list.
    schedule: Option<Schedule>,
    code: Code,
    /// Initializers whose memory steps point to.
    constants: Vec<Tensor>,
    /// The same for programs that were stored.
    _bulk: Option<kernels::stored::Bulk>,
    arena_bytes: usize,
    boxes: usize,
    boxed_inputs: Vec<(usize, usize)>,
    outputs: Vec<OutputSlot>,
    states: Mutex<Vec<State>>,
    spares: Arc<Spares>,
}

/// Memory of one run, kept for the next.
struct State {
    arena: Memory,
    boxes: Vec<Mutex<Option<Value>>>,
    _charge: Charge,
}

/// Results of a run, and the time of each step if asked for.
pub struct Run {
    pub outputs: Vec<Value>,
    pub nanoseconds: Vec<f64>,
}

/// Resolves places and generates the code.
pub fn assemble(graph: Graph, steps: Vec<Step>, plan: Plan) -> Result<Program> {
    let loops: Vec<Body> = steps
        .iter()
        .filter_map(|s| match &s.work {
            Work::Typed(t) => Some(Body::Typed(t.body())),
            Work::Rows(r) => Some(Body::Rows(&r.body)),
            _ => None,
        })
        .collect();
    // Without loops a list of steps does what a generated schedule would, and nothing is generated.
    let mut code = if loops.is_empty() { None } else { Some(Assembler::new(host_step)?) };
    if let Some(code) = &mut code {
        code.add_all(&loops)?;
    }
    let mut constants: Vec<Tensor> = Vec::new();
    let mut prepared = Vec::new();
    let mut resolve = |v: ValueId, anywhere: bool| -> Result<Operand> {
        let bytes = static_bytes(&graph, v).unwrap_or(0);
        Ok(match plan.places.get(&v) {
            Some(Place::Arena(o)) => Operand::Arena(*o, bytes),
            Some(Place::Input(i)) => Operand::Input(*i, bytes),
            Some(Place::Output(i)) => Operand::Output(*i, bytes),
            Some(Place::Boxed(i)) => Operand::Boxed(*i),
            Some(Place::Constant) => {
                let t = constant(&graph, &steps, v)?;
                let t = if anywhere { t } else { aligned(&t)? };
                let address = t.bytes().as_ptr() as usize;
                constants.push(t);
                Operand::Constant(address, bytes)
            }
            None => return Err(Error::internal(format!("value '{}' has no place", graph.value_name(v)))),
        })
    };
    let mut resolved = Vec::new();
    for s in &steps {
        let anywhere = |i: usize| matches!(&s.work, Work::Call(c) if c.takes_unaligned(i));
        let inputs: Vec<Operand> =
            s.reads.iter().enumerate().map(|(i, &v)| resolve(v, anywhere(i))).collect::<Result<_>>()?;
        let outputs: Vec<Operand> = s.writes.iter().map(|&v| resolve(v, false)).collect::<Result<_>>()?;
        resolved.push((inputs.len(), [inputs, outputs].concat()));
    }
    let copies: Vec<(usize, Operand)> =
        plan.copies.iter().map(|&(k, v)| Ok((k, resolve(v, false)?))).collect::<Result<_>>()?;
    let inputs = graph.inputs().iter().map(|&v| static_bytes(&graph, v).unwrap_or(0)).collect();
    let outputs = graph
        .outputs()
        .iter()
        .map(|o| {
            let t = graph.ty(o.value);
            match (static_bytes(&graph, o.value), t.dtype(), t.concrete()) {
                (Some(b), Some(d), Some(s)) => Ok(OutputSlot::Static(d, s, b)),
                _ => match plan.places.get(&o.value) {
                    Some(Place::Boxed(i)) => Ok(OutputSlot::Boxed(*i)),
                    Some(Place::Constant) => constant(&graph, &steps, o.value).map(OutputSlot::Constant),
                    _ => Err(Error::internal(format!("output '{}' has no place", o.name))),
                },
            }
        })
        .collect::<Result<Vec<_>>>()?;
    for (s, (inputs, operands)) in steps.into_iter().zip(resolved) {
        let action = match (s.work, &mut code) {
            (Work::View, _) => continue,
            (Work::Kernel(k), _) => Action::Kernel(k),
            (Work::Call(c), _) => Action::Call(c),
            (Work::Typed(t), Some(code)) => Action::Call(Box::new(t.call(code.add_typed(t.body())?))),
            (Work::Rows(r), Some(code)) => Action::Call(Box::new(r.call(code.add_loop(&r.body)?))),
            (Work::Typed(_) | Work::Rows(_), None) => return Err(Error::internal("loops without code")),
        };
        prepared.push(Prepared {
            name: s.name,
            op: s.op,
            kind: s.kind,
            action,
            operands,
            inputs,
            flops: s.flops,
            held_bytes: s.held_bytes,
        });
    }
    for (k, from) in copies {
        let bytes = match &outputs[k] {
            OutputSlot::Static(_, _, b) => *b,
            OutputSlot::Boxed(_) | OutputSlot::Constant(_) => 0,
        };
        prepared.push(Prepared {
            name: graph.outputs()[k].name.clone(),
            op: "Identity".into(),
            kind: "copy",
            action: Action::Call(Box::new(Call::Copy)),
            operands: vec![from, Operand::Output(k, bytes)],
            inputs: 1,
            flops: 0.0,
            held_bytes: 0.0,
        });
    }
    let (code, schedule) = match code {
        Some(code) => code.finish(prepared.len()).map(|f| (f.code, Some(f.schedule)))?,
        None => (Code::none(), None),
    };
    let spares = spares(&outputs);
    Ok(Program {
        inputs,
        steps: prepared,
        schedule,
        code,
        constants,
        _bulk: None,
        arena_bytes: plan.arena_bytes,
        boxes: plan.boxes,
        boxed_inputs: plan.boxed_inputs,
        outputs,
        states: Mutex::new(Vec::new()),
        spares,
    })
}

/// Where memory of dropped outputs waits for the next run.
fn spares(outputs: &[OutputSlot]) -> Arc<Spares> {
    Spares::at_most(outputs.iter().filter(|o| matches!(o, OutputSlot::Static(..))).count())
}

/// The initializer behind a value, views of it included.
pub fn constant(graph: &Graph, steps: &[Step], v: ValueId) -> Result<Tensor> {
    let mut at = v;
    loop {
        if let Some(t) = graph.constant(at) {
            return Ok(t.clone());
        }
        match steps.iter().find_map(|s| s.alias.filter(|a| a.0 == at)) {
            Some((_, from)) => at = from,
            None => return Err(Error::internal("a constant without an initializer")),
        }
    }
}

/// The tensor with its bytes at an address that suits every element type.
fn aligned(t: &Tensor) -> Result<Tensor> {
    if (t.bytes().as_ptr() as usize).is_multiple_of(16) || t.dtype() == DType::String {
        return Ok(t.clone());
    }
    Tensor::mapped(t.dtype(), t.shape(), Arc::new(Words::copied(t.bytes())?), 0)
}

/// What one run needs while the schedule executes.
struct Context<'a> {
    program: &'a Program,
    pool: &'a dyn Pool,
    arena: *mut u8,
    inputs: Vec<*mut u8>,
    outputs: Vec<*mut u8>,
    boxes: &'a [Mutex<Option<Value>>],
    failure: RefCell<Option<Error>>,
    times: Option<RefCell<Vec<f64>>>,
}

extern "C" fn host_step(cx: *const u8, step: i32) -> i32 {
    // SAFETY: the schedule passes on the context that `Program::run_timed` gave it, alive for the whole call.
    let cx = unsafe { &*(cx as *const Context) };
    let Some(s) = usize::try_from(step).ok().and_then(|i| cx.program.steps.get(i)) else { return 1 };
    let start = cx.times.as_ref().map(|_| std::time::Instant::now());
    let result = std::panic::catch_unwind(AssertUnwindSafe(|| cx.run(s)));
    if let (Some(t), Some(start)) = (&cx.times, start) {
        t.borrow_mut().push(start.elapsed().as_nanos() as f64);
    }
    match result {
        Ok(Ok(())) => 0,
        Ok(Err(e)) => {
            *cx.failure.borrow_mut() = Some(e);
            1
        }
        Err(p) => {
            let text = p
                .downcast_ref::<String>()
                .cloned()
                .or_else(|| p.downcast_ref::<&str>().map(|s| s.to_string()));
            *cx.failure.borrow_mut() = Some(Error::internal(text.unwrap_or_default()));
            1
        }
    }
}

impl Context<'_> {
    fn run(&self, s: &Prepared) -> Result<()> {
        let mut operands: smallvec::SmallVec<[(*mut u8, usize); 8]> = smallvec::SmallVec::new();
        for o in &s.operands {
            operands.push(match *o {
                Operand::Arena(at, n) => (self.arena.wrapping_add(at), n),
                Operand::Input(i, n) => (self.inputs[i], n),
                Operand::Output(i, n) => (self.outputs[i], n),
                Operand::Constant(at, n) => (at as *mut u8, n),
                Operand::Boxed(i) => (i as *mut u8, 0),
            });
        }
        // SAFETY: operands come from the program: each points to memory of the size and alignment it was compiled for,
        // which lives as long as the run; the memory plan, checked for overlap, keeps outputs apart.
        let memory = unsafe { artefact::Io::new(self.pool, &operands, s.inputs) };
        match &s.action {
            Action::Call(c) => c.run(&memory, self.program.code.table()).map_err(|e| match e {
                kernels::Error::Limit { .. } => Error::limit(e.to_string()),
                _ => Error::data(e.to_string()),
            }),
            Action::Kernel(k) => k.run(&Io { memory, boxes: self.boxes }),
        }
    }
}

impl Program {
    /// Runs on inputs in the graph's order; types and shapes must be those it was compiled for.
    pub fn run(&self, inputs: &[Value], pool: &dyn Pool) -> Result<Vec<Value>> {
        Ok(self.run_timed(inputs, pool, false)?.outputs)
    }

    /// As [`Program::run`], with nanoseconds per step.
    pub fn run_timed(&self, inputs: &[Value], pool: &dyn Pool, timed: bool) -> Result<Run> {
        let mut made: Vec<Words> = Vec::new();
        for o in &self.outputs {
            made.push(match o {
                OutputSlot::Static(_, _, bytes) => self.spares.room(*bytes)?,
                _ => Words::none(),
            });
        }
        let at = made.iter_mut().map(Words::as_mut_ptr).collect();
        // SAFETY: each output has room of its own.
        let (state, nanoseconds) = unsafe { self.run_into(inputs, pool, timed, at)? };
        let mut outputs = Vec::new();
        for (o, w) in self.outputs.iter().zip(made) {
            outputs.push(match o {
                OutputSlot::Static(d, s, _) => Value::Tensor(Tensor::mapped(*d, s, Arc::new(w), 0)?),
                OutputSlot::Constant(t) => Value::Tensor(t.clone()),
                OutputSlot::Boxed(i) => {
                    // Not taken: two outputs may be one value.
                    let v = state.boxes[*i].lock().unwrap_or_else(|e| e.into_inner()).clone();
                    v.ok_or_else(|| Error::internal("an output was not computed"))?
                }
            });
        }
        self.put_back(state);
        Ok(Run { outputs, nanoseconds })
    }

    /// One run whose outputs go to these places; its memory with what it boxed, and nanoseconds per step.
    ///
    /// # Safety
    /// For each output of a known size there is room for it, aligned to 16 bytes, that nothing else uses meanwhile.
    unsafe fn run_into(
        &self,
        inputs: &[Value],
        pool: &dyn Pool,
        timed: bool,
        outputs: Vec<*mut u8>,
    ) -> Result<(State, Vec<f64>)> {
        let mut state = match self.states.lock().unwrap_or_else(|e| e.into_inner()).pop() {
            Some(s) => s,
            None => {
                ir::budget::check_total(self.arena_bytes)?;
                let boxes = (0..self.boxes).map(|_| Mutex::new(None)).collect();
                State {
                    arena: Memory::zeroed(self.arena_bytes),
                    boxes,
                    _charge: Charge::new(self.arena_bytes),
                }
            }
        };
        let kept: Vec<Option<Tensor>> = inputs
            .iter()
            .map(|v| if let Value::Tensor(t) = v { aligned(t).map(Some) } else { Ok(None) })
            .collect::<Result<_>>()?;
        for &(i, b) in &self.boxed_inputs {
            *state.boxes[b].lock().unwrap_or_else(|e| e.into_inner()) = inputs.get(i).cloned();
        }
        let cx = Context {
            program: self,
            pool,
            arena: state.arena.as_mut_slice().as_mut_ptr(),
            inputs: kept
                .iter()
                .map(|t| t.as_ref().map_or(std::ptr::null_mut(), |t| t.bytes().as_ptr().cast_mut()))
                .collect(),
            outputs,
            boxes: &state.boxes,
            failure: RefCell::new(None),
            times: timed.then(|| RefCell::new(Vec::with_capacity(self.steps.len()))),
        };
        let status = match self.schedule {
            // SAFETY: the schedule was generated for this program and calls back `host_step` with this context only.
            // Every operand it resolves lies in the arena, in an input or output buffer of the size compiled for, or in
            // a constant.
            Some(run) => unsafe { run(std::ptr::from_ref(&cx).cast()) },
            None => self.list(&cx),
        };
        let (failure, times) = (cx.failure.into_inner(), cx.times.map(RefCell::into_inner));
        if status != 0 {
            let step = usize::try_from(status - 1).ok().and_then(|i| self.steps.get(i));
            let e = failure.unwrap_or_else(|| Error::internal("a step ended without telling why"));
            return Err(step.map_or(e.clone(), |s| e.at(&s.name, &s.op)));
        }
        Ok((state, times.unwrap_or_default()))
    }

    /// Keeps the memory of a run for the next.
    fn put_back(&self, state: State) {
        state.boxes.iter().for_each(|b| *b.lock().unwrap_or_else(|e| e.into_inner()) = None);
        let mut states = self.states.lock().unwrap_or_else(|e| e.into_inner());
        if states.len() < 4 {
            states.push(state);
        }
    }

    /// What the generated schedule does.
    fn list(&self, cx: &Context) -> i32 {
        let cx = std::ptr::from_ref(cx).cast();
        (0..self.steps.len() as i32).find(|&i| host_step(cx, i) != 0).map_or(0, |i| i + 1)
    }

    /// The steps in order.
    pub fn steps(&self) -> Vec<StepInfo> {
        let moving = |o: &Operand| match *o {
            Operand::Arena(_, n) | Operand::Input(_, n) | Operand::Output(_, n) => n as f64,
            Operand::Constant(..) | Operand::Boxed(_) => 0.0,
        };
        let constant = |o: &Operand| if let Operand::Constant(_, n) = *o { n as f64 } else { 0.0 };
        self.steps
            .iter()
            .map(|s| StepInfo {
                name: s.name.clone(),
                op: s.op.clone(),
                kind: s.kind,
                flops: s.flops,
                bytes: s.operands.iter().map(moving).sum(),
                constant_bytes: s.held_bytes + s.read_whole().iter().map(constant).sum::<f64>(),
            })
            .collect()
    }

    /// Bytes of working memory of one run.
    pub fn arena_bytes(&self) -> usize {
        self.arena_bytes
    }
}
