//! Loops over any element types: integers, booleans, doubles, and conversions between them.

mod vectors;

use crate::dag::{Dag, Id, Op};
use cranelift::codegen::ir::MemFlagsData;
use cranelift::prelude::*;
use ir::{Binary, DType, Unary};

/// One operand: its strides in elements over the collapsed dims.
#[derive(Debug, Clone, PartialEq)]
pub struct Operand {
    pub dtype: DType,
    pub strides: Vec<usize>,
}

/// A loop before it has code.
#[derive(Debug, Clone)]
pub struct Loop {
    pub dag: Dag,
    pub root: Id,
    pub inputs: Vec<Operand>,
    pub output: Operand,
    /// Collapsed dims of the result, at least one; the last is the inner loop.
    pub dims: Vec<usize>,
}

impl Loop {
    /// Units that `begin` and `end` count: elements of a single dim, else rows.
    pub fn units(&self) -> usize {
        if self.dims.len() == 1 { self.dims[0] } else { self.dims[..self.dims.len() - 1].iter().product() }
    }

    /// What it computes.
    #[cfg(feature = "counted")]
    fn text(&self) -> String {
        let nodes = (0..self.dag.len()).map(|id| format!("{:?} {} ", self.dag.op(id), self.dag.dtype(id)));
        nodes.collect()
    }
}

struct Emit<'a, 'b> {
    l: &'a Loop,
    b: &'a mut FunctionBuilder<'b>,
    /// Address of each input's element 0 of the row.
    rows: Vec<Value>,
    out: Value,
}

/// Emits the function of a loop.
pub fn emit_typed(b: &mut FunctionBuilder, l: &Loop) {
    let entry = b.create_block();
    b.append_block_params_for_function_params(entry);
    b.switch_to_block(entry);
    let [ptrs, begin, end] = *b.block_params(entry) else { return };
    let base = |b: &mut FunctionBuilder, k: usize| {
        b.ins().load(types::I64, MemFlagsData::trusted(), ptrs, (k * 8) as i32)
    };
    let inputs: Vec<Value> = (0..l.inputs.len()).map(|k| base(b, k)).collect();
    let output = base(b, l.inputs.len());
    let mut e = Emit { l, b, rows: inputs.clone(), out: output };
    if l.dims.len() == 1 {
        e.row(begin, end);
    } else {
        let inner = *l.dims.last().unwrap_or(&1);
        e.each(begin, end, |e, row| {
            e.place(row, &inputs, output);
            let (zero, n) = (e.b.ins().iconst(types::I64, 0), e.b.ins().iconst(types::I64, inner as i64));
            e.row(zero, n);
        });
    }
    e.b.ins().return_(&[]);
    e.b.seal_all_blocks();
}

impl Emit<'_, '_> {
    /// `for i in begin..end { f(i) }`.
    fn each(&mut self, begin: Value, end: Value, f: impl FnOnce(&mut Self, Value)) {
        let (head, body, done) = (self.b.create_block(), self.b.create_block(), self.b.create_block());
        let i = self.b.append_block_param(head, types::I64);
        self.b.ins().jump(head, &[begin.into()]);
        self.b.switch_to_block(head);
        let more = self.b.ins().icmp(IntCC::SignedLessThan, i, end);
        self.b.ins().brif(more, body, &[], done, &[]);
        self.b.switch_to_block(body);
        f(self, i);
        let next = self.b.ins().iadd_imm_s(i, 1);
        self.b.ins().jump(head, &[next.into()]);
        self.b.switch_to_block(done);
    }

    /// Sets the row pointers for row number `row`.
    fn place(&mut self, row: Value, inputs: &[Value], output: Value) {
        let l = self.l;
        let outer = l.dims.len() - 1;
        let (mut rest, mut index) = (row, vec![row; outer]);
        for d in (0..outer).rev() {
            if d == 0 {
                index[0] = rest;
            } else {
                let n = self.b.ins().iconst(types::I64, l.dims[d] as i64);
                index[d] = self.b.ins().urem(rest, n);
                rest = self.b.ins().udiv(rest, n);
            }
        }
        let mut at = |base: Value, o: &Operand| {
            let size = (o.dtype.bits() / 8) as i64;
            (0..outer).filter(|&d| o.strides[d] != 0).fold(base, |p, d| {
                let step = self.b.ins().imul_imm_s(index[d], o.strides[d] as i64 * size);
                self.b.ins().iadd(p, step)
            })
        };
        let rows = inputs.iter().zip(&l.inputs).map(|(&p, o)| at(p, o)).collect();
        self.out = at(output, &l.output);
        self.rows = rows;
    }

