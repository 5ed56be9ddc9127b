//! Sixteen elements of a typed loop at once, or more of bytes: a value is as many vectors of 128 bits as its type has bytes, a
//! truth value as many masks as the type it is used with. What vectors cannot convert is found before anything is stored, and
//! such a block is done element by element.

use super::{Emit, Loop, scalar};
use crate::dag::{Id, Op};
use cranelift::codegen::ir::{Endianness, MemFlagsData};
use cranelift::prelude::{Block as Entry, *};
use ir::{Binary, DType, Unary};
use std::collections::BTreeMap;

/// Elements of a block.
const BLOCK: i64 = 16;
/// Blocks at once where every value is one vector, and elements of a row that are worth it.
const TURNS: (usize, usize) = (4, 256);
/// Inner loops of fewer elements are not worth a second body.
const WORTH: usize = 32;
/// From here on float32 is no int32.
const FAR: f32 = 2147483648.0;

/// Whether blocks of the loop have vector code.
pub fn take(l: &Loop) -> bool {
    let whole = |o: &super::Operand| o.strides.last().is_some_and(|&s| s <= 1);
    let needed = l.dag.reach(l.root);
    l.dims.last().is_some_and(|&n| n >= WORTH)
        && l.output.strides.last() == Some(&1)
        && l.inputs.iter().all(whole)
        && (0..=l.root).filter(|&id| needed[id]).all(|id| has_vectors(l, id))
}

fn has_vectors(l: &Loop, id: Id) -> bool {
    let to = l.dag.dtype(id);
    match l.dag.op(id) {
        Op::Binary(Binary::Div | Binary::Rem | Binary::Mod, ..) => !to.is_int(),
        // There is no product of bytes.
        Op::Binary(Binary::Mul, ..) => size(to) > 1,
        Op::Cast(a) => match (l.dag.dtype(a), to) {
            (_, DType::Bool) | (DType::Bool, _) => true,
            (DType::F64, to) => to == DType::F32,
            (from, DType::F32) => from.is_int(),
            (DType::F32, to) => to.is_int() || to == DType::F64,
            (from, to) => from.is_int() && to.is_int(),
        },
        _ => true,
    }
}

/// Whether a value may be out of reach of vectors.
fn guarded(l: &Loop) -> bool {
    let needed = l.dag.reach(l.root);
    (0..=l.root).filter(|&id| needed[id]).any(|id| match l.dag.op(id) {
        Op::Cast(a) => match (l.dag.dtype(a), l.dag.dtype(id)) {
            (from, DType::F32) => from == DType::U32 || (from.is_int() && size(from) == 8),
            (DType::F32, to) => to.is_int(),
            _ => false,
        },
        _ => false,
    })
}

/// How many blocks go at once.
fn turns(l: &Loop) -> usize {
    let needed = l.dag.reach(l.root);
    let bytes = (0..=l.root).all(|id| !needed[id] || size(l.dag.dtype(id)) == 1);
    if bytes && l.dims.last().is_some_and(|&n| n >= TURNS.1) { TURNS.0 } else { 1 }
}

fn size(d: DType) -> usize {
    d.bits() / 8
}

fn vector(d: DType) -> Type {
    match d {
        DType::F32 => types::F32X4,
        DType::F64 => types::F64X2,
        d => lanes(size(d)),
    }
}

/// Integers of so many bytes.
fn lanes(width: usize) -> Type {
    match width {
        1 => types::I8X16,
        2 => types::I16X8,
        4 => types::I32X4,
        _ => types::I64X2,
    }
}

/// Which form of a value a vector holds.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Form {
    /// In its own type.
    Own,
    /// A mask, or an integer, in lanes of so many bytes.
    Lanes(usize),
    /// A float32 made an integer of so many bytes.
    Truncated(usize),
}

/// A block while it is emitted.
struct Sixteen<'e, 'a, 'b> {
    e: &'e mut Emit<'a, 'b>,
    i: Value,
    /// Inputs that do not move along the row.
    fixed: &'e [Option<Value>],
    /// Vectors by value, form and place.
    made: BTreeMap<(Id, Form, usize), Value>,
    /// Any bit set: an element is out of reach.
    far: Vec<Value>,
}

