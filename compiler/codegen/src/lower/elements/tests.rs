use ir::{DType, Evaluate, Feeds, Tensor, Value};
use kernels::Serial;

/// Compiles a graph and compares it with the reference, bit for bit up to `ulps`; nothing may run by reference.
fn agree(text: &str, inputs: &[Tensor], ulps: u32) {
    let text = format!("<ir_version: 10, opset_import: [\"\": 21]> g {text}");
    let mut g = ir::text::parse(&text, &ops::Standard).unwrap();
    ir::infer(&mut g).unwrap();
    let values: Vec<Value> = inputs.iter().cloned().map(Value::Tensor).collect();
    let names = g.inputs().iter().map(|&v| g.value_name(v).to_string());
    let feeds: Feeds = names.zip(values.clone()).collect();
    let want = ir::Reference.run(&g, &feeds, &[]).unwrap().outputs;
    let program = crate::compile(&g).unwrap();
    let got = program.run(&values, &Serial).unwrap();
    assert!(program.steps().iter().all(|s| s.kind != "reference"), "{text}: {:?}", program.steps());
    for (want, got) in want.iter().zip(&got) {
        let (want, got) = (want.tensor().unwrap(), got.tensor().unwrap());
        assert_eq!((want.dtype(), want.shape()), (got.dtype(), got.shape()), "{text}");
        if ulps == 0 || want.dtype() != DType::F32 {
            assert_eq!(want.bytes(), got.bytes(), "{text}");
            continue;
        }
        for (a, b) in want.to_f32s().unwrap().iter().zip(got.to_f32s().unwrap()) {
            let near = (a - b).abs() <= ulps as f32 * f32::EPSILON * a.abs();
            assert!(a.to_bits() == b.to_bits() || near || a.is_nan() && b.is_nan(), "{text}: {a} {b}");
        }
    }
}

fn floats(shape: &[usize]) -> Tensor {
    let n: usize = shape.iter().product();
    Tensor::new(shape, (0..n).map(|i| (i * 37 % 23) as f32 * 0.25 - 2.0).collect::<Vec<f32>>()).unwrap()
}

#[test]
fn elements_by_index_are_kernels() {
    let x = floats(&[3, 5]);
    let i = Tensor::new(&[2, 4], vec![0i64, 4, -1, 2, -5, 3, 1, 1]).unwrap();
    let u = floats(&[2, 4]);
    agree(
        "(float[3,5] x, int64[2,4] i) => (float[2,4] y) { y = GatherElements <axis = 1> (x, i) }",
        &[x.clone(), i.clone()],
        0,
    );
    agree(
        "(float[3,5] x, int64[2,4] i, float[2,4] u) => (float[3,5] y) { y = ScatterElements <axis = 1> (x, i, u) }",
        &[x.clone(), i, u],
        0,
    );
    let t = Tensor::new(&[3, 1], vec![2i64, -3, 2]).unwrap();
    agree(
        "(float[3,5] x, int64[3,1] t, float[3,5] u) => (float[3,5] y) { y = ScatterND (x, t, u) }",
        &[x.clone(), t, floats(&[3, 5])],
        0,
    );
    let k = "(float[3,5] x) => (float[3,5] y) <int64 k = {1}> { y = Trilu (x, k) }";
    agree(k, std::slice::from_ref(&x), 0);
    agree("(float[3,5] x) => (float[3,5] y) { y = Trilu <upper = 0> (x) }", &[x], 0);
    let i = Tensor::new(&[2, 3], vec![0i64, 3, -1, 4, -4, -5]).unwrap();
    for axis in [0, 1, -1] {
        let text = format!(
            "(int64[2,3] i) => (float y) <int64 d = {{4}}, float[2] v = {{0.5, 2.0}}> {{ y = OneHot <axis = {axis}> (i, d, v) }}"
        );
        agree(
            &text.replace(
                "(float y)",
                ["(float[4,2,3] y)", "(float[2,4,3] y)", "(float[2,3,4] y)"][(axis + 3) as usize % 3],
            ),
            std::slice::from_ref(&i),
            0,
        );
    }
}

