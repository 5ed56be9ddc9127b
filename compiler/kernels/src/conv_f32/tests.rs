use super::*;
use crate::epilogue::{Activation, Residual};
use crate::parallel::Serial;
use crate::quantizer::Grid;
use crate::testing::{Two, close, finished, on_grid, random};
use crate::winograd_f32::Side;
use proptest::prelude::*;

fn naive(shape: &ConvShape, x: &[f32], x_stride: usize, w: &[f32], e: &Epilogue) -> Vec<f64> {
    let [od, oh, ow] = shape.output().unwrap();
    let [id, ih, iw] = shape.input;
    let [kd, kh, kw] = shape.kernel;
    let (cin, cout) = (shape.cin / shape.groups, shape.cout / shape.groups);
    let at = |axis: usize, o: usize, k: usize| {
        let p = o * shape.stride[axis] + k * shape.dilation[axis];
        p.checked_sub(shape.pad_begin[axis]).filter(|&p| p < shape.input[axis])
    };
    let mut y = Vec::new();
    for row in 0..shape.batch * od * oh * ow {
        let (n, d, h, v) = (row / (od * oh * ow), row / (oh * ow) % od, row / ow % oh, row % ow);
        for c in 0..shape.cout {
            let mut sum = 0.0;
            for t in 0..kd * kh * kw {
                let (td, th, tw) = (t / (kh * kw), t / kw % kh, t % kw);
                let (Some(d), Some(h), Some(v)) = (at(0, d, td), at(1, h, th), at(2, v, tw)) else {
                    continue;
                };
                for i in 0..cin {
                    let pixel = ((n * id + d) * ih + h) * iw + v;
                    let x = x[pixel * x_stride + c / cout * cin + i];
                    sum += f64::from(x) * f64::from(w[(c * cin + i) * kd * kh * kw + t]);
                }
            }
            y.push(finished(e, sum, row, c));
        }
    }
    y
}

fn check(shape: &ConvShape, pad: usize, act: Activation) {
    let count = shape.check().unwrap();
    let (xs, ys) = (shape.cin + pad, shape.cout + pad);
    let x = random(shape.batch * shape.input.iter().product::<usize>() * xs, 1);
    let k = shape.cin / shape.groups * shape.kernel.iter().product::<usize>();
    let w = random(shape.cout * k, 2);
    let (bias, residual) = (random(shape.cout, 3), random(count * shape.cout, 4));
    let residual = Residual { data: &residual, row_stride: shape.cout, after_activation: false };
    let e = Epilogue { bias: Some(&bias), residual: Some(residual), act, affine: None, grid: None };
    let want = naive(shape, &x, xs, &w, &e);
    // As weights lie in a file, at any address.
    let bytes = [&[0u8], bytemuck::cast_slice(&w)].concat();
    let cells: &[[u8; 4]] = bytemuck::cast_slice(&bytes[1..]);
    for &tier in Tier::available() {
        let plain =
            PackedConv::plain(tier, cells, shape.cout, shape.cin, shape.kernel, shape.groups).unwrap();
        let mut forms = vec![plain];
        for side in Side::ALL.into_iter().filter(|s| s.takes(&shape.narrowed())) {
            let form = Form::Winograd(PackedWinograd::new(tier, side, cells, shape.cout, shape.cin).unwrap());
            forms.push(PackedConv { form, ..forms[0].clone() });
        }
        if pad == 0 {
            forms.push(PackedConv::from_unaligned(tier, cells, shape).unwrap());
            let narrow = shape.narrowed();
            if let Some(columns) = columns_f32::columns(&narrow) {
                let form = Form::Columns(PackedColumns::new(tier, columns, cells, &narrow).unwrap());
                forms.push(PackedConv { kernel: narrow.kernel, form, ..forms[0].clone() });
            }
        }
        for packed in &forms {
            check_form(shape, (&x, xs), packed, ys, k, &e, &want);
        }
    }
}

