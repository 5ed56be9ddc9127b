use super::*;
use crate::parallel::Serial;
use crate::testing::{Two, close, random};
use proptest::prelude::*;

fn naive(kind: Pooling, w: &Window, batch: usize, channels: usize, x: &[f32], x_stride: usize) -> Vec<f64> {
    let [od, oh, ow] = w.output;
    let mut y = Vec::new();
    for row in 0..batch * od * oh * ow {
        let (n, o) = (row / (od * oh * ow), [row / (oh * ow) % od, row / ow % oh, row % ow]);
        for c in 0..channels {
            let (mut seen, mut counted) = (Vec::new(), 0);
            for t in 0..w.kernel.iter().product() {
                let k = [t / (w.kernel[1] * w.kernel[2]), t / w.kernel[2] % w.kernel[1], t % w.kernel[2]];
                let at: Vec<Option<usize>> = (0..3).map(|i| w.source(i, o[i], k[i])).collect();
                if let Pooling::AverageWithPadding { pad_end } = kind {
                    let inside = |i: usize| {
                        o[i] * w.stride[i] + k[i] * w.dilation[i] < w.input[i] + w.pad[i] + pad_end[i]
                    };
                    counted += usize::from((0..3).all(inside));
                }
                if let [Some(d), Some(h), Some(v)] = at[..] {
                    let pixel = ((n * w.input[0] + d) * w.input[1] + h) * w.input[2] + v;
                    seen.push(f64::from(x[pixel * x_stride + c]));
                }
            }
            let sum: f64 = seen.iter().sum();
            y.push(match kind {
                Pooling::Max => seen.iter().copied().fold(f64::NEG_INFINITY, f64::max),
                Pooling::Average => sum / seen.len().max(1) as f64,
                Pooling::AverageWithPadding { .. } => sum / counted.max(1) as f64,
            });
        }
    }
    y
}

fn axis() -> impl Strategy<Value = (usize, usize, usize, usize, usize, usize)> {
    (1usize..12, 1usize..8, 1usize..4, 1usize..4, 1usize..3, 0usize..3)
}

proptest! {
    #[test]
    fn any_window_matches_the_definition(
        d in axis(), h in axis(), w in axis(), deep: bool, batch in 1usize..3, channels in 1usize..90,
        pad in 0usize..2, pad_end in 0usize..3,
    ) {
        let d = if deep { d } else { (1, 1, 1, 1, 1, 0) };
        let window = Window {
            input: [d.0, h.0, w.0], output: [d.1, h.1, w.1], kernel: [d.2, h.2, w.2], stride: [d.3, h.3, w.3],
            dilation: [d.4, h.4, w.4], pad: [d.5, h.5, w.5],
        };
        let (xs, ys) = (channels + pad, channels + 2 * pad);
        let x = random(batch * window.input.iter().product::<usize>() * xs, 1);
        let rows = batch * window.output.iter().product::<usize>();
        for kind in [Pooling::Max, Pooling::Average, Pooling::AverageWithPadding { pad_end: [pad_end; 3] }] {
            let want = naive(kind, &window, batch, channels, &x, xs);
            for &tier in Tier::available() {
                let (mut y, mut z) = (vec![7.0; rows * ys], vec![7.0; rows * ys]);
                pool_f32(tier, &Serial, kind, &window, batch, channels, &x, xs, &mut y, ys).unwrap();
                pool_f32(tier, &Two, kind, &window, batch, channels, &x, xs, &mut z, ys).unwrap();
                prop_assert_eq!(&y, &z);
                for row in 0..rows {
                    let (y, want) = (&y[row * ys..][..channels], &want[row * channels..][..channels]);
                    let finite = |i: &usize| want[*i].is_finite();
                    prop_assert!((0..channels).all(|i| finite(&i) || f64::from(y[i]) == want[i]));
                    let keep: Vec<usize> = (0..channels).filter(finite).collect();
                    let found: Vec<f32> = keep.iter().map(|&i| y[i]).collect();
                    let wanted: Vec<f64> = keep.iter().map(|&i| want[i]).collect();
                    close(&found, &wanted, 27);
                }
            }
        }
    }
}

#[test]
fn the_whole_image_is_one_window() {
    let (batch, positions, channels) = (2, 49, 70);
    let x = random(batch * positions * channels, 1);
    for &tier in Tier::available() {
        let mut y = vec![0.0; batch * channels];
        global_pool_f32(
            tier,
            &Serial,
            Pooling::Average,
            batch,
            positions,
            channels,
            &x,
            channels,
            &mut y,
            channels,
        )
        .unwrap();
        let want: Vec<f64> = (0..batch * channels)
            .map(|i| {
                let at = |p: usize| f64::from(x[(i / channels * positions + p) * channels + i % channels]);
                (0..positions).map(at).sum::<f64>() / positions as f64
            })
            .collect();
        close(&y, &want, positions);
        let short =
            global_pool_f32(tier, &Serial, Pooling::Max, 2, 50, channels, &x, channels, &mut y, channels);
        assert!(short.is_err());
    }
}