#[test]
fn an_index_outside_is_an_error() {
    let text = "<ir_version: 10, opset_import: [\"\": 21]> g (float[2] x, int64[1] i) => (float[1] y) { y = GatherElements (x, i) }";
    let mut g = ir::text::parse(text, &ops::Standard).unwrap();
    ir::infer(&mut g).unwrap();
    let program = crate::compile(&g).unwrap();
    let run = |i: i64| program.run(&[floats(&[2]).into(), Tensor::vector(vec![i]).into()], &Serial);
    assert!(run(-2).is_ok() && run(2).is_err() && run(i64::MIN).is_err());
}

#[test]
fn extremes_and_functions_are_kernels() {
    let x = floats(&[3, 40]);
    for (largest, axis) in [(1, 1), (0, 0), (1, 0)] {
        let (k, shape) = if axis == 1 { (7, "3,7") } else { (2, "2,40") };
        let text = format!(
            "(float[3,40] x) => (float[{shape}] v, int64[{shape}] i) <int64[1] k = {{{k}}}> {{ v, i = TopK <axis = {axis}, largest = {largest}> (x, k) }}"
        );
        agree(&text, std::slice::from_ref(&x), 0);
    }
    for op in ["ArgMax <axis = 1>", "ArgMin <axis = 0, select_last_index = 1>"] {
        let shape = if op.contains("= 1>") && op.starts_with("ArgMax") { "3,1" } else { "1,40" };
        agree(
            &format!("(float[3,40] x) => (int64[{shape}] y) {{ y = {op} (x) }}"),
            std::slice::from_ref(&x),
            0,
        );
    }
    for op in ["Sign", "Atan", "LpNormalization", "LpNormalization <p = 1>", "Asin", "Acos"] {
        agree(&format!("(float[3,40] x) => (float[3,40] y) {{ y = {op} (x) }}"), std::slice::from_ref(&x), 8);
    }
    let sums = "(float[3,40] x) => (float[3,1] y) <int64[1] a = {1}> { y = ReduceLogSumExp (x, a) }";
    agree(sums, std::slice::from_ref(&x), 8);
    let power = "(float[3,40] x) => (float[3,40] y) <float e = {0.37}> { y = Pow (x, e) }";
    agree(power, std::slice::from_ref(&x), 2);
    let power = "(float[3,40] x) => (float[3,40] y) <int64 e = {5}> { y = Pow (x, e) }";
    agree(power, std::slice::from_ref(&x), 2);
    let power = "(float[3,40] x, float[3,40] e) => (float[3,40] y) { y = Pow (x, e) }";
    agree(power, &[x.clone(), floats(&[3, 40])], 2);
}

#[test]
fn half_floats_between_casts_are_one_chain() {
    let x = Tensor::from_f32s(DType::F16, &[5, 60], floats(&[5, 60]).to_f32s().unwrap()).unwrap();
    let y = Tensor::from_f32s(DType::F16, &[60], floats(&[60]).to_f32s().unwrap()).unwrap();
    // The sum rounds to half precision before it is multiplied.
    let text = "(float16[5,60] x, float16[60] y) => (float16[5,60] z) {
        a = Cast <to = 1> (x) b = Cast <to = 1> (y) c = Add (a, b) d = Cast <to = 10> (c)
        e = Cast <to = 1> (d) f = Mul (e, a) g = Tanh (f) z = Cast <to = 10> (g) }";
    agree(text, &[x.clone(), y], 0);
    agree("(float16[5,60] x) => (float[5,60] y) { y = Cast <to = 1> (x) }", &[x], 0);
    agree("(float[5,60] x) => (float16[5,60] y) { y = Cast <to = 10> (x) }", &[floats(&[5, 60])], 0);
}

#[test]
fn remainders_never_trap() {
    for (bits, fmod) in [(64, 0), (64, 1), (8, 0), (8, 1)] {
        let text = format!(
            "(int{bits}[8] a, int{bits}[8] b) => (int{bits}[8] y) {{ y = Mod <fmod = {fmod}> (a, b) }}"
        );
        let low = if bits == 64 { i64::MIN } else { -128 };
        let dtype = if bits == 64 { DType::I64 } else { DType::I8 };
        let tensor = |v: [i64; 8]| Tensor::from_i64s(dtype, &[8], v.to_vec()).unwrap();
        agree(&text, &[tensor([low, low, 7, -7, 7, -7, 0, 9]), tensor([-1, 0, 3, 3, -3, -3, 5, low])], 0);
    }
}