impl Emit<'_, '_> {
    /// `begin..end` of a row in blocks; what is left goes element by element, and so do blocks with values out of reach.
    pub(super) fn blocks(&mut self, begin: Value, end: Value) {
        let fixed: Vec<Option<Value>> = (0..self.l.inputs.len()).map(|n| self.fixed(n)).collect();
        let [head, body, rest, element, after, done] = std::array::from_fn(|_| self.b.create_block());
        let i = self.b.append_block_param(head, types::I64);
        let (j, stop) =
            (self.b.append_block_param(rest, types::I64), self.b.append_block_param(rest, types::I64));
        self.b.ins().jump(head, &[begin.into()]);
        self.b.switch_to_block(head);
        let turns = turns(self.l);
        let next = self.b.ins().iadd_imm_s(i, BLOCK * turns as i64);
        let fits = self.b.ins().icmp(IntCC::SignedLessThanOrEqual, next, end);
        self.b.ins().brif(fits, body, &[], rest, &[i.into(), end.into()]);
        self.b.switch_to_block(body);
        #[cfg(feature = "counted")]
        crate::clif::count::block(self.b, &self.l.text(), 8 + self.l.dims.len().min(4) as u64);
        self.block(i, &fixed, turns, (rest, next));
        self.b.ins().jump(head, &[next.into()]);
        self.b.switch_to_block(rest);
        let more = self.b.ins().icmp(IntCC::SignedLessThan, j, stop);
        self.b.ins().brif(more, element, &[], after, &[]);
        self.b.switch_to_block(element);
        self.element(j);
        let following = self.b.ins().iadd_imm_s(j, 1);
        self.b.ins().jump(rest, &[following.into(), stop.into()]);
        self.b.switch_to_block(after);
        let more = self.b.ins().icmp(IntCC::SignedLessThan, stop, end);
        self.b.ins().brif(more, head, &[stop.into()], done, &[]);
        self.b.switch_to_block(done);
    }

    /// The one element of an input that a row reads, in all lanes.
    fn fixed(&mut self, n: usize) -> Option<Value> {
        let o = self.l.inputs.get(n).filter(|o| o.strides.last() == Some(&0))?;
        let v = self.b.ins().load(scalar(o.dtype), MemFlagsData::new(), self.rows[n], 0);
        Some(self.b.ins().splat(vector(o.dtype), v))
    }

    /// So many blocks at `i`; `rest` does them, up to `next`, where vectors cannot.
    fn block(&mut self, i: Value, fixed: &[Option<Value>], turns: usize, (rest, next): (Entry, Value)) {
        let (root, dtype, guarded) = (self.l.root, self.l.output.dtype, guarded(self.l));
        let to = self.out;
        let to = self.address(to, i, size(dtype) as i64);
        let mut block = Sixteen { e: self, i, fixed, made: BTreeMap::new(), far: Vec::new() };
        let mut parts = Vec::new();
        for p in 0..turns * size(dtype) {
            let v = block.result(root, p);
            if guarded {
                parts.push(v);
            } else {
                block.store(v, to, p);
            }
        }
        let far = std::mem::take(&mut block.far);
        if let Some(any) = far.into_iter().reduce(|a, b| block.e.b.ins().bor(a, b)) {
            let any = block.e.b.ins().vany_true(any);
            let near = block.e.b.create_block();
            block.e.b.ins().brif(any, rest, &[i.into(), next.into()], near, &[]);
            block.e.b.switch_to_block(near);
        }
        for (p, v) in parts.into_iter().enumerate() {
            block.store(v, to, p);
        }
    }
}

