use crate::Standard;
use ir::{Attrs, DType, Dim, Error, Graph, Lookup, Result, Tensor, Value, ValueType};

fn run(op: &str, attrs: Attrs, inputs: &[Option<Tensor>], outputs: usize) -> Result<Vec<Tensor>> {
    let inputs: Vec<Option<Value>> = inputs.iter().map(|t| t.clone().map(Value::Tensor)).collect();
    let all = crate::testing::eval(Standard.require(super::DOMAIN, op)?, attrs, &inputs, outputs)?;
    all.iter().map(|v| v.tensor().cloned()).collect()
}

fn floats(shape: &[usize], seed: usize) -> Option<Tensor> {
    let n = shape.iter().product();
    let data = (0..n).map(|i| ((i * 37 + seed * 101) % 61) as f32 / 30.0 - 1.0).collect::<Vec<f32>>();
    Some(Tensor::new(shape, data).unwrap())
}

fn bytes(shape: &[usize], seed: usize) -> Option<Tensor> {
    let n = shape.iter().product();
    Some(Tensor::new(shape, (0..n).map(|i| ((i * 91 + seed * 13) % 256) as u8).collect()).unwrap())
}

fn close(a: &Tensor, b: &Tensor, most: f64) {
    assert_eq!((a.dtype(), a.shape()), (b.dtype(), b.shape()));
    for (x, y) in a.to_f64s().unwrap().iter().zip(b.to_f64s().unwrap()) {
        assert!((x - y).abs() <= most, "{x} {y}");
    }
}

/// The same node as import sees it: expanded over inputs of which some are constants.
fn expanded(op: &str, attrs: Attrs, inputs: &[Option<Tensor>], constant: &[usize]) -> Graph {
    let mut g = Graph::new("g");
    let ids: Vec<_> = inputs
        .iter()
        .enumerate()
        .map(|(i, t)| {
            let t = t.as_ref()?;
            let name = i.to_string();
            Some(if constant.contains(&i) {
                g.add_initializer(&name, t.clone())
            } else {
                g.add_input(&name, ValueType::of(t))
            })
        })
        .collect();
    let op = Standard.require(super::DOMAIN, op).unwrap();
    let id = g.add_node("n", op, attrs, &ids, &["y"]);
    let y = op.expand(&mut g, id, &Standard).unwrap().unwrap()[0].unwrap();
    g.remove_node(id).unwrap();
    g.add_output("out", y);
    ir::infer(&mut g).unwrap();
    assert!(g.nodes().all(|(_, n)| n.op.domain().is_empty()));
    g
}

#[test]
fn blocks_of_few_bits_are_the_numbers_they_stand_for() {
    let (n, k, block) = (3, 32, 16);
    let attrs = |bits: i64| {
        Attrs::new()
            .with("N", n as i64)
            .with("K", k as i64)
            .with("block_size", block as i64)
            .with("bits", bits)
    };
    for (bits, zeros) in [(4, None), (4, Some(())), (8, Some(())), (2, Some(()))] {
        let (codes, scales) = (bytes(&[n, 2, block * bits / 8], bits), floats(&[n, 2], 2));
        let zeros = zeros.and_then(|()| bytes(&[n, (2 * bits).div_ceil(8)], 5));
        let inputs = [floats(&[2, k], 1), codes.clone(), scales.clone(), zeros.clone()];
        let y = run("MatMulNBits", attrs(bits as i64), &inputs, 1).unwrap().remove(0);
        let code = |t: &Tensor, row: usize, i: usize| {
            let (per, stride) = (8 / bits, t.len() / n);
            i32::from(t.bytes()[row * stride + i / per] >> (bits * (i % per)) & ((1u16 << bits) - 1) as u8)
        };
        let (a, s) = (inputs[0].as_ref().unwrap().to_f32s().unwrap(), scales.unwrap().to_f32s().unwrap());
        let weight = |row: usize, i: usize| {
            let zero = zeros.as_ref().map_or(1 << (bits - 1), |z| code(z, row, i / block));
            (code(codes.as_ref().unwrap(), row, i) - zero) as f32 * s[row * 2 + i / block]
        };
        let want: Vec<f32> =
            (0..2 * n).map(|j| (0..k).map(|i| a[j / n * k + i] * weight(j % n, i)).sum()).collect();
        close(&y, &Tensor::new(&[2, n], want).unwrap(), 1e-3);
        // Stored weights become a blocked DequantizeLinear, others arithmetic.
        let op = |constant: &[usize]| {
            let g = expanded("MatMulNBits", attrs(bits as i64), &inputs, constant);
            g.nodes().any(|(_, n)| n.is("DequantizeLinear"))
        };
        assert!(op(&[1, 2, 3]) && !op(&[]));
    }
    assert!(
        run("MatMulNBits", attrs(3), &[floats(&[2, k], 1), bytes(&[n, 2, 6], 1), floats(&[n, 2], 2)], 1)
            .is_err()
    );
}

