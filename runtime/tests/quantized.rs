//! Models of 8-bit integers in the styles files have them: generated code gives the bytes of the reference semantics.

use compress_runtime::Session;
use ir::{DType, Evaluate, Feeds, Graph, Reference, Tensor, Value};

/// Reproducible values in 0..256.
fn noise(n: usize, seed: u64) -> Vec<u8> {
    let next = |i: usize| {
        let x = (i as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15 ^ seed.wrapping_mul(0xbf58_476d_1ce4_e5b9));
        ((x ^ (x >> 29)).wrapping_mul(0x94d0_49bb_1331_11eb) >> 40) as u8
    };
    (0..n).map(next).collect()
}

fn input(g: &Graph) -> Feeds {
    let mut feeds = Feeds::new();
    for (k, &v) in g.inputs().iter().enumerate() {
        let shape = g.ty(v).concrete().unwrap();
        let bytes = noise(shape.iter().product(), 7 + k as u64);
        let t = match g.dtype(v).unwrap() {
            DType::F32 => Tensor::new(&shape, bytes.iter().map(|&b| f32::from(b) / 64.0 - 2.0).collect()),
            DType::I8 => Tensor::new(&shape, bytes.iter().map(|&b| b as i8).collect()),
            _ => Tensor::new(&shape, bytes),
        };
        feeds.insert(g.value_name(v).to_string(), t.unwrap().into());
    }
    feeds
}

/// Runs a model both ways, on one and two threads. `kinds` are the kernels it must have been given; none may be interpreted.
fn check(text: &str, kinds: &[&str]) {
    let g = ir::text::parse(text, &ops::Standard).unwrap();
    let feeds = input(&g);
    let expected = Reference.run(&g, &feeds, &[]).unwrap().outputs;
    let mut runs = Vec::new();
    for threads in [1, 2] {
        let s = Session::from_graph(&g, threads).unwrap();
        runs.push(s.evaluate(&feeds).unwrap());
        let found: Vec<String> =
            s.profile(&feeds).unwrap().steps.into_iter().map(|s| kind(&s.kind)).collect();
        assert!(kinds.iter().all(|k| found.iter().any(|f| f.starts_with(k))), "{found:?}");
        assert_eq!(s.interpreted(&feeds).unwrap(), Vec::<String>::new());
    }
    assert_eq!(runs[0], runs[1]);
    for (e, r) in expected.iter().zip(&runs[0]) {
        let (Value::Tensor(e), Value::Tensor(r)) = (e, r) else { panic!("no tensors") };
        assert_eq!((e.dtype(), e.shape()), (r.dtype(), r.shape()));
        if e.dtype() == DType::F32 {
            let (e, r) = (e.to_f32s().unwrap(), r.to_f32s().unwrap());
            let top = e.iter().fold(1e-6f32, |m, x| m.max(x.abs()));
            assert!(e.iter().zip(&r).all(|(e, r)| (e - r).abs() <= 1e-5 * top), "{e:?} {r:?}");
        } else {
            assert_eq!(e.to_i64s().unwrap(), r.to_i64s().unwrap());
        }
    }
}

/// Weights as text: signed bytes.
fn weights(n: usize) -> String {
    noise(n, 3).iter().map(|&b| (b as i8).max(-127).to_string()).collect::<Vec<_>>().join(",")
}

