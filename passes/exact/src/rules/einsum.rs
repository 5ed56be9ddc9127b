//! Einsum as what it is made of: transposes, reshapes and one matrix product, which have kernels, rules and methods.

use crate::rule::{Cx, Rule};
use egg::Id;
use ir::{Attrs, DType, Dim};
use ops::einsum::{Equation, Label};

pub static RULES: &[Rule] = &[
    Rule::build("expand-einsum-of-one", "(Einsum ?a ?x)", of_one),
    Rule::build("expand-einsum-of-two", "(Einsum ?a ?x ?y)", of_two),
];

/// An operand and what its dims are called.
struct Operand {
    id: Id,
    labels: Vec<Label>,
    dims: Vec<Dim>,
}

impl Operand {
    fn dim(&self, l: Label) -> Option<&Dim> {
        self.dims.get(self.labels.iter().position(|&m| m == l)?)
    }
    fn has(&self, l: Label) -> bool {
        self.labels.contains(&l)
    }
    /// With its dims in another order.
    fn ordered(&self, cx: &mut Cx, order: &[Label]) -> Option<Id> {
        permuted(cx, self.id, &self.labels, order)
    }
    /// Product of sizes, none of which is 0.
    fn size(&self, labels: &[Label]) -> Option<usize> {
        let mut sizes = labels.iter().map(|&l| self.dim(l)?.known().filter(|&n| n > 0));
        sizes.try_fold(1usize, |product, n| product.checked_mul(n?))
    }
}

/// Operands without diagonals, and the labels of the result.
fn parsed<const N: usize>(cx: &Cx, vars: [&str; N]) -> Option<([Operand; N], Vec<Label>)> {
    let attrs = cx.attrs("?a")?;
    let operand = |v: &str| {
        let id = cx.id(v)?;
        Some(Operand { id, labels: Vec::new(), dims: cx.ty(id)?.shape()?.to_vec() })
    };
    let operands: Option<Vec<Operand>> = vars.into_iter().map(operand).collect();
    let mut operands: [Operand; N] = operands?.try_into().ok()?;
    let ranks: Vec<usize> = operands.iter().map(|o| o.dims.len()).collect();
    let equation = Equation::parse(attrs.str("equation").ok()??, &ranks).ok()?;
    for (o, labels) in operands.iter_mut().zip(equation.inputs) {
        if labels.iter().enumerate().any(|(i, l)| labels[..i].contains(l)) {
            return None;
        }
        o.labels = labels;
    }
    Some((operands, equation.output))
}

fn permuted(cx: &mut Cx, id: Id, from: &[Label], to: &[Label]) -> Option<Id> {
    let perm = to.iter().map(|l| from.iter().position(|m| m == l).map(|i| i as i64));
    let perm: Vec<i64> = perm.collect::<Option<_>>()?;
    if perm.is_sorted() { Some(id) } else { cx.op("Transpose", Attrs::new().with("perm", perm), &[id]) }
}

/// Dims that the result does not name are summed, the others put into its order.
fn of_one(cx: &mut Cx) -> Option<Id> {
    let ([x], output) = parsed(cx, ["?x"])?;
    let (kept, summed): (Vec<Label>, Vec<Label>) = x.labels.iter().partition(|l| output.contains(l));
    let mut id = x.id;
    if !summed.is_empty() {
        let axes: Vec<i64> =
            (0..).zip(&x.labels).filter(|(_, l)| summed.contains(l)).map(|(i, _)| i).collect();
        let axes = cx.int_vector(&axes);
        id = cx.op("ReduceSum", Attrs::new().with("keepdims", 0), &[id, axes])?;
    }
    permuted(cx, id, &kept, &output)
}

