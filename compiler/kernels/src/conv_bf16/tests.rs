use super::*;
use crate::conv_f32::{PackedConv, conv_f32};
use crate::epilogue::{Activation, Residual};
use crate::parallel::Serial;
use crate::testing::{Two, close, random};
use half::bf16;

/// Against the float32 kernel on rounded operands, whose sums are tested against the definition.
fn check(shape: &ConvShape, pad: usize) {
    let count = shape.check().unwrap();
    let (xs, ys) = (shape.cin + pad, shape.cout + pad);
    let round = |x: Vec<f32>| x.into_iter().map(|x| bf16::from_f32(x).to_f32()).collect::<Vec<f32>>();
    let x = random(shape.batch * shape.input.iter().product::<usize>() * xs, 1);
    let k = shape.cin / shape.groups * shape.kernel.iter().product::<usize>();
    let w = random(shape.cout * k, 2);
    let (bias, residual) = (random(shape.cout, 3), random(count * shape.cout, 4));
    let residual = Residual { data: &residual, row_stride: shape.cout, after_activation: false };
    let act = Activation::Clip { lo: -0.5, hi: 2.0 };
    let e = Epilogue { bias: Some(&bias), residual: Some(residual), act, affine: None, grid: None };
    let floats =
        PackedConv::new(Tier::Portable, &round(w.clone()), shape.cout, shape.cin, shape.kernel, shape.groups)
            .unwrap();
    let mut want = vec![7.0; count * ys];
    conv_f32(&Serial, shape, &round(x.clone()), xs, &floats, &mut want, ys, &e).unwrap();
    let want: Vec<f64> = want.into_iter().map(f64::from).collect();
    for &tier in Tier::available() {
        let packed =
            PackedConvBf16::new(tier, &w, shape.cout, shape.cin, shape.kernel, shape.groups).unwrap();
        for packed in [packed.clone(), packed.widened()] {
            let mut y = vec![7.0; count * ys];
            conv_bf16(&Serial, shape, &x, xs, &packed, &mut y, ys, &e).unwrap();
            close(&y, &want, 2 * k);
            let mut z = vec![7.0; count * ys];
            conv_bf16(&Two, shape, &x, xs, &packed, &mut z, ys, &e).unwrap();
            assert_eq!(y, z);
        }
    }
}

#[test]
fn windows_strides_dilations_and_groups() {
    for pad in [0, 3] {
        for (cin, cout, groups) in
            [(3, 8, 1), (1, 5, 1), (8, 20, 1), (33, 17, 1), (64, 70, 1), (8, 6, 2), (12, 12, 6)]
        {
            for (kernel, stride, dilation) in
                [([1, 1], [1, 1], [1, 1]), ([3, 3], [1, 1], [1, 1]), ([3, 2], [2, 1], [1, 2])]
            {
                check(
                    &ConvShape::d2((2, 7, 9, cin), cout, kernel, stride, dilation, [1, 0, 1, 2], groups),
                    pad,
                );
            }
        }
    }
}

#[test]
fn groups_of_an_odd_number_are_refused() {
    assert!(!PackedConvBf16::takes(8, 8) && PackedConvBf16::takes(7, 1));
    assert!(PackedConvBf16::new(Tier::best(), &[0.0; 8 * 9], 8, 8, [1, 3, 3], 8).is_err());
}
