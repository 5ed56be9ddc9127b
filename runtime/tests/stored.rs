//! Weights that a file stores in few bits are multiplied as they are stored, and give what the decoded ones give.

use compress_runtime::Session;
use ir::{Attrs, DType, Evaluate, Feeds, Graph, Tensor, Value, ValueId, ValueType};

const K: usize = 128;
const N: usize = 96;

fn noise(n: usize, seed: usize) -> Vec<usize> {
    (0..n).map(|i| ((i + seed) * 7919 + (i * i) % 89) % 613).collect()
}

fn floats(shape: &[usize], seed: usize) -> Tensor {
    let n = shape.iter().product();
    Tensor::new(shape, noise(n, seed).iter().map(|&x| x as f32 / 600.0 - 0.4).collect()).unwrap()
}

fn op(g: &mut Graph, name: &str, attrs: Attrs, inputs: &[ValueId]) -> ValueId {
    g.apply("n", ops::standard(name).unwrap(), attrs, inputs)
}

/// int4 in blocks, with zero points of their own and scales in half precision.
fn weight(g: &mut Graph, seed: usize) -> ValueId {
    let bytes = |n: usize, seed| noise(n, seed).iter().map(|&x| x as u8).collect::<Vec<u8>>();
    let q = g.add_initializer("q", Tensor::from_unpacked(DType::U4, &[K, N], &bytes(K * N, seed)).unwrap());
    let blocks = [K / 32, N];
    let z = g.add_initializer("z", Tensor::from_unpacked(DType::U4, &blocks, &bytes(K / 32 * N, 9)).unwrap());
    let s = floats(&blocks, seed + 1).to_f32s().unwrap();
    let s = g.add_initializer("s", Tensor::from_f32s(DType::F16, &blocks, s).unwrap());
    let s = op(g, "Cast", Attrs::new().with("to", i64::from(DType::F32.onnx())), &[s]);
    let attrs = Attrs::new().with("axis", 0i64).with("block_size", 32i64);
    op(g, "DequantizeLinear", attrs, &[q, s, z])
}

fn kinds_and_error(g: &Graph, x: Tensor) -> (Vec<String>, f32) {
    let feeds = Feeds::from([("x".to_string(), Value::Tensor(x))]);
    let want = ir::Reference.run(g, &feeds, &[]).unwrap().outputs.remove(0);
    let session = Session::from_graph(g, 2).unwrap();
    let got = session.evaluate(&feeds).unwrap().remove(0);
    let (want, got) = (want.tensor().unwrap().to_f32s().unwrap(), got.tensor().unwrap().to_f32s().unwrap());
    let most = want.iter().fold(0f32, |m, x| m.max(x.abs()));
    let error = want.iter().zip(&got).fold(0f32, |e, (a, b)| e.max((a - b).abs())) / most;
    (session.profile(&feeds).unwrap().steps.iter().map(|s| s.kind.to_string()).collect(), error)
}

#[test]
fn rewriting_leaves_stored_weights_to_the_kernels() {
    for m in [1, 4] {
        let mut g = Graph::new("t");
        let x = g.add_input("x", ValueType::known(DType::F32, &[m, K]));
        let w = weight(&mut g, 1);
        let y = op(&mut g, "MatMul", Attrs::new(), &[x, w]);
        let b = g.add_initializer("b", floats(&[N], 3));
        let y = op(&mut g, "Add", Attrs::new(), &[y, b]);
        let y = op(&mut g, "Relu", Attrs::new(), &[y]);
        g.add_output("y", y);
        ir::infer(&mut g).unwrap();
        let (kinds, error) = kinds_and_error(&g, floats(&[m, K], 8));
        assert!(kinds.len() == 1 && kinds[0].starts_with("packed product"), "{kinds:?}");
        assert!(error < 2e-6, "{error}");
    }
}

#[test]
fn weights_that_other_operators_read_too_are_decoded_once() {
    let mut g = Graph::new("t");
    let x = g.add_input("x", ValueType::known(DType::F32, &[2, K]));
    let w = weight(&mut g, 1);
    let y = op(&mut g, "MatMul", Attrs::new(), &[x, w]);
    let v = g.add_initializer("v", floats(&[N, 3], 2));
    let z = op(&mut g, "MatMul", Attrs::new(), &[y, v]);
    let sum = op(&mut g, "ReduceSum", Attrs::new().with("keepdims", 0i64), &[w]);
    let z = op(&mut g, "Mul", Attrs::new(), &[z, sum]);
    g.add_output("z", z);
    ir::infer(&mut g).unwrap();
    let (kinds, error) = kinds_and_error(&g, floats(&[2, K], 8));
    assert!(!kinds.iter().any(|k| k == "reference" || k == "reduction"), "{kinds:?}");
    assert!(error < 1e-5, "{error}");
}
