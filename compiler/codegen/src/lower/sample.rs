//! Sampling of float32 images at the positions of a grid.

use super::{Cx, Lowered};
use crate::channels_last::DOMAIN;
use artefact::Call;
use ir::Node;
use kernels::grid_sample::{GridSample, Padding};

pub fn lower(cx: &Cx, n: &Node) -> Option<Lowered> {
    let last = n.op.name() == "GridSample" && n.op.domain() == DOMAIN;
    if !(last || n.is("GridSample")) {
        return None;
    }
    let (x, grid, y) = (n.input(0)?, n.input(1)?, n.output(0)?);
    let (shape, positions) = (cx.f32_shape(x)?, cx.f32_shape(grid)?);
    let &[batch, a, b, c] = &shape[..] else { return None };
    let (channels, height, width) = if last { (c, a, b) } else { (a, b, c) };
    let &[of, tall, wide, 2] = &positions[..] else { return None };
    let nearest = match n.attrs.str_or("mode", "linear").ok()? {
        "nearest" => true,
        "linear" | "bilinear" => false,
        _ => return None,
    };
    let padding = match n.attrs.str_or("padding_mode", "zeros").ok()? {
        "zeros" => Padding::Zeros,
        "border" => Padding::Border,
        "reflection" => Padding::Reflection,
        _ => return None,
    };
    let align_corners = n.attrs.int_or("align_corners", 0).ok()? != 0;
    if of != batch || shape.contains(&0) || positions.contains(&0) {
        return None;
    }
    let of = GridSample { batch, channels, height, width, tall, wide, last, nearest, padding, align_corners };
    let taps = if nearest { 1.0 } else { 8.0 };
    let flops = taps * (batch as f64) * (channels as f64) * (tall as f64) * (wide as f64);
    Some(Lowered::call("sampling", vec![x, grid], y, flops, Call::GridSample { tier: cx.tier, of }))
}

#[cfg(test)]
mod tests {
    use ir::{Attrs, DType, Evaluate, Feeds, Graph, Tensor, Value, ValueType};
    use kernels::Serial;

    const SPECIAL: [f32; 10] =
        [-1.0, 1.0, 0.0, 1e30, -1e30, f32::INFINITY, f32::NEG_INFINITY, f32::NAN, f32::MAX, -3.0];

    fn tensor(shape: &[usize], seed: usize, special: &[f32]) -> Tensor {
        let n = shape.iter().product();
        let value = |i: usize| ((i + seed) * 7919 % 613) as f32 / 200.0 - 1.5;
        let mut data: Vec<f32> = (0..n).map(value).collect();
        // At places that meet each other along both axes.
        special.iter().enumerate().for_each(|(i, &v)| {
            for at in [7 * i, 7 * i + 1, 8 * special.len() + 3 * i] {
                data.get_mut(at).into_iter().for_each(|x| *x = v);
            }
        });
        Tensor::new(shape, data).unwrap()
    }

    fn graph(x: &[usize], grid: &[usize], attrs: Attrs, around: bool) -> Graph {
        let mut g = Graph::new("t");
        let mut v = g.add_input("x", ValueType::known(DType::F32, x));
        let grid = g.add_input("grid", ValueType::known(DType::F32, grid));
        if around {
            let pool = Attrs::new().with("kernel_shape", vec![2i64; 2]);
            v = g.apply("p", ops::standard("MaxPool").unwrap(), pool, &[v]);
        }
        let y = g.apply("y", ops::standard("GridSample").unwrap(), attrs, &[v, grid]);
        g.add_output("y", y);
        ir::infer(&mut g).unwrap();
        g
    }

    fn attrs(mode: &str, padding: &str, corners: i64) -> Attrs {
        Attrs::new().with("mode", mode).with("padding_mode", padding).with("align_corners", corners)
    }

    #[test]
    fn images_are_sampled_as_by_the_reference() {
        for (x, tall, wide) in
            [([2usize, 3, 5, 7], 6usize, 11usize), ([1, 21, 4, 3], 20, 17), ([1, 2, 1, 2], 9, 1)]
        {
            for mode in ["nearest", "linear"] {
                for padding in ["zeros", "border", "reflection"] {
                    for (corners, around) in [(0, false), (1, false), (0, x[2] > 1), (1, x[2] > 1)] {
                        let grid = [x[0], tall, wide, 2];
                        let g = graph(&x, &grid, attrs(mode, padding, corners), around);
                        let inputs = [tensor(&x, 1, &[]), tensor(&grid, 5, &SPECIAL)].map(Value::Tensor);
                        let [a, b] = inputs.clone();
                        let feeds = Feeds::from([("x".to_string(), a), ("grid".to_string(), b)]);
                        let want = ir::Reference.run(&g, &feeds, &[]).unwrap();
                        let program = crate::compile(&g).unwrap();
                        assert!(program.steps().iter().any(|s| s.kind == "sampling"));
                        let found = program.run(&inputs, &Serial).unwrap();
                        let floats = |v: &[Value]| v[0].tensor().unwrap().to_f32s().unwrap();
                        for (f, w) in floats(&found).iter().zip(floats(&want.outputs)) {
                            let same = (f - w).abs() <= 1e-6 || f.is_nan() && w.is_nan();
                            assert!(same, "{mode} {padding} {corners} {x:?}: {f} is not {w}");
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn others_run_by_reference() {
        let sampled = |x: &[usize], grid: &[usize], mode: &str| {
            let program = crate::compile(&graph(x, grid, attrs(mode, "zeros", 0), false)).unwrap();
            let inputs = [tensor(x, 1, &[]), tensor(grid, 2, &[])].map(Value::Tensor);
            drop(program.run(&inputs, &Serial));
            program.steps().iter().any(|s| s.kind == "sampling")
        };
        assert!(!sampled(&[1, 2, 4, 4], &[1, 3, 3, 2], "cubic"));
        assert!(!sampled(&[1, 2, 4, 4, 4], &[1, 3, 3, 3, 3], "linear"));
        assert!(!sampled(&[1, 0, 4, 4], &[1, 3, 3, 2], "linear"));
        assert!(!sampled(&[1, 2, 0, 4], &[1, 3, 3, 2], "linear"));
        assert!(!sampled(&[1, 2, 4, 4], &[1, 0, 3, 2], "linear"));
    }
}
