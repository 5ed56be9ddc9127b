//! Recurrent layers with constant weights.

use super::{Cx, Lowered, Work};
use artefact::{Call, Pass, Recurrence};
use ir::{DType, Node, ValueId};
use kernels::rnn::{Gate, Kind, PackedRecurrence};
use kernels::{PackedB, Strides};
use ops::rnn::{Activation, Cell, RnnGeometry};

pub fn lower(cx: &Cx, n: &Node) -> Option<Lowered> {
    let cell = match (n.op.domain(), n.op.name()) {
        ("", "LSTM") => Cell::Lstm,
        ("", "GRU") => Cell::Gru,
        ("", "RNN") => Cell::Rnn,
        _ => return None,
    };
    let (x, w, r) = (n.input(0)?, n.input(1)?, n.input(2)?);
    let g =
        ops::rnn::geometry(&n.attrs, cell, &cx.f32_shape(x)?, &cx.f32_shape(w)?, &cx.f32_shape(r)?).ok()?;
    // Whether a clip limits what the cell's state is squashed from is not agreed on.
    let clipped = cell == Cell::Lstm && g.clip.is_some();
    if clipped || g.input == 0 || g.hidden == 0 || g.sequence == 0 || g.batch == 0 {
        return None;
    }
    let (bias, peephole) = (cx.optional_floats(n.input(3))?, cx.optional_floats(n.input(7))?);
    let passes = packed(cx, &g, w, r)?
        .into_iter()
        .enumerate()
        .map(|(d, weights)| pass(&g, d, weights, bias.as_deref(), peephole.as_deref()))
        .collect::<Option<Vec<_>>>()?;
    let mut reads = vec![x];
    let mut state = |i: usize| -> Option<Option<usize>> {
        let Some(v) = n.input(i) else { return Some(None) };
        if cx.f32_shape(v)?.iter().product::<usize>() != g.directions.len() * g.batch * g.hidden {
            return None;
        }
        reads.push(v);
        Some(Some(reads.len() - 1))
    };
    let first = [state(5)?, state(6)?];
    let lengths = match n.input(4) {
        Some(v) if cx.graph.dtype(v) == Some(DType::I32) && cx.shape(v)?[..] == [g.batch] => {
            reads.push(v);
            Some(reads.len() - 1)
        }
        Some(_) => return None,
        None => None,
    };
    let mut writes = Vec::new();
    let mut output = |i: usize| {
        n.output(i).map(|v| {
            writes.push(v);
            writes.len() - 1
        })
    };
    let last = [output(0), output(1), output(2)];
    for &v in &writes {
        cx.f32_shape(v)?;
    }
    let per_step = 2.0 * (cell.gates() * g.hidden * (g.input + g.hidden) * g.directions.len()) as f64;
    let flops = per_step * (g.sequence * g.batch) as f64;
    let call = Call::Recur(Box::new(Recurrence {
        steps: g.sequence,
        batch: g.batch,
        size: g.input,
        hidden: g.hidden,
        batch_first: g.batch_first,
        clip: g.clip.unwrap_or(f32::INFINITY),
        input_forget: g.input_forget,
        passes,
        lengths,
        first,
        last,
    }));
    Some(Lowered { kind: "recurrence", work: Work::Call(Box::new(call)), reads, writes, flops })
}

fn kind(g: &RnnGeometry) -> Kind {
    match g.cell {
        Cell::Lstm => Kind::Lstm,
        Cell::Gru => Kind::Gru { linear_before_reset: g.linear_before_reset },
        Cell::Rnn => Kind::Rnn,
    }
}

/// Weights of the input and of the state of each direction.
fn packed(cx: &Cx, g: &RnnGeometry, w: ValueId, r: ValueId) -> Option<Vec<(PackedB, PackedRecurrence)>> {
    let rows = g.cell.gates() * g.hidden;
    let inputs = cx.pack_unaligned(w, |w| {
        let strides = Strides::nk(g.input);
        let pack = |w| PackedB::from_unaligned(cx.tier, w, strides, g.input, rows).ok();
        w.chunks_exact(rows * g.input).map(pack).collect::<Option<Vec<_>>>()
    })?;
    let states = cx.pack_unaligned(r, |r| {
        let pack = |r| PackedRecurrence::from_unaligned(kind(g), r, g.hidden).ok();
        r.chunks_exact(rows * g.hidden).map(pack).collect::<Option<Vec<_>>>()
    })?;
    let all = inputs.len() == g.directions.len() && states.len() == inputs.len();
    all.then(|| inputs.into_iter().zip(states).collect())
}

/// Direction `d` with its weights.
fn pass(
    g: &RnnGeometry,
    d: usize,
    (projection, recurrence): (PackedB, PackedRecurrence),
    bias: Option<&[f32]>,
    peephole: Option<&[f32]>,
) -> Option<Pass> {
    let (hidden, rows, kind) = (g.hidden, g.cell.gates() * g.hidden, kind(g));
    let part = |all: &[f32], n: usize| all.get(d * n..(d + 1) * n).map(<[f32]>::to_vec);
    let both = match bias {
        Some(b) => part(b, 2 * rows)?,
        None => vec![0.0; 2 * rows],
    };
    let (input, state) = both.split_at(rows);
    // What a GRU resets after its product is not part of the projection.
    let apart = if kind == (Kind::Gru { linear_before_reset: true }) { 2 * hidden } else { rows };
    let bias = (0..rows).map(|i| if i < apart { input[i] + state[i] } else { input[i] }).collect();
    let peephole = match peephole {
        Some(p) => Some(part(p, 3 * hidden)?),
        None => None,
    };
    let direction = &g.directions[d];
    let gate = |i: usize| direction.activations.get(i).map_or(Gate::Tanh, |&a| native(a));
    Some(Pass {
        reverse: direction.reverse,
        gates: [gate(0), gate(1), gate(2)],
        projection,
        bias,
        recurrence,
        peephole,
        hidden_bias: (apart < rows).then(|| state[apart..].to_vec()),
    })
}

