use ir::{Evaluate, Feeds, Tensor, Value};
use kernels::Serial;

/// Compiles a graph of one input, compares it with the reference, and gives the kinds of its steps.
fn kinds(text: &str, x: Tensor) -> Vec<&'static str> {
    let text = format!("<ir_version: 10, opset_import: [\"\": 21]> g {text}");
    let mut g = ir::text::parse(&text, &ops::Standard).unwrap();
    ir::infer(&mut g).unwrap();
    let feeds = Feeds::from([("x".to_string(), Value::Tensor(x.clone()))]);
    let want = ir::Reference.run(&g, &feeds, &[]).unwrap().outputs.remove(0);
    let program = crate::compile(&g).unwrap();
    let got = program.run(&[Value::Tensor(x)], &Serial).unwrap().remove(0);
    let [want, got] = [want, got].map(|v| v.tensor().unwrap().to_f32s().unwrap());
    // A code may differ by one where functions round apart.
    assert!(want.len() == got.len() && want.iter().zip(&got).all(|(a, b)| (a - b).abs() <= 1.0), "{text}");
    assert!(want.iter().zip(&got).filter(|(a, b)| a != b).count() * 50 <= want.len(), "{text}");
    program.steps().iter().map(|s| s.kind).filter(|k| *k != "view").collect()
}

#[test]
fn equal_integers_are_part_of_a_chain() {
    let x = Tensor::new(&[2, 3, 1], vec![3i32, 0, 9, 4, 4, -1]).unwrap();
    let one_hot = "(int32[2,3,1] x) => (uint8[2,3,5] y) \
        <int32[1,1,5] n = {0, 1, 2, 3, 4}, float s = {0.5}, uint8 z = {3}> {
            e = Equal (x, n)
            f = Cast <to = 1> (e)
            y = QuantizeLinear (f, s, z)
        }";
    assert_eq!(kinds(one_hot, x.clone()), ["fused loop"]);
    let floats = "(int32[2,3,1] x) => (float[2,3,5] y) <int32[1,1,5] n = {0, 1, 2, 3, 4}> {
            e = Equal (x, n)
            y = Cast <to = 1> (e)
        }";
    assert_eq!(kinds(floats, x), ["fused loop"]);
}

#[test]
fn chains_of_bytes_are_tables() {
    let x = Tensor::new(&[3, 100], (0..300).map(|i| i as f32 * 0.02 - 3.0).collect::<Vec<_>>()).unwrap();
    let text = "(float[3,100] x) => (int8[3,100] y) \
        <float s = {0.02}, int8 z = {4}, float t = {0.011}, uint8 u = {7}, int8 v = {-90}, float h = {0.5}> {
            q = QuantizeLinear (x, s, z)
            a = DequantizeLinear (q, s, z)
            b = Mul (a, a)
            c = QuantizeLinear (b, t, u)
            d = DequantizeLinear (c, t, u)
            e = Tanh (d)
            f = Mul (e, h)
            k = Add (f, a)
            y = QuantizeLinear (k, s, v)
        }";
    let kinds = kinds(text, x);
    assert_eq!(kinds.last(), Some(&"fused loop"));
}

#[test]
fn bytes_that_nothing_else_reads_are_not_made() {
    let x = Tensor::new(&[3, 100], (0..300).map(|i| i as f32 * 0.02 - 3.0).collect::<Vec<_>>()).unwrap();
    let text = "(float[3,100] x) => (float[3,1] y) <float s = {0.02}, int8 z = {4}, int64[1] axis = {1}> {
            r = Relu (x)
            q = QuantizeLinear (r, s, z)
            a = DequantizeLinear (q, s, z)
            y = ReduceMax (a, axis)
        }";
    assert_eq!(kinds(text, x.clone()), ["fused loop", "reduction"]);
    // Results of a dequantization need not be floats of 32 bits.
    let to_bytes = "(float[3,100] x) => (uint8[3,100] y) <float s = {0.02}, uint8 z = {4}> {
            q = QuantizeLinear (x, s, z)
            y = DequantizeLinear <output_dtype = 2> (q, s, z)
        }";
    assert!(kinds(to_bytes, x.clone()).contains(&"quantization"));
    let table = "(float[3,100] x) => (float[3,1] y) <float s = {0.02}, int8 z = {4}, int64[1] axis = {1}> {
            q = QuantizeLinear (x, s, z)
            a = DequantizeLinear (q, s, z)
            b = Mul (a, a)
            c = QuantizeLinear (b, s, z)
            d = DequantizeLinear (c, s, z)
            e = Tanh (a)
            f = Add (d, e)
            g = QuantizeLinear (f, s, z)
            h = DequantizeLinear (g, s, z)
            y = ReduceMax (h, axis)
        }";
    assert!(kinds(table, x.clone()).contains(&"dequantization"));
    let read_twice = "(float[3,100] x) => (float[3,100] y) \
        <float s = {0.02}, int8 z = {4}, int64[1] axis = {1}, float half = {0.5}> {
            q = QuantizeLinear (x, s, z)
            a = DequantizeLinear (q, s, z)
            m = ReduceMax (a, axis)
            b = Mul (a, half)
            c = Softmax <axis = 1> (b)
            y = Add (c, m)
        }";
    assert!(kinds(read_twice, x).contains(&"quantization"));
}