#[test]
fn the_attention_operators_agree_where_they_overlap() {
    let heads = |a: Attrs| a.with("num_heads", 2);
    let (q, k, v) = (floats(&[2, 5, 8], 1), floats(&[2, 5, 8], 2), floats(&[2, 5, 8], 3));
    let causal = heads(Attrs::new()).with("unidirectional", 1);
    let a = run("MultiHeadAttention", causal, &[q.clone(), k.clone(), v.clone()], 1).unwrap();
    let lengths = Some(Tensor::vector(vec![4i32, 4]));
    let total = Some(Tensor::vector(vec![5i32]));
    let grouped = heads(Attrs::new()).with("kv_num_heads", 2);
    let inputs = [q.clone(), k, v, None, None, lengths, total];
    close(&a[0], &run("GroupQueryAttention", grouped, &inputs, 1).unwrap()[0], 1e-6);
    // A prompt in two parts: the second sees the cache of the first.
    let w = [floats(&[8, 24], 4), floats(&[24], 5)];
    let attrs = || heads(Attrs::new()).with("unidirectional", 1);
    let part = |from: usize, to: usize| {
        let x = q.as_ref().unwrap().to_f32s().unwrap();
        let rows = (0..2).flat_map(|b| x[(b * 5 + from) * 8..(b * 5 + to) * 8].to_vec()).collect();
        Some(Tensor::new(&[2, to - from, 8], rows).unwrap())
    };
    let whole = run("Attention", attrs(), &[part(0, 5), w[0].clone(), w[1].clone()], 2).unwrap();
    let first = run("Attention", attrs(), &[part(0, 3), w[0].clone(), w[1].clone()], 2).unwrap();
    let past = Some(first[1].clone());
    let second = run("Attention", attrs(), &[part(3, 5), w[0].clone(), w[1].clone(), None, past], 2).unwrap();
    close(&whole[1], &second[1], 1e-6);
    let (whole, second) = (whole[0].to_f32s().unwrap(), second[0].to_f32s().unwrap());
    for b in 0..2 {
        for (x, y) in whole[(b * 5 + 3) * 8..(b + 1) * 40].iter().zip(&second[b * 16..]) {
            assert!((x - y).abs() < 1e-5);
        }
    }
}

