//! Local response normalisation of float32 channels.

use super::{Cx, Lowered};
use crate::channels_last::DOMAIN;
use artefact::Call;
use ir::Node;
use kernels::lrn::Lrn;

/// Factors of squares that keep what float32 loses of them small.
const MOST_ALPHA: f32 = 1e6;
/// Exponents whose powers of sums float32 holds.
const MOST_BETA: f32 = 1.5;

pub fn lower(cx: &Cx, n: &Node) -> Option<Lowered> {
    let last = n.op.name() == "LRN" && n.op.domain() == DOMAIN;
    if !(last || n.is("LRN")) {
        return None;
    }
    let (x, y) = (n.input(0)?, n.output(0)?);
    let shape = cx.f32_shape(x)?;
    let (&batch, &channels) = (shape.first()?, if last { shape.last()? } else { shape.get(1)? });
    let spatial = if last { shape.get(1..shape.len().checked_sub(1)?)? } else { &shape[2..] };
    let inner = spatial.iter().try_fold(1usize, |n, &d| n.checked_mul(d))?;
    let size = usize::try_from(n.attrs.require_int("size").ok()?).ok().filter(|&s| s > 0)?;
    let float = |name: &str, default: f32| n.attrs.float_or(name, default).ok();
    let (alpha, beta, bias) = (float("alpha", 1e-4)?, float("beta", 0.75)?, float("bias", 1.0)?);
    // Of terms of both signs little may be left.
    let sums = (0.0..=MOST_ALPHA).contains(&alpha) && (0.0..f32::INFINITY).contains(&bias);
    let powers = beta > 0.0 && beta <= MOST_BETA;
    if !(sums && powers) || shape.contains(&0) {
        return None;
    }
    // A pixel of each image is a row of channels either way.
    let of = Lrn { batch, channels, inner, last: last || inner == 1, size, alpha, beta, bias };
    let flops = (size.min(channels) as f64 + 16.0) * shape.iter().product::<usize>() as f64;
    Some(Lowered::call("normalisation", vec![x], y, flops, Call::Lrn { tier: cx.tier, of }))
}

#[cfg(test)]
mod tests {
    use ir::{Attrs, DType, Evaluate, Feeds, Graph, Tensor, Value, ValueType};
    use kernels::Serial;

    fn data(shape: &[usize], seed: usize) -> Tensor {
        let n = shape.iter().product();
        let value = |i: usize| ((i + seed) * 7919 % 613) as f32 / 20.0 - 15.0;
        Tensor::new(shape, (0..n).map(value).collect::<Vec<f32>>()).unwrap()
    }

    fn graph(x: &[usize], attrs: Attrs, around: bool) -> Graph {
        let mut g = Graph::new("t");
        let mut v = g.add_input("x", ValueType::known(DType::F32, x));
        let pool = || Attrs::new().with("kernel_shape", vec![2i64; x.len() - 2]);
        if around {
            v = g.apply("p", ops::standard("MaxPool").unwrap(), pool(), &[v]);
        }
        v = g.apply("n", ops::standard("LRN").unwrap(), attrs, &[v]);
        if around {
            v = g.apply("q", ops::standard("MaxPool").unwrap(), pool(), &[v]);
        }
        g.add_output("y", v);
        ir::infer(&mut g).unwrap();
        g
    }

    /// Kinds of the steps, whose results are close to the reference's.
    fn kinds(x: &[usize], attrs: Attrs, around: bool) -> Vec<&'static str> {
        let (g, x) = (graph(x, attrs, around), Value::Tensor(data(x, 3)));
        let want = ir::Reference.run(&g, &Feeds::from([("x".to_string(), x.clone())]), &[]).unwrap();
        let program = crate::compile(&g).unwrap();
        let found = program.run(&[x], &Serial).unwrap();
        let floats = |v: &[Value]| v[0].tensor().unwrap().to_f32s().unwrap();
        for (f, w) in floats(&found).iter().zip(floats(&want.outputs)) {
            assert!((f - w).abs() <= 4e-6 * w.abs(), "{f} is not {w}");
        }
        program.steps().iter().map(|s| s.kind).collect()
    }

    fn attrs(size: i64, alpha: f32, beta: f32, bias: f32) -> Attrs {
        Attrs::new().with("size", size).with("alpha", alpha).with("beta", beta).with("bias", bias)
    }

    #[test]
    fn responses_are_normalised_as_by_the_reference() {
        for x in [&[2usize, 7, 3, 5][..], &[1, 40, 9, 33], &[2, 5], &[1, 3, 300], &[1, 18, 2, 3, 7]] {
            for (size, beta) in [(1, 0.75), (2, 0.5), (5, 0.75), (4, 1.0), (7, 0.6), (99, 1.25)] {
                assert_eq!(kinds(x, attrs(size, 0.3, beta, 2.0), false), ["normalisation"]);
            }
        }
        assert_eq!(kinds(&[1, 6, 4, 4], Attrs::new().with("size", 3i64), false), ["normalisation"]);
    }

    #[test]
    fn channels_last_regions_stay_whole() {
        for x in [&[2usize, 19, 7, 9][..], &[1, 3, 40], &[1, 17, 4, 5, 6]] {
            let kinds = kinds(x, attrs(5, 0.3, 0.75, 1.0), true);
            assert_eq!(kinds.iter().filter(|k| **k == "normalisation").count(), 1);
            let pooled = kinds.iter().position(|k| *k == "pooling").unwrap();
            assert_eq!(kinds[pooled..pooled + 3], ["pooling", "normalisation", "pooling"]);
        }
    }

    #[test]
    fn what_floats_do_not_hold_runs_by_reference() {
        for attrs in [attrs(3, -0.1, 0.75, 9.0), attrs(3, 0.1, -0.75, 1.0), attrs(3, 0.1, 0.0, 1.0)] {
            let program = crate::compile(&graph(&[1, 4, 3, 3], attrs, false)).unwrap();
            assert!(program.steps().iter().all(|s| s.kind != "normalisation"));
        }
        for x in [&[0usize, 4, 3][..], &[1, 0, 3], &[1, 4, 0]] {
            let program = crate::compile(&graph(x, Attrs::new().with("size", 3i64), false)).unwrap();
            program.run(&[Value::Tensor(data(x, 0))], &Serial).unwrap();
        }
    }
}
