//! Rows of a table: products with one-hot rows are lookups, and what is done to every element looked up is done to the table.

use crate::rule::{Cx, Rule, every};
use egg::Id;
use ir::{Attrs, DType, Tensor};

macro_rules! into_table_unary {
    ($($op:literal),*) => { [$(Rule::build(
        concat!("move-", $op, "-into-table"),
        concat!("(", $op, " ?a (Gather ?g ?t ?i))"),
        |cx| {
            let (t, i) = lookup(cx, "?t", "?g")?;
            let table = cx.op($op, cx.attrs("?a")?, &[t])?;
            rows(cx, table, i)
        },
    )
    .runtime()),*] };
}

macro_rules! into_table_binary {
    ($($op:literal),*) => { [$([
        Rule::build(concat!("move-constant-", $op, "-into-table"), concat!("(", $op, " ?a (Gather ?g ?t ?i) ?c)"), |cx| {
            let ((t, i), c) = (lookup(cx, "?t", "?g")?, row(cx)?);
            let table = cx.op($op, Attrs::new(), &[t, c])?;
            rows(cx, table, i)
        })
        .runtime(),
        Rule::build(
            concat!("move-", $op, "-of-lookups-into-table"),
            concat!("(", $op, " ?a (Gather ?g ?t ?i) (Gather ?h ?u ?i))"),
            |cx| {
                let ((t, i), (u, _)) = (lookup(cx, "?t", "?g")?, lookup(cx, "?u", "?h")?);
                if cx.shape(t)? != cx.shape(u)? {
                    return None;
                }
                let table = cx.op($op, Attrs::new(), &[t, u])?;
                rows(cx, table, i)
            },
        )
        .runtime(),
    ]),*] };
}

/// Element-wise operators of one input.
pub static UNARY: &[Rule] = &into_table_unary!(
    "Relu",
    "Sigmoid",
    "Tanh",
    "Erf",
    "Exp",
    "Sqrt",
    "Neg",
    "Abs",
    "HardSwish",
    "HardSigmoid",
    "LeakyRelu",
    "Elu",
    "Gelu",
    "Softplus",
    "Swish"
);

/// Element-wise operators of two inputs; sums and products come with constants on both sides.
pub static BINARY: [[Rule; 2]; 4] = into_table_binary!("Add", "Mul", "Sub", "Div");

pub static RULES: &[Rule] =
    &[Rule::build("one-hot-product-to-lookup", "(MatMul ?a ?h ?w)", one_hot_product).runtime()];

/// A constant table whose rows are looked up along its first axis, if computing it takes no more than computing the result.
fn lookup(cx: &Cx, table: &str, attrs: &str) -> Option<(Id, Id)> {
    let (t, i) = (cx.id(table)?, cx.id("?i")?);
    let first = cx.attrs(attrs)?.int_or("axis", 0).ok()? == 0;
    let elements = |id| ir::budget::elements(&cx.shape(id)?).ok();
    let less = elements(t)? <= elements(cx.class())?;
    let float = cx.dtype(t)?.is_float() && cx.dtype(t) == cx.dtype(cx.class());
    (first && cx.constant(t) && !cx.constant(i) && less && float).then_some((t, i))
}

/// The constant as what it is for every row.
fn row(cx: &mut Cx) -> Option<Id> {
    let (c, t, class) = (cx.id("?c")?, cx.id("?t")?, cx.class());
    let (shape, table) = (cx.shape(c)?, cx.shape(t)?);
    let inner = table.len().checked_sub(1)?;
    let (outer, own) = shape.split_at(shape.len().saturating_sub(inner));
    let narrow = shape.len() <= cx.rank(class)? && outer.iter().all(|&d| d == 1);
    let fits = own.iter().rev().zip(table.iter().rev()).all(|(&d, &n)| d == 1 || d == n);
    if !cx.constant(c) || !narrow || !fits || own.contains(&0) {
        return None;
    }
    if outer.is_empty() {
        return Some(c);
    }
    let own: Vec<i64> = own.iter().map(|&d| d as i64).collect();
    let own = cx.int_vector(&own);
    cx.op("Reshape", Attrs::new(), &[c, own])
}

fn rows(cx: &mut Cx, table: Id, i: Id) -> Option<Id> {
    cx.op("Gather", Attrs::new(), &[table, i])
}

/// What is compared with 0, 1, 2, … along a new last axis.
struct OneHot {
    /// Integers, with a last dim of 1.
    index: Id,
    /// The first of the consecutive integers.
    first: i64,
}

