use super::*;
use crate::epilogue::Activation;
use crate::parallel::Serial;
use crate::quantizer::Grid;
use crate::testing::{Two, close, finished, on_grid, random};
use proptest::prelude::*;

fn naive(s: &ConvTransposeShape, x: &[f32], x_stride: usize, w: &[f32], e: &Epilogue) -> Vec<f64> {
    let [id, ih, iw] = s.input;
    let [od, oh, ow] = s.output;
    let [_, kh, kw] = s.kernel;
    let taps: usize = s.kernel.iter().product();
    let (cin, cout) = (s.cin / s.groups, s.cout / s.groups);
    let mut y = vec![0.0; s.batch * od * oh * ow * s.cout];
    for row in 0..s.batch * id * ih * iw {
        let at = [row / (ih * iw) % id, row / iw % ih, row % iw];
        for t in 0..taps {
            let k = [t / (kh * kw), t / kw % kh, t % kw];
            let o: Vec<usize> = (0..3)
                .filter_map(|i| (at[i] * s.stride[i] + k[i] * s.dilation[i]).checked_sub(s.pad_begin[i]))
                .collect();
            if o.len() < 3 || (0..3).any(|i| o[i] >= s.output[i]) {
                continue;
            }
            let pixel = ((row / (id * ih * iw) * od + o[0]) * oh + o[1]) * ow + o[2];
            for ci in 0..s.cin {
                for co in 0..cout {
                    let v = f64::from(x[row * x_stride + ci]) * f64::from(w[(ci * cout + co) * taps + t]);
                    y[pixel * s.cout + ci / cin * cout + co] += v;
                }
            }
        }
    }
    y.iter().enumerate().map(|(i, &v)| finished(e, v, i / s.cout, i % s.cout)).collect()
}

fn check(s: &ConvTransposeShape, pad: usize) {
    let rows = s.batch * s.output.iter().product::<usize>();
    let taps: usize = s.kernel.iter().product();
    let (xs, ys) = (s.cin + pad, s.cout + pad);
    let x = random(s.batch * s.input.iter().product::<usize>() * xs, 1);
    let w = random(s.cin * (s.cout / s.groups) * taps, 2);
    let (bias, residual) = (random(s.cout, 3), random(rows * s.cout, 4));
    let residual = Residual { data: &residual, row_stride: s.cout, after_activation: true };
    let e = Epilogue {
        bias: Some(&bias),
        residual: Some(residual),
        act: Activation::Relu,
        affine: None,
        grid: None,
    };
    let want = naive(s, &x, xs, &w, &e);
    for &tier in Tier::available() {
        let packed = PackedConvTranspose::new(tier, &w, s).unwrap();
        let (mut y, mut z) = (vec![7.0; rows * ys], vec![7.0; rows * ys]);
        conv_transpose_f32(&Serial, s, &x, xs, &packed, &mut y, ys, &e).unwrap();
        conv_transpose_f32(&Two, s, &x, xs, &packed, &mut z, ys, &e).unwrap();
        assert_eq!(y, z);
        let grid = Grid { scale: 0.07, zero: 3, signed: true };
        conv_transpose_f32(&Serial, s, &x, xs, &packed, &mut z, ys, &Epilogue { grid: Some(grid), ..e })
            .unwrap();
        for row in 0..rows {
            assert_eq!(z[row * ys..][..s.cout], on_grid(grid, &y[row * ys..][..s.cout]));
            close(&y[row * ys..][..s.cout], &want[row * s.cout..][..s.cout], s.cin * taps);
        }
    }
}

#[test]
fn windows_side_by_side_match_the_definition() {
    for cout in [1, 5, 24] {
        let shape = ConvTransposeShape {
            batch: 2,
            input: [1, 5, 7],
            output: [1, 10, 14],
            cin: 12,
            cout,
            kernel: [1, 2, 2],
            stride: [1, 2, 2],
            dilation: [1; 3],
            pad_begin: [0; 3],
            groups: 1,
        };
        assert!(
            PackedConvTranspose::new(Tier::best(), &vec![0.0; 48 * cout], &shape).unwrap().wide.is_some()
        );
        check(&shape, 0);
        check(&shape, 3);
    }
}

#[test]
fn other_weights_and_broken_shapes_are_refused() {
    let shape = ConvTransposeShape {
        batch: 1,
        input: [1, 2, 2],
        output: [1, 4, 4],
        cin: 1,
        cout: 1,
        kernel: [1, 2, 2],
        stride: [1, 2, 2],
        dilation: [1; 3],
        pad_begin: [0; 3],
        groups: 1,
    };
    let w = PackedConvTranspose::new(Tier::best(), &[1.0; 4], &shape).unwrap();
    let (x, mut y, e) = ([1.0; 4], [0.0; 16], Epilogue::default());
    assert!(conv_transpose_f32(&Serial, &shape, &x, 1, &w, &mut y, 1, &e).is_ok());
    assert_eq!(y, [1.0; 16]);
    assert!(conv_transpose_f32(&Serial, &shape, &x[1..], 1, &w, &mut y, 1, &e).is_err());
    assert!(conv_transpose_f32(&Serial, &shape, &x, 1, &w, &mut y[1..], 1, &e).is_err());
    let other = ConvTransposeShape { stride: [1, 1, 2], ..shape };
    assert!(conv_transpose_f32(&Serial, &other, &x, 1, &w, &mut y, 1, &e).is_err());
    let zero = ConvTransposeShape { stride: [1, 0, 2], ..shape };
    assert!(PackedConvTranspose::new(Tier::best(), &[1.0; 4], &zero).is_err());
}

#[test]
fn channels_by_themselves_match_the_definition() {
    for (channels, kernel, stride, pad) in
        [(2, [1, 2, 2], [1, 2, 2], 0), (16, [1, 4, 4], [1, 2, 2], 1), (37, [2, 3, 1], [1, 2, 3], 0)]
    {
        let shape = ConvTransposeShape {
            batch: 2,
            input: [2, 5, 7],
            output: [3, 9, 12],
            cin: channels,
            cout: channels,
            kernel,
            stride,
            dilation: [1; 3],
            pad_begin: [0, pad, pad],
            groups: channels,
        };
        check(&shape, 0);
        check(&shape, 3);
    }
}

fn axis() -> impl Strategy<Value = (usize, usize, usize, usize, usize, usize)> {
    (1usize..6, 1usize..12, 1usize..4, 1usize..5, 1usize..3, 0usize..3)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]
    #[test]
    fn any_shape_matches_the_definition(
        d in axis(), h in axis(), w in axis(), deep: bool, batch in 0usize..3,
        cin in 1usize..20, cout in 1usize..20, groups in 1usize..4, depthwise: bool, pad in 0usize..2,
    ) {
        let d = if deep { d } else { (1, 1, 1, 1, 1, 0) };
        check(&ConvTransposeShape {
            batch,
            input: [d.0, h.0, w.0], output: [d.1, h.1, w.1], kernel: [d.2, h.2, w.2], stride: [d.3, h.3, w.3],
            dilation: [d.4, h.4, w.4], pad_begin: [d.5, h.5, w.5],
            cin: cin * groups, cout: if depthwise { cin } else { cout } * groups,
            groups: if depthwise { cin * groups } else { groups },
        }, pad);
    }
}
