//! Sequences and optionals: values that hold values.

use crate::broadcast::axis;
use crate::concat::{concat, stack};
use crate::gather::wrap_index;
use crate::slice::section;
use crate::typing::tensor_type;
use crate::{Op, schema};
use ir::{
    Accuracy, Attr, Attrs, DType, Dim, Error, EvalCx, InferCx, Kind, Operator, Result, Tensor, Value,
    ValueType, budget,
};

macro_rules! row {
    ($name:literal, $sig:ident, $infer:expr, $eval:expr) => {
        Op::new($name, &schema::$sig, $infer, $eval).accuracy(Accuracy::Exact)
    };
}

pub static OPERATORS: &[&dyn Operator] = &[
    &row!("SequenceConstruct", SEQUENCE_CONSTRUCT, infer_construct, eval_construct),
    &row!("SequenceEmpty", SEQUENCE_EMPTY, infer_empty, eval_empty),
    &row!("SequenceInsert", SEQUENCE_INSERT, infer_insert, eval_insert),
    &row!("SequenceErase", SEQUENCE_ERASE, infer_erase, eval_erase),
    &row!("SequenceAt", SEQUENCE_AT, |cx| Ok(vec![element_type(cx, 0)?]), eval_at),
    &row!("SequenceLength", SEQUENCE_LENGTH, |_| Ok(vec![ValueType::known(DType::I64, &[])]), |cx| Ok(vec![
        Tensor::scalar(sequence(cx, 0)?.1.len() as i64).into()
    ])),
    &row!("SplitToSequence", SPLIT_TO_SEQUENCE, infer_split, eval_split),
    &row!("ConcatFromSequence", CONCAT_FROM_SEQUENCE, infer_concat, eval_concat),
    &row!("SequenceMap", SEQUENCE_MAP, infer_map, eval_map).kind(|_| Kind::Control),
    &row!("Optional", OPTIONAL, infer_optional, eval_optional),
    &row!(
        "OptionalHasElement",
        OPTIONAL_HAS_ELEMENT,
        |_| Ok(vec![ValueType::known(DType::Bool, &[])]),
        |cx| {
            let there = match cx.inputs.first() {
                Some(Some(Value::Optional(_, e))) => e.is_some(),
                Some(v) => v.is_some(),
                None => false,
            };
            Ok(vec![Tensor::scalar(there).into()])
        }
    ),
    &row!("OptionalGetElement", OPTIONAL_GET_ELEMENT, infer_get, eval_get),
];

/// Element type and elements of input `i`.
fn sequence<'a>(cx: &'a EvalCx, i: usize) -> Result<(&'a ValueType, &'a [Value])> {
    match cx.value(i)? {
        Value::Sequence(t, v) => Ok((t, v)),
        v => Err(not_a_sequence(&v.value_type())),
    }
}

fn not_a_sequence(t: &ValueType) -> Error {
    Error::model(format!("expected a sequence, got {t}"))
}

/// Type of the elements of input `i`, as far as known.
fn element_type(cx: &InferCx, i: usize) -> Result<ValueType> {
    match cx.input(i)? {
        ValueType::Sequence(t) => Ok((**t).clone()),
        ValueType::Unknown => Ok(ValueType::Unknown),
        t => Err(not_a_sequence(t)),
    }
}

fn sequence_of(t: ValueType) -> Vec<ValueType> {
    vec![ValueType::Sequence(Box::new(t))]
}

/// The type that covers both, which must be tensors of one element type.
fn cover(a: &ValueType, b: &ValueType) -> Result<ValueType> {
    match (a.dtype(), b.dtype()) {
        (Some(x), Some(y)) if x != y => {
            Err(Error::model(format!("a sequence holds one element type, got {x} and {y}")))
        }
        _ => Ok(a.join(b)),
    }
}

fn cover_all(mut types: impl Iterator<Item = ValueType>) -> Result<ValueType> {
    let Some(first) = types.next() else { return Ok(ValueType::Unknown) };
    types.try_fold(first, |a, b| cover(&a, &b))
}

fn make(elements: Vec<Value>) -> Result<Value> {
    Ok(Value::Sequence(cover_all(elements.iter().map(Value::value_type))?, elements))
}

fn infer_construct(cx: &InferCx) -> Result<Vec<ValueType>> {
    let types: Vec<ValueType> = (0..cx.inputs.len()).map(|i| cx.input(i).cloned()).collect::<Result<_>>()?;
    Ok(sequence_of(cover_all(types.into_iter())?))
}

