//! Instances of the rules that put together what exporters wrote out in parts.

use super::Instance;

/// Rules and a graph on which all of them fire.
pub fn instances() -> Vec<(&'static [&'static str], Instance)> {
    vec![
        (&["recognise-layer-norm", "fold-mul-into-layer-norm", "fold-add-into-layer-norm"], |b| {
            let n = b.dim();
            let (x, axes, two, eps) = (b.input(&[3, n]), b.ints(&[-1]), b.scalar(2.0), b.scalar(1e-5));
            let (s, t) = (b.weight(&[n]), b.weight(&[n]));
            let mean = b.plain("ReduceMean", &[x, axes]);
            let d = b.plain("Sub", &[x, mean]);
            let sq = b.plain("Pow", &[d, two]);
            let var = b.plain("ReduceMean", &[sq, axes]);
            let var = b.plain("Add", &[var, eps]);
            let sd = b.plain("Sqrt", &[var]);
            let y = b.plain("Div", &[d, sd]);
            let y = b.plain("Mul", &[y, s]);
            let y = b.plain("Add", &[y, t]);
            b.out(y);
        }),
        (
            &[
                "recognise-layer-norm-of-batch-norm",
                "drop-reshapes-around-layer-norm",
                "fold-mul-into-layer-norm",
                "fold-add-into-layer-norm",
            ],
            |b| {
                let (m, n) = (b.dim(), b.dim());
                let (x, axes, ends) = (b.input(&[1, m, n]), b.ints(&[0, 2, 3]), b.ints(&[0, -2, -1]));
                let (rows, back) = (b.ints(&[1, m as i64, n as i64, 1]), b.ints(&[1, m as i64, n as i64]));
                let (one, zero) = (vec![1.0; m], vec![0.0; m]);
                let one = b.g.add_initializer("one", ir::Tensor::vector(one));
                let zero = b.g.add_initializer("zero", ir::Tensor::vector(zero));
                let (count, s, t) = (b.scalar(n as f32), b.weight(&[n]), b.weight(&[n]));
                let image = b.plain("Reshape", &[x, rows]);
                let mean = b.plain("ReduceMean", &[image, axes]);
                let d = b.plain("Sub", &[image, mean]);
                let squares = b.op("ReduceSumSquare", ir::Attrs::new().with("keepdims", 0), &[d, axes]);
                let variance = b.plain("Div", &[squares, count]);
                let mean = b.plain("Squeeze", &[mean, ends]);
                let y = b.op(
                    "BatchNormalization",
                    ir::Attrs::new().with("epsilon", 1e-3f32),
                    &[image, one, zero, mean, variance],
                );
                let y = b.plain("Reshape", &[y, back]);
                let y = b.plain("Mul", &[y, s]);
                let y = b.plain("Add", &[y, t]);
                b.out(y);
            },
        ),
        (&["recognise-gelu-half-last", "recognise-gelu-half-first", "recognise-gelu-half-inside"], |b| {
            let x = b.input(&[9]);
            let [k, one, half] = [std::f32::consts::SQRT_2, 1.0, 0.5].map(|v| b.scalar(v));
            let e = b.plain("Div", &[x, k]);
            let e = b.plain("Erf", &[e]);
            let e = b.plain("Add", &[e, one]);
            let y = b.plain("Mul", &[x, e]);
            let last = b.plain("Mul", &[y, half]);
            b.out(last);
            let h = b.plain("Mul", &[x, half]);
            let first = b.plain("Mul", &[h, e]);
            b.out(first);
            let i = b.plain("Mul", &[e, half]);
            let inside = b.plain("Mul", &[x, i]);
            b.out(inside);
        }),
        (&["recognise-gelu-tanh-half-first", "recognise-gelu-tanh-half-inside"], |b| {
            let x = b.input(&[9]);
            let [three, k2, k, one, half] = [3.0, 0.044715, 0.797_884_6, 1.0, 0.5].map(|v| b.scalar(v));
            let p = b.plain("Pow", &[x, three]);
            let p = b.plain("Mul", &[p, k2]);
            let p = b.plain("Add", &[x, p]);
            let p = b.plain("Mul", &[p, k]);
            let t = b.plain("Tanh", &[p]);
            let t = b.plain("Add", &[t, one]);
            let h = b.plain("Mul", &[x, half]);
            let first = b.plain("Mul", &[h, t]);
            b.out(first);
            let i = b.plain("Mul", &[t, half]);
            let inside = b.plain("Mul", &[x, i]);
            b.out(inside);
        }),
        (&["recognise-hard-sigmoid", "recognise-hard-swish", "recognise-hard-swish-divided-last"], |b| {
            let x = b.input(&[9]);
            let [three, lo, hi] = [3.0, 0.0, 6.0].map(|v| b.scalar(v));
            let c = b.plain("Add", &[x, three]);
            let c = b.plain("Clip", &[c, lo, hi]);
            let s = b.plain("Div", &[c, hi]);
            let y = b.plain("Mul", &[x, s]);
            b.out(y);
            let z = b.plain("Mul", &[x, c]);
            let z = b.plain("Div", &[z, hi]);
            b.out(z);
        }),
        (&["recognise-swish"], |b| {
            let x = b.input(&[9]);
            let s = b.plain("Sigmoid", &[x]);
            let y = b.plain("Mul", &[x, s]);
            b.out(y);
        }),
        (&["recognise-layer-norm-by-reciprocal", "one-over-to-reciprocal"], |b| {
            let (n, two) = (b.dim(), b.scalar(2.0));
            let (x, axes, one, eps) = (b.input(&[3, n]), b.ints(&[-1]), b.scalar(1.0), b.scalar(1e-5));
            let mean = b.plain("ReduceMean", &[x, axes]);
            let d = b.plain("Sub", &[x, mean]);
            let sq = b.plain("Pow", &[d, two]);
            let var = b.plain("ReduceMean", &[sq, axes]);
            let var = b.plain("Add", &[var, eps]);
            let sd = b.plain("Sqrt", &[var]);
            let inverse = b.plain("Div", &[one, sd]);
            let y = b.plain("Mul", &[d, inverse]);
            b.out(y);
        }),
        (&["recognise-rms-norm", "recognise-rms-norm-by-reciprocal", "fold-mul-into-rms-norm"], |b| {
            let (n, two) = (b.dim(), b.scalar(2.0));
            let (x, axes, eps, w) = (b.input(&[2, 3, n]), b.ints(&[2]), b.scalar(1e-5), b.weight(&[n]));
            let sq = b.plain("Pow", &[x, two]);
            let mean = b.plain("ReduceMean", &[sq, axes]);
            let mean = b.plain("Add", &[mean, eps]);
            let root = b.plain("Sqrt", &[mean]);
            let y = b.plain("Div", &[x, root]);
            let y = b.plain("Mul", &[w, y]);
            b.out(y);
            let inverse = b.plain("Reciprocal", &[root]);
            let y = b.plain("Mul", &[inverse, x]);
            b.out(y);
        }),
        (&["recognise-gelu-tanh-half-last", "cube-to-power"], |b| {
            let x = b.input(&[9]);
            let [k2, k, one, half] = [0.044715, 0.797_884_6, 1.0, 0.5].map(|v| b.scalar(v));
            let p = b.plain("Mul", &[x, x]);
            let p = b.plain("Mul", &[p, x]);
            let p = b.plain("Mul", &[p, k2]);
            let p = b.plain("Add", &[x, p]);
            let p = b.plain("Mul", &[k, p]);
            let t = b.plain("Tanh", &[p]);
            let t = b.plain("Add", &[t, one]);
            let y = b.plain("Mul", &[x, t]);
            let y = b.plain("Mul", &[y, half]);
            b.out(y);
        }),
        (&["recognise-gelu-tanh-by-square"], |b| {
            let x = b.input(&[9]);
            let [k2, k, one, half] = [0.044715, 0.797_884_6, 1.0, 0.5].map(|v| b.scalar(v));
            let p = b.plain("Mul", &[x, k2]);
            let p = b.plain("Mul", &[p, x]);
            let p = b.plain("Add", &[one, p]);
            let q = b.plain("Mul", &[x, k]);
            let p = b.plain("Mul", &[q, p]);
            let t = b.plain("Tanh", &[p]);
            let t = b.plain("Add", &[one, t]);
            let h = b.plain("Mul", &[half, x]);
            let y = b.plain("Mul", &[h, t]);
            b.out(y);
        }),
        (&["recognise-softmax"], |b| {
            let (n, axes) = (b.dim(), b.ints(&[1]));
            let x = b.input(&[2, n, 3]);
            let top = b.plain("ReduceMax", &[x, axes]);
            let d = b.plain("Sub", &[x, top]);
            let e = b.plain("Exp", &[d]);
            let sum = b.plain("ReduceSum", &[e, axes]);
            let y = b.plain("Div", &[e, sum]);
            b.out(y);
        }),
    ]
}
