//! The only place that names Cranelift: fused element-wise loops (`typed` for other types than float32) and the static
//! schedule.
//!
//! CLIF used: integer and float constants, arithmetic, comparisons and conversions, bitselect/select, splat, shuffle, widening
//! and narrowing, load/store, brif, jump, call, return. Vectors have 128 bits: the x64 back end takes no wider ones.

#[cfg(feature = "counted")]
mod count;
mod object;
mod text;
mod typed;

pub use object::Image;
use text::Text;
pub use typed::{Loop, Operand};

use artefact::loops::{LEAST_JOINED, LINE, LONGEST_JOINED};
use cranelift::codegen;
use cranelift::codegen::control::ControlPlane;
use cranelift::codegen::ir::{MemFlagsData as MemFlags, StackSlotData, StackSlotKind};
use cranelift::jit::{JITBuilder, JITModule};
use cranelift::module::{FuncId, Linkage, Module, ModuleReloc, default_libcall_names};
use cranelift::prelude::*;
use ir::{Binary, Error, Expr, Result, Unary};
use rustc_hash::FxHashMap;
use std::collections::hash_map::Entry;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// The generated schedule: runs all steps on a run's context, 0 or the number of the failed step plus one.
pub type Schedule = unsafe extern "C" fn(cx: *const u8) -> i32;

/// What the schedule calls for step `i`; 0 is success.
pub type HostStep = extern "C" fn(cx: *const u8, step: i32) -> i32;

/// Where an operand of an expression comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// External operand: advances by one element (`true`) or is one value for the whole row.
    Operand(usize, bool),
    /// Result of an earlier expression of the same loop.
    Earlier(usize),
}

/// Expressions evaluated per element, the last one stored. `In(i)` of an expression reads its `i`-th source.
#[derive(Debug, Clone)]
pub struct LoopBody {
    pub expressions: Vec<(Expr, Vec<Source>)>,
    /// Number of external operands.
    pub operands: usize,
    pub turns: Turns,
}

/// Elements per turn of the loops that follow each other, the unrolled one, that of vectors and that of single elements: those
/// that rows have elements for, as each takes as long to compile.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Turns(&'static [i64]);

/// Operations of a vector that keep a core busy without those of the next.
const MANY: f64 = 12.0;

impl Turns {
    /// For `rows` rows of `n` elements of `operations` each. Rows run as they are, in pieces of whole cache lines, or several
    /// as one.
    pub fn of(rows: usize, n: usize, operations: f64) -> Turns {
        let alone = n < LONGEST_JOINED && rows.saturating_mul(n) < LEAST_JOINED;
        let rolled = operations >= MANY || alone && n < LINE;
        Turns(match n {
            1 if alone => &[1],
            _ if rolled && n.is_multiple_of(4) => &[4],
            _ if rolled => &[4, 1],
            _ if n.is_multiple_of(LINE) => &[16],
            _ if n.is_multiple_of(4) => &[16, 4],
            _ => &[16, 4, 1],
        })
    }
}

/// Unary functions with direct CLIF.
pub fn supports(e: &Expr) -> bool {
    match e {
        Expr::In(_) | Expr::Const(_) => true,
        Expr::Unary(op, a) => {
            use Unary::*;
            matches!(op, Neg | Abs | Sign | Sqrt | Reciprocal | Floor | Ceil | Round | Not | IsNan)
                && supports(a)
        }
        Expr::Binary(op, a, b) => {
            use Binary::*;
            matches!(op, Add | Sub | Mul | Div | Min | Max | Eq | Lt | Le | Gt | Ge | And | Or)
                && supports(a)
                && supports(b)
        }
        Expr::Select(c, a, b) => supports(c) && supports(a) && supports(b),
        Expr::Cast(..) => false,
    }
}

fn broken(e: impl std::fmt::Display) -> Error {
    Error::internal(format!("code generation: {e}"))
}