#[test]
fn a_network_between_quantization_and_dequantization() {
    let (w, v) = (weights(12 * 3 * 9), weights(12 * 9));
    let text = format!(
        "<ir_version: 10, opset_import: [\"\": 21]>
        g (float[1,3,9,7] x) => (uint8[1,12,9,7] y, float[1,12,9,7] z)
        <float s = {{0.03125}}, uint8 a = {{64}}, float t = {{0.25}}, uint8 b = {{3}}, float u = {{0.5}}, int8 c = {{-5}},
         int8[12,3,3,3] w = {{{w}}}, float[12] ws = {{0.5,0.25,0.125,0.5,0.25,0.125,0.5,0.25,0.125,0.5,0.25,0.125}},
         int8[12] wz = {{0,0,0,0,0,0,0,0,0,0,0,0}}, float[12] bias = {{1,2,3,4,5,6,7,8,9,-1,-2,-3}},
         int8[12,1,3,3] v = {{{v}}}, float vs = {{0.0625}}> {{
            q = QuantizeLinear (x, s, a)
            d = DequantizeLinear (q, s, a)
            wd = DequantizeLinear <axis = 0> (w, ws, wz)
            h = Conv <pads = [1,1,1,1]> (d, wd, bias)
            r = Relu (h)
            p = QuantizeLinear (r, t, b)
            pd = DequantizeLinear (p, t, b)
            vd = DequantizeLinear (v, vs)
            k = Conv <pads = [1,1,1,1], group = 12> (pd, vd)
            e = QuantizeLinear (k, u, c)
            ed = DequantizeLinear (e, u, c)
            sum = Add (ed, pd)
            y = QuantizeLinear (sum, t, b)
            z = Add (sum, ed)
        }}"
    );
    check(&text, &["integer convolution", "quantization", "fused loop"]);
    assert!(!kinds(&text).iter().any(|k| k == "dequantization"), "{:?}", kinds(&text));
}

/// The kernel's part of `kernel (operator)`.
fn kind(step: &str) -> String {
    step.split(" (").next().unwrap_or(step).to_string()
}

/// The kernels a model is given.
fn kinds(text: &str) -> Vec<String> {
    let g = ir::text::parse(text, &ops::Standard).unwrap();
    let s = Session::from_graph(&g, 1).unwrap();
    s.profile(&input(&g)).unwrap().steps.into_iter().map(|s| kind(&s.kind)).collect()
}

#[test]
fn channels_with_scales_of_their_own() {
    let (w, v) = (weights(5 * 3), weights(5 * 9));
    let text = format!(
        "<ir_version: 10, opset_import: [\"\": 21]>
        g (float[1,3,9,7] x) => (uint8[1,5,9,7] y)
        <float s = {{0.03125}}, uint8 a = {{64}}, float[5] t = {{0.25,0.5,0.25,0.125,0.0625}}, uint8[5] b = {{0,0,0,0,0}},
         float u = {{4.0}}, uint8 c = {{125}}, int8[5,3,1,1] w = {{{w}}}, float[5] ws = {{0.5,0.25,0.125,0.5,0.25}},
         float[5] bias = {{1,2,3,4,5}}, int8[5,1,3,3] v = {{{v}}}, float[5] vs = {{0.5,0.25,0.125,0.5,0.25}}, float lo = {{0.0}},
         float hi = {{1000.0}}> {{
            q = QuantizeLinear (x, s, a)
            d = DequantizeLinear (q, s, a)
            wd = DequantizeLinear <axis = 0> (w, ws)
            h = Conv (d, wd, bias)
            r = Clip (h, lo, hi)
            p = QuantizeLinear <axis = 1> (r, t, b)
            pd = DequantizeLinear <axis = 1> (p, t, b)
            vd = DequantizeLinear <axis = 0> (v, vs)
            k = Conv <pads = [1,1,1,1], group = 5> (pd, vd)
            y = QuantizeLinear (k, u, c)
        }}"
    );
    check(&text, &["integer convolution"]);
    let quantizations = kinds(&text).iter().filter(|k| *k == "quantization").count();
    assert!(quantizations == 1 && !kinds(&text).iter().any(|k| k == "convolution"), "{:?}", kinds(&text));
}