    fn row(&mut self, begin: Value, end: Value) {
        if vectors::take(self.l) { self.blocks(begin, end) } else { self.each(begin, end, Self::element) }
    }

    fn element(&mut self, i: Value) {
        #[cfg(feature = "counted")]
        super::count::block(self.b, &self.l.text(), self.l.dims.len().min(4) as u64);
        let v = self.value(self.l.root, i);
        self.store(self.out, i, v);
    }

    fn address(&mut self, base: Value, i: Value, size: i64) -> Value {
        let offset = self.b.ins().imul_imm_s(i, size);
        self.b.ins().iadd(base, offset)
    }

    fn store(&mut self, to: Value, i: Value, v: Value) {
        let size = (self.l.output.dtype.bits() / 8) as i64;
        let at = self.address(to, i, size);
        self.b.ins().store(MemFlagsData::new(), v, at, 0);
    }

    /// The value of `id` for element `i` of the row.
    fn value(&mut self, id: Id, i: Value) -> Value {
        let needed = self.l.dag.reach(id);
        let mut values: Vec<Option<Value>> = vec![None; id + 1];
        for n in (0..=id).filter(|&n| needed[n]) {
            values[n] = Some(self.node(n, i, &values));
        }
        values[id].unwrap_or(i)
    }

    fn node(&mut self, id: Id, i: Value, values: &[Option<Value>]) -> Value {
        let get = |id: Id| values[id].unwrap_or(i);
        let dtype = self.l.dag.dtype(id);
        match self.l.dag.op(id) {
            Op::In(n) => self.input(n, i),
            Op::Const(bits) => self.constant(f64::from_bits(bits), dtype),
            Op::Unary(op, a) => self.unary(op, get(a), self.l.dag.dtype(a)),
            Op::Binary(op, a, b) => self.binary(op, get(a), get(b), self.l.dag.dtype(a)),
            Op::Select(c, a, b) => self.b.ins().select(get(c), get(a), get(b)),
            Op::Cast(a) => self.cast(get(a), self.l.dag.dtype(a), dtype),
        }
    }

    fn input(&mut self, n: usize, i: Value) -> Value {
        let o = &self.l.inputs[n];
        let (moves, dtype) = (o.strides.last() != Some(&0), o.dtype);
        let row = self.rows[n];
        let at = if moves { self.address(row, i, (dtype.bits() / 8) as i64) } else { row };
        let v = self.b.ins().load(scalar(dtype), MemFlagsData::new(), at, 0);
        if dtype == DType::Bool { self.b.ins().icmp_imm_u(IntCC::NotEqual, v, 0) } else { v }
    }

    fn constant(&mut self, c: f64, dtype: DType) -> Value {
        match dtype {
            DType::F32 => self.b.ins().f32const(c as f32),
            DType::F64 => self.b.ins().f64const(c),
            DType::Bool => self.b.ins().iconst(types::I8, i64::from(c != 0.0)),
            d => self.b.ins().iconst(scalar(d), mask_to(d, c as i64)),
        }
    }

