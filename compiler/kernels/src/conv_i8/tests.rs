use super::*;
use crate::epilogue::{Activation, Affine};
use crate::parallel::Serial;
use crate::testing::{Two, bends, bent, both, bytes, int, quantized, random, requantized};
use proptest::prelude::*;

fn naive(shape: &ConvShape, x: &dyn Fn(usize) -> i32, w: &dyn Fn(usize, usize) -> i32) -> Vec<i32> {
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
            let mut sum = 0;
            for t in 0..kd * kh * kw {
                let (td, th, tw) = (t / (kh * kw), t / kw % kh, t % kw);
                let (Some(d), Some(h), Some(v)) = (at(0, d, td), at(1, h, th), at(2, v, tw)) else {
                    continue;
                };
                for i in 0..cin {
                    let pixel = ((n * id + d) * ih + h) * iw + v;
                    sum += x(pixel * shape.cin + c / cout * cin + i) * w((c * cin + i) * kd * kh * kw + t, c);
                }
            }
            y.push(sum);
        }
    }
    y
}

fn check(shape: &ConvShape, signed: [bool; 3], zx: i32, zw: i32) {
    let count = shape.check().unwrap();
    let window: usize = shape.kernel.iter().product();
    let x = bytes(shape.batch * shape.input.iter().product::<usize>() * shape.cin, 1);
    let w = bytes(shape.cout * (shape.cin / shape.groups) * window, 2);
    let zero: Vec<i32> = (0..shape.cout).map(|c| if zw == 0 { 0 } else { zw + (c % 2) as i32 }).collect();
    let scale: Vec<f32> = (0..shape.cout).map(|i| 0.01 + 0.001 * i as f32).collect();
    let bias = random(shape.cout, 3);
    let [xs, ws, ys] = signed;
    let sums = naive(shape, &|i| int(x[i], xs) - zx, &|i, c| int(w[i], ws) - zero[c]);
    let bounds = [0.0, 6.0].map(|x| int(quantized(x, 0.03, 5, ys), ys));
    let code = |i: usize| {
        let (scale, bias) = (scale[i % shape.cout] * 0.02, bias[i % shape.cout]);
        int(requantized(sums[i], scale, bias, (0.03, 5, ys)), ys).clamp(bounds[0], bounds[1]) as u8
    };
    let wanted: Vec<u8> = (0..sums.len()).map(code).collect();
    let by: Vec<f32> = (0..shape.cout).map(|c| 0.03 + 0.01 * (c % 7) as f32).collect();
    let by_channel = |i: usize| {
        let c = i % shape.cout;
        int(requantized(sums[i], scale[c] * 0.02, bias[c], (by[c], 5, ys)), ys).max(5) as u8
    };
    let by_channel: Vec<u8> = (0..sums.len()).map(by_channel).collect();
    let act = Activation::Clip { lo: 0.0, hi: 6.0 };
    let epilogue = Epilogue { bias: Some(&bias), act, ..Epilogue::default() };
    let weights = Weights { data: &w, signed: ws, zero: &zero, scale: &scale };
    let a = Activations { data: &x, signed: xs, zero: zx, zeros: &[], scale: 0.02 };
    for &tier in Tier::available() {
        let packed = PackedConvI8::new(tier, shape, &weights).unwrap();
        for pool in [&Serial as &dyn Pool, &Two] {
            let mut y = vec![7; count * shape.cout];
            conv_i8(pool, shape, &a, &packed, &mut Results::Sums(&mut y), &Epilogue::default()).unwrap();
            assert_eq!(y, sums, "{tier:?} {shape:?}");
            let mut y = vec![7; count * shape.cout];
            let mut out = Results::Bytes { data: &mut y, signed: ys, scale: &[0.03], zero: 5, zeros: &[] };
            conv_i8(pool, shape, &a, &packed, &mut out, &epilogue).unwrap();
            assert_eq!(y, wanted, "{tier:?} {shape:?}");
            let mut y = vec![7; count * shape.cout];
            let mut out = Results::Bytes { data: &mut y, signed: ys, scale: &by, zero: 5, zeros: &[] };
            let relu = Epilogue { act: Activation::Relu, ..epilogue };
            conv_i8(pool, shape, &a, &packed, &mut out, &relu).unwrap();
            assert_eq!(y, by_channel, "{tier:?} {shape:?}");
            own_zero_points(
                pool,
                shape,
                &packed,
                (&a, &|i, c| int(w[i], ws) - zero[c]),
                (&by, ys),
                &epilogue,
            );
            let gelu = Epilogue { act: Activation::GeluErf, ..epilogue };
            let mut values = vec![7.0; count * shape.cout];
            conv_i8(pool, shape, &a, &packed, &mut Results::F32(&mut values), &gelu).unwrap();
            let mut y = vec![7; count * shape.cout];
            let mut out = Results::Bytes { data: &mut y, signed: ys, scale: &by, zero: 5, zeros: &[] };
            let late = conv_i8(pool, shape, &a, &packed, &mut out, &gelu);
            assert_eq!(late.is_ok(), matches!(packed.form, Weighted::Dense(_)));
            if late.is_ok() {
                let of_value = |i: usize| quantized(values[i] * (1.0 / by[i % shape.cout]), 1.0, 5, ys);
                assert_eq!(y, (0..y.len()).map(of_value).collect::<Vec<_>>(), "{tier:?} {shape:?}");
            }
            for (act, affine) in bends(shape.cout) {
                let affine = affine.as_ref().map(|[scale, shift]| Affine { scale, shift });
                let e = Epilogue { act, affine, ..epilogue };
                let of_value = |i: usize| {
                    let c = i % shape.cout;
                    bent(&e, sums[i] as f32 * (scale[c] * 0.02) + bias[c], c, (0.03, 5, ys))
                };
                let mut y = vec![7; count * shape.cout];
                let mut out =
                    Results::Bytes { data: &mut y, signed: ys, scale: &[0.03], zero: 5, zeros: &[] };
                conv_i8(pool, shape, &a, &packed, &mut out, &e).unwrap();
                assert_eq!(y, (0..y.len()).map(of_value).collect::<Vec<_>>(), "{tier:?} {shape:?} {e:?}");
            }
        }
    }
}