#[test]
fn channels_with_zero_points_of_their_own() {
    let (w, v) = (weights(5 * 3), weights(5 * 9));
    for (bytes, b) in [("uint8", "3,100,255,0,17"), ("int8", "-3,100,-128,0,17")] {
        let text = format!(
            "<ir_version: 10, opset_import: [\"\": 21]>
            g (float[1,3,9,7] x) => (float[1,5,9,7] y)
            <float s = {{0.03125}}, uint8 a = {{64}}, float[5] t = {{0.25,0.5,0.25,0.125,0.0625}}, {bytes}[5] b = {{{b}}},
             int8[5,3,1,1] w = {{{w}}}, float[5] ws = {{0.5,0.25,0.125,0.5,0.25}}, float[5] bias = {{1,2,3,4,5}},
             int8[5,1,3,3] v = {{{v}}}, float[5] vs = {{0.5,0.25,0.125,0.5,0.25}}> {{
                q = QuantizeLinear (x, s, a)
                d = DequantizeLinear (q, s, a)
                wd = DequantizeLinear <axis = 0> (w, ws)
                h = Conv (d, wd, bias)
                r = LeakyRelu <alpha = 0.5> (h)
                p = QuantizeLinear <axis = 1> (r, t, b)
                pd = DequantizeLinear <axis = 1> (p, t, b)
                vd = DequantizeLinear <axis = 0> (v, vs)
                y = Conv <pads = [1,1,1,1], group = 5> (pd, vd)
            }}"
        );
        check(&text, &["integer convolution"]);
        let quantizations = kinds(&text).iter().filter(|k| *k == "quantization").count();
        assert!(quantizations == 1 && !kinds(&text).iter().any(|k| k == "convolution"), "{:?}", kinds(&text));
    }
}

#[test]
fn element_wise_operators_between_bytes_are_one_step() {
    let text = "<ir_version: 10, opset_import: [\"\": 21]>
        g (uint8[2,3,40] x, int8[1,3,1] m, float[40] f) => (uint8[2,3,40] y, float[2,3,40] z)
        <float s = {0.03125}, uint8 a = {100}, int8 b = {-3}, float three = {3.0}, float zero = {0.0}, float six = {6.0}, float eight = {8.0},
         float t = {0.0625}, float u = {0.125}> {
            d = DequantizeLinear (x, s, a)
            p = Add (d, three)
            c = Clip (p, zero, six)
            q = QuantizeLinear (c, t, a)
            e = DequantizeLinear (q, t, a)
            h = Div (e, eight)
            g = Mul (h, d)
            n = DequantizeLinear (m, u, b)
            k = Sub (g, n)
            l = Add (k, f)
            y = QuantizeLinear (l, t, a)
            o = Sigmoid (d)
            z = Mul (o, d)
        }";
    check(text, &["fused loop"]);
    assert_eq!(kinds(text), ["fused loop"; 2]);
}

#[test]
fn ranges_found_while_running_keep_channels_last() {
    let (w, v) = (weights(4 * 3), weights(6 * 4));
    let text = format!(
        "<ir_version: 10, opset_import: [\"\": 21]>
        g (float[1,3,8,8] x) => (float[1,6,8,8] y)
        <int8[4,3,1,1] w = {{{w}}}, float ws = {{0.25}}, int8[6,4,1,1] v = {{{v}}}, float vs = {{0.5}}> {{
            q, s, z = DynamicQuantizeLinear (x)
            i = ConvInteger (q, w, z)
            f = Cast <to = 1> (i)
            k = Mul (s, ws)
            h = Mul (f, k)
            r = Relu (h)
            p, t, u = DynamicQuantizeLinear (r)
            j = ConvInteger (p, v, u)
            g = Cast <to = 1> (j)
            l = Mul (t, vs)
            y = Mul (g, l)
        }}"
    );
    check(&text, &["integer convolution"]);
    assert_eq!(kinds(&text).iter().filter(|k| *k == "movement").count(), 2, "{:?}", kinds(&text));
}