/// Labels of both operands and the result are a batch, labels of both only are summed.
fn of_two(cx: &mut Cx) -> Option<Id> {
    let ([mut a, mut b], output) = parsed(cx, ["?x", "?y"])?;
    use DType::{BF16, F16, F32, F64, I32, I64, U32, U64};
    if !matches!(cx.dtype(a.id)?, F16 | BF16 | F32 | F64 | I32 | I64 | U32 | U64) {
        return None;
    }
    let both = |l: &Label| a.has(*l) && b.has(*l);
    // One of both operands' sizes may be 1 and stand for any: that is no batch of a matrix product.
    let agree = |&l: &Label| a.dim(l) == b.dim(l) && a.dim(l) != Some(&Dim::Unknown);
    let batch: Vec<Label> = output.iter().copied().filter(both).collect();
    let inner: Vec<Label> = a.labels.iter().copied().filter(|l| both(l) && !output.contains(l)).collect();
    let alone = |o: &Operand| o.labels.iter().any(|l| !both(l) && !output.contains(l));
    if alone(&a) || alone(&b) || !batch.iter().chain(&inner).all(agree) {
        return None;
    }
    if output.iter().find(|l| !both(l)).is_some_and(|&l| b.has(l)) {
        std::mem::swap(&mut a, &mut b);
    }
    let outer = |o: &Operand| -> Vec<Label> {
        output.iter().copied().filter(|&l| o.has(l) && !batch.contains(&l)).collect()
    };
    let (rows, columns) = (outer(&a), outer(&b));
    if rows.is_empty() && columns.is_empty() {
        return dot(cx, &a, &b, &batch, &inner);
    }
    let plain = [&rows, &columns, &inner].iter().all(|group| group.len() == 1);
    let mut left = a.ordered(cx, &[&batch[..], &rows, &inner].concat())?;
    let mut right = b.ordered(cx, &[&batch[..], &inner, &columns].concat())?;
    let joined = [&batch[..], &rows, &columns].concat();
    if plain {
        let y = cx.op("MatMul", Attrs::new(), &[left, right])?;
        return permuted(cx, y, &joined, &output);
    }
    let sizes = |labels: &[Label], o: &Operand| -> Option<Vec<i64>> {
        labels.iter().map(|l| o.size(&[*l]).map(|n| n as i64)).collect()
    };
    let (lead, tall, wide) = (sizes(&batch, &a)?, sizes(&rows, &a)?, sizes(&columns, &b)?);
    if inner.is_empty() {
        left = reshaped(cx, left, &[&lead[..], &tall, &vec![1; wide.len()]].concat())?;
        right = reshaped(cx, right, &[&lead[..], &vec![1; tall.len()], &wide].concat())?;
        let y = cx.op("Mul", Attrs::new(), &[left, right])?;
        return permuted(cx, y, &joined, &output);
    }
    let (m, n, k) = (a.size(&rows)? as i64, b.size(&columns)? as i64, a.size(&inner)? as i64);
    let apart = [&lead[..], &tall, &wide].concat();
    left = reshaped(cx, left, &[&lead[..], &[m, k]].concat())?;
    right = reshaped(cx, right, &[&lead[..], &[k, n]].concat())?;
    let y = cx.op("MatMul", Attrs::new(), &[left, right])?;
    let y = reshaped(cx, y, &apart)?;
    permuted(cx, y, &joined, &output)
}

/// Sums of products of neighbours; `batch` is in the order of the result.
fn dot(cx: &mut Cx, a: &Operand, b: &Operand, batch: &[Label], inner: &[Label]) -> Option<Id> {
    let order = [batch, inner].concat();
    let (a, b) = (a.ordered(cx, &order)?, b.ordered(cx, &order)?);
    let y = cx.op("Mul", Attrs::new(), &[a, b])?;
    if inner.is_empty() {
        return Some(y);
    }
    let axes: Vec<i64> = (batch.len() as i64..order.len() as i64).collect();
    let axes = cx.int_vector(&axes);
    cx.op("ReduceSum", Attrs::new().with("keepdims", 0), &[y, axes])
}

fn reshaped(cx: &mut Cx, id: Id, to: &[i64]) -> Option<Id> {
    let now = cx.shape(id)?;
    if now.iter().map(|&d| d as i64).eq(to.iter().copied()) {
        return Some(id);
    }
    let to = cx.int_vector(to);
    cx.op("Reshape", Attrs::new(), &[id, to])
}
