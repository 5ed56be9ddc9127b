use ir::{Attrs, DType, Evaluate, Feeds, Graph, Tensor, Value, ValueId, ValueType};
use kernels::{Serial, Tier};

const K: usize = 96;
const N: usize = 40;

fn noise(n: usize, seed: usize) -> impl Iterator<Item = usize> {
    (0..n).map(move |i| ((i + seed) * 7919 + (i * i) % 89) % 613)
}

fn floats(shape: &[usize], seed: usize) -> Tensor {
    let n = shape.iter().product();
    Tensor::new(shape, noise(n, seed).map(|x| x as f32 / 200.0 - 1.5).collect()).unwrap()
}

fn small(dtype: DType, shape: &[usize], seed: usize) -> Tensor {
    let bytes: Vec<u8> = noise(shape.iter().product(), seed).map(|x| x as u8).collect();
    Tensor::from_unpacked(dtype, shape, &bytes).unwrap()
}

struct B(Graph);

impl B {
    fn constant(&mut self, t: Tensor) -> ValueId {
        self.0.add_initializer("c", t)
    }
    fn op(&mut self, name: &str, attrs: Attrs, inputs: &[ValueId]) -> ValueId {
        self.0.apply("n", ops::standard(name).unwrap(), attrs, inputs)
    }
    fn dequantized(&mut self, q: Tensor, s: &[usize], zero: Option<Tensor>, attrs: Attrs) -> ValueId {
        let q = self.constant(q);
        let s = self.constant(floats(s, 3));
        let mut inputs = vec![q, s];
        inputs.extend(zero.map(|z| self.constant(z)));
        self.op("DequantizeLinear", attrs, &inputs)
    }
    fn reshaped(&mut self, x: ValueId, shape: &[i64]) -> ValueId {
        let s = self.constant(Tensor::vector(shape.to_vec()));
        self.op("Reshape", Attrs::new(), &[x, s])
    }
    fn cast(&mut self, x: ValueId, to: DType) -> ValueId {
        self.op("Cast", Attrs::new().with("to", i64::from(to.onnx())), &[x])
    }
}

fn along(axis: i64) -> Attrs {
    Attrs::new().with("axis", axis)
}

fn blocks(axis: i64, size: i64) -> Attrs {
    along(axis).with("block_size", size)
}

/// Compiles and compares with the reference; `kind` is what the one step must be.
fn check(what: &str, x: &[usize], kind: &str, build: impl FnOnce(&mut B, ValueId) -> ValueId) {
    let mut b = B(Graph::new("t"));
    let input = b.0.add_input("x", ValueType::known(DType::F32, x));
    let y = build(&mut b, input);
    b.0.add_output("y", y);
    let mut g = b.0;
    ir::infer(&mut g).unwrap();
    let x = floats(x, 11);
    let feeds = Feeds::from([("x".to_string(), Value::Tensor(x.clone()))]);
    let want = ir::Reference.run(&g, &feeds, &[]).unwrap().outputs.remove(0);
    let program = crate::compile(&g).unwrap();
    let kinds: Vec<&str> = program.steps().iter().map(|s| s.kind).filter(|k| *k != "movement").collect();
    assert_eq!(kinds, [kind], "{what}");
    let got = program.run(&[Value::Tensor(x)], &Serial).unwrap().remove(0);
    let (want, got) = (want.tensor().unwrap().to_f32s().unwrap(), got.tensor().unwrap().to_f32s().unwrap());
    let most = want.iter().fold(0f32, |m, x| m.max(x.abs()));
    for (a, b) in want.iter().zip(&got) {
        assert!((a - b).abs() <= 2e-6 * most, "{what}: {a} {b} of {most}");
    }
}

fn product(what: &str, weight: impl Fn(&mut B) -> ValueId) {
    check(what, &[1, K], "packed product", |b, x| {
        let w = weight(b);
        b.op("MatMul", Attrs::new(), &[x, w])
    });
}

#[test]
fn integers_with_scales_stay_packed() {
    for d in [DType::I4, DType::U4, DType::I8, DType::U8] {
        product(&format!("{d} each column"), |b| b.dequantized(small(d, &[K, N], 1), &[N], None, along(1)));
        product(&format!("{d} each column with zeros"), |b| {
            b.dequantized(small(d, &[K, N], 1), &[N], Some(small(d, &[N], 5)), along(1))
        });
        product(&format!("{d} blocks"), |b| {
            b.dequantized(small(d, &[K, N], 1), &[K / 32, N], None, blocks(0, 32))
        });
        product(&format!("{d} blocks with zeros"), |b| {
            let z = small(d, &[K / 16, N], 5);
            b.dequantized(small(d, &[K, N], 1), &[K / 16, N], Some(z), blocks(0, 16))
        });
        product(&format!("{d} transposed blocks"), |b| {
            let w = b.dequantized(small(d, &[N, K], 1), &[N, K / 32], None, blocks(1, 32));
            b.op("Transpose", Attrs::new(), &[w])
        });
    }
}