    fn unary(&mut self, op: Unary, a: Value, d: DType) -> Value {
        use Unary::*;
        if d.is_int() {
            return match op {
                Neg => self.b.ins().ineg(a),
                Abs if d.is_signed_int() => self.b.ins().iabs(a),
                BitNot => self.b.ins().bnot(a),
                _ => a,
            };
        }
        match op {
            Neg => self.b.ins().fneg(a),
            Abs => self.b.ins().fabs(a),
            Floor => self.b.ins().floor(a),
            Ceil => self.b.ins().ceil(a),
            Round => self.b.ins().nearest(a),
            Sqrt => self.b.ins().sqrt(a),
            Reciprocal => {
                let one = self.constant(1.0, d);
                self.b.ins().fdiv(one, a)
            }
            Sign => {
                let (zero, one, minus) =
                    (self.constant(0.0, d), self.constant(1.0, d), self.constant(-1.0, d));
                let up = self.b.ins().fcmp(FloatCC::GreaterThan, a, zero);
                let down = self.b.ins().fcmp(FloatCC::LessThan, a, zero);
                let low = self.b.ins().select(down, minus, a);
                self.b.ins().select(up, one, low)
            }
            IsNan => self.b.ins().fcmp(FloatCC::NotEqual, a, a),
            IsInf => {
                let (x, inf) = (self.b.ins().fabs(a), self.constant(f64::INFINITY, d));
                self.b.ins().fcmp(FloatCC::Equal, x, inf)
            }
            _ => self.b.ins().bxor_imm_u(a, 1),
        }
    }

    fn binary(&mut self, op: Binary, a: Value, b: Value, d: DType) -> Value {
        use Binary::*;
        match op {
            And | BitAnd => return self.b.ins().band(a, b),
            Or | BitOr => return self.b.ins().bor(a, b),
            Xor | BitXor => return self.b.ins().bxor(a, b),
            _ => {}
        }
        if d == DType::Bool {
            let x = self.b.ins().bxor(a, b);
            return self.b.ins().bxor_imm_u(x, 1);
        }
        if d.is_int() {
            return self.integer(op, a, b, d);
        }
        match op {
            Add => self.b.ins().fadd(a, b),
            Sub => self.b.ins().fsub(a, b),
            Mul => self.b.ins().fmul(a, b),
            Div => self.b.ins().fdiv(a, b),
            // One compare-and-select, which drops a NaN in `a`; the second select puts it back.
            Min | Max => {
                let cc = if op == Max { FloatCC::GreaterThan } else { FloatCC::LessThan };
                let take = self.b.ins().fcmp(cc, a, b);
                let v = self.b.ins().select(take, a, b);
                let nan = self.b.ins().fcmp(FloatCC::NotEqual, a, a);
                self.b.ins().select(nan, a, v)
            }
            Eq => self.b.ins().fcmp(FloatCC::Equal, a, b),
            Lt => self.b.ins().fcmp(FloatCC::LessThan, a, b),
            Le => self.b.ins().fcmp(FloatCC::LessThanOrEqual, a, b),
            Gt => self.b.ins().fcmp(FloatCC::GreaterThan, a, b),
            _ => self.b.ins().fcmp(FloatCC::GreaterThanOrEqual, a, b),
        }
    }

    fn integer(&mut self, op: Binary, a: Value, b: Value, d: DType) -> Value {
        use Binary::*;
        let signed = d.is_signed_int();
        let pick = |s, u| if signed { s } else { u };
        match op {
            Add => self.b.ins().iadd(a, b),
            Sub => self.b.ins().isub(a, b),
            Mul => self.b.ins().imul(a, b),
            Div => self.divide(a, b, d),
            Rem | Mod => self.remainder(op == Mod, a, b, d),
            Min if signed => self.b.ins().smin(a, b),
            Min => self.b.ins().umin(a, b),
            Max if signed => self.b.ins().smax(a, b),
            Max => self.b.ins().umax(a, b),
            Eq => self.b.ins().icmp(IntCC::Equal, a, b),
            Lt => self.b.ins().icmp(pick(IntCC::SignedLessThan, IntCC::UnsignedLessThan), a, b),
            Le => self.b.ins().icmp(pick(IntCC::SignedLessThanOrEqual, IntCC::UnsignedLessThanOrEqual), a, b),
            Gt => self.b.ins().icmp(pick(IntCC::SignedGreaterThan, IntCC::UnsignedGreaterThan), a, b),
            _ => self.b.ins().icmp(
                pick(IntCC::SignedGreaterThanOrEqual, IntCC::UnsignedGreaterThanOrEqual),
                a,
                b,
            ),
        }
    }