/// The form chosen for sizes where it pays.
#[test]
fn large_layers_take_other_forms() {
    let d2 = ConvShape::d2;
    let form = |shape: &ConvShape| {
        let w = random(shape.cout * shape.cin * shape.kernel.iter().product::<usize>(), 1);
        PackedConv::for_shape(Tier::best(), &w, shape).unwrap().form
    };
    let winograd = d2((1, 28, 28, 64), 64, [3, 3], [1, 1], [1, 1], [1; 4], 1);
    assert!(matches!(form(&winograd), Form::Winograd(_)));
    let line = d2((1, 508, 1, 256), 512, [5, 1], [1, 1], [1, 1], [0; 4], 1);
    assert!(matches!(form(&line), Form::Winograd(_)));
    let few = d2((1, 60, 60, 9), 8, [3, 9], [1, 1], [1, 1], [1, 4, 1, 4], 1);
    assert!(matches!(form(&few), Form::Columns(_)));
    // Sums of rows take fewer instructions, but for windows of few products.
    let single = ConvShape { cout: 1, ..few };
    assert!(matches!(form(&single), Form::Dense(_)));
    let short = d2((1, 160, 160, 1), 1, [3, 5], [1, 1], [1, 1], [1, 2, 1, 2], 1);
    assert!(matches!(form(&short), Form::Columns(_)));
    let many = d2((1, 28, 28, 256), 819, [3, 3], [1, 1], [1, 1], [1; 4], 1);
    assert!(matches!(form(&many), Form::Winograd(_)));
    assert!(matches!(form(&d2((1, 8, 8, 9), 1, [5, 5], [1, 1], [1, 1], [2; 4], 1)), Form::Dense(_)));
}

fn check_form(
    shape: &ConvShape,
    (x, xs): (&[f32], usize),
    packed: &PackedConv,
    ys: usize,
    k: usize,
    e: &Epilogue,
    want: &[f64],
) {
    let count = shape.check().unwrap();
    {
        let mut y = vec![7.0; count * ys];
        conv_f32(&Serial, shape, x, xs, packed, &mut y, ys, e).unwrap();
        for row in 0..count {
            close(&y[row * ys..][..shape.cout], &want[row * shape.cout..][..shape.cout], k);
            assert!(y[row * ys + shape.cout..(row + 1) * ys].iter().all(|&v| v == 7.0), "wrote past a pixel");
        }
        let mut z = vec![7.0; count * ys];
        conv_f32(&Two, shape, x, xs, packed, &mut z, ys, e).unwrap();
        assert_eq!(y, z);
        let grid = Grid { scale: 0.07, zero: 3, signed: false };
        conv_f32(&Serial, shape, x, xs, packed, &mut z, ys, &Epilogue { grid: Some(grid), ..*e }).unwrap();
        for row in 0..count {
            assert_eq!(z[row * ys..][..shape.cout], on_grid(grid, &y[row * ys..][..shape.cout]));
        }
    }
}

