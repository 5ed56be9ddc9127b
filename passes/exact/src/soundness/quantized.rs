//! Instances of the rules over quantized operators.

use super::rand_core::Draw;
use super::{B, Instance};
use ir::{Attrs, Tensor, ValueId};

impl B {
    /// A quantized input, its scale and its zero point. Scales are powers of two, so that no rounding depends on the order.
    fn bytes(&mut self, shape: &[usize]) -> [ValueId; 3] {
        let x = self.input(shape);
        let s = self.scalar(1.0 / 64.0);
        let z = self.g.add_initializer("z", Tensor::scalar(100u8));
        [self.plain("QuantizeLinear", &[x, s, z]), s, z]
    }
    /// 8-bit weights, and a scale for each of `n`.
    fn byte_weights(&mut self, shape: &[usize], n: usize) -> [ValueId; 3] {
        let data = (0..shape.iter().product()).map(|_| self.rng.below(255) as i32 as i8).collect();
        let w = self.g.add_initializer("w", Tensor::new(shape, data).unwrap());
        let scale = (0..n).map(|_| [0.25f32, 0.5, 0.125][self.rng.below(3)]).collect();
        let s = self.g.add_initializer("s", Tensor::vector(scale));
        let z = self.g.add_initializer("z", Tensor::vector(vec![0i8; n]));
        [w, s, z]
    }
    fn dequantized(&mut self, [x, s, z]: [ValueId; 3], axis: i64) -> ValueId {
        self.op("DequantizeLinear", Attrs::new().with("axis", axis), &[x, s, z])
    }
    fn resized(&mut self, x: ValueId, scales: &[f32]) -> ValueId {
        let scales = self.g.add_initializer("scales", Tensor::vector(scales.to_vec()));
        let attrs = Attrs::new().with("nearest_mode", "floor").with("mode", "nearest");
        let op = ops::standard("Resize").unwrap();
        let node = self.g.add_node("", op, attrs, &[Some(x), None, Some(scales)], &["r"]);
        self.g.node(node).unwrap().output(0).unwrap()
    }
    fn requantized(&mut self, y: ValueId) {
        let s = self.scalar(0.5);
        let z = self.g.add_initializer("z", Tensor::scalar(7u8));
        let q = self.plain("QuantizeLinear", &[y, s, z]);
        self.out(q);
    }
}

