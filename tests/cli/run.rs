//! `compress run`.

use crate::harness::{Dir, arg, arrays, compress, difference, model, one_input};
use ir::{Attrs, DType, Dim, Graph, Tensor, ValueType};

#[test]
fn generated_code_equals_the_reference() {
    let d = Dir::new("run");
    let (i, a, b) = (one_input(&d), d.path("a.npz"), d.path("b.npz"));
    compress(&["run", arg(model()), "--inputs", arg(&i), "--outputs", arg(&a), "--threads", "2"]).ok();
    compress(&["run", arg(model()), "--inputs", arg(&i), "--outputs", arg(&b), "--reference"]).ok();
    let (x, y) = (arrays(&a), arrays(&b));
    assert_eq!(x.keys().collect::<Vec<_>>(), y.keys().collect::<Vec<_>>());
    assert!(x.iter().all(|(k, t)| difference(t, &y[k]) < 1e-5));
}

#[test]
fn bfloat16_travels_as_bit_patterns() {
    let d = Dir::new("bf16");
    let mut g = Graph::new("g");
    let x = g.add_input("x", ValueType::known(DType::BF16, &[2]));
    let y = g.apply("", ops::standard("Neg").unwrap(), Attrs::new(), &[x]);
    g.add_output("y", y);
    g.meta.opset = 21;
    let m = crate::harness::write_graph(&d, "m.onnx", &g);
    let bits = Tensor::vector(vec![0x3f80u16, 0xc000]);
    let i = crate::harness::write_feeds(&d, "i.npz", &[("x", bits.into())]);
    let o = d.path("o.npz");
    for extra in [&[][..], &["--reference"]] {
        let args = [&["run", arg(&m), "--inputs", arg(&i), "--outputs", arg(&o)], extra].concat();
        compress(&args).ok();
        assert_eq!(&*arrays(&o)["y"].data::<u16>().unwrap(), [0xbf80, 0x4000]);
    }
}

#[test]
fn shapes_given_as_values_are_compiled_in() {
    let d = Dir::new("reshape");
    let mut g = Graph::new("g");
    let x = g.add_input("x", ValueType::tensor(DType::F32, vec![Dim::symbol("n"), Dim::Known(4)]));
    let s = g.add_input("s", ValueType::known(DType::I64, &[2]));
    let y = g.apply("", ops::standard("Reshape").unwrap(), Attrs::new(), &[x, s]);
    let z = g.apply("", ops::standard("Relu").unwrap(), Attrs::new(), &[y]);
    g.add_output("z", z);
    g.meta.opset = 17;
    let m = crate::harness::write_graph(&d, "m.onnx", &g);
    let x = Tensor::new(&[2, 4], (0..8).map(|i| i as f32 - 4.0).collect()).unwrap();
    let i = crate::harness::write_feeds(
        &d,
        "i.npz",
        &[("x", x.into()), ("s", Tensor::vector(vec![4i64, -1]).into())],
    );
    let o = d.path("o.npz");
    compress(&["run", arg(&m), "--inputs", arg(&i), "--outputs", arg(&o)]).ok();
    assert_eq!(arrays(&o)["z"].shape(), [4, 2]);
}

#[test]
fn a_missing_input_is_named() {
    let d = Dir::new("missing");
    let i = crate::harness::write_feeds(&d, "i.npz", &[("other", Tensor::scalar(1f32).into())]);
    let r = compress(&["run", arg(model()), "--inputs", arg(&i), "--outputs", arg(&d.path("o.npz"))]);
    r.refused(1, &["image", "other"]);
    assert_eq!(d.files(), ["i.npz"]);
}

#[test]
fn bfloat16_is_near_float32_where_it_is_asked_for() {
    let d = Dir::new("precision");
    let (i, a, b) = (one_input(&d), d.path("a.npz"), d.path("b.npz"));
    compress(&["run", arg(model()), "--inputs", arg(&i), "--outputs", arg(&a)]).ok();
    compress(&["run", arg(model()), "--inputs", arg(&i), "--outputs", arg(&b), "--precision", "bf16"]).ok();
    let (x, y) = (arrays(&a), arrays(&b));
    let apart = x.iter().map(|(k, t)| difference(t, &y[k])).fold(0.0, f64::max);
    assert!(apart > 0.0 && apart < 0.05, "{apart}");
    let both = [
        "run",
        arg(model()),
        "--inputs",
        arg(&i),
        "--outputs",
        arg(&b),
        "--precision",
        "bf16",
        "--reference",
    ];
    let r = compress(&both);
    assert!(
        r.code == 2 && r.err.contains("--precision") && r.err.contains("--reference"),
        "{} {}",
        r.code,
        r.err
    );
}
