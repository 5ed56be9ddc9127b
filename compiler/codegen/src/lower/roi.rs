//! Pooling of float32 maps inside of boxes.

use super::{Cx, Lowered};
use artefact::Call;
use ir::{DType, Node};
use kernels::roi_align::RoiAlign;

pub fn lower(cx: &Cx, n: &Node) -> Option<Lowered> {
    if !n.is("RoiAlign") {
        return None;
    }
    let (x, rois, of, y) = (n.input(0)?, n.input(1)?, n.input(2)?, n.output(0)?);
    let (shape, regions) = (cx.f32_shape(x)?, cx.f32_shape(rois)?);
    let (&[batch, channels, height, width], &[boxes, 4]) = (&shape[..], &regions[..]) else { return None };
    if boxes == 0
        || shape.contains(&0)
        || cx.graph.dtype(of) != Some(DType::I64)
        || cx.shape(of)?[..] != [boxes]
    {
        return None;
    }
    let half_pixel = match n.attrs.str_or("coordinate_transformation_mode", "half_pixel").ok()? {
        "half_pixel" => true,
        "output_half_pixel" => false,
        _ => return None,
    };
    let largest = match n.attrs.str_or("mode", "avg").ok()? {
        "avg" => false,
        "max" => true,
        _ => return None,
    };
    let size = |name| usize::try_from(n.attrs.int_or(name, 1).ok()?).ok().filter(|&n| n > 0);
    let (tall, wide) = (size("output_height")?, size("output_width")?);
    let samples = usize::try_from(n.attrs.int_or("sampling_ratio", 0).ok()?).unwrap_or(0);
    let scale = n.attrs.float_or("spatial_scale", 1.0).ok()?;
    let of_call =
        RoiAlign { batch, channels, height, width, boxes, tall, wide, samples, scale, half_pixel, largest };
    let taps = 8.0 * (samples.max(1) as f64).powi(2);
    let flops = taps * [boxes, channels, tall, wide].iter().map(|&n| n as f64).product::<f64>();
    let call = Call::RoiAlign { tier: cx.tier, of: of_call };
    Some(Lowered::call("pooling", vec![x, rois, of], y, flops, call))
}

#[cfg(test)]
mod tests {
    use ir::{Attrs, DType, Error, Evaluate, Feeds, Graph, Tensor, Value, ValueType};
    use kernels::Serial;

    type Outcome = Result<Vec<f32>, Error>;

    /// What the program and the reference make of these boxes, and whether a kernel ran.
    fn both(x: &[usize], rois: &[f32], of: &[i64], attrs: Attrs) -> (Outcome, Outcome, bool) {
        let mut g = Graph::new("t");
        let at = g.add_input("x", ValueType::known(DType::F32, x));
        let boxes = g.add_input("rois", ValueType::known(DType::F32, &[rois.len() / 4, 4]));
        let images = g.add_input("of", ValueType::known(DType::I64, &[of.len()]));
        let y = g.apply("y", ops::standard("RoiAlign").unwrap(), attrs, &[at, boxes, images]);
        g.add_output("y", y);
        ir::infer(&mut g).unwrap();
        let n = x.iter().product();
        let data: Vec<f32> = (0..n).map(|i: usize| (i * 7919 % 613) as f32 / 200.0 - 1.5).collect();
        let inputs = [
            Tensor::new(x, data).unwrap(),
            Tensor::new(&[rois.len() / 4, 4], rois.to_vec()).unwrap(),
            Tensor::vector(of.to_vec()),
        ]
        .map(Value::Tensor);
        let names = ["x", "rois", "of"].map(str::to_string);
        let feeds: Feeds = names.into_iter().zip(inputs.clone()).collect();
        let program = crate::compile(&g).unwrap();
        let called = program.steps().iter().any(|s| s.kind == "pooling");
        let floats = |v: &[Value]| v[0].tensor().unwrap().to_f32s().unwrap();
        let want = ir::Reference.run(&g, &feeds, &[]).map(|r| floats(&r.outputs));
        (program.run(&inputs, &Serial).map(|v| floats(&v)), want, called)
    }

    fn attrs(mode: &str, pixel: &str, ratio: i64, size: [i64; 2]) -> Attrs {
        Attrs::new()
            .with("mode", mode)
            .with("coordinate_transformation_mode", pixel)
            .with("sampling_ratio", ratio)
            .with("spatial_scale", 0.25f32)
            .with("output_height", size[0])
            .with("output_width", size[1])
    }

    const ROIS: [f32; 28] = [
        0.0, 0.0, 80.0, 40.0, 3.0, 5.0, 31.0, 29.0, 8.0, 8.0, 8.0, 8.0, -40.0, -9.0, 10.0, 99.0, 30.0, 20.0,
        10.0, 4.0, 500.0, 500.0, 600.0, 600.0, 12.0, 12.0, 76.0, 20.0,
    ];

    #[test]
    fn boxes_are_pooled_as_by_the_reference() {
        for mode in ["avg", "max"] {
            for pixel in ["half_pixel", "output_half_pixel"] {
                for (ratio, size) in [(0, [7, 7]), (2, [7, 7]), (1, [1, 20]), (3, [4, 1]), (-1, [2, 3])] {
                    let of = [0, 1, 1, 0, 1, 0, 1];
                    let (found, want, called) =
                        both(&[2, 5, 11, 21], &ROIS, &of, attrs(mode, pixel, ratio, size));
                    assert!(called);
                    for (f, w) in found.unwrap().iter().zip(want.unwrap()) {
                        assert!((f - w).abs() < 2e-6, "{mode} {pixel} {ratio}: {f} is not {w}");
                    }
                }
            }
        }
    }

    #[test]
    fn hostile_boxes_end_as_in_the_reference() {
        let big = [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, f32::MAX, f32::MIN, 1e9, -1e9];
        let mut cases: Vec<(Vec<f32>, Vec<i64>)> =
            [-1, 2, i64::MIN, i64::MAX].map(|i| (ROIS[..4].to_vec(), vec![i])).to_vec();
        for b in big {
            cases.push((vec![b, 0.0, 4.0, 4.0], vec![0]));
            cases.push((vec![0.0, 0.0, 4.0, b], vec![1]));
            cases.push((vec![b; 4], vec![0]));
        }
        cases.push((Vec::new(), Vec::new()));
        cases.push((ROIS[..8].to_vec(), vec![0]));
        for (rois, of) in cases {
            for ratio in [0, 2, 5000, i64::MAX, i64::MIN] {
                for mode in ["avg", "max"] {
                    let (found, want, _) =
                        both(&[2, 3, 4, 5], &rois, &of, attrs(mode, "half_pixel", ratio, [2, 3]));
                    match (found, want) {
                        (Ok(f), Ok(w)) => assert!(
                            f.iter().zip(&w).all(|(f, w)| (f - w).abs() < 2e-6 || f.to_bits() == w.to_bits())
                                && f.len() == w.len(),
                            "{rois:?} {ratio} {mode}: {f:?} is not {w:?}"
                        ),
                        (Err(f), Err(w)) => assert_eq!(f.blame, w.blame, "{f} is not {w}"),
                        (f, w) => panic!("{rois:?} {of:?} {ratio} {mode}: {f:?} is not {w:?}"),
                    }
                }
            }
        }
    }
}