#[test]
fn products_in_every_style() {
    let w = weights(10 * 6);
    let text = format!(
        "<ir_version: 10, opset_import: [\"\": 21]>
        g (uint8[2,5,10] x, int8[2,6,5] m) => (uint8[2,5,6] a, float[2,5,6] b, int32[2,5,6] c, float[2,5,5] d, uint8[2,5,6] e)
        <float s = {{0.03125}}, uint8 z = {{64}}, float t = {{0.25}}, uint8 y = {{3}}, int8[10,6] w = {{{w}}},
         float[6] ws = {{0.5,0.25,0.125,0.5,0.25,0.125}}, int8[6] wz = {{1,-2,3,0,5,6}}, float u = {{0.5}}, int8 v = {{-7}}> {{
            xd = DequantizeLinear (x, s, z)
            wd = DequantizeLinear <axis = 1> (w, ws, wz)
            p = MatMul (xd, wd)
            a = QuantizeLinear (p, t, y)
            c = MatMulInteger (x, w, z, wz)
            f = Cast <to = 1> (c)
            b = Mul (f, s)
            md = DequantizeLinear (m, u, v)
            ad = DequantizeLinear (a, t, y)
            d = MatMul (ad, md)
            e = QLinearMatMul (x, s, z, w, u, v, t, y)
        }}"
    );
    check(&text, &["integer product"]);
}

#[test]
fn quantization_found_while_running() {
    let (w, v) = (weights(4 * 3 * 9), weights(6 * 10));
    let text = format!(
        "<ir_version: 10, opset_import: [\"\": 21]>
        g (float[1,3,8,8] x, float[5,6] n) => (float[1,4,6,6] y, float[5,10] o, int32[1,4,6,6] sums)
        <int8[4,3,3,3] w = {{{w}}}, float ws = {{0.25}}, int8[6,10] v = {{{v}}}, float vs = {{0.5}}, float[10] b = {{1,2,3,4,5,6,7,8,9,10}}> {{
            q, s, z = DynamicQuantizeLinear (x)
            sums = ConvInteger (q, w, z)
            f = Cast <to = 1> (sums)
            k = Mul (s, ws)
            y = Mul (f, k)
            r, t, u = DynamicQuantizeLinear (n)
            i = MatMulInteger (r, v, u)
            j = Cast <to = 1> (i)
            l = Mul (t, vs)
            p = Mul (j, l)
            o = Add (p, b)
        }}"
    );
    check(&text, &["integer product", "integer convolution", "quantization"]);
}

#[test]
fn quantized_convolution_operators() {
    let w = weights(4 * 3 * 9);
    let text = format!(
        "<ir_version: 10, opset_import: [\"\": 21]>
        g (int8[2,3,6,5] x) => (int8[2,4,3,3] y)
        <int8[4,3,3,3] w = {{{w}}}, float s = {{0.03125}}, int8 z = {{4}}, float[4] ws = {{0.5,0.25,0.5,0.125}},
         int8[4] wz = {{0,0,0,0}}, float t = {{4.0}}, int8 u = {{-3}}, int32[4] b = {{100,-2000,3,40}}> {{
            y = QLinearConv <pads = [1,1,1,1], strides = [2,2]> (x, s, z, w, ws, wz, t, u, b)
        }}"
    );
    check(&text, &["integer convolution"]);
}

#[test]
fn odd_scales_do_what_the_reference_does() {
    for scale in ["0.0", "-0.5", "1e-40", "3e38", "\"0x7f800000\"", "\"0x7fc00000\"", "0.1"] {
        let text = format!(
            "<ir_version: 10, opset_import: [\"\": 21]>
            g (float[1,3,9,7] x, uint8[3,4] p) => (uint8[1,3,9,7] y, int8[1,3,9,7] z, uint8[3,2] q, float[1,3,9,7] w)
            <float s = {{{scale}}}, uint8 a = {{64}}, int8 b = {{-7}}, float one = {{1.0}}, float half = {{0.5}},
             int8[4,2] v = {{1,2,3,4,-5,-6,-7,-8}}> {{
                y = QuantizeLinear (x, s, a)
                z = QuantizeLinear (x, s, b)
                pd = DequantizeLinear (p, half, a)
                vd = DequantizeLinear (v, half)
                m = MatMul (pd, vd)
                q = QuantizeLinear (m, s, a)
                w = DequantizeLinear (z, one, b)
            }}"
        );
        check(&text, &["quantization"]);
    }
}
