//! The text form is lossless: parse(print(g)) = g.

use super::*;
use crate::{
    Arity, Attr, Attrs, DType, Dim, EvalCx, Formal, InferCx, Operator, Output, Signature, Types, Value,
    ValueId, ValueType,
};
use proptest::prelude::*;

/// Takes anything and means nothing.
struct Any(&'static str, &'static str);

const MANY: Formal = Formal { name: "x", type_name: "T", types: Types::Any, arity: Arity::Variadic };
static SIGNATURE: Signature = Signature { since: &[1], inputs: &[MANY], outputs: &[MANY], attrs: &[] };
static OPERATORS: &[Any] = &[Any("", "Relu"), Any("", "If"), Any("ir.", "Packed"), Any("com.x", "Foo")];

impl Operator for Any {
    fn name(&self) -> &'static str {
        self.1
    }
    fn domain(&self) -> &'static str {
        self.0
    }
    fn signature(&self) -> &'static Signature {
        &SIGNATURE
    }
    fn infer(&self, _: &InferCx) -> Result<Vec<ValueType>> {
        Ok(vec![])
    }
    fn eval(&self, _: &EvalCx) -> Result<Vec<Value>> {
        Ok(vec![])
    }
}

struct Table;

impl Lookup for Table {
    fn operator(&self, domain: &str, name: &str) -> Option<&'static dyn Operator> {
        OPERATORS.iter().find(|o| o.0 == domain && o.1 == name).map(|o| o as &dyn Operator)
    }
}

/// Decisions of a random graph.
struct Choices {
    data: Vec<u32>,
    at: usize,
}

const NAMES: &[&str] =
    &["x", "y_1", "/a/b:0", "float", "", "q\"uo\\te", "z 9", "nan", "é", "n\nl", "a.b", "1st"];