#[test]
fn usual_layers_match_the_definition() {
    let d2 = ConvShape::d2;
    for shape in [
        d2((1, 17, 19, 3), 20, [3, 3], [2, 2], [1, 1], [0, 0, 1, 1], 1),
        d2((2, 9, 9, 1), 8, [5, 5], [1, 1], [1, 1], [2, 2, 2, 2], 1),
        d2((1, 7, 7, 64), 70, [3, 3], [1, 1], [1, 1], [1, 1, 1, 1], 1),
        d2((1, 14, 14, 40), 24, [1, 1], [1, 1], [1, 1], [0; 4], 1),
        d2((1, 14, 13, 33), 24, [1, 1], [2, 2], [1, 1], [0; 4], 1),
        d2((1, 12, 12, 40), 40, [3, 3], [1, 1], [1, 1], [1; 4], 40),
        d2((1, 30, 31, 48), 48, [5, 5], [2, 2], [1, 1], [1, 2, 2, 1], 48),
        d2((1, 7, 7, 100), 100, [5, 5], [1, 1], [1, 1], [2; 4], 100),
        d2((1, 9, 40, 17), 17, [3, 7], [1, 1], [2, 2], [2, 3, 1, 9], 17),
        d2((1, 6, 21, 5), 15, [3, 3], [1, 2], [1, 1], [1; 4], 5),
        d2((1, 8, 8, 12), 18, [3, 3], [1, 1], [1, 1], [1; 4], 3),
        d2((1, 5, 77, 96), 96, [3, 3], [1, 1], [1, 1], [1; 4], 96),
        d2((1, 6, 99, 64), 64, [5, 5], [2, 2], [1, 1], [2; 4], 64),
        d2((1, 4, 28, 80), 80, [3, 3], [2, 2], [1, 1], [0, 0, 1, 1], 80),
        d2((1, 3, 50, 512), 512, [3, 3], [1, 1], [1, 1], [1; 4], 512),
        d2((1, 1, 1, 96), 24, [1, 1], [1, 1], [1, 1], [0; 4], 1),
        d2((1, 3, 3, 200), 17, [3, 3], [1, 1], [1, 1], [0; 4], 1),
        d2((1, 1, 50, 6), 9, [1, 4], [1, 3], [1, 2], [0, 5, 0, 4], 1),
        d2((1, 2, 2, 3), 5, [3, 3], [1, 1], [1, 1], [0; 4], 1),
        d2((2, 13, 18, 21), 35, [3, 3], [1, 1], [2, 1], [2, 1, 2, 1], 1),
        d2((2, 9, 24, 7), 1, [3, 5], [1, 1], [1, 1], [1, 2, 1, 2], 1),
        d2((1, 5, 20, 33), 6, [3, 3], [2, 2], [2, 1], [1; 4], 1),
        d2((1, 1, 210, 1), 1, [1, 31], [1, 2], [1, 1], [0, 0, 0, 0], 1),
        d2((1, 9, 11, 8), 16, [5, 5], [1, 1], [1, 1], [2; 4], 1),
        d2((2, 23, 1, 12), 40, [5, 1], [1, 1], [1, 1], [2, 0, 2, 0], 1),
        d2((1, 2, 29, 12), 24, [1, 3], [1, 1], [1, 3], [0, 3, 0, 3], 1),
        d2((1, 33, 30, 16), 48, [3, 3], [1, 1], [1, 1], [1; 4], 1),
        d2((2, 90, 1, 3), 17, [7, 1], [2, 1], [1, 1], [3, 0, 3, 0], 1),
        ConvShape {
            input: [3, 9, 1],
            kernel: [2, 3, 1],
            ..d2((1, 3, 9, 5), 6, [1, 1], [1, 1], [1, 1], [0; 4], 1)
        },
        ConvShape { input: [3, 8, 9], ..d2((2, 8, 9, 20), 16, [3, 3], [1, 1], [1, 1], [1; 4], 1) },
    ] {
        for act in [Activation::None, Activation::Relu, Activation::Silu] {
            check(&shape, 0, act);
            check(&shape, 2, act);
        }
    }
}

#[test]
fn other_weights_and_short_slices_are_refused() {
    let shape = ConvShape::d2((1, 4, 4, 2), 3, [3, 3], [1, 1], [1, 1], [1; 4], 1);
    let w = PackedConv::new(Tier::best(), &[0.0; 54], 3, 2, [1, 3, 3], 1).unwrap();
    let (x, mut y, e) = ([0.0; 32], [0.0; 48], Epilogue::default());
    assert!(conv_f32(&Serial, &shape, &x, 2, &w, &mut y, 3, &e).is_ok());
    assert!(conv_f32(&Serial, &shape, &x[1..], 2, &w, &mut y, 3, &e).is_err());
    assert!(conv_f32(&Serial, &shape, &x, 2, &w, &mut y[1..], 3, &e).is_err());
    for broken in [
        ConvShape { cin: 3, ..shape },
        ConvShape { kernel: [1, 3, 2], ..shape },
        ConvShape { stride: [1, 0, 1], ..shape },
        ConvShape { dilation: [0, 1, 1], ..shape },
        ConvShape { groups: 0, ..shape },
        ConvShape { batch: usize::MAX, ..shape },
        ConvShape { pad_begin: [0, usize::MAX, 0], ..shape },
        ConvShape { input: [1 << 30, 1 << 30, 1 << 30], ..shape },
    ] {
        assert!(conv_f32(&Serial, &broken, &x, 2, &w, &mut y, 3, &e).is_err(), "{broken:?}");
    }
    assert!(PackedConv::new(Tier::best(), &[0.0; 53], 3, 2, [1, 3, 3], 1).is_err());
    assert!(PackedConv::new(Tier::best(), &[], 3, 2, [usize::MAX, 3, 3], 1).is_err());
}

