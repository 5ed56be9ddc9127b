use ir::{Attrs, DType, Evaluate, Feeds, Graph, Lookup, Operator, Tensor, Value, ValueType};
use kernels::{Pool, Serial};

/// Four threads' worth of tasks, last first.
struct Many;
impl Pool for Many {
    fn threads(&self) -> usize {
        4
    }
    fn run(&self, tasks: usize, f: &(dyn Fn(usize) + Sync)) {
        (0..tasks).rev().for_each(f);
    }
}

fn data(shape: &[usize], seed: usize) -> Tensor {
    let n: usize = shape.iter().product();
    Tensor::new(shape, (0..n).map(|i| (((i + seed) * 7919) % 613) as f32 / 200.0 - 1.5).collect()).unwrap()
}

/// Compiles one node over these inputs and compares with its reference semantics; the step must be the kernel.
fn check(op: &'static dyn Operator, attrs: &Attrs, inputs: &[Tensor], what: &str) {
    let mut g = Graph::new("t");
    let ids: Vec<_> = inputs
        .iter()
        .enumerate()
        .map(|(i, t)| g.add_input(&i.to_string(), ValueType::known(t.dtype(), t.shape())))
        .collect();
    let y = g.apply("y", op, attrs.clone(), &ids);
    g.add_output("y", y);
    ir::infer(&mut g).unwrap();
    let feeds: Feeds =
        inputs.iter().enumerate().map(|(i, t)| (i.to_string(), Value::Tensor(t.clone()))).collect();
    let want = ir::Reference.run(&g, &feeds, &[]).unwrap().outputs.remove(0);
    let values: Vec<Value> = inputs.iter().map(|t| Value::Tensor(t.clone())).collect();
    let program = crate::compile(&g).unwrap();
    assert_eq!(program.steps()[0].kind, "attention", "{what}");
    let got = program.run(&values, &Serial).unwrap().remove(0);
    let many = program.run(&values, &Many).unwrap().remove(0);
    let (want, got, many) = (want.tensor().unwrap(), got.tensor().unwrap(), many.tensor().unwrap());
    assert_eq!(want.shape(), got.shape(), "{what}");
    assert_eq!(got.bytes(), many.bytes(), "{what}: threads changed the bits");
    for (a, b) in want.to_f32s().unwrap().iter().zip(got.to_f32s().unwrap()) {
        assert!((a - b).abs() < 2e-5 || (a.is_nan() && b.is_nan()), "{what}: {a} {b}");
    }
}

/// The shape of which `permuted` is the transpose by `perm`.
fn source(permuted: &[usize], perm: &[i64]) -> Vec<usize> {
    let mut s = vec![0; perm.len()];
    perm.iter().zip(permuted).for_each(|(&d, &n)| s[d as usize] = n);
    s
}

#[test]
fn permuted_operands_match_the_reference() {
    let op = ops::Standard.operator("ir.", "Attention").unwrap();
    let (id, heads, columns, all) = ([0, 1, 2, 3], [0, 2, 1, 3], [0, 1, 3, 2], [2, 1, 0, 3]);
    let layouts = [[id, id, id, id], [heads, heads, heads, heads], [id, columns, heads, all], [all; 4]];
    for (b, h, s, t, d, e) in
        [(1, 1, 1, 1, 1, 1), (2, 3, 13, 67, 20, 9), (1, 2, 130, 128, 32, 32), (2, 2, 3, 0, 4, 5)]
    {
        for [q, k, v, y] in layouts {
            let attrs = Attrs::new()
                .with("q_perm", q.to_vec())
                .with("k_perm", k.to_vec())
                .with("v_perm", v.to_vec())
                .with("y_perm", y.to_vec())
                .with("scale", 0.25f32);
            // Keys and values shared by the heads.
            let shared = if k == columns { 1 } else { h };
            let mut inputs = vec![
                data(&source(&[b, h, s, d], &q), 1),
                data(&source(&[b, shared, t, d], &k), 2),
                data(&source(&[b, shared, t, e], &v), 3),
            ];
            let what = format!("{b} {h} {s} {t} {d} {e} {q:?} {k:?}");
            check(op, &attrs, &inputs, &what);
            // Every third key hidden, and all of them for the last query.
            let hidden = |i: usize| i % 3 == 1 || i / t.max(1) == s - 1;
            let mask: Vec<f32> =
                (0..s * t).map(|i| if hidden(i) { f32::NEG_INFINITY } else { 0.5 }).collect();
            inputs.push(Tensor::new(&[s, t], mask).unwrap());
            check(op, &attrs, &inputs, &what);
            check(op, &attrs.clone().with("guard", 1i64), &inputs, &what);
            inputs[3] =
                Tensor::new(&[b, 1, 1, t], (0..b * t).map(|i| i % 3 != 1).collect::<Vec<bool>>()).unwrap();
            check(op, &attrs.clone().with("fill", f32::NEG_INFINITY), &inputs, &what);
            check(op, &attrs.clone().with("fill", -2.0f32), &inputs, &what);
        }
    }
}

#[test]
fn three_axes_and_infinite_scores_match_the_reference() {
    let op = ops::Standard.operator("ir.", "Attention").unwrap();
    let id = [0, 1, 2].to_vec();
    let attrs = ["q_perm", "v_perm", "y_perm"]
        .iter()
        .fold(Attrs::new().with("k_perm", vec![0, 2, 1]), |a, n| a.with(n, id.clone()));
    let mut q = data(&[3, 5, 7], 1).to_f32s().unwrap();
    (q[0], q[8], q[20]) = (f32::INFINITY, f32::NAN, f32::NEG_INFINITY);
    let q = Tensor::new(&[3, 5, 7], q).unwrap();
    let inputs = [q, data(&[3, 7, 11], 2), data(&[1, 11, 6], 3)];
    check(op, &attrs, &inputs, "three axes");
    check(op, &attrs.with("guard", 1i64), &inputs, "guarded");
}

#[test]
fn the_standard_operator_matches_the_reference() {
    let op = ops::standard("Attention").unwrap();
    let (q, k, v) = (data(&[2, 4, 5, 12], 1), data(&[2, 2, 9, 12], 2), data(&[2, 2, 9, 7], 3));
    let truth = |n: usize| (0..n).map(|i| i % 3 != 1 && i / 9 != 2).collect::<Vec<bool>>();
    let bools = Tensor::new(&[5, 9], truth(45)).unwrap();
    let floats = data(&[2, 1, 5, 9], 4);
    for attrs in [
        Attrs::new(),
        Attrs::new().with("is_causal", 1i64),
        Attrs::new().with("scale", 2.0f32).with("softcap", 3.0f32),
    ] {
        let plain = [q.clone(), k.clone(), v.clone()];
        check(op, &attrs, &plain, "heads");
        for mask in [&bools, &floats] {
            check(op, &attrs, &[&plain[..], std::slice::from_ref(mask)].concat(), "masked heads");
        }
        let packed = attrs.with("q_num_heads", 4i64).with("kv_num_heads", 2i64);
        check(op, &packed, &[data(&[2, 5, 48], 1), data(&[2, 9, 24], 2), data(&[2, 9, 14], 3)], "packed");
    }
    assert_eq!(bools.dtype(), DType::Bool);
}