fn native(a: Activation) -> Gate {
    match a {
        Activation::Relu => Gate::Relu,
        Activation::Tanh => Gate::Tanh,
        Activation::Sigmoid => Gate::Sigmoid,
        Activation::Softsign => Gate::Softsign,
        Activation::Softplus => Gate::Softplus,
        Activation::Affine(alpha, beta) => Gate::Affine { alpha, beta },
        Activation::LeakyRelu(alpha) => Gate::LeakyRelu { alpha },
        Activation::ThresholdedRelu(alpha) => Gate::ThresholdedRelu { alpha },
        Activation::ScaledTanh(alpha, beta) => Gate::ScaledTanh { alpha, beta },
        Activation::HardSigmoid(alpha, beta) => Gate::HardSigmoid { alpha, beta },
        Activation::Elu(alpha) => Gate::Elu { alpha },
    }
}

#[cfg(test)]
mod tests {
    use ir::{Attrs, Evaluate, Feeds, Graph, Tensor, Value, ValueType};

    fn data(shape: &[usize], seed: usize) -> Tensor {
        let n: usize = shape.iter().product();
        Tensor::new(shape, (0..n).map(|i| (((i + seed) * 7919) % 613) as f32 / 600.0 - 0.5).collect())
            .unwrap()
    }

    /// A layer with bias and first states, both ways of running it; it must be one kernel call.
    fn check(op: &str, directions: usize, attrs: Attrs) {
        let gates = match op {
            "LSTM" => 4,
            "GRU" => 3,
            _ => 1,
        };
        let (steps, batch, size, hidden) = (5, 3, 7, 18);
        let batch_first = attrs.int_or("layout", 0).unwrap() != 0;
        let x = data(&if batch_first { [batch, steps, size] } else { [steps, batch, size] }, 1);
        let state =
            data(&if batch_first { [batch, directions, hidden] } else { [directions, batch, hidden] }, 5);
        let mut g = Graph::new("t");
        let xi = g.add_input("x", ValueType::of(&x));
        let h = g.add_input("h", ValueType::of(&state));
        let mut weights = |name: &str, shape: &[usize]| g.add_initializer(name, data(shape, shape.len()));
        let w = weights("w", &[directions, gates * hidden, size]);
        let r = weights("r", &[directions, gates * hidden, hidden]);
        let b = weights("b", &[directions, 2 * gates * hidden]);
        let lstm = op == "LSTM";
        let mut inputs = vec![Some(xi), Some(w), Some(r), Some(b), None, Some(h)];
        inputs.extend(lstm.then_some(Some(h)));
        let outputs = if lstm { &["y0", "y1", "y2"][..] } else { &["y0", "y1"] };
        let attrs = attrs.with("hidden_size", hidden as i64);
        let made = g.add_node("y", ops::standard(op).unwrap(), attrs.clone(), &inputs, outputs);
        for (i, name) in outputs.iter().enumerate() {
            let v = g.node(made).unwrap().output(i).unwrap();
            g.add_output(name, v);
        }
        ir::infer(&mut g).unwrap();
        let values = [Value::Tensor(x), Value::Tensor(state)];
        let feeds: Feeds = ["x", "h"].iter().map(|n| n.to_string()).zip(values.clone()).collect();
        let p = crate::compile(&g).unwrap();
        assert!(p.steps().iter().all(|s| s.kind == "recurrence"), "{op} {attrs:?}");
        let ours = p.run(&values, &kernels::Serial).unwrap();
        let want = ir::Reference.run(&g, &feeds, &[]).unwrap().outputs;
        for (a, b) in ours.iter().zip(&want) {
            let (a, b) = (a.tensor().unwrap(), b.tensor().unwrap());
            assert_eq!(a.shape(), b.shape());
            for (a, b) in a.to_f32s().unwrap().iter().zip(b.to_f32s().unwrap()) {
                assert!((a - b).abs() < 1e-5, "{op} {attrs:?}: {a} is not {b}");
            }
        }
    }

    #[test]
    fn layers_in_every_direction_and_layout_agree() {
        for op in ["LSTM", "GRU", "RNN"] {
            for (direction, n) in [("forward", 1), ("reverse", 1), ("bidirectional", 2)] {
                for layout in [0i64, 1] {
                    let a = Attrs::new().with("direction", direction.to_string()).with("layout", layout);
                    check(op, n, a.clone());
                    if op == "GRU" {
                        check(op, n, a.with("linear_before_reset", 1i64));
                    }
                }
            }
        }
        check("GRU", 1, Attrs::new().with("clip", 0.3f32));
        check("LSTM", 1, Attrs::new().with("input_forget", 1i64));
    }
}