fn axis() -> impl Strategy<Value = (usize, usize, usize, usize, usize, usize)> {
    (1usize..10, 1usize..4, 1usize..4, 1usize..3, 0usize..4, 0usize..4)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]
    #[test]
    fn any_shape_matches_the_definition(
        d in axis(), h in axis(), w in axis(), deep: bool, batch in 0usize..3,
        cin in 1usize..40, cout in 1usize..40, groups in 1usize..5, depthwise: bool, square: bool, pad in 0usize..2,
    ) {
        let cout = if square { cin } else { cout };
        let d = if deep { d } else { (1, 1, 1, 1, 0, 0) };
        let groups = if depthwise { cin } else { groups };
        let (cin, cout) = if depthwise { (cin, cin * (1 + cout % 3)) } else { (cin * groups, cout * groups) };
        let shape = ConvShape {
            batch,
            input: [d.0, h.0, w.0], kernel: [d.1, h.1, w.1], stride: [d.2, h.2, w.2], dilation: [d.3, h.3, w.3],
            pad_begin: [d.4, h.4, w.4], pad_end: [d.5, h.5, w.5],
            cin, cout, groups,
        };
        check(&shape, pad, Activation::HardSwish);
    }
}

#[test]
fn narrow_groups_match_the_definition() {
    for (width, groups) in [(2, 3), (2, 17), (4, 4), (4, 9), (8, 2), (8, 5), (16, 2)] {
        let cin = width * groups;
        for (kernel, stride, dilation, input) in [
            ([1, 1], [1, 1], [1, 1], 9),
            ([3, 3], [1, 1], [1, 1], 21),
            ([3, 5], [2, 2], [1, 1], 40),
            ([3, 3], [1, 3], [2, 2], 12),
        ] {
            let pad = [kernel[0] / 2 * dilation[0], kernel[1] / 2 * dilation[1]];
            let shape = ConvShape::d2(
                (2, 5, input, cin),
                cin,
                kernel,
                stride,
                dilation,
                [pad[0], pad[1], pad[0], pad[1]],
                groups,
            );
            check(&shape, 0, Activation::Relu);
            check(&shape, 3, Activation::HardSwish);
        }
    }
}

#[test]
fn dilated_windows_of_single_channels_match_the_definition() {
    for (stride, dilation, pad) in [(1, 2, 2), (2, 3, 1), (1, 12, 12), (2, 60, 60), (1, 500, 500)] {
        let d = (1, 9, 40, 32);
        let (strides, dilations) = ([1, stride], [2, dilation]);
        let mut shape = ConvShape::d2(d, 32, [3, 3], strides, dilations, [2, pad, 2, pad], 32);
        if pad > 100 {
            // Only the middle of such a window meets the input.
            shape.input[2] = 2;
        }
        check(&shape, 0, Activation::Relu);
    }
}

