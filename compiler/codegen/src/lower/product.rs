//! What MatMul, Gemm and pointwise convolutions with constant weights have in common: rows times one matrix.

use super::contract::{Finish, standard, triple};
use super::{Cx, Lowered};
use crate::channels_last::DOMAIN;
use artefact::{Call, Matrix};
use ir::{Node, ValueId};
use kernels::{PackedB, PackedCodes};

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
    pub fn coded(&self, cx: &Cx) -> Option<PackedCodes> {
        if PackedCodes::pays(cx.tier, self.m) { cx.coded(self.w, self.k, self.n, self.n_first) } else { None }
    }

    pub fn weights(&self, cx: &Cx) -> Option<Matrix> {
        if let Some(w) = self.coded(cx) {
            return Some(Matrix::Coded(w));
        }
        let pack = |w: &[f32]| match self.n_first {
            true => PackedB::from_nk(cx.tier, w, self.n, self.k).ok(),
            false => PackedB::from_kn(cx.tier, w, self.k, self.n).ok(),
        };
        cx.pack(self.w, pack).map(Matrix::Dense)
    }
}

/// A product with weights of few bits, which stay packed.
pub fn packed(cx: &Cx, n: &Node, f: &Finish) -> Option<Lowered> {
    if f.quantize.is_some() {
        return None;
    }
    n.input(1).filter(|&w| cx.graph.constant(w).is_none() && cx.graph.expression(w).is_some())?;
    let p = Product::of(cx, n, f)?;
    let (weights, flops) = (p.coded(cx)?, p.flops());
    let reads = [p.x].into_iter().chain(f.residual).collect();
    let call = Call::CodedProduct { m: p.m, alpha: p.alpha, weights, finish: f.made(1, p.bias) };
    Some(Lowered::call("packed product", reads, f.output, flops, call))
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

fn gemm(cx: &Cx, n: &Node, f: &Finish) -> Option<Product> {
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