impl OneHot {
    fn of(cx: &Cx, h: Id) -> Option<OneHot> {
        let rank = cx.rank(h)?;
        let casts: Vec<_> = cx.nodes(h, "Cast").collect();
        casts.into_iter().find_map(|(_, inputs)| {
            let (_, sides) = cx.find(*inputs.first()?, "Equal")?;
            let &[x, y] = &sides[..] else { return None };
            OneHot::compared(cx, x, y, rank).or_else(|| OneHot::compared(cx, y, x, rank))
        })
    }

    fn compared(cx: &Cx, index: Id, counts: Id, rank: usize) -> Option<OneHot> {
        let integer = matches!(cx.dtype(index)?, DType::I32 | DType::I64);
        let column = cx.rank(index)? == rank && cx.shape(index)?.last() == Some(&1);
        let (n, shape) = (cx.ints(counts)?, cx.shape(counts)?);
        let &first = n.first()?;
        // So that one past either end is a number too.
        let small = first.unsigned_abs() < 1 << 30 && n.len() < 1 << 30;
        let consecutive = small && n.iter().zip(first..).all(|(&a, b)| a == b);
        let along_last = shape.last() == Some(&n.len());
        let variable = !cx.constant(index);
        (integer && column && consecutive && along_last && variable).then_some(OneHot { index, first })
    }
}

/// Levels of an expression looked through.
const EXPRESSION: usize = 8;

/// A bound on the elements of a constant, which may be an expression that decodes it; `None` where there is none.
fn largest(cx: &Cx, id: Id, levels: usize) -> Option<f64> {
    if let Some(t) = cx.value(id) {
        let mut most = 0f64;
        let finite = every(&t, |v| {
            most = most.max(v.abs());
            v.is_finite()
        });
        return finite.then_some(most);
    }
    let levels = levels.checked_sub(1)?;
    let of = |id: Option<&Id>| largest(cx, *id?, levels);
    if let Some((_, i)) = cx.find(id, "DequantizeLinear") {
        // A value less its zero point.
        let zero = i.get(2).filter(|z| !cx.absent(**z)).map_or(Some(0.0), |z| of(Some(z)))?;
        return Some((of(i.first())? + zero) * of(i.get(1))?);
    }
    if let Some((_, i)) = cx.find(id, "Mul") {
        return Some(of(i.first())? * of(i.get(1))?);
    }
    if let Some((_, i)) = cx.find(id, "Add").or_else(|| cx.find(id, "Sub")) {
        return Some(of(i.first())? + of(i.get(1))?);
    }
    let moved = ["Reshape", "Transpose", "Gather", "Slice", "Squeeze", "Unsqueeze", "Cast"];
    moved.iter().find_map(|op| of(cx.find(id, op)?.1.first()))
}

/// Each row of the product is the row of the weight that the index names, zeros where it names none. That is one more row at
/// the end of the table, where −1 finds it too.
fn one_hot_product(cx: &mut Cx) -> Option<Id> {
    let (h, w) = (cx.id("?h")?, cx.id("?w")?);
    let &[n, columns] = &cx.shape(w)?[..] else { return None };
    if !cx.constant(w) || cx.constant(h) || n == 0 || columns == 0 {
        return None;
    }
    let OneHot { index, first } = OneHot::of(cx, h)?;
    let float = cx.dtype(w)?;
    // 0 · ∞ is not a number.
    if !float.is_float() || cx.dtype(h)? != float || largest(cx, w, EXPRESSION)? > 1e30 {
        return None;
    }
    let zeros = cx.tensor(Tensor::from_f32s(float, &[1, columns], vec![0.0; columns]).ok()?);
    let table = cx.op("Concat", Attrs::new().with("axis", 0), &[w, zeros])?;
    let integer = cx.dtype(index)?;
    let mut bound = |v: i64| Some(cx.tensor(Tensor::from_i64s(integer, &[], vec![v]).ok()?));
    let (below, above, first_one) = (bound(first - 1)?, bound(first + n as i64)?, bound(first)?);
    let mut i = cx.op("Clip", Attrs::new(), &[index, below, above])?;
    if first != 0 {
        i = cx.op("Sub", Attrs::new(), &[i, first_one])?;
    }
    let last = cx.int_vector(&[-1]);
    let i = cx.op("Squeeze", Attrs::new(), &[i, last])?;
    rows(cx, table, i)
}