impl Choices {
    fn below(&mut self, n: usize) -> usize {
        self.at += 1;
        self.data.get(self.at - 1).map_or(0, |&x| x as usize % n)
    }
    fn name(&mut self) -> &'static str {
        NAMES[self.below(NAMES.len())]
    }
    fn dim(&mut self) -> Dim {
        match self.below(4) {
            0 => Dim::Unknown,
            1 => Dim::symbol(self.name()),
            n => Dim::Known(n),
        }
    }
    fn dtype(&mut self) -> DType {
        DType::ALL[self.below(DType::ALL.len())]
    }
    fn value_type(&mut self, depth: usize) -> ValueType {
        match self.below(if depth > 2 { 4 } else { 6 }) {
            0 => ValueType::Unknown,
            1 => ValueType::unranked(self.dtype()),
            2 | 3 => {
                let dims = (0..self.below(3)).map(|_| self.dim()).collect();
                ValueType::tensor(self.dtype(), dims)
            }
            4 => ValueType::Sequence(Box::new(self.value_type(depth + 1))),
            _ => ValueType::Optional(Box::new(self.value_type(depth + 1))),
        }
    }
    fn tensor(&mut self) -> Tensor {
        let shape: Vec<usize> = (0..self.below(3)).map(|_| self.below(4)).collect();
        let (dtype, n) = (self.dtype(), shape.iter().product::<usize>());
        match dtype {
            DType::String => {
                Tensor::strings(&shape, (0..n).map(|_| self.name().to_string()).collect()).unwrap()
            }
            d if d.bits() < 8 => {
                let v: Vec<u8> = (0..n).map(|_| self.below(256) as u8).collect();
                Tensor::from_unpacked(d, &shape, &v).unwrap()
            }
            d => {
                let v = (0..d.storage_bytes(n)).map(|_| self.below(256) as u8).collect();
                Tensor::from_bytes(d, &shape, v).unwrap()
            }
        }
    }
    fn float(&mut self) -> f32 {
        let x = f32::from_bits(self.below(1 << 32) as u32);
        // A float NaN is not equal to itself.
        if x.is_nan() { f32::NEG_INFINITY } else { x }
    }
    fn strings(&mut self) -> Vec<String> {
        (0..self.below(3)).map(|_| self.name().to_string()).collect()
    }
    fn attr(&mut self) -> Attr {
        match self.below(10) {
            0 => Attr::Int(self.below(1 << 32) as i64 - (1 << 31)),
            1 => Attr::Float(self.float()),
            2 => Attr::Str(self.name().to_string()),
            3 => Attr::Tensor(self.tensor()),
            4 => Attr::Type(self.value_type(0)),
            5 => Attr::Ints((0..self.below(3)).map(|i| i as i64 - 1).collect()),
            6 => Attr::Floats((0..self.below(3)).map(|_| self.float()).collect()),
            7 => Attr::Strs(self.strings()),
            8 => Attr::Tensors((0..self.below(3)).map(|_| self.tensor()).collect()),
            _ => Attr::Types((0..self.below(3)).map(|_| self.value_type(0)).collect()),
        }
    }

    /// A graph; as a body it may read `outer` values through captures.
    fn graph(&mut self, depth: usize, outer: &[(String, ValueType)]) -> Graph {
        let mut g = Graph::new(self.name());
        for _ in 0..self.below(3) {
            let (name, ty) = (self.name(), self.value_type(0));
            g.add_input(name, ty);
        }
        for (i, (name, ty)) in outer.iter().enumerate() {
            if self.below(3) > 0 {
                let name = if self.below(4) == 0 { self.name() } else { name };
                g.add_capture(name, ty.clone(), i);
            }
        }
        for _ in 0..self.below(3) {
            let (name, t) = (self.name(), self.tensor());
            g.add_initializer(name, t);
        }
        for _ in 0..self.below(4) {
            self.node(&mut g, depth);
        }
        let values: Vec<ValueId> = g.values().collect();
        let mut outputs = Vec::new();
        for i in 0..self.below(3).min(values.len()) {
            let value = values[self.below(values.len())];
            let name = if self.below(2) == 0 { g.value_name(value).to_string() } else { format!("out {i}") };
            outputs.push(Output { name, value });
        }
        g.set_outputs(outputs);
        g
    }

    fn node(&mut self, g: &mut Graph, depth: usize) {
        let values: Vec<ValueId> = g.values().collect();
        let inputs: Vec<Option<ValueId>> = (0..self.below(3))
            .map(|_| {
                if values.is_empty() || self.below(4) == 0 {
                    None
                } else {
                    Some(values[self.below(values.len())])
                }
            })
            .collect();
        let mut captures = Vec::new();
        let mut attrs = Attrs::new();
        for _ in 0..self.below(3) {
            let (key, a) = (self.name(), self.attr());
            attrs.set(key, a);
        }
        if depth < 2 && self.below(3) == 0 && !values.is_empty() {
            captures = (0..self.below(3)).map(|_| values[self.below(values.len())]).collect();
            let outer: Vec<(String, ValueType)> =
                captures.iter().map(|&v| (g.value_name(v).to_string(), g.ty(v).clone())).collect();
            attrs.set("then_branch", Attr::Graph(Box::new(self.graph(depth + 1, &outer))));
            attrs.set("else", Attr::Graphs(vec![self.graph(depth + 1, &outer)]));
        }
        let op = &OPERATORS[self.below(OPERATORS.len())];
        let outputs: Vec<&str> = (0..self.below(3)).map(|_| self.name()).collect();
        let name = self.name();
        let id = g.add_node(name, op, attrs, &inputs, &outputs);
        if !captures.is_empty() {
            g.set_captures(id, &captures);
        }
        let made: Vec<ValueId> = g.get(id).unwrap().outputs().iter().flatten().copied().collect();
        for v in made {
            let ty = self.value_type(0);
            g.set_type(v, ty);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]
    #[test]
    fn a_printed_graph_reads_back_the_same(data in prop::collection::vec(any::<u32>(), 0..400)) {
        let mut choices = Choices { data, at: 0 };
        let mut g = choices.graph(0, &[]);
        g.meta.opset = 21;
        g.meta.doc = choices.name().to_string();
        g.meta.properties.insert(choices.name().to_string(), "v".to_string());
        let text = print(&g).unwrap();
        let back = parse(&text, &Table).map_err(|e| TestCaseError::fail(format!("{e}\n{text}")))?;
        prop_assert_eq!(&back, &g, "{}", text);
        prop_assert_eq!(&back.meta, &g.meta);
        let (short, table) = print_with(&g, 1).unwrap();
        prop_assert_eq!(&parse_with(&short, &Table, &table).unwrap(), &g, "{}", short);
    }

    #[test]
    fn no_text_makes_the_parser_panic(text in "[a-z<>(){}\\[\\],=:?.\" 0-9-]{0,80}") {
        let _ = parse(&text, &Table);
        let _ = parse(&format!("g (float x) => (float y) <float z = {text}> {{ y = Relu <{text}> (x) }}"), &Table);
    }
}

