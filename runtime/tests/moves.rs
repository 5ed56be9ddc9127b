//! Copies and batch normalisations that no contraction takes in: generated code gives the reference's values.

use compress_runtime::Session;
use ir::{Evaluate, Feeds, Graph, Reference, Tensor};

/// `body` over `x` of `shape`, and values for it.
fn model(shape: &[usize], out: &[usize], constants: &str, body: &str) -> (Graph, Feeds) {
    let list = |s: &[usize]| s.iter().map(|d| d.to_string()).collect::<Vec<_>>().join(",");
    let text = format!(
        "<ir_version: 10, opset_import: [\"\": 21]>
        g (float[{}] x) => (float[{}] y) <{constants}> {{ {body} }}",
        list(shape),
        list(out)
    );
    let g = ir::text::parse(&text, &ops::Standard).unwrap();
    let n = shape.iter().product::<usize>();
    let x: Vec<f32> = (0..n).map(|i| ((i * 7919) % 211) as f32 / 50.0 - 2.0).collect();
    (g, [("x".to_string(), Tensor::new(shape, x).unwrap().into())].into_iter().collect())
}

/// The kernels `body` is given, without what they are for.
fn steps(shape: &[usize], out: &[usize], constants: &str, body: &str) -> Vec<String> {
    let (g, feeds) = model(shape, out, constants, body);
    let profile = Session::from_graph(&g, 1).unwrap().profile(&feeds).unwrap();
    profile.steps.iter().map(|s| s.kind.split(" (").next().unwrap_or_default().to_string()).collect()
}

/// Runs `body` over `x` of `shape` both ways; nothing may be interpreted.
fn check(shape: &[usize], out: &[usize], constants: &str, body: &str, tolerance: f32) {
    let (g, feeds) = model(shape, out, constants, body);
    let expected = Reference.run(&g, &feeds, &[]).unwrap().outputs;
    for threads in [1, 2] {
        let s = Session::from_graph(&g, threads).unwrap();
        let found = s.evaluate(&feeds).unwrap();
        assert_eq!(s.interpreted(&feeds).unwrap(), Vec::<String>::new());
        let (e, f) = (expected[0].tensor().unwrap(), found[0].tensor().unwrap());
        assert_eq!((e.shape(), f.shape()), (out, out));
        let pairs = e.to_f32s().unwrap().into_iter().zip(f.to_f32s().unwrap());
        assert!(pairs.into_iter().all(|(e, f)| (e - f).abs() <= tolerance * (1.0 + e.abs())), "{body}");
    }
}

#[test]
fn tiles() {
    check(&[2, 3, 5], &[4, 3, 15], "int64[3] r = {2,1,3}", "y = Tile (x, r)", 0.0);
    check(&[1, 3, 1, 4], &[1, 3, 3, 4], "int64[4] r = {1,1,3,1}", "y = Tile (x, r)", 0.0);
}

#[test]
fn slices_by_tuples() {
    // Indices that no rewrite knows beforehand.
    let at =
        "z = Mul (x, x) m = ReduceMax <keepdims = 0> (z) o = Sub (m, m) i = Cast <to = 7> (o) t = Add (c, i)";
    let body = format!("{at} y = GatherND (x, t)");
    check(&[3, 4, 5], &[2, 5], "int64[2,2] c = {2,0,-1,3}", &body, 0.0);
    let body = format!("{at} y = GatherND <batch_dims = 1> (x, t)");
    check(&[2, 4, 5], &[2, 2], "int64[2,2,2] c = {0,1,3,4,2,-1,-4,0}", &body, 0.0);
}

#[test]
fn pads_from_the_tensor_itself() {
    for mode in ["reflect", "edge", "wrap"] {
        let body = format!("y = Pad <mode = \"{mode}\"> (x, p)");
        check(&[2, 5, 6], &[2, 10, 8], "int64[6] p = {0,4,1,0,1,1}", &body, 0.0);
        check(&[1, 1, 40], &[1, 1, 70], "int64[6] p = {0,0,15,0,0,15}", &body, 0.0);
    }
}

#[test]
fn batch_normalisations() {
    let constants =
        "float[3] s = {2,0.5,-1}, float[3] b = {0.5,1,-2}, float[3] m = {1,-1,0.25}, float[3] v = {0.5,2,4},
        float[3,3,1,1] w = {1,2,3,4,5,6,7,8,10}";
    let alone = "y = BatchNormalization (x, s, b, m, v)";
    check(&[2, 3], &[2, 3], constants, alone, 1e-6);
    check(&[2, 3, 4, 5], &[2, 3, 4, 5], constants, alone, 1e-6);
    let inside = "c = Conv (x, w) a = Relu (c) n = BatchNormalization (a, s, b, m, v) y = MaxPool <kernel_shape = [2,2]> (n)";
    check(&[2, 3, 4, 5], &[2, 3, 3, 4], constants, inside, 1e-5);
}