fn eval_construct(cx: &EvalCx) -> Result<Vec<Value>> {
    let all = (0..cx.inputs.len()).map(|i| Ok(cx.tensor(i)?.clone().into())).collect::<Result<_>>()?;
    Ok(vec![make(all)?])
}

fn empty_dtype(attrs: &Attrs) -> Result<DType> {
    let n = attrs.int_or("dtype", 1)?;
    i32::try_from(n)
        .ok()
        .and_then(DType::from_onnx)
        .ok_or_else(|| Error::unsupported(format!("element type number {n}")))
}

fn infer_empty(cx: &InferCx) -> Result<Vec<ValueType>> {
    // Nothing is known of the shapes that will be inserted.
    Ok(sequence_of(ValueType::unranked(empty_dtype(cx.attrs)?)))
}

fn eval_empty(cx: &EvalCx) -> Result<Vec<Value>> {
    Ok(vec![Value::Sequence(ValueType::unranked(empty_dtype(cx.attrs)?), Vec::new())])
}

fn infer_insert(cx: &InferCx) -> Result<Vec<ValueType>> {
    let (held, new) = (element_type(cx, 0)?, cx.input(1)?);
    Ok(sequence_of(cover(&held, new)?))
}

fn position(cx: &EvalCx, i: usize) -> Result<Option<i64>> {
    match cx.optional_ints(i)?.as_deref() {
        None => Ok(None),
        Some(&[p]) => Ok(Some(p)),
        Some(v) => Err(Error::model(format!("the position must be one number, got {}", v.len()))),
    }
}

fn eval_insert(cx: &EvalCx) -> Result<Vec<Value>> {
    let (held, elements) = sequence(cx, 0)?;
    let (new, n) = (cx.tensor(1)?, elements.len());
    let at = match position(cx, 2)? {
        None => n,
        Some(p) if p == n as i64 => n,
        Some(p) => wrap_index(p, n)?,
    };
    let ty = cover(held, &ValueType::of(new))?;
    let mut out = elements.to_vec();
    out.insert(at, new.clone().into());
    Ok(vec![Value::Sequence(ty, out)])
}

fn infer_erase(cx: &InferCx) -> Result<Vec<ValueType>> {
    Ok(sequence_of(element_type(cx, 0)?))
}

fn eval_erase(cx: &EvalCx) -> Result<Vec<Value>> {
    let (held, elements) = sequence(cx, 0)?;
    let at = wrap_index(position(cx, 1)?.unwrap_or(-1), elements.len())?;
    let mut out = elements.to_vec();
    out.remove(at);
    Ok(vec![Value::Sequence(held.clone(), out)])
}

fn eval_at(cx: &EvalCx) -> Result<Vec<Value>> {
    let (_, elements) = sequence(cx, 0)?;
    let p = position(cx, 1)?.ok_or_else(|| Error::model("the position is missing"))?;
    Ok(vec![elements[wrap_index(p, elements.len())?].clone()])
}

fn infer_split(cx: &InferCx) -> Result<Vec<ValueType>> {
    let dtype = cx.dtype(0)?;
    let shape = match cx.shape(0) {
        Some(s) => {
            let a = axis(cx.attrs.int_or("axis", 0)?, s.len())?;
            let mut s = s.to_vec();
            if cx.has(1) {
                s[a] = Dim::Unknown;
            } else if cx.attrs.int_or("keepdims", 1)? != 0 {
                s[a] = Dim::Known(1);
            } else {
                s.remove(a);
            }
            Some(s)
        }
        None => None,
    };
    Ok(sequence_of(tensor_type(dtype, shape)))
}

/// Lengths of the parts: a scalar `split` cuts equal pieces, the last one perhaps shorter.
fn part_sizes(n: usize, split: Option<&Tensor>) -> Result<Vec<usize>> {
    let size = |x: i64| usize::try_from(x).map_err(|_| Error::model(format!("split size {x} is negative")));
    let chunks = |len: usize| -> Result<Vec<usize>> {
        if len == 0 {
            return Err(Error::model("split size is 0"));
        }
        let count = n.div_ceil(len);
        budget::check(count.saturating_mul(size_of::<Value>()))?;
        Ok((0..count).map(|i| len.min(n - i * len)).collect())
    };
    match split {
        None => chunks(1),
        Some(t) if t.rank() == 0 => chunks(size(t.to_i64s()?[0])?),
        Some(t) if t.rank() == 1 => {
            let sizes: Vec<usize> = t.to_i64s()?.into_iter().map(size).collect::<Result<_>>()?;
            if sizes.iter().try_fold(0usize, |a, &b| a.checked_add(b)) != Some(n) {
                return Err(Error::model(format!("split sizes do not add up to {n}")));
            }
            Ok(sizes)
        }
        Some(t) => Err(Error::model(format!("split must be a scalar or a list, has shape {:?}", t.shape()))),
    }
}