pub fn instances() -> Vec<(&'static [&'static str], Instance)> {
    vec![
        (&["integer-conv"], |b| {
            let (c, h) = (b.dim(), 4 + b.dim());
            let x = b.bytes(&[1, c, h, h]);
            let w = b.byte_weights(&[3, c, 3, 3], 3);
            let (x, w) = (b.dequantized(x, 0), b.dequantized(w, 0));
            let bias = b.weight(&[3]);
            let y = b.op("Conv", Attrs::new().with("pads", vec![1, 0, 1, 0]), &[x, w, bias]);
            b.requantized(y);
        }),
        (&["integer-conv"], |b| {
            let (c, h) = (b.dim(), 4 + b.dim());
            let x = b.input(&[1, c, h, h]);
            let scale = (0..c).map(|i| [1.0 / 64.0, 1.0 / 32.0][i % 2]).collect::<Vec<f32>>();
            let s = b.g.add_initializer("s", Tensor::vector(scale));
            let z = b.g.add_initializer("z", Tensor::vector(vec![100u8; c]));
            let x = b.op("QuantizeLinear", Attrs::new().with("axis", 1i64), &[x, s, z]);
            let w = b.byte_weights(&[c, 1, 3, 3], c);
            let (x, w) = (b.dequantized([x, s, z], 1), b.dequantized(w, 0));
            let bias = b.weight(&[c]);
            let y = b.op("Conv", Attrs::new().with("group", c as i64), &[x, w, bias]);
            b.out(y);
        }),
        (&["integer-conv-transpose", "quantize-before-depth-to-space"], |b| {
            let (c, h, k) = (b.dim(), b.dim(), b.dim());
            let x = b.bytes(&[1, c, h, h]);
            let w = b.byte_weights(&[c, k, 2, 2], k);
            let (x, w) = (b.dequantized(x, 0), b.dequantized(w, 1));
            let bias = b.weight(&[k]);
            let y = b.op("ConvTranspose", Attrs::new().with("strides", vec![2, 2]), &[x, w, bias]);
            b.requantized(y);
        }),
        (&["dequantize-after-depth-to-space", "quantize-before-space-to-depth"], |b| {
            let (c, h) = (4 * b.dim(), 2 * b.dim());
            let x = b.bytes(&[1, c, h, h]);
            let x = b.dequantized(x, 0);
            let blocks = Attrs::new().with("blocksize", 2i64);
            let y = b.op("DepthToSpace", blocks.clone().with("mode", "CRD"), &[x]);
            let y = b.plain("Tanh", &[y]);
            let y = b.op("SpaceToDepth", blocks, &[y]);
            b.requantized(y);
        }),
        (&["dequantize-by-channel-after-concat"], |b| {
            let (c, h) = (b.dim(), b.dim());
            let parts = [1.0 / 64.0, 1.0 / 32.0, 1.0 / 128.0].map(|scale| {
                let x = b.input(&[1, c, h, h]);
                let s = b.scalar(scale);
                let z = b.g.add_initializer("z", Tensor::scalar(100u8));
                let q = b.plain("QuantizeLinear", &[x, s, z]);
                b.dequantized([q, s, z], 0)
            });
            let axis = Attrs::new().with("axis", 1i64);
            let two = b.op("Concat", axis.clone(), &parts[..2]);
            let three = b.op("Concat", axis.clone(), &[two, parts[2]]);
            let four = b.op("Concat", axis, &[parts[1], three, parts[0], parts[2]]);
            b.out(two);
            b.out(three);
            b.out(four);
        }),
        (&["dequantize-after-space-to-depth"], |b| {
            let (c, h) = (b.dim(), 2 * b.dim());
            let x = b.bytes(&[1, c, h, h]);
            let x = b.dequantized(x, 0);
            let y = b.op("SpaceToDepth", Attrs::new().with("blocksize", 2i64), &[x]);
            b.out(y);
        }),
        (&["fold-mul-into-integer-conv", "fold-add-into-integer-conv"], |b| {
            let (c, h) = (b.dim(), 4 + b.dim());
            let x = b.bytes(&[1, c, h, h]);
            let w = b.byte_weights(&[3, c, 3, 3], 3);
            let (x, w) = (b.dequantized(x, 0), b.dequantized(w, 0));
            let bias = b.weight(&[3]);
            let y = b.op("Conv", Attrs::new(), &[x, w, bias]);
            let (scale, shift) = (b.scalar(-0.5), b.weight(&[3, 1, 1]));
            let y = b.plain("Mul", &[scale, y]);
            let y = b.plain("Add", &[y, shift]);
            b.requantized(y);
        }),
        (&["fold-mul-into-integer-matmul", "fold-add-into-integer-matmul"], |b| {
            let (m, k, n) = (b.dim(), b.dim(), b.dim());
            let x = b.bytes(&[2, m, k]);
            let w = b.byte_weights(&[k, n], n);
            let (x, w) = (b.dequantized(x, 0), b.dequantized(w, 1));
            let y = b.plain("MatMul", &[x, w]);
            let (scale, shift) = (b.positive(&[n]), b.scalar(0.25));
            let y = b.plain("Mul", &[y, scale]);
            let y = b.plain("Add", &[y, shift]);
            b.out(y);
        }),
        (&["dequantize-after-reshape", "integer-matmul"], |b| {
            let n = b.dim();
            let x = b.bytes(&[n, 6]);
            let w = b.byte_weights(&[3, 4], 4);
            let (x, w, shape) = (b.dequantized(x, 0), b.dequantized(w, 1), b.ints(&[-1, 3]));
            let x = b.plain("Reshape", &[x, shape]);
            let y = b.plain("MatMul", &[x, w]);
            b.out(y);
        }),
        (&["dequantize-after-transpose", "integer-matmul"], |b| {
            let n = b.dim();
            let x = b.bytes(&[3, n]);
            let w = b.byte_weights(&[3, 4], 4);
            let (x, w) = (b.dequantized(x, 0), b.dequantized(w, 1));
            let x = b.op("Transpose", Attrs::new().with("perm", vec![1i64, 0]), &[x]);
            let y = b.plain("MatMul", &[x, w]);
            b.out(y);
        }),
        (&["dequantize-after-squeeze", "dequantize-after-unsqueeze", "dequantize-after-slice"], |b| {
            let n = b.dim();
            let x = b.bytes(&[n, 1, 6]);
            let x = b.dequantized(x, 0);
            let (one, from, to) = (b.ints(&[1]), b.ints(&[1]), b.ints(&[5]));
            let y = b.plain("Squeeze", &[x, one]);
            let y = b.plain("Slice", &[y, from, to, one]);
            let w = b.byte_weights(&[4, 2], 2);
            let w = b.dequantized(w, 1);
            let y = b.plain("MatMul", &[y, w]);
            b.out(y);
            let x = b.bytes(&[n, 4]);
            let (x, zero) = (b.dequantized(x, 0), b.ints(&[0]));
            let y = b.plain("Unsqueeze", &[x, zero]);
            let y = b.plain("MatMul", &[y, w]);
            b.out(y);
        }),
        (&["dequantize-after-concat"], |b| {
            let n = b.dim();
            let ([x, s, z], [y, ..]) = (b.bytes(&[n, 3]), b.bytes(&[n, 2]));
            let w = b.byte_weights(&[10, 2], 2);
            let w = b.dequantized(w, 1);
            let (x, y) = (b.dequantized([x, s, z], 0), b.dequantized([y, s, z], 0));
            let rows = b.op("Concat", Attrs::new().with("axis", 0i64), &[x, x]);
            b.out(rows);
            let three = b.op("Concat", Attrs::new().with("axis", -1i64), &[x, y, x]);
            b.out(three);
            let four = b.op("Concat", Attrs::new().with("axis", 1i64), &[x, y, y, x]);
            let y = b.plain("MatMul", &[four, w]);
            b.out(y);
        }),
        (&["dequantize-after-nearest-resize", "quantize-before-nearest-resize"], |b| {
            let (c, h) = (b.dim(), b.dim());
            let x = b.bytes(&[1, c, h, h]);
            let x = b.dequantized(x, 0);
            let y = b.resized(x, &[1.0, 1.0, 2.0, 1.5]);
            b.requantized(y);
        }),
        (&["quantize-before-concat"], |b| {
            let (m, n) = (b.dim(), b.dim());
            let (x, y) = (b.input(&[m, n]), b.input(&[m, n]));
            for (axis, parts) in [(0i64, &[x, y][..]), (1, &[x, y, x]), (-1, &[x, x, y, y])] {
                let joined = b.op("Concat", Attrs::new().with("axis", axis), parts);
                b.requantized(joined);
            }
        }),
        (&["quantize-before-nearest-resize"], |b| {
            let (c, h) = (b.dim(), b.dim());
            let x = b.input(&[1, c, h, h]);
            let y = b.resized(x, &[1.0, 1.0, 3.0, 2.0]);
            b.requantized(y);
        }),
        (&["dequantize-after-max-pool"], |b| {
            let (c, h) = (b.dim(), 4 + b.dim());
            let x = b.bytes(&[1, c, h, h]);
            let x = b.dequantized(x, 0);
            let window = Attrs::new().with("kernel_shape", vec![3, 3]).with("pads", vec![1, 1, 1, 1]);
            let y = b.op("MaxPool", window.with("strides", vec![2, 2]), &[x]);
            b.out(y);
            // Some windows are of padding alone.
            let window = Attrs::new().with("kernel_shape", vec![2, 1]).with("pads", vec![0, 2, 3, 0]);
            let y = b.op("MaxPool", window, &[x]);
            b.out(y);
        }),
        (&["integer-matmul"], |b| {
            let (m, k, n) = (b.dim(), b.dim(), b.dim());
            let x = b.bytes(&[2, m, k]);
            let w = b.byte_weights(&[k, n], n);
            let (x, w) = (b.dequantized(x, 0), b.dequantized(w, 1));
            let y = b.plain("MatMul", &[x, w]);
            b.out(y);
        }),
        (&["integer-matmul"], |b| {
            let (m, k, n) = (b.dim(), b.dim(), b.dim());
            let (x, w) = (b.bytes(&[2, m, k]), b.bytes(&[2, k, n]));
            let (x, w) = (b.dequantized(x, 0), b.dequantized(w, 0));
            let y = b.plain("MatMul", &[x, w]);
            b.out(y);
        }),
        (&["integer-gemm"], |b| {
            let (m, k, n) = (b.dim(), b.dim(), b.dim());
            let x = b.bytes(&[m, k]);
            let w = b.byte_weights(&[n, k], n);
            let (x, w) = (b.dequantized(x, 0), b.dequantized(w, 0));
            let bias = b.weight(&[n]);
            let y = b.op("Gemm", Attrs::new().with("transB", 1i64), &[x, w, bias]);
            b.requantized(y);
        }),
        (&["integer-matmul-of-parts"], |b| {
            let (m, k, n) = (b.dim(), b.dim(), b.dim());
            let [x, s, z] = b.bytes(&[m, k]);
            let [w, t, _] = b.byte_weights(&[k, n], n);
            let y = b.plain("MatMulInteger", &[x, w, z]);
            let y = b.op("Cast", Attrs::new().with("to", 1i64), &[y]);
            let s = b.plain("Mul", &[s, t]);
            let y = b.plain("Mul", &[y, s]);
            b.out(y);
        }),
        (&["integer-conv-of-parts"], |b| {
            let (c, h) = (b.dim(), 4 + b.dim());
            let [x, s, z] = b.bytes(&[1, c, h, h]);
            let [w, _, _] = b.byte_weights(&[3, c, 3, 3], 1);
            let y = b.plain("ConvInteger", &[x, w, z]);
            let y = b.op("Cast", Attrs::new().with("to", 1i64), &[y]);
            let y = b.plain("Mul", &[y, s]);
            b.out(y);
        }),
        (&["expand-qlinear-conv"], |b| {
            let (c, h) = (b.dim(), 4 + b.dim());
            let [x, s, z] = b.bytes(&[1, c, h, h]);
            let [w, t, u] = b.byte_weights(&[3, c, 3, 3], 3);
            let (sy, zy) = (b.scalar(0.5), b.g.add_initializer("z", Tensor::scalar(7u8)));
            let bias = b.g.add_initializer("b", Tensor::vector(vec![100i32, -200, 3]));
            let y = b.plain("QLinearConv", &[x, s, z, w, t, u, sy, zy, bias]);
            b.out(y);
        }),
        (&["expand-qlinear-matmul"], |b| {
            let (m, k, n) = (b.dim(), b.dim(), b.dim());
            let [x, s, z] = b.bytes(&[m, k]);
            let [w, t, u] = b.byte_weights(&[k, n], 1);
            let (sy, zy) = (b.scalar(0.5), b.g.add_initializer("z", Tensor::scalar(7u8)));
            let y = b.plain("QLinearMatMul", &[x, s, z, w, t, u, sy, zy]);
            b.out(y);
        }),
        (&["fold-mul-into-quantization"], |b| {
            let (m, n) = (b.dim(), 1 + b.dim());
            let (x, s) = (b.input(&[m, n, 2]), b.scalar(0.25));
            let z = b.g.add_initializer("z", Tensor::scalar(3i8));
            let factors = (0..n).map(|i| [0.5f32, 2.0, 1.0][i % 3]).collect();
            let c = b.g.add_initializer("c", Tensor::new(&[n, 1], factors).unwrap());
            let y = b.plain("Mul", &[c, x]);
            let y = b.plain("QuantizeLinear", &[y, s, z]);
            b.out(y);
            let c = b.positive(&[2]);
            let y = b.plain("Mul", &[x, c]);
            let y = b.plain("QuantizeLinear", &[y, s]);
            b.out(y);
        }),
        (&["drop-requantization"], |b| {
            let n = b.dim();
            let [x, s, z] = b.bytes(&[n, 2]);
            let y = b.dequantized([x, s, z], 0);
            let y = b.plain("QuantizeLinear", &[y, s, z]);
            b.out(y);
        }),
        (&["move-bytes-in-reshape"], |b| {
            let n = b.dim();
            let [x, s, z] = b.bytes(&[n, 6]);
            let y = b.dequantized([x, s, z], 0);
            let shape = b.ints(&[-1, 3]);
            let y = b.plain("Reshape", &[y, shape]);
            let y = b.plain("QuantizeLinear", &[y, s, z]);
            b.out(y);
        }),
        (&["move-bytes-in-transpose"], |b| {
            let n = b.dim();
            let [x, s, z] = b.bytes(&[n, 6]);
            let y = b.dequantized([x, s, z], 0);
            let y = b.op("Transpose", Attrs::new().with("perm", vec![1i64, 0]), &[y]);
            let y = b.plain("QuantizeLinear", &[y, s, z]);
            b.out(y);
        }),
    ]
}
