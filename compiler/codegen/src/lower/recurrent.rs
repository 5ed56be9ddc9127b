//! Recurrent layers with constant weights.

use super::{Cx, Lowered, Work};
use artefact::{Call, Pass, Recurrence, Weights};
use ir::{DType, Node, ValueId};
use kernels::PackedB;
use kernels::rnn::{Gate, Kind, PackedRecurrence, pack_gates};
use ops::rnn::{Activation, Cell, RnnGeometry};

pub fn lower(cx: &Cx, n: &Node) -> Option<Lowered> {
    let (cell, bytes) = match (n.op.domain(), n.op.name()) {
        ("", "LSTM") => (Cell::Lstm, false),
        ("", "GRU") => (Cell::Gru, false),
        ("", "RNN") => (Cell::Rnn, false),
        ("com.microsoft", "DynamicQuantizeLSTM") => (Cell::Lstm, true),
        _ => return None,
    };
    let (x, w, r) = (n.input(0)?, n.input(1)?, n.input(2)?);
    let (mut ws, mut rs) = (cx.shape(w)?, cx.shape(r)?);
    if bytes {
        // Gates are columns here.
        ws.get_mut(1..).filter(|s| s.len() == 2)?.reverse();
        rs.get_mut(1..).filter(|s| s.len() == 2)?.reverse();
    }
    let g = ops::rnn::geometry(&n.attrs, cell, &cx.f32_shape(x)?, &ws, &rs).ok()?;
    // Whether a clip limits what the cell's state is squashed from is not agreed on.
    let clipped = cell == Cell::Lstm && g.clip.is_some();
    if clipped || g.input == 0 || g.hidden == 0 || g.sequence == 0 || g.batch == 0 {
        return None;
    }
    let weights = if bytes { byte_weights(cx, n, &g)? } else { float_weights(cx, &g, w, r)? };
    let (bias, peephole) = (cx.optional_floats(n.input(3))?, cx.optional_floats(n.input(7))?);
    let passes = weights
        .into_iter()
        .enumerate()
        .map(|(d, w)| pass(&g, d, w, bias.as_deref(), peephole.as_deref()))
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

/// Elements of direction `d`, `n` in each.
fn part<T: Copy>(all: &[T], n: usize, d: usize) -> Option<Vec<T>> {
    all.get(d * n..(d + 1) * n).map(<[T]>::to_vec)
}

/// Weights of the input and of the state of each direction.
fn float_weights(cx: &Cx, g: &RnnGeometry, w: ValueId, r: ValueId) -> Option<Vec<Weights>> {
    let rows = g.cell.gates() * g.hidden;
    let inputs = cx.pack_unaligned(w, &("inputs", kind(g), g.hidden, g.input), |w| {
        let line = |i: usize| kind(g).projected_from(g.hidden, i);
        let pack = |w: &[[u8; 4]]| PackedB::from_lines(cx.tier, w, rows, g.input, line).ok();
        w.chunks_exact(rows * g.input).map(pack).collect::<Option<Vec<_>>>()
    })?;
    let states = cx.pack_unaligned(r, &("states", kind(g), g.hidden), |r| {
        let pack = |r| PackedRecurrence::from_unaligned(kind(g), r, g.hidden).ok();
        r.chunks_exact(rows * g.hidden).map(pack).collect::<Option<Vec<_>>>()
    })?;
    let all = inputs.len() == g.directions.len() && states.len() == inputs.len();
    let both = inputs.into_iter().zip(states);
    all.then(|| both.map(|(projection, recurrence)| Weights::Floats { projection, recurrence }).collect())
}

/// Weights of bytes with one scale and zero point for each direction, or for each of its columns.
fn byte_weights(cx: &Cx, n: &Node, g: &RnnGeometry) -> Option<Vec<Weights>> {
    let (columns, directions) = (4 * g.hidden, g.directions.len());
    let side = |i: usize, parameters: usize, k: usize| {
        let w = cx.graph.constant(n.input(i)?).filter(|w| matches!(w.dtype(), DType::U8 | DType::I8))?;
        let scale = cx.floats(n.input(parameters)?)?;
        let zero: Vec<i32> = cx.ints(n.input(parameters + 1)?)?.into_iter().map(|z| z as i32).collect();
        let per = scale.len() / directions;
        if per * directions != scale.len() || !(per == 1 || per == columns) || zero.len() != scale.len() {
            return None;
        }
        let all = (0..directions).map(|d| {
            let (zero, scale) = (part(&zero, per, d)?, part(&scale, per, d)?);
            let data = w.bytes().get(d * k * columns..(d + 1) * k * columns)?;
            let signed = w.dtype() == DType::I8;
            let w = kernels::Weights { data, signed, zero: &zero, scale: &scale };
            pack_gates(cx.tier, &w, k, g.hidden).ok().map(Box::new)
        });
        all.collect::<Option<Vec<_>>>()
    };
    let both = side(1, 8, g.input)?.into_iter().zip(side(2, 10, g.hidden)?);
    Some(both.map(|(projection, recurrence)| Weights::Bytes { projection, recurrence }).collect())
}

/// Direction `d`.
fn pass(
    g: &RnnGeometry,
    d: usize,
    weights: Weights,
    bias: Option<&[f32]>,
    peephole: Option<&[f32]>,
) -> Option<Pass> {
    let (hidden, rows) = (g.hidden, g.cell.gates() * g.hidden);
    let both = match bias {
        Some(b) => part(b, 2 * rows, d)?,
        None => vec![0.0; 2 * rows],
    };
    let (input, state) = both.split_at(rows);
    // What a GRU resets after its product is not part of the projection.
    let apart = if kind(g) == (Kind::Gru { linear_before_reset: true }) { 2 * hidden } else { rows };
    let mut bias: Vec<f32> =
        (0..rows).map(|i| if i < apart { input[i] + state[i] } else { input[i] }).collect();
    if let Weights::Bytes { projection, .. } = &weights {
        // Gates are padded alike.
        let gates = bias.chunks_exact(hidden);
        let wide = projection.n() / g.cell.gates();
        bias = gates.flat_map(|b| b.iter().copied().chain(vec![0.0; wide - hidden])).collect();
    } else {
        bias = (0..rows).map(|i| bias[kind(g).projected_from(hidden, i)]).collect();
    }
    let peephole = match peephole {
        Some(p) => Some(part(p, 3 * hidden, d)?),
        None => None,
    };
    let direction = &g.directions[d];
    let gate = |i: usize| direction.activations.get(i).map_or(Gate::Tanh, |&a| native(a));
    Some(Pass {
        reverse: direction.reverse,
        gates: [gate(0), gate(1), gate(2)],
        weights,
        bias,
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
    use ir::{Attrs, Evaluate, Feeds, Graph, Lookup, Tensor, Value, ValueType};

    fn data(shape: &[usize], seed: usize) -> Tensor {
        let n: usize = shape.iter().product();
        Tensor::new(shape, (0..n).map(|i| (((i + seed) * 7919) % 613) as f32 / 600.0 - 0.5).collect())
            .unwrap()
    }

    /// A layer with bias and first states, both ways of running it; it must be one kernel call.
    fn check(op: &str, directions: usize, attrs: Attrs) {
        [18, 32].into_iter().for_each(|hidden| check_units(op, directions, attrs.clone(), hidden));
    }

    fn check_units(op: &str, directions: usize, attrs: Attrs, hidden: usize) {
        let gates = match op {
            "LSTM" => 4,
            "GRU" => 3,
            _ => 1,
        };
        let (steps, batch, size) = (5, 3, 7);
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
    fn layers_of_bytes_agree() {
        for (direction, hidden, per) in [("forward", 16, 1), ("reverse", 18, 72), ("bidirectional", 18, 1)] {
            let directions = if direction == "bidirectional" { 2 } else { 1 };
            let (steps, batch, size) = (5, 2, 7);
            let (x, state) = (data(&[steps, batch, size], 1), data(&[directions, batch, hidden], 5));
            let mut g = Graph::new("t");
            let xi = g.add_input("x", ValueType::of(&x));
            let h = g.add_input("h", ValueType::of(&state));
            let mut bytes = |name: &str, k: usize| {
                let codes = (0..directions * k * 4 * hidden).map(|i| (i * 7919 % 251) as u8).collect();
                let w = Tensor::new(&[directions, k, 4 * hidden], codes).unwrap();
                let scale = (0..directions * per).map(|i| 0.002 + 0.0001 * (i % 5) as f32).collect();
                let zero = (0..directions * per).map(|i| 120 + (i % 9) as u8).collect();
                let shape: &[usize] = if per == 1 { &[directions] } else { &[directions, per] };
                [
                    g.add_initializer(name, w),
                    g.add_initializer(&format!("{name}s"), Tensor::new::<f32>(shape, scale).unwrap()),
                    g.add_initializer(&format!("{name}z"), Tensor::new::<u8>(shape, zero).unwrap()),
                ]
            };
            let (w, r) = (bytes("w", size), bytes("r", hidden));
            let b = g.add_initializer("b", data(&[directions, 8 * hidden], 3));
            let lengths = g.add_initializer("l", Tensor::vector(vec![5i32, 3]));
            let op = ops::Standard.require("com.microsoft", "DynamicQuantizeLSTM").unwrap();
            let attrs =
                Attrs::new().with("hidden_size", hidden as i64).with("direction", direction.to_string());
            let inputs = [xi, w[0], r[0], b, lengths, h, h].map(Some).into_iter().chain([None]);
            let inputs: Vec<_> = inputs.chain([w[1], w[2], r[1], r[2]].map(Some)).collect();
            let outputs = ["y0", "y1", "y2"];
            let made = g.add_node("y", op, attrs, &inputs, &outputs);
            for (i, name) in outputs.iter().enumerate() {
                let v = g.node(made).unwrap().output(i).unwrap();
                g.add_output(name, v);
            }
            ir::infer(&mut g).unwrap();
            let values = [Value::Tensor(x), Value::Tensor(state)];
            let feeds: Feeds = ["x", "h"].iter().map(|n| n.to_string()).zip(values.clone()).collect();
            let p = crate::compile(&g).unwrap();
            assert!(p.steps().iter().all(|s| s.kind == "recurrence"), "{direction}");
            let ours = p.run(&values, &kernels::Serial).unwrap();
            let want = ir::Reference.run(&g, &feeds, &[]).unwrap().outputs;
            for (a, b) in ours.iter().zip(&want) {
                let (a, b) = (a.tensor().unwrap(), b.tensor().unwrap());
                assert_eq!(a.shape(), b.shape());
                for (a, b) in a.to_f32s().unwrap().iter().zip(b.to_f32s().unwrap()) {
                    // A code may be one step off where the last bit of a state decides a tie.
                    assert!((a - b).abs() < 3e-3, "{direction}: {a} is not {b}");
                }
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