/// Machine code of one program; freed on drop.
pub struct Code {
    module: Option<JITModule>,
    /// Keeps loops that were stored.
    _mapped: Option<Text>,
    /// The loops' code, if all of it can be moved.
    texts: Option<Vec<Vec<u8>>>,
    /// Addresses of the loops.
    table: Vec<*const u8>,
}

impl Code {
    /// Code of the loops, which runs at any address of a cache line.
    pub fn texts(&self) -> Option<&Vec<Vec<u8>>> {
        self.texts.as_ref()
    }

    /// For programs without loops.
    pub fn none() -> Code {
        Code { module: None, _mapped: None, texts: Some(Vec::new()), table: Vec::new() }
    }

    /// Loops that another process generated for this CPU.
    pub fn mapped(texts: Vec<Vec<u8>>) -> Option<Code> {
        let mapped = Text::new(&texts)?;
        let table = mapped.table.clone();
        Some(Code { module: None, _mapped: Some(mapped), texts: Some(texts), table })
    }

    /// What calls of generated loops look up.
    pub fn table(&self) -> artefact::loops::Code<'_> {
        // SAFETY: the loops of this program, generated for its calls, alive as long as this.
        unsafe { artefact::loops::Code::new(&self.table) }
    }
}

// SAFETY: after `finish` the module is never changed, only its code is executed and finally freed.
unsafe impl Send for Code {}
// SAFETY: as above.
unsafe impl Sync for Code {}

impl Drop for Code {
    fn drop(&mut self) {
        if let Some(m) = self.module.take() {
            // SAFETY: function pointers into this module live in the program that owns this value and drop with it.
            unsafe { m.free_memory() };
        }
    }
}

/// Executable functions and their owner.
pub struct Finished {
    pub code: Code,
    pub schedule: Schedule,
}

/// Collects functions of one program.
pub struct Assembler<M: Module = JITModule> {
    module: M,
    host: FuncId,
    /// Loops of both kinds in the order they were added.
    loops: Vec<FuncId>,
    /// Code of each loop, unless it refers to something outside.
    texts: Vec<Option<Vec<u8>>>,
    /// What loops do, and their numbers: layers repeat each other.
    known: FxHashMap<String, usize>,
    builder: FunctionBuilderContext,
}

impl<M: Module> Assembler<M> {
    /// How many loops there are.
    pub fn loops(&self) -> usize {
        self.loops.len()
    }

    /// Generates a loop over rows of float32; see [`artefact::loops::RowLoop`]. The number is what calls name it by.
    pub fn add_loop(&mut self, body: &LoopBody) -> Result<usize> {
        self.add(Body::Rows(body))
    }

    /// Generates a loop over any element types; see [`artefact::loops::TypedLoop`]. Numbered as those over rows.
    pub fn add_typed(&mut self, l: &Loop) -> Result<usize> {
        self.add(Body::Typed(l))
    }

    fn add(&mut self, body: Body) -> Result<usize> {
        let what = body.what();
        if let Some(&i) = self.known.get(&what) {
            return Ok(i);
        }
        self.add_all(&[body])?;
        self.known.get(&what).copied().ok_or_else(|| broken("a loop was not added"))
    }

