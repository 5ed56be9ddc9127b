//! What MatMul, Gemm and pointwise convolutions with constant weights have in common: rows times one matrix.

use super::contract::{Finish, standard, triple};
use super::{Cx, Lowered};
use crate::channels_last::DOMAIN;
use artefact::{Call, Matrix};
use ir::{Node, Tensor, ValueId};
use kernels::{PackedB, PackedCodes, SparseF32, Strides};
use std::collections::BTreeSet;

/// Bytes for each weight, below which a stored form may owe its size to zeros.
const SMALL_FORM: f64 = 0.45;

/// Sizes and operands of such a node.
pub struct Product {
    pub m: usize,
    pub k: usize,
    pub n: usize,
    /// The weights lie as `[n, k]`.
    pub n_first: bool,
    pub x: ValueId,
    pub w: ValueId,
    pub alpha: f32,
    pub bias: Option<Vec<f32>>,
}

impl Product {
    pub fn of(cx: &Cx, n: &Node, f: &Finish) -> Option<Product> {
        let internal = matches!(n.op.domain(), "" | "ir.");
        match n.op.name() {
            "MatMul" | "FusedMatMul" if internal => matmul(cx, n, f),
            "Gemm" | "FusedGemm" if internal => gemm(cx, n, f),
            "Conv" | "FusedConv" if n.op.domain() == DOMAIN => pointwise(cx, n),
            _ => None,
        }
    }

    pub fn flops(&self) -> f64 {
        2.0 * (self.m * self.k * self.n) as f64
    }

    /// The weights as their file stores them where a kernel reads that and it pays.
    pub fn coded(&self, cx: &Cx) -> Option<(PackedCodes, kernels::Precision)> {
        if self.m > PackedCodes::MOST_ROWS {
            return None;
        }
        cx.coded(self.w, self.m, (self.k, self.n), self.n_first)
    }

    /// The weights without their zeros, where these are so many that it pays.
    fn sparse(&self, cx: &Cx, w: &[f32]) -> Option<SparseF32> {
        let zeros = zeros(w);
        if zeros < SparseF32::LEAST || !SparseF32::pays(self.m, w.len(), zeros) {
            return None;
        }
        let strides = if self.n_first { Strides::nk(self.k) } else { Strides::kn(self.n) };
        SparseF32::from_strided(cx.tier, w, strides, self.k, self.n).ok()
    }

    pub fn weights(&self, cx: &Cx) -> Option<Matrix> {
        if let Some((w, precision)) = self.coded(cx) {
            return Some(Matrix::Coded(w, precision));
        }
        let pack = |w: &[f32]| match self.n_first {
            true => PackedB::from_nk(cx.tier, w, self.n, self.k).ok(),
            false => PackedB::from_kn(cx.tier, w, self.k, self.n).ok(),
        };
        cx.pack(self.w, &(self.n_first, self.k, self.n), pack).map(Matrix::Dense)
    }
}

/// The share of zeros; of many weights a sample decides whether they are worth counting.
fn zeros(w: &[f32]) -> f64 {
    const SAMPLE: usize = 512;
    let share = |step: usize| {
        let sampled = w.iter().step_by(step);
        let all = sampled.len().max(1) as f64;
        sampled.filter(|w| **w == 0.0).count() as f64 / all
    };
    let step = (w.len() / SAMPLE).max(1) | 1;
    if share(step) < SparseF32::LEAST / 2.0 { 0.0 } else { share(1) }
}

/// Whether weights may have so many zeros that they are worth reading for them: a constant has, or an expression is made of
/// less than it could be with all of them.
fn may_be_sparse(cx: &Cx, w: ValueId) -> bool {
    if let Some(t) = cx.graph.constant(w) {
        return bytemuck::try_cast_slice(t.bytes()).is_ok_and(|w| zeros(w) >= SparseF32::LEAST);
    }
    let (Some(nodes), Some(shape)) = (cx.graph.expression(w), cx.f32_shape(w)) else { return false };
    let read: BTreeSet<ValueId> = nodes
        .iter()
        .filter_map(|&n| cx.graph.get(n))
        .flat_map(|n| n.inputs().iter().flatten().copied())
        .collect();
    let bytes: usize = read.iter().filter_map(|&v| cx.graph.constant(v)).map(Tensor::stored_bytes).sum();
    (bytes as f64) < SMALL_FORM * shape.iter().product::<usize>() as f64
}

/// A product with weights of few bits, which stay packed, or with weights most of which are zero.
pub fn packed(cx: &Cx, n: &Node, f: &Finish) -> Option<Lowered> {
    if f.quantize.is_some() {
        return None;
    }
    let w = n.input(1)?;
    let stored = cx.graph.constant(w).is_none() && cx.graph.expression(w).is_some();
    let thin = may_be_sparse(cx, w);
    if !stored && !thin {
        return None;
    }
    let p = Product::of(cx, n, f)?;
    let reads = [p.x].into_iter().chain(f.residual).collect();
    if stored && let Some((weights, precision)) = p.coded(cx) {
        let flops = p.flops();
        let finish = f.made(1, p.bias);
        let call = Call::CodedProduct { m: p.m, alpha: p.alpha, weights, precision, finish };
        return Some(Lowered::call("packed product", reads, f.output, flops, call));
    }
    let weights = if thin { cx.pack_alone(w, |w| p.sparse(cx, w))? } else { return None };
    let flops = 2.0 * (p.m * weights.kept()) as f64;
    let call = Call::SparseProduct { m: p.m, alpha: p.alpha, weights, finish: f.made(1, p.bias) };
    Some(Lowered::call("sparse product", reads, f.output, flops, call))
}