/// The bound that `winograd_f32` states: on layers of 128 channels the largest error is within three times the plain sum's.
#[test]
fn fewer_products_cost_little_precision() {
    for side in Side::ALL {
        let kernel = match side {
            Side::Two | Side::Four => [3, 3],
            Side::TwoOfFive => [5, 5],
            Side::Line => [1, 3],
            Side::LineOfFive => [1, 5],
        };
        let shape = ConvShape::d2((1, 8, 16, 128), 64, kernel, [1, 1], [1, 1], [0, 1, 0, 1], 1);
        let (x, w) = (random(8 * 16 * 128, 5), random(64 * 128 * kernel[0] * kernel[1], 6));
        let e = Epilogue::default();
        let want = naive(&shape, &x, 128, &w, &e);
        let error = |packed: &PackedConv| {
            let mut y = vec![0.0; want.len()];
            conv_f32(&Serial, &shape, &x, 128, packed, &mut y, 64, &e).unwrap();
            y.iter().zip(&want).map(|(y, w)| (f64::from(*y) - w).abs()).fold(0.0, f64::max)
        };
        let tier = Tier::best();
        let plain = PackedConv::new(tier, &w, 64, 128, shape.kernel, 1).unwrap();
        let form =
            Form::Winograd(PackedWinograd::new(tier, side, bytemuck::cast_slice(&w), 64, 128).unwrap());
        let (found, bound) = (error(&PackedConv { form, ..plain.clone() }), 3.0 * error(&plain));
        assert!(found < bound, "{side:?}: {found} against {bound}");
        let mut infinite = w.clone();
        infinite[7] = f32::INFINITY;
        assert!(PackedWinograd::new(tier, side, bytemuck::cast_slice(&infinite), 64, 128).is_none());
    }
}

/// Windows much of which lies in the padding: wider than the image, at small images, with steps, in groups, over planes.
fn padded() -> Vec<ConvShape> {
    let d2 = ConvShape::d2;
    vec![
        d2((1, 16, 16, 33), 40, [3, 3], [1, 1], [12, 12], [12; 4], 1),
        d2((2, 16, 16, 40), 70, [3, 3], [1, 1], [24, 36], [24, 36, 24, 36], 1),
        d2((1, 7, 7, 48), 64, [3, 3], [1, 1], [1, 1], [1; 4], 1),
        d2((3, 7, 6, 200), 96, [3, 3], [2, 2], [1, 1], [1; 4], 1),
        d2((1, 13, 14, 36), 50, [5, 5], [2, 1], [3, 4], [6, 8, 6, 8], 1),
        d2((1, 3, 2, 32), 32, [7, 7], [1, 1], [1, 1], [3; 4], 1),
        d2((1, 4, 5, 32), 16, [3, 3], [3, 3], [5, 5], [7, 6, 9, 3], 1),
        d2((1, 9, 9, 64), 48, [3, 3], [1, 1], [9, 9], [9; 4], 2),
        d2((2, 9, 9, 24), 24, [3, 3], [1, 1], [9, 2], [9, 2, 9, 2], 24),
        d2((1, 12, 12, 5), 20, [3, 3], [1, 1], [1, 1], [5; 4], 1),
        d2((1, 6, 6, 34), 20, [9, 9], [1, 1], [1, 1], [4; 4], 1),
        d2((1, 1, 1, 40), 40, [3, 3], [1, 1], [1, 1], [1; 4], 1),
        d2((1, 2, 2, 40), 3, [3, 3], [1, 1], [8, 8], [8; 4], 1),
        d2((1, 2, 2, 8), 3, [3, 3], [1, 1], [1, 1], [5, 5, 0, 0], 1),
        ConvShape {
            kernel: [3, 3, 3],
            dilation: [4, 1, 5],
            pad_begin: [4, 1, 5],
            pad_end: [4, 1, 5],
            input: [3, 5, 4],
            ..d2((1, 5, 4, 33), 18, [3, 3], [1, 1], [1, 1], [0; 4], 1)
        },
    ]
}

#[test]
fn padding_that_is_left_out_matches_the_definition() {
    for shape in padded() {
        check(&shape, 0, Activation::None);
        check(&shape, 2, Activation::Relu);
    }
}

