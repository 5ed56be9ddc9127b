//! For tests: a lookup that knows every name, so that files are tested apart from operators.

use crate::rope::Rope;
use ir::*;
use std::collections::BTreeMap;
use std::sync::{LazyLock, Mutex};

/// Any operator with any inputs and outputs, of unknown types.
pub struct Any;

struct AnyOp {
    name: &'static str,
    domain: &'static str,
}

static FORMAL: [Formal; 1] =
    [Formal { name: "x", type_name: "T", types: Types::Any, arity: Arity::Variadic }];
static SIGNATURE: Signature = Signature { since: &[1], inputs: &FORMAL, outputs: &FORMAL, attrs: &[] };
static KNOWN: LazyLock<Mutex<BTreeMap<String, &'static AnyOp>>> = LazyLock::new(Mutex::default);

impl Operator for AnyOp {
    fn name(&self) -> &'static str {
        self.name
    }
    fn domain(&self) -> &'static str {
        self.domain
    }
    fn signature(&self) -> &'static Signature {
        &SIGNATURE
    }
    fn infer(&self, cx: &InferCx) -> Result<Vec<ValueType>> {
        Ok(vec![ValueType::Unknown; cx.outputs])
    }
    /// "ir.Twice" is x + x.
    fn expand(&self, g: &mut Graph, id: NodeId, lookup: &dyn Lookup) -> Result<Option<Vec<Option<ValueId>>>> {
        if self.domain != "ir." || self.name != "Twice" {
            return Ok(None);
        }
        let x = g.node(id)?.input(0).ok_or_else(|| Error::model("no input"))?;
        Ok(Some(vec![Some(g.apply("sum", lookup.require("", "Add")?, Attrs::new(), &[x, x]))]))
    }
    fn eval(&self, _: &EvalCx) -> Result<Vec<Value>> {
        Err(Error::unsupported("nothing is computed here"))
    }
}

impl Lookup for Any {
    fn operator(&self, domain: &str, name: &str) -> Option<&'static dyn Operator> {
        if name == "Unheard" {
            return None;
        }
        let mut known = KNOWN.lock().unwrap();
        let op = known.entry(format!("{domain}.{name}")).or_insert_with(|| {
            let leak = |s: &str| -> &'static str { Box::leak(s.to_string().into_boxed_str()) };
            Box::leak(Box::new(AnyOp { name: leak(name), domain: leak(domain) }))
        });
        Some(*op)
    }
}

/// A node of a file: operator, inputs, outputs, encoded attributes.
pub fn node(op: &str, inputs: &[&str], outputs: &[&str], attrs: Vec<Rope>) -> Rope {
    let mut n = Rope::new();
    inputs.iter().for_each(|i| n.text(1, i));
    outputs.iter().for_each(|o| n.text(2, o));
    n.text(3, &format!("node_{}", outputs.first().unwrap_or(&"")));
    n.text(4, op);
    attrs.into_iter().for_each(|a| n.message(5, a));
    n
}

/// An attribute that is one integer.
pub fn int(name: &str, v: i64) -> Rope {
    let mut a = Rope::new();
    a.text(1, name);
    a.int(3, v);
    a.int(20, 2);
    a
}

/// An attribute that is a list of integers.
pub fn ints(name: &str, v: &[i64]) -> Rope {
    let mut a = Rope::new();
    a.text(1, name);
    a.ints(8, v);
    a.int(20, 7);
    a
}

/// An attribute that is a list of floats.
pub fn floats(name: &str, v: &[f32]) -> Rope {
    let mut a = Rope::new();
    a.text(1, name);
    a.floats(7, v);
    a.int(20, 6);
    a
}

/// An attribute that is a subgraph.
pub fn body(name: &str, g: Rope) -> Rope {
    let mut a = Rope::new();
    a.text(1, name);
    a.message(6, g);
    a.int(20, 5);
    a
}

/// A named float value with dims; negative ones are written as they are.
pub fn value(name: &str, dims: &[i64]) -> Rope {
    typed(name, DType::F32, dims)
}

/// As [`value`], of another element type.
pub fn typed(name: &str, dtype: DType, dims: &[i64]) -> Rope {
    let (mut shape, mut tensor, mut ty, mut v) = (Rope::new(), Rope::new(), Rope::new(), Rope::new());
    for &d in dims {
        let mut dim = Rope::new();
        dim.int(1, d);
        shape.message(1, dim);
    }
    tensor.int(1, i64::from(dtype.onnx()));
    tensor.message(2, shape);
    ty.message(1, tensor);
    v.text(1, name);
    v.message(2, ty);
    v
}

/// A graph of float values.
pub fn graph(nodes: Vec<Rope>, inputs: &[(&str, &[i64])], outputs: &[&str]) -> Rope {
    let mut g = Rope::new();
    nodes.into_iter().for_each(|n| g.message(1, n));
    g.text(2, "g");
    inputs.iter().for_each(|(n, d)| g.message(11, value(n, d)));
    outputs.iter().for_each(|o| {
        let mut v = Rope::new();
        v.text(1, o);
        g.message(12, v);
    });
    g
}

/// The bytes of a model file.
pub fn model(opset: i64, graph: Rope, functions: Vec<Rope>) -> Vec<u8> {
    let (mut m, mut o) = (Rope::new(), Rope::new());
    m.int(1, 8);
    m.message(7, graph);
    o.int(2, opset);
    m.message(8, o);
    functions.into_iter().for_each(|f| m.message(25, f));
    let mut bytes = Vec::new();
    m.write(&mut bytes).unwrap();
    bytes
}