fn matmul(cx: &Cx, n: &Node, f: &Finish) -> Option<Product> {
    let (x, w) = (n.input(0)?, n.input(1)?);
    let (sa, sb) = (cx.f32_shape(x)?, cx.f32_shape(w)?);
    let &[k, nn] = &sb[..] else { return None };
    if sa.last() != Some(&k) || k == 0 {
        return None;
    }
    let m = sa[..sa.len() - 1].iter().product();
    let bias = cx.optional_floats(f.bias)?;
    Some(Product { m, k, n: nn, n_first: false, x, w, alpha: 1.0, bias })
}

pub(super) fn gemm(cx: &Cx, n: &Node, f: &Finish) -> Option<Product> {
    let (x, w) = (n.input(0)?, n.input(1)?);
    let (sa, sb) = (cx.f32_shape(x)?, cx.f32_shape(w)?);
    let flag = |name: &str| n.attrs.int_or(name, 0).ok().map(|x| x != 0);
    let (ta, tb) = (flag("transA")?, flag("transB")?);
    let (alpha, beta) = (n.attrs.float_or("alpha", 1.0).ok()?, n.attrs.float_or("beta", 1.0).ok()?);
    let (&[m, k], &[_, _]) = (&sa[..], &sb[..]) else { return None };
    let (kb, nn) = if tb { (sb[1], sb[0]) } else { (sb[0], sb[1]) };
    if ta || k != kb || k == 0 || f.bias.is_some() {
        return None;
    }
    let bias = match n.input(2) {
        None => None,
        Some(c) => {
            let mut v = cx.floats(c)?;
            match (v.len(), cx.shape(c)?.last()) {
                (1, _) => v = vec![v[0]; nn],
                (len, Some(&last)) if len == nn && last == nn => {}
                _ => return None,
            }
            v.iter_mut().for_each(|x| *x *= beta);
            Some(v)
        }
    };
    Some(Product { m, k, n: nn, n_first: tb, x, w, alpha, bias })
}

/// A convolution whose window is one point.
fn pointwise(cx: &Cx, n: &Node) -> Option<Product> {
    let (x, w) = (n.input(0)?, n.input(1)?);
    let shape = cx.f32_shape(x)?;
    let g = ops::conv::geometry(&n.attrs, &standard(&shape), &cx.shape(w)?).ok()?;
    let all = |f: &dyn Fn(&ops::window::Window) -> usize, value: usize, fill: usize| {
        triple(&g.axes, f, fill).is_some_and(|t| t.iter().all(|&x| x == value))
    };
    let point = all(&|w| w.kernel, 1, 1) && all(&|w| w.stride, 1, 1);
    let whole = all(&|w| w.pad_begin, 0, 0) && all(&|w| w.pad_end, 0, 0);
    if !(point && whole && g.groups == 1) || g.in_channels == 0 {
        return None;
    }
    let m = shape[..shape.len() - 1].iter().product();
    let bias = cx.optional_floats(n.input(2))?;
    Some(Product { m, k: g.in_channels, n: g.out_channels, n_first: true, x, w, alpha: 1.0, bias })
}

#[cfg(test)]
mod tests {
    use ir::{Attrs, DType, Evaluate, Feeds, Graph, Tensor, Value, ValueType};
    use kernels::Serial;

    /// One product with weights of which `kept` of a hundred are not zero.
    fn kind(op: &str, x: &[usize], w: &[usize], kept: usize) -> &'static str {
        let data = |shape: &[usize], seed: usize, kept: usize| {
            let n = (0..shape.iter().product()).map(|i: usize| (i + seed) * 7919 % 613);
            let value = |r: usize| if r * 100 < kept * 613 { r as f32 / 300.0 - 1.0 } else { 0.0 };
            Tensor::new(shape, n.map(value).collect()).unwrap()
        };
        let mut g = Graph::new("t");
        let input = g.add_input("x", ValueType::known(DType::F32, x));
        let weight = g.add_initializer("w", data(w, 3, kept));
        let y = g.apply("y", ops::standard(op).unwrap(), Attrs::new(), &[input, weight]);
        let y = g.apply("r", ops::standard("Relu").unwrap(), Attrs::new(), &[y]);
        g.add_output("y", y);
        ir::infer(&mut g).unwrap();
        let x = data(x, 5, 100);
        let feeds = Feeds::from([("x".to_string(), Value::Tensor(x.clone()))]);
        let want = ir::Reference.run(&g, &feeds, &[]).unwrap().outputs.remove(0);
        let program = crate::compile(&g).unwrap();
        let got = program.run(&[Value::Tensor(x)], &Serial).unwrap().remove(0);
        let floats = |v: &Value| v.tensor().unwrap().to_f32s().unwrap();
        for (a, b) in floats(&want).iter().zip(floats(&got)) {
            assert!((a - b).abs() < 1e-4, "{a} {b}");
        }
        program.steps().iter().map(|s| s.kind).find(|k| *k != "movement").unwrap()
    }

    #[test]
    fn zeros_of_sparse_weights_are_left_out() {
        assert_eq!(kind("MatMul", &[30, 64], &[64, 40], 5), "sparse product");
        assert_eq!(kind("MatMul", &[1, 64], &[64, 40], 5), "sparse product");
        assert_eq!(kind("Conv", &[1, 64, 5, 5], &[40, 64, 1, 1], 5), "sparse product");
        assert_eq!(kind("MatMul", &[30, 64], &[64, 40], 90), "matrix product");
        assert_eq!(kind("Conv", &[1, 64, 5, 5], &[40, 64, 3, 3], 5), "convolution");
    }
}