#[test]
fn what_quantization_leaves_of_sums_is_stored_at_once() {
    let x = Tensor::new(&[5, 3], (0..15).map(|i| (i % 13) as f32 * 0.3 - 1.5).collect::<Vec<_>>()).unwrap();
    let text = "(float[5,3] x) => (float[5,2] y) \
        <float s = {0.05}, int8 z = {3}, float[3,2] w = {0.5, -6, 0.7, 1.8, 9, -1}> {
            c = MatMul (x, w)
            r = Relu (c)
            d = QuantizeLinear (r, s, z)
            e = DequantizeLinear (d, s, z)
            f = MatMul (e, v)
            g = Add (e, f)
            y = Neg (g)
        }";
    let text = text.replace("> {", ", float[2,2] v = {1, 2, 3, -4}> {");
    let kinds = kinds(&text, x);
    assert!(
        kinds.iter().all(|k| ["matrix product", "fused loop"].contains(k)) && kinds.len() == 3,
        "{kinds:?}"
    );
}

#[test]
fn means_of_bytes_are_taken_of_bytes() {
    let x =
        Tensor::new(&[1, 3, 4, 4], (0..48).map(|i| (i % 13) as f32 * 0.3 - 1.5).collect::<Vec<_>>()).unwrap();
    let text = "(float[1,3,4,4] x) => (int8[1,2,4,4] y) \
        <float s = {0.05}, int8 z = {3}, int8[2,3,1,1] w = {5, -6, 7, 8, 9, -10}, float u = {0.1}, int8 v = {0}> {
            q = QuantizeLinear (x, s, z)
            c = ir.QuantizedConv (q, s, z, w, u, v)
            d = QuantizeLinear (c, s, z)
            e = DequantizeLinear (d, s, z)
            m = GlobalAveragePool (e)
            f = Mul (e, m)
            y = QuantizeLinear (f, u, v)
        }";
    let kinds = kinds(text, x);
    assert!(kinds.contains(&"pooling") && !kinds.contains(&"dequantization"), "{kinds:?}");
}

#[test]
fn spatial_reshapes_stay_channels_last() {
    let x = Tensor::new(&[1, 4, 6, 1], (0..24).map(|i| (i % 7) as f32 - 3.0).collect::<Vec<_>>()).unwrap();
    let text = "(float[1,4,6,1] x) => (int8[1,3,4] y) \
        <float s = {0.05}, int8 z = {0}, int8[3,4,3,1] w = {1, 2, 3, 4, 5, 6, 7, 8, 9, 1, 2, 3, -4, -5, 6, 7, 8, 9, 1, 2, \
         3, 4, 5, 6, 7, 8, 9, 1, -2, -3, -4, 5, 6, 7, 8, 9}, float u = {0.1}, int64[1] axis = {3}, \
         float[1,3,1] b = {0.5, -0.25, 1.0}, float t = {0.2}> {
            q = QuantizeLinear (x, s, z)
            c = ir.QuantizedConv (q, s, z, w, u, z)
            d = QuantizeLinear (c, t, z)
            e = DequantizeLinear (d, t, z)
            f = Squeeze (e, axis)
            h = Add (f, b)
            y = QuantizeLinear (h, t, z)
        }";
    let kinds = kinds(text, x);
    // Into the region and out of it.
    assert!(kinds.iter().filter(|k| **k == "movement").count() <= 2, "{kinds:?}");
}