/// Only weights that are finite make zeros of padding, and inputs that are not must reach all that reads them.
#[test]
fn what_is_not_finite_stays_so() {
    for shape in padded() {
        let count = shape.check().unwrap();
        let taps = shape.kernel.iter().product::<usize>();
        let pixels = shape.batch * shape.input.iter().product::<usize>();
        let (mut x, mut w) =
            (random(pixels * shape.cin, 1), random(shape.cout * shape.cin / shape.groups * taps, 2));
        let e = Epilogue::default();
        for &tier in Tier::available() {
            let run = |x: &[f32], packed: &PackedConv| {
                let run = |pool: &dyn Pool| {
                    let mut y = vec![0.0; count * shape.cout];
                    conv_f32(pool, &shape, x, shape.cin, packed, &mut y, shape.cout, &e).unwrap();
                    y
                };
                let y = run(&Serial);
                let bits = |y: &[f32]| y.iter().map(|y| y.to_bits()).collect::<Vec<_>>();
                assert_eq!(bits(&y), bits(&run(&Two)));
                y
            };
            let place = x.len() / 3;
            for value in [f32::INFINITY, f32::NAN] {
                let before = std::mem::replace(&mut x[place], value);
                let plain =
                    PackedConv::new(tier, &w, shape.cout, shape.cin, shape.kernel, shape.groups).unwrap();
                if plain.finite {
                    for packed in [&plain, &PackedConv::for_shape(tier, &w, &shape).unwrap()] {
                        // Other forms add inputs of neighbours times zero, or their differences.
                        if matches!(packed.form, Form::Winograd(_) | Form::Columns(_)) {
                            continue;
                        }
                        let y = run(&x, packed);
                        for (y, wanted) in y.iter().zip(naive(&shape, &x, shape.cin, &w, &e)) {
                            assert_eq!(y.is_finite(), wanted.is_finite());
                        }
                    }
                }
                x[place] = before;
            }
            let before = std::mem::replace(&mut w[0], f32::INFINITY);
            let plain = PackedConv::new(tier, &w, shape.cout, shape.cin, shape.kernel, shape.groups).unwrap();
            assert!(!plain.finite);
            let packed = PackedConv::for_shape(tier, &w, &shape).unwrap();
            let same = |a: &[f32], b: &[f32]| a.iter().zip(b).all(|(a, b)| a.is_nan() == b.is_nan());
            assert!(same(&run(&x, &plain), &run(&x, &packed)));
            if shape.groups == 1 && shape.cin >= 32 {
                let first = shape.window().unwrap().source(1, 0, 0).is_none();
                assert_eq!(run(&x, &plain)[0].is_nan(), first, "zero times infinity");
            }
            w[0] = before;
        }
    }
}

/// What is left out does not decide about the sign of a sum of nothing.
#[test]
fn vanishing_sums_are_zeros_of_one_sign() {
    let shape = ConvShape::d2((1, 14, 14, 32), 32, [3, 3], [1, 1], [5, 5], [5; 4], 1);
    let (x, w) = (vec![-1e-30; 14 * 14 * 32], vec![1e-30; 32 * 32 * 9]);
    for &tier in Tier::available() {
        let packed = PackedConv::new(tier, &w, 32, 32, shape.kernel, 1).unwrap();
        let mut y = vec![7.0f32; 14 * 14 * 32];
        conv_f32(&Serial, &shape, &x, 32, &packed, &mut y, 32, &Epilogue::default()).unwrap();
        assert!(y.iter().all(|y| y.to_bits() == 0));
    }
}

#[test]
fn long_lines_of_single_channels_match_the_definition() {
    for k in [5, 6, 7, 8, 9, 10, 11, 13, 18, 19, 31] {
        for (width, channels) in [(7, 17), (16, 40), (13, 16), (29, 48), (15, 96), (33, 32)] {
            for stride in [1, 2] {
                let high = if k % 2 == 1 && k < 10 { k } else { 1 };
                let pads = [high / 2, k / 2, high / 2, (k - 1) / 2];
                let d = (1, 6, width, channels);
                let shape = ConvShape::d2(d, channels, [high, k], [1, stride], [1, 1], pads, channels);
                check(&shape, 0, Activation::None);
            }
        }
    }
    check(&ConvShape::d2((2, 9, 40, 20), 40, [7, 7], [1, 1], [1, 1], [3; 4], 20), 1, Activation::Relu);
}
