//! Every operator on arbitrary inputs: it may refuse, but neither panics nor runs away, and what it computes is what
//! inference said.

use ir::{
    Arity, Attr, AttrKind, Attrs, DType, EvalCx, Graph, InferCx, Operator, Result, Tensor, Types, Value,
    ValueType, budget,
};
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Cases per operator.
const CASES: u64 = 2000;

/// Decisions of one random case (SplitMix64).
struct Choices(u64);

const INTS: &[i64] = &[0, 1, -1, 2, 3, -2, 4, 5, 7, -5, 100, 1 << 31, 1 << 40, i64::MAX, i64::MIN, -i64::MAX];
const WORDS: &[&str] =
    &["", "add", "linear", "reflect", "VALID", "SAME_UPPER", "ij,jk->ik", "constant", "nearest", "x"];

impl Choices {
    fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) as usize % n
    }
    fn int(&mut self) -> i64 {
        // Mostly numbers that fit.
        let n = if self.below(8) == 0 { INTS.len() } else { 6 };
        INTS[self.below(n)]
    }
    fn float(&mut self) -> f64 {
        [0.0, 1.0, -1.0, 0.5, 2.5, 1e30, f64::NAN, f64::INFINITY, -0.0, 3.0][self.below(10)]
    }
    fn shape(&mut self) -> Vec<usize> {
        let rank = self.below(5);
        let mut shape: Vec<usize> = (0..rank).map(|_| [1, 2, 3, 2, 4, 0][self.below(6)]).collect();
        // An empty tensor may have any other dims.
        if shape.contains(&0) && self.below(3) == 0 {
            let huge = [1 << 33, 1 << 62, usize::MAX][self.below(3)];
            shape.iter_mut().filter(|d| **d != 0).take(2).for_each(|d| *d = huge);
        }
        shape
    }
    fn tensor(&mut self, dtype: DType, list: bool) -> Tensor {
        let shape = if list { vec![self.below(5)] } else { self.shape() };
        let n = budget::elements(&shape).unwrap();
        let made = match dtype {
            DType::String => {
                Tensor::strings(&shape, (0..n).map(|_| WORDS[self.below(10)].to_string()).collect())
            }
            DType::C64 | DType::C128 => {
                let bytes = (0..dtype.storage_bytes(n)).map(|_| self.below(256) as u8).collect();
                Tensor::from_bytes(dtype, &shape, bytes)
            }
            d if d.is_float() => Tensor::from_f64s(d, &shape, (0..n).map(|_| self.float()).collect()),
            d => Tensor::from_i64s(d, &shape, (0..n).map(|_| self.int()).collect()),
        };
        made.unwrap()
    }
    fn attr(&mut self, kind: AttrKind) -> Option<Attr> {
        Some(match kind {
            AttrKind::Int => Attr::Int(self.int()),
            AttrKind::Float => Attr::Float(self.float() as f32),
            AttrKind::Str => Attr::Str(WORDS[self.below(10)].to_string()),
            AttrKind::Tensor => Attr::Tensor(self.tensor(DType::F32, true)),
            AttrKind::Type => Attr::Type(ValueType::unranked(DType::F32)),
            AttrKind::Ints => Attr::Ints((0..self.below(5)).map(|_| self.int()).collect()),
            AttrKind::Floats => Attr::Floats((0..self.below(4)).map(|_| self.float() as f32).collect()),
            AttrKind::Strs => {
                Attr::Strs((0..self.below(4)).map(|_| WORDS[self.below(10)].to_string()).collect())
            }
            AttrKind::Graph | AttrKind::Graphs | AttrKind::Tensors => return None,
        })
    }
    fn attrs(&mut self, op: &dyn Operator) -> Attrs {
        let mut attrs = Attrs::new();
        for f in op.signature().attrs {
            if (f.required || self.below(3) == 0)
                && let Some(a) = self.attr(f.kind)
            {
                attrs.set(f.name, a);
            }
        }
        attrs
    }
    fn inputs(&mut self, op: &dyn Operator) -> Vec<Option<Value>> {
        let mut inputs = Vec::new();
        // Formals of one type variable get one type.
        let mut types: Vec<(&str, DType)> = Vec::new();
        for f in op.signature().inputs {
            let count = match f.arity {
                Arity::Required => 1,
                Arity::Optional => self.below(2),
                Arity::Variadic => self.below(4),
            };
            let known = types.iter().find(|t| t.0 == f.type_name).map(|t| t.1);
            let dtype = known.unwrap_or_else(|| match f.types {
                Types::Of(list) => list[self.below(list.len())],
                Types::Any => DType::F32,
            });
            types.push((f.type_name, dtype));
            if count == 0 && f.arity == Arity::Optional {
                inputs.push(None);
            }
            for _ in 0..count {
                let list = dtype == DType::I64 && self.below(2) == 0;
                inputs.push(Some(match f.types {
                    Types::Any => self.any(),
                    Types::Of(_) => self.tensor(dtype, list).into(),
                }));
            }
        }
        inputs
    }
    fn any(&mut self) -> Value {
        let t = |c: &mut Self| Value::Tensor(c.tensor(DType::F32, false));
        match self.below(4) {
            0 => t(self),
            1 => Value::Optional(ValueType::unranked(DType::F32), None),
            _ => {
                let all = (0..self.below(4)).map(|_| t(self)).collect();
                Value::Sequence(ValueType::unranked(DType::F32), all)
            }
        }
    }
}