#[test]
fn factors_behind_an_activation_are_stored_at_once() {
    let x =
        Tensor::new(&[1, 3, 4, 4], (0..48).map(|i| (i % 13) as f32 * 0.3 - 1.5).collect::<Vec<_>>()).unwrap();
    let text = "(float[1,3,4,4] x) => (int8[1,2,4,4] y) \
        <float s = {0.05}, int8 z = {3}, int8[2,3,1,1] w = {5, -6, 7, 8, 9, -10}, float u = {0.1}, int8 v = {0}, \
         float m = {-1.5}, float[1,2,1,1] a = {0.25, 0.25}, float t = {0.07}> {
            q = QuantizeLinear (x, s, z)
            c = ir.QuantizedConv (q, s, z, w, u, v)
            h = HardSwish (c)
            k = Mul (h, m)
            l = Add (k, a)
            y = QuantizeLinear (l, t, z)
        }";
    let kinds = kinds(text, x);
    assert_eq!(kinds.iter().filter(|k| **k != "movement").count(), 2, "{kinds:?}");
}

#[test]
fn leaky_functions_between_bytes_are_part_of_a_chain() {
    let x =
        Tensor::new(&[1, 2, 3, 4], (0..24).map(|i| (i % 13) as f32 * 0.3 - 1.5).collect::<Vec<_>>()).unwrap();
    for function in ["LeakyRelu <alpha = 0.3> (d)", "PRelu (d, p)"] {
        let text = format!(
            "(float[1,2,3,4] x) => (int8[1,2,3,4] y)
            <float s = {{0.05}}, int8 z = {{3}}, float[2,1,1] p = {{0.25, -0.5}}, float t = {{0.07}}> {{
                q = QuantizeLinear (x, s, z)
                d = DequantizeLinear (q, s, z)
                l = {function}
                y = QuantizeLinear (l, t, z)
            }}"
        );
        let kinds = kinds(&text, x.clone());
        assert_eq!(kinds, ["fused loop"], "{function}");
    }
}

/// Files of frameworks with channels last turn their input first; so does the region, back.
#[test]
fn what_has_its_channels_last_is_not_turned_twice() {
    let x = Tensor::new(&[1, 5, 6, 3], (0..90).map(|i| (i % 7) as f32 - 3.0).collect::<Vec<_>>()).unwrap();
    let weights: Vec<String> = (0..36).map(|i| format!("{}", i % 5 - 2)).collect();
    let text = format!(
        "(float[1,5,6,3] x) => (float[1,4,5,3] y) <float[3,3,2,2] w = {{{}}}> {{
            t = Transpose <perm = [0, 3, 1, 2]> (x)
            c = Conv (t, w)
            d = Relu (c)
            y = Transpose <perm = [0, 2, 3, 1]> (d)
        }}",
        weights.join(", ")
    );
    assert_eq!(kinds(&text, x.clone()), ["convolution"]);
    // Another reader wants the channels first.
    let text = "(float[1,5,6,3] x) => (float[1,3,5,6] y) <float[3,3,1,1] w = {1, 2, 3, 4, 5, 6, 7, 8, 9}> {
            t = Transpose <perm = [0, 3, 1, 2]> (x)
            c = Conv (t, w)
            y = Add (c, t)
        }";
    assert!(kinds(text, x).contains(&"movement"));
}

/// Convolutions between the tokens of a transformer, which it takes for the pixels of an image.
#[test]
fn tokens_are_pixels_where_they_lie() {
    let x = Tensor::new(&[1, 12, 4], (0..48).map(|i| (i * 7 % 11) as f32 - 5.0).collect::<Vec<_>>()).unwrap();
    let weights: Vec<String> = (0..16).map(|i| format!("{}", i * 5 % 7 - 3)).collect();
    let text = |outputs: &str| {
        format!(
            "(float[1,12,4] x) => ({outputs}) <float[4,4,1,1] w = {{{}}}, int64[4] image = {{1, 4, 3, 4}},
             int64[3] line = {{1, 4, 12}}> {{
                a = Transpose <perm = [0, 2, 1]> (x)
                b = Reshape (a, image)
                c = Conv (b, w)
                d = Reshape (c, line)
                y = Transpose <perm = [0, 2, 1]> (d)
            }}",
            weights.join(", ")
        )
    };
    assert_eq!(kinds(&text("float[1,12,4] y"), x.clone()), ["convolution"]);
    assert!(kinds(&text("float[1,12,4] y, float[1,4,12] a"), x).contains(&"movement"));
}