    /// Division that cannot trap: by zero it gives zero, the smallest number by −1 wraps.
    fn divide(&mut self, a: Value, b: Value, d: DType) -> Value {
        let ty = scalar(d);
        let (zero, one) = (self.b.ins().iconst(ty, 0), self.b.ins().iconst(ty, 1));
        let by_zero = self.b.ins().icmp(IntCC::Equal, b, zero);
        let safe = self.b.ins().select(by_zero, one, b);
        if !d.is_signed_int() {
            let q = self.b.ins().udiv(a, safe);
            return self.b.ins().select(by_zero, zero, q);
        }
        let by_minus = self.b.ins().icmp_imm_s(IntCC::Equal, b, -1);
        let safe = self.b.ins().select(by_minus, one, safe);
        let q = self.b.ins().sdiv(a, safe);
        let negated = self.b.ins().ineg(a);
        let q = self.b.ins().select(by_minus, negated, q);
        self.b.ins().select(by_zero, zero, q)
    }

    /// The remainder, of the sign of `a` or, if `floor`, of `b`; by zero it gives zero.
    fn remainder(&mut self, floor: bool, a: Value, b: Value, d: DType) -> Value {
        let ty = scalar(d);
        let (zero, one) = (self.b.ins().iconst(ty, 0), self.b.ins().iconst(ty, 1));
        // Nothing remains of a division by one, as it shall be by zero and is by −1.
        let by_zero = self.b.ins().icmp(IntCC::Equal, b, zero);
        let safe = self.b.ins().select(by_zero, one, b);
        if !d.is_signed_int() {
            return self.b.ins().urem(a, safe);
        }
        let by_minus = self.b.ins().icmp_imm_s(IntCC::Equal, b, -1);
        let safe = self.b.ins().select(by_minus, one, safe);
        let r = self.b.ins().srem(a, safe);
        if !floor {
            return r;
        }
        let there = self.b.ins().icmp(IntCC::NotEqual, r, zero);
        let signs = self.b.ins().bxor(r, b);
        let apart = self.b.ins().icmp(IntCC::SignedLessThan, signs, zero);
        let wraps = self.b.ins().band(there, apart);
        let turned = self.b.ins().iadd(r, b);
        self.b.ins().select(wraps, turned, r)
    }

    /// One element; the way goes through the widest type of the kind, as the reference does.
    fn cast(&mut self, v: Value, from: DType, to: DType) -> Value {
        let wide_int = |e: &mut Self, v: Value| match scalar(from) {
            types::I64 => v,
            _ if from.is_signed_int() => e.b.ins().sextend(types::I64, v),
            _ => e.b.ins().uextend(types::I64, v),
        };
        let integral = from.is_int() || from == DType::Bool;
        match (from, to) {
            (_, DType::Bool) if integral => self.b.ins().icmp_imm_u(IntCC::NotEqual, v, 0),
            (_, DType::Bool) => {
                let zero = self.constant(0.0, from);
                self.b.ins().fcmp(FloatCC::NotEqual, v, zero)
            }
            (_, t) if integral && t.is_int() => {
                let x = wide_int(self, v);
                self.narrow(x, t)
            }
            (_, t) if integral => {
                let x = wide_int(self, v);
                let x = self.b.ins().fcvt_from_sint(types::F64, x);
                if t == DType::F32 { self.b.ins().fdemote(types::F32, x) } else { x }
            }
            (DType::F32, DType::F64) => self.b.ins().fpromote(types::F64, v),
            (DType::F64, DType::F32) => self.b.ins().fdemote(types::F32, v),
            (_, t) => {
                let x = self.b.ins().fcvt_to_sint_sat(types::I64, v);
                self.narrow(x, t)
            }
        }
    }

    fn narrow(&mut self, x: Value, to: DType) -> Value {
        let ty = scalar(to);
        if ty == types::I64 { x } else { self.b.ins().ireduce(ty, x) }
    }
}

fn mask_to(d: DType, x: i64) -> i64 {
    let bits = d.bits();
    if bits >= 64 { x } else { x & ((1i64 << bits) - 1) }
}

fn scalar(d: DType) -> Type {
    match d {
        DType::F32 => types::F32,
        DType::F64 => types::F64,
        DType::I64 | DType::U64 => types::I64,
        DType::I32 | DType::U32 => types::I32,
        DType::I16 | DType::U16 => types::I16,
        _ => types::I8,
    }
}