/// Bookkeeping of one tensor in a sequence, beside its elements.
const PART: usize = 256;

fn eval_split(cx: &EvalCx) -> Result<Vec<Value>> {
    let (x, split) = (cx.tensor(0)?, cx.optional(1)?);
    let a = axis(cx.attrs.int_or("axis", 0)?, x.rank())?;
    let drop = split.is_none() && cx.attrs.int_or("keepdims", 1)? == 0;
    let mut rest = x.shape().to_vec();
    rest.remove(a);
    let (mut start, mut parts, sizes) = (0, Vec::new(), part_sizes(x.shape()[a], split)?);
    ir::budget::check(sizes.len().saturating_mul(PART))?;
    for n in sizes {
        let t = section(x, a, start, n)?;
        parts.push(Value::Tensor(if drop { t.reshaped(&rest)? } else { t }));
        start += n;
    }
    if parts.is_empty() {
        return Ok(vec![Value::Sequence(ValueType::unranked(x.dtype()), parts)]);
    }
    Ok(vec![make(parts)?])
}

fn infer_concat(cx: &InferCx) -> Result<Vec<ValueType>> {
    let (raw, new) = (cx.attrs.require_int("axis")?, cx.attrs.int_or("new_axis", 0)? != 0);
    let held = element_type(cx, 0)?;
    let shape = match held.shape() {
        Some(s) => {
            let a = axis(raw, s.len() + usize::from(new))?;
            let mut s = s.to_vec();
            if new {
                s.insert(a, Dim::Unknown);
            } else {
                s[a] = Dim::Unknown;
            }
            Some(s)
        }
        None => None,
    };
    Ok(vec![tensor_type(held.dtype(), shape)])
}

fn eval_concat(cx: &EvalCx) -> Result<Vec<Value>> {
    let parts: Vec<&Tensor> = sequence(cx, 0)?.1.iter().map(Value::tensor).collect::<Result<_>>()?;
    let a = cx.attrs.require_int("axis")?;
    let joined = if cx.attrs.int_or("new_axis", 0)? != 0 { stack(&parts, a)? } else { concat(&parts, a)? };
    Ok(vec![joined.into()])
}

fn infer_map(cx: &InferCx) -> Result<Vec<ValueType>> {
    let mut formals = vec![element_type(cx, 0)?];
    for i in 1..cx.inputs.len() {
        formals.push(match cx.input(i)? {
            ValueType::Sequence(t) => (**t).clone(),
            t => t.clone(),
        });
    }
    let results = (cx.subgraph)(cx.attrs.require_graph("body")?, &formals)?;
    Ok(results.into_iter().map(|t| ValueType::Sequence(Box::new(t))).collect())
}

fn eval_map(cx: &EvalCx) -> Result<Vec<Value>> {
    let g = cx.attrs.require_graph("body")?;
    let (_, first) = sequence(cx, 0)?;
    if g.inputs().len() != cx.inputs.len() {
        return Err(Error::model(format!(
            "the body takes {} inputs, {} are given",
            g.inputs().len(),
            cx.inputs.len()
        )));
    }
    let mut results: Vec<Vec<Value>> = vec![Vec::new(); g.outputs().len()];
    for k in 0..first.len() {
        let sample = |i: usize| match cx.value(i)? {
            Value::Sequence(_, v) if v.len() == first.len() => Ok(v[k].clone()),
            Value::Sequence(_, v) => {
                Err(Error::data(format!("sequences of {} and {} elements", first.len(), v.len())))
            }
            v => Ok(v.clone()),
        };
        let formals = (0..cx.inputs.len()).map(sample).collect::<Result<_>>()?;
        for (r, v) in results.iter_mut().zip((cx.subgraph)(g, formals)?) {
            r.push(v);
        }
    }
    let declared = |i: usize| g.outputs().get(i).map_or(ValueType::Unknown, |o| g.ty(o.value).clone());
    results
        .into_iter()
        .enumerate()
        .map(|(i, v)| if v.is_empty() { Ok(Value::Sequence(declared(i), v)) } else { make(v) })
        .collect()
}