    /// Generates loops that will be asked for, on several threads where there are many; their numbers follow the order.
    pub fn add_all(&mut self, bodies: &[Body]) -> Result<()> {
        let mut new: Vec<Body> = Vec::new();
        for body in bodies {
            let next = self.loops.len() + new.len();
            if let Entry::Vacant(v) = self.known.entry(body.what()) {
                v.insert(next);
                new.push(*body);
            }
        }
        let isa = self.module.isa();
        let next = AtomicUsize::new(0);
        let work = || {
            let (mut builder, mut done) = (FunctionBuilderContext::new(), Vec::new());
            loop {
                let i = next.fetch_add(1, Relaxed);
                let Some(body) = new.get(i) else { return done };
                done.push((i, compiled(isa, &mut builder, *body)));
            }
        };
        let threads = std::thread::available_parallelism().map_or(1, usize::from).min(MOST_THREADS);
        let helpers = if new.len() < WORTH_A_THREAD { 0 } else { threads - 1 };
        let mut all = std::thread::scope(|s| {
            let start = |_| std::thread::Builder::new().stack_size(HELPER_STACK).spawn_scoped(s, work).ok();
            let helpers: Vec<_> = (0..helpers).filter_map(start).collect();
            let mut all = work();
            for h in helpers {
                all.extend(h.join().map_err(|_| broken("a thread failed"))?);
            }
            Ok::<_, Error>(all)
        })?;
        all.sort_unstable_by_key(|done| done.0);
        for (_, made) in all {
            let (func, code, alignment, relocs) = made?;
            let name = format!("loop{}", self.loops.len());
            let id = self.module.declare_function(&name, Linkage::Local, &func.signature).map_err(broken)?;
            let moved: Vec<_> = relocs.iter().map(|r| ModuleReloc::from_mach_reloc(r, &func, id)).collect();
            self.module.define_function_bytes(id, alignment, &code, &moved).map_err(broken)?;
            self.texts.push((relocs.is_empty() && alignment <= 64).then_some(code));
            self.loops.push(id);
        }
        Ok(())
    }
}

/// New loops below which a second thread costs more than it saves.
const WORTH_A_THREAD: usize = 4;
const MOST_THREADS: usize = 4;
/// Bytes of stack of a helping thread.
const HELPER_STACK: usize = 8 << 20;

/// A loop of either kind.
#[derive(Debug, Clone, Copy)]
pub enum Body<'a> {
    Rows(&'a LoopBody),
    Typed(&'a Loop),
}

impl Body<'_> {
    fn what(self) -> String {
        format!("{self:?}")
    }
}

/// A function with its code, what that is aligned to and what it refers to.
type Compiled = (codegen::ir::Function, Vec<u8>, u64, Vec<codegen::FinalizedMachReloc>);

fn compiled(
    isa: &dyn codegen::isa::TargetIsa,
    builder: &mut FunctionBuilderContext,
    body: Body,
) -> Result<Compiled> {
    let mut cx = codegen::Context::new();
    cx.func.signature.call_conv = isa.default_call_conv();
    let parameters = if let Body::Rows(_) = body { 4 } else { 3 };
    cx.func.signature.params = vec![AbiParam::new(types::I64); parameters];
    let mut b = FunctionBuilder::new(&mut cx.func, builder);
    match body {
        Body::Rows(rows) => emit_rows(b, rows, isa.frontend_config()),
        Body::Typed(l) => {
            typed::emit_typed(&mut b, l);
            b.finalize(isa.frontend_config());
        }
    }
    let made = cx.compile(isa, &mut ControlPlane::default()).map_err(|e| broken(format!("{e:?}")))?;
    let (code, alignment) = (made.code_buffer().to_vec(), u64::from(made.buffer.alignment));
    let relocs = made.buffer.relocs().to_vec();
    Ok((cx.func, code, alignment, relocs))
}

/// Settings of code made in memory. Tests verify the CLIF; it is the same for every model.
const FLAGS: [(&str, &str); 4] = [
    ("use_colocated_libcalls", "false"),
    ("is_pic", "false"),
    ("opt_level", "speed"),
    ("enable_verifier", if cfg!(debug_assertions) { "true" } else { "false" }),
];

impl Assembler {
    pub fn new(host: HostStep) -> Result<Assembler> {
        let mut flags = settings::builder();
        for (k, v) in FLAGS {
            flags.set(k, v).map_err(broken)?;
        }
        let isa = cranelift::native::builder()
            .map_err(broken)?
            .finish(settings::Flags::new(flags))
            .map_err(broken)?;
        let mut jit = JITBuilder::with_isa(isa, default_libcall_names());
        jit.symbol("host_step", host as *const u8);
        let mut module = JITModule::new(jit);
        let mut sig = module.make_signature();
        sig.params = vec![AbiParam::new(types::I64), AbiParam::new(types::I32)];
        sig.returns = vec![AbiParam::new(types::I32)];
        let host = module.declare_function("host_step", Linkage::Import, &sig).map_err(broken)?;
        Ok(Assembler {
            module,
            host,
            loops: Vec::new(),
            texts: Vec::new(),
            known: FxHashMap::default(),
            builder: FunctionBuilderContext::new(),
        })
    }