#[test]
fn tables_and_assembled_integers_stay_packed() {
    for (d, entries) in [(DType::U4, 16), (DType::U4, 4), (DType::U8, 256)] {
        if entries == 256 && kernels::Tier::best() == kernels::Tier::Avx2 {
            continue; // no kernel: floats
        }
        product(&format!("table of {entries}"), |b| {
            let q = noise(K * N, 2).map(|x| (x % entries) as u8).collect::<Vec<u8>>();
            let q = b.constant(Tensor::from_unpacked(d, &[K, N], &q).unwrap());
            let q = b.cast(q, DType::I32);
            let t = b.constant(floats(&[entries], 4));
            let g = b.op("Gather", along(0), &[t, q]);
            let s = b.constant(floats(&[N], 5));
            b.op("Mul", Attrs::new(), &[g, s])
        });
    }
    product("two codes an index, scales of blocks", |b| {
        let q = b.constant(small(DType::U4, &[K * N / 2], 2));
        let i = b.cast(q, DType::I32);
        let pairs = (0..16).flat_map(|p| [(p & 3) as f32 - 2.0, (p >> 2) as f32 - 2.0]).collect();
        let t = b.constant(Tensor::new(&[16, 2], pairs).unwrap());
        let g = b.op("Gather", along(0), &[t, i]);
        let g = b.reshaped(g, &[K as i64 / 16, 16, N as i64]);
        let s = b.constant(floats(&[K / 16, 1, N], 5));
        let s = b.cast(s, DType::F16);
        let s = b.cast(s, DType::F32);
        let w = b.op("Mul", Attrs::new(), &[g, s]);
        b.reshaped(w, &[K as i64, N as i64])
    });
}

#[test]
fn all_kinds_of_products_read_them() {
    let weight = |b: &mut B| b.dequantized(small(DType::I4, &[N, K], 1), &[N], None, along(0));
    check("Gemm", &[2, K], "packed product", |b, x| {
        let (w, c) = (weight(b), b.constant(floats(&[N], 8)));
        b.op("Gemm", Attrs::new().with("transB", 1i64).with("alpha", 0.5f32), &[x, w, c])
    });
    check("pointwise", &[1, K, 2, 2], "packed product", |b, x| {
        let (w, c) = (weight(b), b.constant(floats(&[N], 8)));
        let w = b.reshaped(w, &[N as i64, K as i64, 1, 1]);
        let y = b.op("Conv", Attrs::new(), &[x, w, c]);
        b.op("Relu", Attrs::new(), &[y])
    });
    // Kernels of floats take what is decoded beforehand.
    check("window", &[1, K / 4, 5, 5], "convolution", |b, x| {
        let w = weight(b);
        let w = b.reshaped(w, &[N as i64, K as i64 / 4, 2, 2]);
        b.op("Conv", Attrs::new(), &[x, w])
    });
}

#[test]
fn what_is_not_codes_is_decoded_beforehand() {
    check("half floats", &[3, K], "matrix product", |b, x| {
        let w = b.constant(floats(&[K, N], 1));
        let w = b.cast(w, DType::F16);
        let w = b.cast(w, DType::F32);
        b.op("MatMul", Attrs::new(), &[x, w])
    });
    // No kernel takes a transposed left operand, and a reference step reads weights that are there.
    check("transA", &[K, 3], "reference", |b, x| {
        let w = b.dequantized(small(DType::I4, &[K, N], 1), &[N], None, along(1));
        b.op("Gemm", Attrs::new().with("transA", 1i64), &[x, w])
    });
}

#[test]
fn a_transposed_matrix_is_packed_where_it_lies() {
    check("turned", &[3, K], "matrix product", |b, x| {
        let table = b.constant(floats(&[N, K], 1));
        let turned = b.op("Transpose", Attrs::new().with("perm", vec![1i64, 0]), &[table]);
        b.op("MatMul", Attrs::new(), &[x, turned])
    });
}

#[test]
fn many_rows_are_words_unless_floats_are_asked_for() {
    const LONG: usize = 512;
    let mut b = B(Graph::new("t"));
    let x = b.0.add_input("x", ValueType::known(DType::F32, &[24, LONG]));
    let w = b.dequantized(small(DType::I8, &[LONG, N], 1), &[N], None, along(1));
    let y = b.op("MatMul", Attrs::new(), &[x, w]);
    b.0.add_output("y", y);
    let mut g = b.0;
    ir::infer(&mut g).unwrap();
    let x = floats(&[24, LONG], 11);
    let feeds = Feeds::from([("x".to_string(), Value::Tensor(x.clone()))]);
    let want = ir::Reference.run(&g, &feeds, &[]).unwrap().outputs.remove(0);
    let want = want.tensor().unwrap().to_f32s().unwrap();
    let most = want.iter().fold(0f32, |m, x| m.max(x.abs()));
    let worst = |precision| {
        let program = crate::compile_with(&g, Tier::best(), precision).unwrap();
        let got = program.run(&[Value::Tensor(x.clone())], &Serial).unwrap().remove(0);
        let got = got.tensor().unwrap().to_f32s().unwrap();
        want.iter().zip(&got).fold(0f32, |m, (a, b)| m.max((a - b).abs() / most))
    };
    let (words, floats) = (worst(crate::Precision::Automatic), worst(crate::Precision::Float32));
    assert!(floats <= 2e-6, "{floats}");
    assert!(words <= 1e-4 && (words > floats || Tier::best() != Tier::Avx512), "{words}");
}