/// The `type` attribute of an Optional without an element.
fn declared(attrs: &Attrs) -> Result<ValueType> {
    match attrs.get("type") {
        Some(Attr::Type(t)) => Ok(t.clone()),
        Some(_) => Err(Error::model("attribute 'type' is not a type")),
        None => Err(Error::model("needs an element or attribute 'type'")),
    }
}

fn infer_optional(cx: &InferCx) -> Result<Vec<ValueType>> {
    let t = if cx.has(0) { cx.input(0)?.clone() } else { declared(cx.attrs)? };
    Ok(vec![ValueType::Optional(Box::new(t))])
}

fn eval_optional(cx: &EvalCx) -> Result<Vec<Value>> {
    Ok(vec![match cx.inputs.first() {
        Some(Some(v)) => Value::Optional(v.value_type(), Some(Box::new(v.clone()))),
        _ => Value::Optional(declared(cx.attrs)?, None),
    }])
}

fn infer_get(cx: &InferCx) -> Result<Vec<ValueType>> {
    Ok(vec![match cx.input(0)? {
        ValueType::Optional(t) => (**t).clone(),
        t => t.clone(),
    }])
}

fn eval_get(cx: &EvalCx) -> Result<Vec<Value>> {
    match cx.value(0)? {
        Value::Optional(_, Some(v)) => Ok(vec![(**v).clone()]),
        Value::Optional(_, None) => Err(Error::data("the optional is empty; guard with OptionalHasElement")),
        v => Ok(vec![v.clone()]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{standard, testing::eval};

    fn ints(v: &Value) -> Vec<i64> {
        v.tensor().unwrap().to_i64s().unwrap()
    }
    fn list(v: &[i64]) -> Value {
        Tensor::vector(v.to_vec()).into()
    }
    fn run(op: &str, attrs: Attrs, inputs: &[Value]) -> Result<Value> {
        let all: Vec<Option<Value>> = inputs.iter().cloned().map(Some).collect();
        Ok(eval(standard(op)?, attrs, &all, 1)?.remove(0))
    }

    #[test]
    fn elements_go_in_and_out_by_position() {
        let at = |p: i64| Value::Tensor(Tensor::scalar(p));
        let s = run("SequenceConstruct", Attrs::new(), &[list(&[1]), list(&[2, 3])]).unwrap();
        let s = run("SequenceInsert", Attrs::new(), &[s, list(&[9]), at(-1)]).unwrap();
        assert_eq!(ints(&run("SequenceAt", Attrs::new(), &[s.clone(), at(1)]).unwrap()), [9]);
        assert_eq!(ints(&run("SequenceLength", Attrs::new(), std::slice::from_ref(&s)).unwrap()), [3]);
        assert!(run("SequenceAt", Attrs::new(), &[s.clone(), at(3)]).is_err());
        assert!(run("SequenceInsert", Attrs::new(), &[s.clone(), list(&[1]), at(4)]).is_err());
        let s = run("SequenceErase", Attrs::new(), &[s]).unwrap();
        assert_eq!(ints(&run("ConcatFromSequence", Attrs::new().with("axis", 0), &[s]).unwrap()), [1, 9]);
        let float = Value::Tensor(Tensor::scalar(1f32));
        assert!(run("SequenceConstruct", Attrs::new(), &[list(&[1]), float]).is_err());
    }

    #[test]
    fn a_tensor_splits_and_joins_again() {
        let x = Value::Tensor(Tensor::new::<i64>(&[2, 5], (0..10).collect()).unwrap());
        let axis = || Attrs::new().with("axis", 1);
        let s = run("SplitToSequence", axis(), &[x.clone(), Tensor::scalar(2i64).into()]).unwrap();
        let Value::Sequence(_, parts) = &s else { panic!("not a sequence") };
        assert_eq!(parts.iter().map(|p| p.tensor().unwrap().shape()[1]).collect::<Vec<_>>(), [2, 2, 1]);
        assert_eq!(run("ConcatFromSequence", axis(), &[s]).unwrap(), x);
        assert!(run("SplitToSequence", axis(), &[x.clone(), Tensor::scalar(0i64).into()]).is_err());
        let s = run("SplitToSequence", axis().with("keepdims", 0), std::slice::from_ref(&x)).unwrap();
        let back = run("ConcatFromSequence", axis().with("new_axis", 1), &[s]).unwrap();
        assert_eq!(back, x);
    }
}