    /// Generates the schedule of `steps` steps and makes everything executable.
    pub fn finish(mut self, steps: usize) -> Result<Finished> {
        let mut cx = self.module.make_context();
        cx.func.signature.params = vec![AbiParam::new(types::I64)];
        cx.func.signature.returns = vec![AbiParam::new(types::I32)];
        let id =
            self.module.declare_function("schedule", Linkage::Local, &cx.func.signature).map_err(broken)?;
        let mut b = FunctionBuilder::new(&mut cx.func, &mut self.builder);
        let host = self.module.declare_func_in_func(self.host, b.func);
        let (entry, done) = (b.create_block(), b.create_block());
        b.append_block_params_for_function_params(entry);
        b.append_block_param(done, types::I32);
        b.switch_to_block(entry);
        let run = b.block_params(entry)[0];
        let (step, next) = (b.create_block(), b.create_block());
        b.append_block_param(step, types::I32);
        let zero = b.ins().iconst(types::I32, 0);
        b.ins().jump(if steps == 0 { done } else { step }, &[zero.into()]);
        b.switch_to_block(step);
        let index = b.block_params(step)[0];
        let call = b.ins().call(host, &[run, index]);
        let status = b.inst_results(call)[0];
        let number = b.ins().iadd_imm_s(index, 1);
        b.ins().brif(status, done, &[number.into()], next, &[]);
        b.switch_to_block(next);
        let more = b.ins().icmp_imm_s(IntCC::SignedLessThan, number, steps as i64);
        b.ins().brif(more, step, &[number.into()], done, &[zero.into()]);
        b.switch_to_block(done);
        let number = b.block_params(done)[0];
        b.ins().return_(&[number]);
        b.seal_all_blocks();
        b.finalize(self.module.target_config());
        self.module.define_function(id, &mut cx).map_err(|e| broken(format!("{e:?}")))?;
        self.module.finalize_definitions().map_err(broken)?;
        let table = self.loops.iter().map(|&f| self.module.get_finalized_function(f)).collect();
        // SAFETY: the function was generated with exactly this signature.
        let schedule =
            unsafe { std::mem::transmute::<*const u8, Schedule>(self.module.get_finalized_function(id)) };
        let texts = self.texts.into_iter().collect();
        Ok(Finished { code: Code { module: Some(self.module), _mapped: None, texts, table }, schedule })
    }
}