#[test]
fn reads_what_people_write() {
    let text = r#"
        <ir_version: 8, opset_import: ["" : 18, "com.x": 1], producer_name: "pp">
        agraph (float[N, "batch size", ?] x, bool c) => (float[N] y)
        <float[2] w = {1, -2.5e1}, int4[3] q = {-8, 7, 0}, float16[1] h = {15360}, float z,
         float[64, 2] big = ["location": "fill:normal:7"]>
        { # a comment
            z = com.x.Foo <a: int = 1, b = [1, 2], t = float[2] {1, 2}, s = "a"> (x, , w)
            ["a node"] y, "" = If (c) <then_branch = sub () => (o) { o = Relu (z) }, else_branch: graph = b () => (x) { }>
        }"#;
    let g = parse(text, &Table).unwrap();
    assert_eq!(g.meta.opset, 18);
    let y = g.node(g.producer(g.find("y").unwrap()).unwrap()).unwrap();
    assert_eq!((y.name.as_str(), y.outputs().len()), ("a node", 2));
    // Both bodies read one outer value; attributes come in name order.
    assert_eq!(y.captures(), [g.find("x").unwrap(), g.find("z").unwrap()]);
    assert_eq!(g.ty(g.find("z").unwrap()), &ValueType::known(DType::F32, &[]));
    let big = g.constant(g.find("big").unwrap()).unwrap().to_f64s().unwrap();
    let mean = big.iter().sum::<f64>() / 128.0;
    assert!(mean.abs() < 0.3 && big.iter().any(|x| x.abs() > 1.0));
    assert_eq!(parse(&print(&g).unwrap(), &Table).unwrap(), g);
}

#[test]
fn mistakes_name_their_place() {
    let says = |text: &str, part: &str| {
        let e = parse(text, &Table).unwrap_err().to_string();
        assert!(e.contains(part), "{e}");
    };
    says("g (float x) => (y)\n{ y = Relu (z) }", "line 2 column 3: no value 'z'");
    says("g () => () { y = Reluu () }", "operator Reluu is not known");
    says("g (x) => () { x = Relu () }", "'x' is not a new name");
    says("g () => () <float[2] w = {1}> { }", "1 elements for float [2]");
    says("g () => () <uint4[1] w = {16}> { }", "16 does not fit");
    says("g () => () <float[1] w = [\"location\": \"w.bin\"]> { }", "no tensor \"w.bin\"");
    says("g () => () { y = Relu <a = 1, a = 2> () }", "given twice");
    says(&format!("g ({} x) => () {{}}", "seq(".repeat(1 << 16)), "nests deeper");
    says("g () => () <float[99999999, 99999999] w = [\"location\": \"fill:zeros\"]> { }", "limit");
}
