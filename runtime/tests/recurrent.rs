//! LSTM, GRU and RNN in all directions, layouts and options: generated code gives what the reference semantics give.

use compress_runtime::Session;
use ir::{Attrs, DType, Evaluate, Feeds, Graph, Reference, Tensor, ValueType};

/// Reproducible values in -0.5..0.5.
fn noise(shape: &[usize], seed: usize) -> Tensor {
    let n = shape.iter().product::<usize>();
    let value = |i: usize| (((i + seed) * 7919 + seed * 131) % 2003) as f32 / 2003.0 - 0.5;
    Tensor::new(shape, (0..n).map(value).collect()).unwrap()
}

struct Case {
    op: &'static str,
    direction: &'static str,
    batch_first: bool,
    lengths: Option<[i32; 2]>,
    states: bool,
    attrs: Attrs,
}

const SIZES: (usize, usize, usize, usize) = (5, 2, 3, 19);

impl Case {
    fn graph(&self) -> (Graph, Feeds) {
        let (steps, batch, size, hidden) = SIZES;
        let gates = match self.op {
            "LSTM" => 4,
            "GRU" => 3,
            _ => 1,
        };
        let d = if self.direction == "bidirectional" { 2 } else { 1 };
        let (mut g, mut feeds) = (Graph::new(self.op), Feeds::new());
        g.meta.opset = 21;
        let mut input = |g: &mut Graph, name: &str, t: Tensor| {
            let dims = t.shape().iter().map(|&n| n.into()).collect::<Vec<_>>();
            let v = g.add_input(name, ValueType::tensor(t.dtype(), dims));
            feeds.insert(name.to_string(), t.into());
            Some(v)
        };
        let x = if self.batch_first { [batch, steps, size] } else { [steps, batch, size] };
        let state = if self.batch_first { [batch, d, hidden] } else { [d, batch, hidden] };
        let x = input(&mut g, "x", noise(&x, 1));
        let w = Some(g.add_initializer("w", noise(&[d, gates * hidden, size], 2)));
        let r = Some(g.add_initializer("r", noise(&[d, gates * hidden, hidden], 3)));
        let b = Some(g.add_initializer("b", noise(&[d, 2 * gates * hidden], 4)));
        let lengths = self.lengths.and_then(|l| input(&mut g, "lengths", Tensor::vector(l.to_vec())));
        let mut start =
            |name: &str, seed| self.states.then(|| input(&mut g, name, noise(&state, seed))).flatten();
        let (h, c) = (start("h", 5), if self.op == "LSTM" { start("c", 6) } else { None });
        let p =
            (self.op == "LSTM" && self.states).then(|| g.add_initializer("p", noise(&[d, 3 * hidden], 7)));
        let mut inputs = vec![x, w, r, b, lengths, h];
        if self.op == "LSTM" {
            inputs.extend([c, p]);
        }
        let names: &[&str] = if self.op == "LSTM" { &["y", "yh", "yc"] } else { &["y", "yh"] };
        let attrs = self.attrs.clone().with("hidden_size", hidden as i64).with("direction", self.direction);
        let attrs = attrs.with("layout", i64::from(self.batch_first));
        let id = g.add_node("r", ops::standard(self.op).unwrap(), attrs, &inputs, names);
        for (i, name) in names.iter().enumerate() {
            let v = g.node(id).unwrap().output(i).unwrap();
            g.add_output(name, v);
        }
        (g, feeds)
    }

    fn check(&self) {
        let (g, feeds) = self.graph();
        let expected = Reference.run(&g, &feeds, &[]).unwrap().outputs;
        let mut runs = Vec::new();
        for threads in [1, 2] {
            let s = Session::from_graph(&g, threads).unwrap();
            runs.push(s.evaluate(&feeds).unwrap());
            assert_eq!(s.interpreted(&feeds).unwrap(), Vec::<String>::new());
        }
        assert_eq!(runs[0], runs[1]);
        for (e, r) in expected.iter().zip(&runs[0]) {
            let (e, r) = (e.tensor().unwrap(), r.tensor().unwrap());
            assert_eq!((e.dtype(), e.shape()), (DType::F32, r.shape()));
            let (e, r) = (e.to_f32s().unwrap(), r.to_f32s().unwrap());
            assert!(e.iter().zip(&r).all(|(e, r)| (e - r).abs() <= 1e-5), "{} {}", self.op, self.direction);
        }
    }
}

#[test]
fn directions_layouts_lengths_and_states() {
    for op in ["LSTM", "GRU", "RNN"] {
        for direction in ["forward", "reverse", "bidirectional"] {
            for batch_first in [false, true] {
                for (lengths, states) in [(None, false), (Some([5, 3]), true)] {
                    Case { op, direction, batch_first, lengths, states, attrs: Attrs::new() }.check();
                }
            }
        }
    }
}

#[test]
fn options_and_activations() {
    let names = |n: &[&str]| n.iter().map(|n| n.to_string()).collect::<Vec<_>>();
    let plain =
        |op, attrs| Case { op, direction: "reverse", batch_first: false, lengths: None, states: true, attrs };
    plain("GRU", Attrs::new().with("linear_before_reset", 1i64).with("clip", 0.5f32)).check();
    plain("LSTM", Attrs::new().with("input_forget", 1i64)).check();
    plain("LSTM", Attrs::new().with("activations", names(&["HardSigmoid", "Softsign", "Relu"]))).check();
    let scaled = Attrs::new()
        .with("activations", names(&["ScaledTanh", "LeakyRelu"]))
        .with("activation_alpha", vec![0.9f32, 0.2])
        .with("activation_beta", vec![0.7f32]);
    plain("GRU", scaled).check();
    plain("RNN", Attrs::new().with("activations", names(&["Affine"])).with("clip", 0.25f32)).check();
}

#[test]
fn a_length_beyond_the_sequence_is_an_error() {
    let case = Case {
        op: "GRU",
        direction: "forward",
        batch_first: false,
        lengths: Some([6, 1]),
        states: false,
        attrs: Attrs::new(),
    };
    let (g, feeds) = case.graph();
    let e = Session::from_graph(&g, 1).unwrap().evaluate(&feeds).unwrap_err();
    assert!(e.message.contains("sequence_lens"), "{e}");
}