fn emit_rows(mut b: FunctionBuilder, body: &LoopBody, target: cranelift::codegen::isa::TargetFrontendConfig) {
    let entry = b.create_block();
    b.append_block_params_for_function_params(entry);
    b.switch_to_block(entry);
    let [ptrs, strides, rows, n] = *b.block_params(entry) else { return };
    // Rows start at any element: nothing is aligned to vectors.
    let flags = MemFlags::new().with_notrap();
    let count = body.operands + 1;
    // Current row starts live in a stack slot: there may be more operands than registers.
    let slot =
        b.create_sized_stack_slot(StackSlotData::new(StackSlotKind::ExplicitSlot, 8 * count as u32, 3));
    for k in 0..count {
        let p = b.ins().load(types::I64, flags, ptrs, 8 * k as i32);
        b.ins().stack_store(types::I64, p, slot, 8 * k as i32);
    }
    let (row, done) = (b.create_block(), b.create_block());
    b.append_block_param(row, types::I64);
    let zero = b.ins().iconst(types::I64, 0);
    b.ins().jump(row, &[zero.into()]);
    b.switch_to_block(row);
    let r = b.block_params(row)[0];
    let more = b.ins().icmp(IntCC::SignedLessThan, r, rows);
    let work = b.create_block();
    b.ins().brif(more, work, &[], done, &[]);
    b.switch_to_block(work);
    let starts: Vec<Value> =
        (0..count).map(|k| b.ins().stack_load(types::I64, types::I64, slot, 8 * k as i32)).collect();
    let mut at = zero;
    for &turn in body.turns.0 {
        let (head, inside, after) = (b.create_block(), b.create_block(), b.create_block());
        b.append_block_param(head, types::I64);
        b.ins().jump(head, &[at.into()]);
        b.switch_to_block(head);
        let i = b.block_params(head)[0];
        let end = b.ins().iadd_imm_s(i, turn);
        let fits = b.ins().icmp(IntCC::SignedLessThanOrEqual, end, n);
        b.ins().brif(fits, inside, &[], after, &[]);
        b.switch_to_block(inside);
        #[cfg(feature = "counted")]
        count::block(&mut b, &format!("{body:?}"), turn as u64);
        let offset = b.ins().ishl_imm_u(i, 2);
        let vector = turn > 1;
        for part in 0..(turn / if vector { 4 } else { 1 }) {
            emit_element(&mut b, body, &starts, offset, 16 * part as i32, vector, flags);
        }
        b.ins().jump(head, &[end.into()]);
        b.switch_to_block(after);
        at = i;
    }
    for (k, &p) in starts.iter().enumerate() {
        let s = b.ins().load(types::I64, flags, strides, 8 * k as i32);
        let p = b.ins().iadd(p, s);
        b.ins().stack_store(types::I64, p, slot, 8 * k as i32);
    }
    let next = b.ins().iadd_imm_s(r, 1);
    b.ins().jump(row, &[next.into()]);
    b.switch_to_block(done);
    b.ins().return_(&[]);
    b.seal_all_blocks();
    b.finalize(target);
}

/// One element or one vector of the loop body at byte `offset + shift` of each operand.
fn emit_element(
    b: &mut FunctionBuilder,
    body: &LoopBody,
    starts: &[Value],
    offset: Value,
    shift: i32,
    vector: bool,
    flags: MemFlags,
) {
    let ty = if vector { types::F32X4 } else { types::F32 };
    let mut loaded: Vec<Option<Value>> = vec![None; body.operands];
    let mut results: Vec<Value> = Vec::new();
    for (e, sources) in &body.expressions {
        let mut values = Vec::new();
        for s in sources {
            values.push(match *s {
                Source::Earlier(j) => results[j],
                Source::Operand(k, unit) => match loaded[k] {
                    Some(v) => v,
                    None => {
                        let v = if unit {
                            let p = b.ins().iadd(starts[k], offset);
                            vector_at(b, ty, flags, p, shift)
                        } else {
                            let v = b.ins().load(types::F32, flags, starts[k], 0);
                            if vector { b.ins().splat(types::F32X4, v) } else { v }
                        };
                        loaded[k] = Some(v);
                        v
                    }
                },
            });
        }
        let v = emit(b, e, &values, vector);
        results.push(v);
    }
    if let Some(&v) = results.last() {
        let p = b.ins().iadd(starts[body.operands], offset);
        b.ins().store(flags, v, p, shift);
    }
}

/// What lies at an address, which need not be aligned. Vectors of floats come as lanes of integers: without AVX, Cranelift
/// lets comparisons of floats read their second operand from memory, which faults where that is not aligned to 16 bytes.
fn vector_at(b: &mut FunctionBuilder, ty: Type, flags: MemFlags, at: Value, offset: i32) -> Value {
    let lanes = match ty {
        types::F32X4 => types::I32X4,
        types::F64X2 => types::I64X2,
        _ => return b.ins().load(ty, flags, at, offset),
    };
    let v = b.ins().load(lanes, flags, at, offset);
    b.ins().bitcast(ty, MemFlags::new().with_endianness(codegen::ir::Endianness::Little), v)
}

fn constant(b: &mut FunctionBuilder, c: f64, vector: bool) -> Value {
    let v = b.ins().f32const(c as f32);
    if vector { b.ins().splat(types::F32X4, v) } else { v }
}