/// Each channel has a zero point of its own: of the result where channels mix, of the activations where they do not.
fn own_zero_points(
    pool: &dyn Pool,
    shape: &ConvShape,
    packed: &PackedConvI8,
    (a, weight): (&Activations, &dyn Fn(usize, usize) -> i32),
    (by, signed): (&[f32], bool),
    epilogue: &Epilogue,
) {
    let own = |c: usize| (a.zero + 37 * c as i32) % 119;
    let of = |n: usize| (0..n).map(own).collect::<Vec<i32>>();
    let (into, out) = (of(shape.cin), of(shape.cout));
    let mut bytes = vec![7; shape.check().unwrap() * shape.cout];
    if let Weighted::Depthwise(_) = packed.form {
        let own = Activations { zeros: &into, ..*a };
        let mut y = vec![7; bytes.len()];
        let none = Epilogue::default();
        conv_i8(pool, shape, &own, packed, &mut Results::Sums(&mut y), &none).unwrap();
        assert_eq!(y, naive(shape, &|i| int(a.data[i], a.signed) - into[i % shape.cin], weight), "{shape:?}");
        let mut out = Results::Bytes { data: &mut bytes, signed, scale: by, zero: 0, zeros: &out };
        assert!(conv_i8(pool, shape, a, packed, &mut out, epilogue).is_err());
        return;
    }
    for act in [Activation::Relu, Activation::HardSwish, Activation::Silu] {
        let e = Epilogue { act, ..*epilogue };
        let mut values = vec![7.0; bytes.len()];
        conv_i8(pool, shape, a, packed, &mut Results::F32(&mut values), &e).unwrap();
        let mut to = Results::Bytes { data: &mut bytes, signed, scale: by, zero: 0, zeros: &out };
        conv_i8(pool, shape, a, packed, &mut to, &e).unwrap();
        let of_value = |i: usize| {
            let c = i % shape.cout;
            quantized(values[i] * (1.0 / by[c]), 1.0, out[c], signed)
        };
        assert_eq!(bytes, (0..bytes.len()).map(of_value).collect::<Vec<_>>(), "{shape:?} {act:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(if cfg!(miri) { 1 } else { 96 }))]
    #[test]
    fn convolutions_are_exact(
        batch in 1usize..3, size in prop::array::uniform2(1usize..9), kernel in prop::array::uniform2(1usize..4),
        stride in prop::array::uniform2(1usize..3), dilation in prop::array::uniform2(1usize..3),
        pads in prop::array::uniform4(0usize..3), groups in 1usize..4, cin in 1usize..9, cout in 1usize..40,
        signed in any::<[bool; 3]>(), zx in 0i32..120, zw in prop_oneof![Just(0), 1..100],
    ) {
        let d = (batch, size[0], size[1], cin * groups);
        let shape = ConvShape::d2(d, cout * groups, kernel, stride, dilation, pads, groups);
        if shape.output().unwrap().iter().all(|&n| n > 0) {
            both(|| check(&shape, signed, zx, zw));
        }
    }

    #[test]
    fn depthwise_convolutions_are_exact(
        size in prop::array::uniform2(1usize..12), kernel in prop::array::uniform2(1usize..6),
        stride in prop::array::uniform2(1usize..3), pads in prop::array::uniform4(0usize..3),
        channels in 1usize..200, signed in any::<[bool; 3]>(), zx in 0i32..120, zw in prop_oneof![Just(0), 1..100],
    ) {
        let d = (1, size[0], size[1], channels);
        let shape = ConvShape::d2(d, channels, kernel, stride, [1, 1], pads, channels);
        if shape.output().unwrap().iter().all(|&n| n > 0) {
            check(&shape, signed, zx, zw);
        }
    }
}

#[test]
fn few_channels_run_along_lines() {
    for cin in [1, 2, 3, 5, 31] {
        check(&ConvShape::d2((1, 9, 11, cin), 33, [3, 3], [2, 2], [1, 1], [0, 1, 1, 1], 1), [true; 3], 3, 0);
        check(
            &ConvShape::d2((2, 7, 7, cin), 16, [5, 5], [1, 1], [1, 1], [2, 2, 2, 2], 1),
            [false, true, false],
            9,
            0,
        );
    }
}

#[test]
fn many_channels_are_exact() {
    for (cin, cout, kernel, stride) in [(64, 70, 1, 1), (72, 130, 1, 2), (37, 48, 3, 1), (96, 20, 3, 2)] {
        let pad = [kernel / 2; 4];
        let shape = ConvShape::d2((2, 7, 8, cin), cout, [kernel; 2], [stride; 2], [1, 1], pad, 1);
        both(|| check(&shape, [false, true, false], 3, 0));
        both(|| check(&shape, [true, false, true], 0, 5));
    }
}