#[test]
fn bytes_through_a_recurrence_stay_near_the_floats_they_stand_for() {
    let (steps, input, hidden) = (6, 5, 4);
    let codes = |shape: &[usize], seed: usize| {
        let n: usize = shape.iter().product();
        Tensor::new(shape, (0..n).map(|i| ((i * 91 + seed) % 255) as u8 as i8).collect::<Vec<i8>>()).unwrap()
    };
    let (w, r) = (codes(&[2, input, 16], 1), codes(&[2, hidden, 16], 7));
    let (ws, rs) = ([0.004f32, 0.003], [0.002f32, 0.005]);
    let attrs = || Attrs::new().with("direction", "bidirectional").with("hidden_size", hidden as i64);
    let (x, bias) = (floats(&[steps, 2, input], 3), floats(&[2, 32], 4));
    let lengths = Some(Tensor::vector(vec![6i32, 3]));
    let zero = || Some(Tensor::vector(vec![0i8, 0]));
    let scale = |s: [f32; 2]| Some(Tensor::vector(s.to_vec()));
    let inputs = [
        x.clone(),
        Some(w.clone()),
        Some(r.clone()),
        bias.clone(),
        lengths.clone(),
        None,
        None,
        None,
        scale(ws),
        zero(),
        scale(rs),
        zero(),
    ];
    let found = run("DynamicQuantizeLSTM", attrs(), &inputs, 3).unwrap();
    let float = |t: &Tensor, s: [f32; 2]| {
        let (rows, v) = (t.shape()[1], t.to_f32s().unwrap());
        let at = |d: usize, c: usize, i: usize| v[(d * rows + i) * 16 + c] * s[d];
        let all = (0..2).flat_map(|d| (0..16).flat_map(move |c| (0..rows).map(move |i| (d, c, i))));
        Some(Tensor::new(&[2, 16, rows], all.map(|(d, c, i)| at(d, c, i)).collect()).unwrap())
    };
    let inputs: Vec<Option<Value>> =
        [x, float(&w, ws), float(&r, rs), bias, lengths].into_iter().map(|t| t.map(Value::Tensor)).collect();
    let wanted = crate::testing::eval(crate::standard("LSTM").unwrap(), attrs(), &inputs, 3).unwrap();
    for (f, w) in found.iter().zip(&wanted) {
        close(f, w.tensor().unwrap(), 0.02);
    }
    // Something was quantized.
    assert_ne!(found[0].to_f32s().unwrap(), wanted[0].tensor().unwrap().to_f32s().unwrap());
}

#[test]
fn what_depends_on_unknown_types_waits_for_them() {
    let mut g = Graph::new("g");
    let x = g.add_input("x", ValueType::Unknown);
    let y = g.add_input("y", ValueType::unranked(DType::F32));
    let op = Standard.require(super::DOMAIN, "FusedMatMul").unwrap();
    let id = g.add_node("n", op, Attrs::new().with("transA", 1), &[Some(x), Some(y)], &["z"]);
    assert_eq!(op.expand(&mut g, id, &Standard).unwrap(), None);
    assert_eq!(g.node_count(), 1);
    g.set_type(x, ValueType::tensor(DType::F32, vec![Dim::symbol("K"), Dim::symbol("M")]));
    assert!(op.expand(&mut g, id, &Standard).unwrap().is_some());
    // Forms that have no expansion are refused, not kept.
    let op = Standard.require(super::DOMAIN, "BiasDropout").unwrap();
    let id = g.add_node("d", op, Attrs::new(), &[Some(x), Some(x)], &["a", "b"]);
    assert!(matches!(op.expand(&mut g, id, &Standard), Err(Error { blame: ir::Blame::Unsupported, .. })));
}

#[test]
fn quantized_operators_round_once() {
    let s = |x: f32| Some(Tensor::scalar(x));
    let z = |x: u8| Some(Tensor::scalar(x));
    let v = |x: &[u8]| Some(Tensor::vector(x.to_vec()));
    // (10 − 8)·0.5 + (6 − 4)·0.25 = 1.5; over 0.3 is 5; plus 10.
    let inputs = [v(&[10]), s(0.5), z(8), v(&[6]), s(0.25), z(4), s(0.3), z(10)];
    assert_eq!(run("QLinearAdd", Attrs::new(), &inputs, 1).unwrap()[0].bytes(), [15]);
    let inputs = [s(0.5), z(0), v(&[4, 6]), s(0.25), z(0), v(&[3]), s(1.0), z(1)];
    let y = run("QLinearConcat", Attrs::new().with("axis", 0), &inputs, 1).unwrap().remove(0);
    assert_eq!(y.bytes(), [2, 3, 4]);
    assert!(run("QLinearConcat", Attrs::new().with("axis", 0), &inputs[..4], 1).is_err());
}