/// Shuffled channels, as ShuffleNet has them, stay in the region: one movement beside those at its ends. Read by anything
/// else before they are put together again, they leave it.
#[test]
fn channels_are_shuffled_where_they_lie() {
    let x =
        Tensor::new(&[2, 6, 3, 4], (0..144).map(|i| (i * 7 % 11) as f32 - 5.0).collect::<Vec<_>>()).unwrap();
    let weights: Vec<String> = (0..36).map(|i| format!("{}", i * 5 % 7 - 3)).collect();
    let weights = weights.join(", ");
    let text = |outputs: &str| {
        format!(
            "(float[2,6,3,4] x) => ({outputs}) <float[6,6,1,1] w = {{{weights}}}, int64[5] apart = {{2, 2, 3, 3, 4}},
             int64[4] joined = {{0, -1, 3, 4}}> {{
                a = Conv (x, w)
                b = Reshape (a, apart)
                c = Transpose <perm = [0, 2, 1, 3, 4]> (b)
                d = Reshape (c, joined)
                y = Conv (d, w)
            }}"
        )
    };
    let movements = |kinds: Vec<&str>| kinds.iter().filter(|k| k.starts_with("movement")).count();
    assert_eq!(movements(kinds(&text("float[2,6,3,4] y"), x.clone())), 3);
    assert!(movements(kinds(&text("float[2,6,3,4] y, float[2,3,2,3,4] c"), x)) > 3);
}

/// Blocks of pixels go out of channels and back into them where these lie: one movement each beside those at the ends.
#[test]
fn blocks_of_pixels_stay_in_the_region() {
    let x =
        Tensor::new(&[2, 8, 3, 4], (0..192).map(|i| (i * 7 % 11) as f32 - 5.0).collect::<Vec<_>>()).unwrap();
    let weights: Vec<String> = (0..64).map(|i| format!("{}", i * 5 % 7 - 3)).collect();
    let weights = weights.join(", ");
    for mode in ["DCR", "CRD"] {
        let text = format!(
            "(float[2,8,3,4] x) => (float[2,8,3,4] y) <float[8,8,1,1] w = {{{weights}}}> {{
                a = Conv (x, w)
                b = DepthToSpace <blocksize = 2, mode = \"{mode}\"> (a)
                c = MaxPool <kernel_shape = [3, 3], pads = [1, 1, 1, 1]> (b)
                d = SpaceToDepth <blocksize = 2, mode = \"{mode}\"> (c)
                y = Conv (d, w)
            }}"
        );
        let kinds = kinds(&text, x.clone());
        assert_eq!(kinds.iter().filter(|k| k.starts_with("movement")).count(), 4, "{mode} {kinds:?}");
    }
}

/// Ten channels: 51 rows are taken as one, and some are left.
#[test]
fn short_rows_are_joined() {
    let (rows, n) = (1000, 10);
    let x = (0..rows * n).map(|i| (i * 37 % 101) as f32 * 0.1 - 5.0).collect::<Vec<_>>();
    let x = Tensor::new(&[rows, n], x).unwrap();
    let text = "(float[1000,10] x) => (float[1000,10] y) \
        <float[10] s = {0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.1}, float[1] two = {2}> {
            p = PRelu (x, s)
            q = Mul (p, two)
            r = Add (q, x)
            y = Sub (r, s)
        }";
    assert_eq!(kinds(text, x), ["fused loop"]);
}

/// Sizes of 1 among the reduced axes stand in nobody's way.
#[test]
fn reductions_pass_over_sizes_of_one() {
    let x = Tensor::new(&[1, 5, 6, 1], (0..30).map(|i| (i % 7) as f32 - 3.0).collect::<Vec<_>>()).unwrap();
    for (axes, shape) in [("0, 2, 3", "1, 5, 1, 1"), ("0, 1", "1, 1, 6, 1"), ("0, 3", "1, 5, 6, 1")] {
        let count = axes.split(',').count();
        let text = format!(
            "(float[1,5,6,1] x) => (float[{shape}] y) <int64[{count}] axes = {{{axes}}}> {{ y = ReduceMean (x, axes) }}"
        );
        assert_eq!(kinds(&text, x.clone()), ["reduction"], "{axes}");
    }
}

#[test]
fn the_least_of_a_leaky_activation_is_part_of_its_contraction() {
    let x = Tensor::new(&[3, 2], vec![1.0f32, -2.0, 0.5, 3.0, f32::NAN, 1.0]).unwrap();
    let text = |order: &str| {
        format!(
            "(float[3,2] x) => (uint8[3,3] y) \
            <float[2,3] w = {{1.0, -1.0, 0.5, 1.0, 2.0, -0.25}}, float[1] low = {{-0.3}}, float s = {{0.02}}, uint8 z = {{20}}> {{
                p = MatMul (x, w)
                l = LeakyRelu <alpha = 0.2> (p)
                m = Max ({order})
                y = QuantizeLinear (m, s, z)
            }}"
        )
    };
    for order in ["l, low", "low, l"] {
        assert_eq!(kinds(&text(order), x.clone()), ["matrix product", "quantization"]);
    }
}