impl Sixteen<'_, '_, '_> {
    fn dtype(&self, id: Id) -> DType {
        self.e.l.dag.dtype(id)
    }

    fn store(&mut self, v: Value, to: Value, p: usize) {
        self.e.b.ins().store(MemFlagsData::new(), v, to, 16 * p as i32);
    }

    /// The same bits as lanes of another type.
    fn view(&mut self, v: Value, ty: Type) -> Value {
        if self.e.b.func.dfg.value_type(v) == ty {
            return v;
        }
        self.e.b.ins().bitcast(ty, MemFlagsData::new().with_endianness(Endianness::Little), v)
    }

    fn splat(&mut self, c: f64, d: DType) -> Value {
        let c = self.e.constant(c, d);
        self.e.b.ins().splat(vector(d), c)
    }

    fn zero(&mut self, width: usize) -> Value {
        let zero = self.e.b.ins().iconst(lanes(width).lane_type(), 0);
        self.e.b.ins().splat(lanes(width), zero)
    }

    /// `mask ? a : b`, in the type of `a`.
    fn choose(&mut self, mask: Value, a: Value, b: Value) -> Value {
        let ty = self.e.b.func.dfg.value_type(a);
        let mask = self.view(mask, ty);
        self.e.b.ins().bitselect(mask, a, b)
    }

    fn keep(&mut self, key: (Id, Form, usize), make: impl FnOnce(&mut Self) -> Value) -> Value {
        if let Some(&v) = self.made.get(&key) {
            return v;
        }
        let v = make(self);
        self.made.insert(key, v);
        v
    }

    /// Vector `p` of what is stored.
    fn result(&mut self, id: Id, p: usize) -> Value {
        if self.dtype(id) != DType::Bool {
            return self.data(id, p);
        }
        let (mask, one) = (self.mask(id, 1, p), self.splat(1.0, DType::U8));
        self.e.b.ins().band(mask, one)
    }

    fn input(&mut self, n: usize, p: usize) -> Value {
        if let Some(v) = self.fixed[n] {
            return v;
        }
        let dtype = self.e.l.inputs[n].dtype;
        let row = self.e.rows[n];
        let at = self.e.address(row, self.i, size(dtype) as i64);
        crate::clif::vector_at(self.e.b, vector(dtype), MemFlagsData::new(), at, 16 * p as i32)
    }

    /// Vector `p` of a number.
    fn data(&mut self, id: Id, p: usize) -> Value {
        self.keep((id, Form::Own, p), |s| {
            let d = s.dtype(id);
            match s.e.l.dag.op(id) {
                Op::In(n) => s.input(n, p),
                Op::Const(bits) => s.splat(f64::from_bits(bits), d),
                Op::Unary(op, a) => {
                    let a = s.data(a, p);
                    s.unary(op, a, d)
                }
                Op::Binary(op, a, b) => {
                    let (a, b) = (s.data(a, p), s.data(b, p));
                    s.binary(op, a, b, d)
                }
                Op::Select(c, a, b) => {
                    let (c, a, b) = (s.mask(c, size(d), p), s.data(a, p), s.data(b, p));
                    s.choose(c, a, b)
                }
                Op::Cast(a) => s.cast(a, d, p),
            }
        })
    }

    fn unary(&mut self, op: Unary, a: Value, d: DType) -> Value {
        if op == Unary::Reciprocal {
            let one = self.splat(1.0, d);
            return self.e.b.ins().fdiv(one, a);
        }
        if op != Unary::Sign {
            return self.e.unary(op, a, d);
        }
        let [zero, one, minus] = [0.0, 1.0, -1.0].map(|c| self.splat(c, d));
        let up = self.e.b.ins().fcmp(FloatCC::GreaterThan, a, zero);
        let down = self.e.b.ins().fcmp(FloatCC::LessThan, a, zero);
        let low = self.choose(down, minus, zero);
        self.choose(up, one, low)
    }

    fn binary(&mut self, op: Binary, a: Value, b: Value, d: DType) -> Value {
        if !matches!(op, Binary::Min | Binary::Max) {
            return self.e.binary(op, a, b, d);
        }
        let cc = if op == Binary::Max { Binary::Gt } else { Binary::Lt };
        let take = self.e.binary(cc, a, b, d);
        let v = self.choose(take, a, b);
        if d.is_int() {
            return v;
        }
        let nan = self.e.b.ins().fcmp(FloatCC::NotEqual, a, a);
        self.choose(nan, a, v)
    }

    /// Mask `p` of a truth value in lanes of `width` bytes.
    fn mask(&mut self, id: Id, width: usize, p: usize) -> Value {
        self.keep((id, Form::Lanes(width), p), |s| {
            let natural = match s.e.l.dag.op(id) {
                Op::In(_) => 1,
                Op::Const(bits) => {
                    let all = if f64::from_bits(bits) != 0.0 { -1 } else { 0 };
                    let all = s.e.b.ins().iconst(types::I8, all & 0xff);
                    let all = s.e.b.ins().splat(types::I8X16, all);
                    return s.view(all, lanes(width));
                }
                Op::Unary(_, a) | Op::Binary(_, a, _) | Op::Cast(a) if s.dtype(a) != DType::Bool => {
                    size(s.dtype(a))
                }
                _ => width,
            };
            if natural < width {
                let v = s.mask(id, width / 2, p / 2);
                return s.widen(v, p % 2, true);
            }
            if natural > width {
                let (a, b) = (s.mask(id, 2 * width, 2 * p), s.mask(id, 2 * width, 2 * p + 1));
                return if width == 4 { s.truncate(a, b, 4) } else { s.e.b.ins().snarrow(a, b) };
            }
            s.truth(id, width, p)
        })
    }

    /// A mask in the lanes that give it.
    fn truth(&mut self, id: Id, width: usize, p: usize) -> Value {
        match self.e.l.dag.op(id) {
            Op::In(n) => {
                let (v, zero) = (self.input(n, p), self.zero(1));
                self.e.b.ins().icmp(IntCC::NotEqual, v, zero)
            }
            Op::Const(_) => self.zero(width),
            Op::Unary(op, a) => match self.dtype(a) {
                DType::Bool => {
                    let v = self.mask(a, width, p);
                    self.e.b.ins().bnot(v)
                }
                d => {
                    let v = self.data(a, p);
                    if op == Unary::IsNan {
                        return self.e.b.ins().fcmp(FloatCC::NotEqual, v, v);
                    }
                    let (v, inf) = (self.e.b.ins().fabs(v), self.splat(f64::INFINITY, d));
                    self.e.b.ins().fcmp(FloatCC::Equal, v, inf)
                }
            },
            Op::Binary(op, a, b) => match self.dtype(a) {
                DType::Bool => {
                    let (a, b) = (self.mask(a, width, p), self.mask(b, width, p));
                    match op {
                        Binary::And => self.e.b.ins().band(a, b),
                        Binary::Or => self.e.b.ins().bor(a, b),
                        Binary::Xor => self.e.b.ins().bxor(a, b),
                        _ => {
                            let x = self.e.b.ins().bxor(a, b);
                            self.e.b.ins().bnot(x)
                        }
                    }
                }
                d => {
                    let (a, b) = (self.data(a, p), self.data(b, p));
                    self.e.binary(op, a, b, d)
                }
            },
            Op::Select(c, a, b) => {
                let (c, a, b) = (self.mask(c, width, p), self.mask(a, width, p), self.mask(b, width, p));
                self.choose(c, a, b)
            }
            Op::Cast(a) => {
                let (v, d) = (self.data(a, p), self.dtype(a));
                let zero = self.splat(0.0, d);
                if d.is_int() {
                    self.e.b.ins().icmp(IntCC::NotEqual, v, zero)
                } else {
                    self.e.b.ins().fcmp(FloatCC::NotEqual, v, zero)
                }
            }
        }
    }

    /// One half of a vector in lanes twice as wide.
    fn widen(&mut self, v: Value, half: usize, signed: bool) -> Value {
        match (half, signed) {
            (0, true) => self.e.b.ins().swiden_low(v),
            (0, false) => self.e.b.ins().uwiden_low(v),
            (_, true) => self.e.b.ins().swiden_high(v),
            (_, false) => self.e.b.ins().uwiden_high(v),
        }
    }

    /// The low halves of the lanes of two vectors, `width` bytes each.
    fn truncate(&mut self, a: Value, b: Value, width: usize) -> Value {
        if width == 4 {
            let v = self.pick(a, b, |i| i / 4 * 8 + i % 4);
            return self.view(v, types::I32X4);
        }
        // What is left is positive and saturates nowhere.
        let low = self.e.b.ins().iconst(lanes(2 * width).lane_type(), (1 << (8 * width)) - 1);
        let low = self.e.b.ins().splat(lanes(2 * width), low);
        let (a, b) = (self.e.b.ins().band(a, low), self.e.b.ins().band(b, low));
        self.e.b.ins().unarrow(a, b)
    }

    /// The upper half of a float32 vector, as its lower one.
    fn upper(&mut self, v: Value) -> Value {
        let v = self.pick(v, v, |i| 8 + i % 8);
        self.view(v, types::F32X4)
    }

    /// The lower halves of two float32 vectors.
    fn lower(&mut self, a: Value, b: Value) -> Value {
        let v = self.pick(a, b, |i| i / 8 * 16 + i % 8);
        self.view(v, types::F32X4)
    }

    /// Bytes of two vectors, by number.
    fn pick(&mut self, a: Value, b: Value, which: impl Fn(usize) -> usize) -> Value {
        let (a, b) = (self.view(a, types::I8X16), self.view(b, types::I8X16));
        let bytes: [u8; 16] = std::array::from_fn(|i| which(i) as u8);
        let bytes = self.e.b.func.dfg.immediates.push(bytes[..].into());
        self.e.b.ins().shuffle(a, b, bytes)
    }

    /// Vector `p` of an integer in lanes of `width` bytes: extended as its type says, or modulo.
    fn integer(&mut self, id: Id, width: usize, p: usize) -> Value {
        let d = self.dtype(id);
        if size(d) == width {
            return self.data(id, p);
        }
        self.keep((id, Form::Lanes(width), p), |s| {
            if size(d) < width {
                let v = s.integer(id, width / 2, p / 2);
                return s.widen(v, p % 2, d.is_signed_int());
            }
            let (a, b) = (s.integer(id, 2 * width, 2 * p), s.integer(id, 2 * width, 2 * p + 1));
            s.truncate(a, b, width)
        })
    }

    /// Vector `p` of a float32 as integers of `width` bytes.
    fn truncated(&mut self, id: Id, width: usize, p: usize) -> Value {
        self.keep((id, Form::Truncated(width), p), |s| match width {
            4 => {
                let (v, far) = (s.data(id, p), s.splat(f64::from(FAR), DType::F32));
                let size = s.e.b.ins().fabs(v);
                let far = s.e.b.ins().fcmp(FloatCC::GreaterThanOrEqual, size, far);
                s.far.push(far);
                if !cfg!(target_arch = "x86_64") {
                    return s.e.b.ins().fcvt_to_sint_sat(types::I32X4, v);
                }
                // One instruction, which NaN alone has to be kept from.
                let number = s.e.b.ins().fcmp(FloatCC::Equal, v, v);
                let number = s.view(number, types::F32X4);
                let v = s.e.b.ins().band(v, number);
                s.e.b.ins().x86_cvtt2dq(types::I32X4, v)
            }
            8 => {
                let v = s.truncated(id, 4, p / 2);
                s.widen(v, p % 2, true)
            }
            _ => {
                let (a, b) = (s.truncated(id, 2 * width, 2 * p), s.truncated(id, 2 * width, 2 * p + 1));
                s.truncate(a, b, width)
            }
        })
    }

    fn cast(&mut self, a: Id, to: DType, p: usize) -> Value {
        match (self.dtype(a), to) {
            (DType::Bool, _) => {
                let (mask, one) = (self.mask(a, size(to), p), self.splat(1.0, to));
                let mask = self.view(mask, vector(to));
                self.e.b.ins().band(mask, one)
            }
            (DType::F32, DType::F64) => {
                let v = self.data(a, p / 2);
                let v = if p.is_multiple_of(2) { v } else { self.upper(v) };
                self.e.b.ins().fvpromote_low(v)
            }
            (DType::F64, _) => {
                let (a, b) = (self.data(a, 2 * p), self.data(a, 2 * p + 1));
                let (a, b) = (self.e.b.ins().fvdemote(a), self.e.b.ins().fvdemote(b));
                self.lower(a, b)
            }
            (DType::F32, _) => self.truncated(a, size(to), p),
            (from, DType::F32) => {
                let words = self.integer(a, 4, p);
                if from == DType::U32 {
                    let zero = self.zero(4);
                    let far = self.e.b.ins().icmp(IntCC::SignedLessThan, words, zero);
                    self.far.push(far);
                }
                if size(from) == 8 {
                    for half in 0..2 {
                        let (wide, again) = (self.data(a, 2 * p + half), self.widen(words, half, true));
                        let far = self.e.b.ins().bxor(wide, again);
                        let far = self.view(far, types::I32X4);
                        self.far.push(far);
                    }
                }
                self.e.b.ins().fcvt_from_sint(types::F32X4, words)
            }
            _ => self.integer(a, size(to), p),
        }
    }
}