/// `c ? x : y` on a comparison's result.
fn choose(b: &mut FunctionBuilder, c: Value, x: Value, y: Value, vector: bool) -> Value {
    if vector {
        let little = MemFlags::new().with_endianness(cranelift::codegen::ir::Endianness::Little);
        let mask = b.ins().bitcast(types::F32X4, little, c);
        b.ins().bitselect(mask, x, y)
    } else {
        b.ins().select(c, x, y)
    }
}

fn is_plain(e: &Expr) -> bool {
    matches!(e, Expr::Const(c) if !c.is_nan())
}

fn emit(b: &mut FunctionBuilder, e: &Expr, values: &[Value], vector: bool) -> Value {
    match e {
        Expr::In(i) => values[*i],
        Expr::Const(c) => constant(b, *c, vector),
        Expr::Unary(op, a) => {
            let x = emit(b, a, values, vector);
            match op {
                Unary::Neg => b.ins().fneg(x),
                Unary::Abs => b.ins().fabs(x),
                Unary::Sign => {
                    let (zero, one) = (constant(b, 0.0, vector), constant(b, 1.0, vector));
                    let (up, down) =
                        (b.ins().fcmp(FloatCC::LessThan, zero, x), b.ins().fcmp(FloatCC::LessThan, x, zero));
                    let minus = constant(b, -1.0, vector);
                    let low = choose(b, down, minus, x, vector);
                    choose(b, up, one, low, vector)
                }
                Unary::Sqrt => b.ins().sqrt(x),
                Unary::Floor => b.ins().floor(x),
                Unary::Ceil => b.ins().ceil(x),
                Unary::Round => b.ins().nearest(x),
                Unary::Reciprocal => {
                    let one = constant(b, 1.0, vector);
                    b.ins().fdiv(one, x)
                }
                Unary::IsNan => b.ins().fcmp(FloatCC::Unordered, x, x),
                Unary::Not if vector => b.ins().bnot(x),
                Unary::Not => b.ins().bxor_imm_u(x, 1),
                _ => x,
            }
        }
        Expr::Binary(op, l, r) => {
            let (x, y) = (emit(b, l, values, vector), emit(b, r, values, vector));
            let compare = |b: &mut FunctionBuilder, cc| b.ins().fcmp(cc, x, y);
            match op {
                Binary::Add => b.ins().fadd(x, y),
                Binary::Sub => b.ins().fsub(x, y),
                Binary::Mul => b.ins().fmul(x, y),
                Binary::Div => b.ins().fdiv(x, y),
                Binary::Eq => compare(b, FloatCC::Equal),
                Binary::Lt => compare(b, FloatCC::LessThan),
                Binary::Le => compare(b, FloatCC::LessThanOrEqual),
                Binary::Gt => compare(b, FloatCC::GreaterThan),
                Binary::Ge => compare(b, FloatCC::GreaterThanOrEqual),
                Binary::And => b.ins().band(x, y),
                Binary::Or => b.ins().bor(x, y),
                // One instruction each when a side cannot be NaN; the NaN of the other side stays.
                Binary::Max | Binary::Min => {
                    let cc = if *op == Binary::Max { FloatCC::LessThan } else { FloatCC::GreaterThan };
                    if is_plain(r) {
                        let c = b.ins().fcmp(cc, x, y);
                        choose(b, c, y, x, vector)
                    } else if is_plain(l) {
                        let c = b.ins().fcmp(cc, y, x);
                        choose(b, c, x, y, vector)
                    } else {
                        let c = b.ins().fcmp(cc, y, x);
                        let nan = b.ins().fcmp(FloatCC::Unordered, x, x);
                        let c = b.ins().bor(c, nan);
                        choose(b, c, x, y, vector)
                    }
                }
                _ => x,
            }
        }
        Expr::Select(c, x, y) => {
            let c = emit(b, c, values, vector);
            let (x, y) = (emit(b, x, values, vector), emit(b, y, values, vector));
            choose(b, c, x, y, vector)
        }
        Expr::Cast(_, a) => emit(b, a, values, vector),
    }
}