#[test]
fn blocks_of_pixels() {
    check(&[2, 3, 4, 6], &[2, 12, 2, 3], "", "y = SpaceToDepth <blocksize = 2> (x)", 0.0);
    check(&[2, 12, 2, 3], &[2, 3, 4, 6], "", "y = DepthToSpace <blocksize = 2> (x)", 0.0);
    check(&[2, 12, 2, 3], &[2, 3, 4, 6], "", "y = DepthToSpace <blocksize = 2, mode = \"CRD\"> (x)", 0.0);
    check(&[2, 3, 4, 6], &[2, 12, 2, 3], "", "y = SpaceToDepth <blocksize = 2, mode = \"CRD\"> (x)", 0.0);
}

#[test]
fn slices_splits_and_transposes_beside_convolutions() {
    let w = "float[4,3,1,1] w = {1,2,3,4,5,6,7,8,10,-1,-2,3}, int64[2] a = {1,-1}, int64[2] s = {1,0}, int64[2] e = {4,5},
        int64[2] t = {2,2}, float[2,2,1,1] v = {1,2,-1,3}";
    let sliced = "c = Conv (x, w) l = Slice (c, s, e, a, t) y = Conv (l, v)";
    check(&[2, 3, 4, 5], &[2, 2, 4, 3], w, sliced, 1e-5);
    let split = "c = Conv (x, w) l, r = Split <axis = 1, num_outputs = 2> (c) k = Conv (l, v) y = Add (k, r)";
    check(&[2, 3, 4, 5], &[2, 2, 4, 5], w, split, 1e-5);
    let last = "c = Conv (x, w) y = Transpose <perm = [0,2,3,1]> (c)";
    check(&[2, 3, 4, 5], &[2, 4, 5, 4], w, last, 1e-5);
    let other = "c = Conv (x, w) y = Transpose <perm = [3,1,0,2]> (c)";
    check(&[2, 3, 4, 5], &[5, 4, 2, 4], w, other, 1e-5);
    // Of sequences with channels last, which dims of 1 alone keep from what a convolution reads.
    let w = "float[4,5,3,1] w = {1,2,3,4,5,6,7,8,9,1,2,3,4,5,6,-7,8,9,1,2,3,-4,5,6,7,8,9,1,2,3,4,5,6,7,8,9,
        1,2,3,4,-5,6,7,8,9,1,2,3,4,5,6,7,8,9,1,2,3,4,5,6}, int64[1] four = {3}, float[4,1] b = {1,-1,2,0.5}";
    let body =
        "u = Unsqueeze (x, four) t = Transpose <perm = [0,2,1,3]> (u) c = Conv (t, w) q = Squeeze (c, four)
        a = Add (q, b) y = Tanh (a)";
    check(&[2, 6, 5], &[2, 4, 4], w, body, 1e-5);
    assert_eq!(steps(&[2, 6, 5], &[2, 4, 4], w, body), ["convolution", "movement"]);
}

#[test]
fn images_of_any_type_are_resized() {
    let sizes = "float[4] s = {1,1,2,3}";
    check(&[2, 3, 4, 5], &[2, 3, 8, 15], sizes, "y = Resize <mode = \"nearest\"> (x, , s)", 0.0);
    check(&[2, 3, 4, 5], &[2, 3, 8, 15], sizes, "y = Resize <mode = \"linear\"> (x, , s)", 1e-5);
    let bytes = "float[4] s = {1,1,2,2}, float q = {0.03125}, uint8 z = {64}";
    let body = "a = QuantizeLinear (x, q, z) b = Resize <mode = \"nearest\"> (a, , s) y = DequantizeLinear (b, q, z)";
    check(&[1, 3, 4, 5], &[1, 3, 8, 10], bytes, body, 0.0);
}

/// Sizes beside a zero may be such that no number counts their product.
#[test]
fn empty_values_of_huge_shapes_are_computed_by_definition() {
    let text = "<ir_version: 10, opset_import: [\"\": 21]>
        g (float[0,9223372036854775807,9223372036854775807] x) => (y) { y = Relu (x) }";
    let g = ir::text::parse(text, &ops::Standard).unwrap();
    let x = Tensor::zeros(ir::DType::F32, &[0, i64::MAX as usize, i64::MAX as usize]).unwrap();
    let s = Session::from_graph(&g, 1).unwrap();
    let y = s.evaluate(&[("x".to_string(), x.clone().into())].into_iter().collect()).unwrap();
    assert_eq!(y[0].tensor().unwrap().shape(), x.shape());
}