fn run(op: &dyn Operator, c: &mut Choices) -> Option<(Vec<ValueType>, Vec<Value>)> {
    let (attrs, inputs) = (c.attrs(op), c.inputs(op));
    let outputs = op.signature().outputs.len().max(1);
    let types: Vec<Option<ValueType>> = inputs.iter().map(|v| v.as_ref().map(Value::value_type)).collect();
    let consts: Vec<Option<Tensor>> = inputs
        .iter()
        .map(|v| v.as_ref().and_then(|v| v.tensor().ok().cloned()).filter(|_| c.below(2) == 0))
        .collect();
    let dims = vec![None; inputs.len()];
    let subgraph = |_: &Graph, _: &[ValueType]| Err(ir::Error::internal("no subgraph"));
    let cx =
        InferCx { attrs: &attrs, inputs: &types, consts: &consts, dims: &dims, outputs, subgraph: &subgraph };
    let inferred = op.infer(&cx);
    let _ = op.shape_value(&cx);
    let _ = op.kind(&attrs);
    let subgraph =
        |_: &Graph, _: Vec<Value>| -> Result<Vec<Value>> { Err(ir::Error::internal("no subgraph")) };
    let cx =
        EvalCx { node: "n", attrs: &attrs, inputs: &inputs, captures: &[], outputs, subgraph: &subgraph };
    let got = op.eval(&cx);
    Some((inferred.ok()?, got.ok()?))
}

/// What is wrong with case `seed` of an operator.
fn complaint(op: &dyn Operator, seed: u64) -> Option<String> {
    let (types, values) = match catch_unwind(AssertUnwindSafe(|| run(op, &mut Choices(seed)))) {
        Ok(r) => r?,
        Err(_) => return Some("panics".to_string()),
    };
    types
        .iter()
        .zip(&values)
        .enumerate()
        .find(|(_, (t, v))| t.merge(&v.value_type()).is_err())
        .map(|(i, (t, v))| format!("output {i}: inferred {t}, computed {}", v.value_type()))
}

#[test]
fn operators_refuse_or_do_what_inference_says() {
    budget::set_tensor_limit(1 << 20);
    let mut wrong = Vec::new();
    for op in compress_ops::FAMILIES.iter().flat_map(|f| f.iter()) {
        let start = std::time::Instant::now();
        // An operator that is written out as others runs many of them in a case.
        let cases = if op.domain().is_empty() { CASES } else { CASES / 10 };
        let found = (0..cases).find_map(|seed| Some((seed, complaint(*op, seed)?)));
        if let Some((seed, text)) = found {
            wrong.push(format!("{} (case {seed}): {text}", op.name()));
        }
        let seconds = start.elapsed().as_secs();
        if seconds > 20 {
            wrong.push(format!("{}: {cases} small cases took {seconds} s", op.name()));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
