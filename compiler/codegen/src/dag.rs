//! Scalar expressions of a loop over any element types, as a graph with shared nodes.

use ir::{Binary, DType, Expr, Unary};
use std::collections::BTreeMap;

/// A node of a [`Dag`]; operands come before it.
pub type Id = usize;

/// One scalar operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Op {
    /// The element of the n-th input of the group.
    In(usize),
    /// A constant, as the bits of an f64.
    Const(u64),
    Unary(Unary, Id),
    Binary(Binary, Id, Id),
    Select(Id, Id, Id),
    Cast(Id),
}

impl Op {
    /// Nodes it reads.
    pub fn operands(&self) -> impl Iterator<Item = Id> {
        let list = match *self {
            Op::In(_) | Op::Const(_) => [None; 3],
            Op::Unary(_, a) | Op::Cast(a) => [Some(a), None, None],
            Op::Binary(_, a, b) => [Some(a), Some(b), None],
            Op::Select(c, a, b) => [Some(c), Some(a), Some(b)],
        };
        list.into_iter().flatten()
    }
}

/// Operations in order, each with the type of its result; equal ones are one node.
#[derive(Debug, Clone, Default)]
pub struct Dag {
    nodes: Vec<(Op, DType)>,
    seen: BTreeMap<(Op, i32), Id>,
}

impl Dag {
    pub fn push(&mut self, op: Op, dtype: DType) -> Id {
        let next = self.nodes.len();
        let id = *self.seen.entry((op, dtype.onnx())).or_insert(next);
        if id == next {
            self.nodes.push((op, dtype));
        }
        id
    }
    pub fn len(&self) -> usize {
        self.nodes.len()
    }
    pub fn op(&self, id: Id) -> Op {
        self.nodes[id].0
    }
    pub fn dtype(&self, id: Id) -> DType {
        self.nodes[id].1
    }
    /// Which nodes `root` depends on, itself included.
    pub fn reach(&self, root: Id) -> Vec<bool> {
        let mut live = vec![false; self.len()];
        live[root] = true;
        for id in (0..=root).rev() {
            if live[id] {
                self.op(id).operands().for_each(|o| live[o] = true);
            }
        }
        live
    }

    /// Adds `e` over nodes that stand for its inputs; `None` where it has no lowering in these types.
    pub fn add(&mut self, e: &Expr, inputs: &[Id], hint: Option<DType>) -> Option<Id> {
        match e {
            Expr::In(i) => inputs.get(*i).copied(),
            Expr::Const(c) => {
                let dtype = hint.or_else(|| inputs.first().map(|&i| self.dtype(i)))?;
                // The reference compares in int64: what the type does not hold would wrap here.
                if dtype.is_int() && (c.fract() != 0.0 || !holds(dtype, *c as i64)) {
                    return None;
                }
                Some(self.push(Op::Const(c.to_bits()), dtype))
            }
            Expr::Unary(op, a) => {
                let a = self.add(a, inputs, hint)?;
                let dtype = unary_type(*op, self.dtype(a))?;
                Some(self.push(Op::Unary(*op, a), dtype))
            }
            Expr::Binary(op, a, b) => {
                let (a, b) = self.pair(a, b, inputs, hint)?;
                let dtype = binary_type(*op, self.dtype(a))?;
                Some(self.push(Op::Binary(*op, a, b), dtype))
            }
            Expr::Select(c, a, b) => {
                let c = self.add(c, inputs, None)?;
                let (a, b) = self.pair(a, b, inputs, hint)?;
                (self.dtype(c) == DType::Bool && known(self.dtype(a)))
                    .then(|| self.push(Op::Select(c, a, b), self.dtype(a)))
            }
            Expr::Cast(to, a) => {
                let a = self.add(a, inputs, None)?;
                let from = self.dtype(a);
                if from == *to {
                    return Some(a);
                }
                (known(from) && known(*to)).then(|| self.push(Op::Cast(a), *to))
            }
        }
    }

    fn pair(&mut self, a: &Expr, b: &Expr, inputs: &[Id], hint: Option<DType>) -> Option<(Id, Id)> {
        let (x, y) = if is_constant(a) && !is_constant(b) {
            let y = self.add(b, inputs, hint)?;
            (self.add(a, inputs, Some(self.dtype(y)))?, y)
        } else {
            let x = self.add(a, inputs, hint)?;
            (x, self.add(b, inputs, Some(self.dtype(x)))?)
        };
        (self.dtype(x) == self.dtype(y)).then_some((x, y))
    }
}

fn is_constant(e: &Expr) -> bool {
    match e {
        Expr::In(_) | Expr::Cast(..) => false,
        Expr::Const(_) => true,
        Expr::Unary(_, a) => is_constant(a),
        Expr::Binary(_, a, b) | Expr::Select(_, a, b) => is_constant(a) && is_constant(b),
    }
}

/// Element types generated code computes in.
pub fn known(d: DType) -> bool {
    use DType::*;
    matches!(d, F32 | F64 | I8 | I16 | I32 | I64 | U8 | U16 | U32 | Bool)
}

/// Whether an integer type holds the constant; other types do as they round.
fn holds(d: DType, c: i64) -> bool {
    match d {
        DType::I8 => i8::try_from(c).is_ok(),
        DType::I16 => i16::try_from(c).is_ok(),
        DType::I32 => i32::try_from(c).is_ok(),
        DType::U8 => u8::try_from(c).is_ok(),
        DType::U16 => u16::try_from(c).is_ok(),
        DType::U32 => u32::try_from(c).is_ok(),
        _ => true,
    }
}

fn float(d: DType) -> bool {
    matches!(d, DType::F32 | DType::F64)
}

fn unary_type(op: Unary, d: DType) -> Option<DType> {
    use Unary::*;
    let ok = known(d)
        && match op {
            Neg | Abs => d != DType::Bool,
            Sign | Floor | Ceil | Round | Sqrt | Reciprocal => float(d),
            Exp | Log | Sin | Cos | Tan | Sinh | Cosh | Tanh | Erf | Sigmoid => false,
            Asin | Acos | Atan | Asinh | Acosh | Atanh => false,
            Not => d == DType::Bool,
            BitNot => d.is_int(),
            IsNan | IsInf => float(d),
        };
    ok.then_some(if matches!(op, IsNan | IsInf) { DType::Bool } else { d })
}

fn binary_type(op: Binary, d: DType) -> Option<DType> {
    use Binary::*;
    let ok = known(d)
        && match op {
            Add | Sub | Mul | Div => d != DType::Bool,
            Min | Max => d != DType::Bool,
            Rem | Mod => d.is_int(),
            Pow | Shl | Shr => false,
            Eq => true,
            Lt | Le | Gt | Ge => d != DType::Bool,
            And | Or | Xor => d == DType::Bool,
            BitAnd | BitOr | BitXor => d.is_int(),
        };
    ok.then_some(if matches!(op, Eq | Lt | Le | Gt | Ge) { DType::Bool } else { d })
}
