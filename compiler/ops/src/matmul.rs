//! Matrix products: MatMul with batch broadcasting (numpy `matmul`) and Gemm.

use crate::arith::{Number, Strided, by_number};
use crate::broadcast::{broadcast_dims, broadcast_shapes, broadcast_strides};
use crate::typing::{one, tensor_type};
use crate::{Op, schema};
use ir::budget;
use ir::{
    Accuracy, Attrs, Dim, Error, EvalCx, InferCx, Kind, Operator, Result, Shape, Tensor, Value, ValueType,
};

pub static OPERATORS: &[&dyn Operator] = &[
    &Op::new("MatMul", &schema::MAT_MUL, infer_matmul, eval_matmul)
        .kind(|_| Kind::Contract)
        .accuracy(Accuracy::Accumulated),
    &Op::new("Gemm", &schema::GEMM, infer_gemm, eval_gemm)
        .kind(|_| Kind::Contract)
        .accuracy(Accuracy::Accumulated),
];

/// A broadcast product of (m, k) and (k, n) matrices.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MatMulGeometry {
    pub m: usize,
    pub k: usize,
    pub n: usize,
    /// Shape of the result (1-D operands lose their dimension).
    pub output: Shape,
    /// First element of each product's left and right matrix; products are in row-major order of the batch dims.
    pub offsets: Vec<(usize, usize)>,
}

/// Geometry of `MatMul` for concrete shapes.
pub fn geometry(a: &[usize], b: &[usize]) -> Result<MatMulGeometry> {
    let bad = || Error::model(format!("shapes {a:?} and {b:?} do not multiply"));
    let (Some(&k), true) = (a.last(), !b.is_empty()) else { return Err(bad()) };
    let (m, a_batch) = if a.len() == 1 { (1, &a[..0]) } else { (a[a.len() - 2], &a[..a.len() - 2]) };
    let (kb, n) = if b.len() == 1 { (b[0], 1) } else { (b[b.len() - 2], b[b.len() - 1]) };
    if k != kb {
        return Err(bad());
    }
    let b_batch = &b[..b.len().saturating_sub(2)];
    let batch = broadcast_shapes(&[a_batch, b_batch])?;
    let mut output = batch.clone();
    output.extend((a.len() > 1).then_some(m));
    output.extend((b.len() > 1).then_some(n));
    let mut g = MatMulGeometry { m, k, n, output, offsets: Vec::new() };
    if budget::elements(&g.output)? == 0 {
        return Ok(g);
    }
    // One matrix on the right: the batch is more rows on the left.
    if b_batch.iter().all(|&d| d == 1) {
        g.m = batch.iter().product::<usize>() * m;
        g.offsets.push((0, 0));
        return Ok(g);
    }
    let (sa, sb) = (broadcast_strides(a_batch, &batch), broadcast_strides(b_batch, &batch));
    g.offsets = budget::vec(batch.iter().product())?;
    for index in ndarray::indices(&batch[..]) {
        let at = |s: &[usize]| s.iter().enumerate().map(|(i, s)| s * index[i]).sum::<usize>();
        g.offsets.push((at(&sa) * m * k, at(&sb) * k * n));
    }
    Ok(g)
}

/// `MatMul` of two tensors of one type: f64 in f64, narrower floats in f32, integers wrap.
pub fn matmul(a: &Tensor, b: &Tensor) -> Result<Tensor> {
    if a.dtype() != b.dtype() {
        return Err(Error::model(format!("element types {} and {} differ", a.dtype(), b.dtype())));
    }
    by_number!(a.dtype(), typed(a, b))
}

fn typed<T: Number>(a: &Tensor, b: &Tensor) -> Result<Tensor> {
    let g = geometry(a.shape(), b.shape())?;
    T::write(a.dtype(), &g.output, product::<T>(&T::read(a)?, &T::read(b)?, &g)?)
}

/// The products described by `g`, concatenated.
pub fn product<T: Number>(a: &[T], b: &[T], g: &MatMulGeometry) -> Result<Vec<T>> {
    let mut y = budget::filled(budget::elements(&g.output)?, T::ZERO)?;
    for (c, &(i, j)) in y.chunks_exact_mut(g.m.saturating_mul(g.n).max(1)).zip(&g.offsets) {
        T::gemm([g.m, g.k, g.n], Strided(&a[i..], g.k, 1), Strided(&b[j..], g.n, 1), c, g.n)?;
    }
    Ok(y)
}

fn infer_matmul(cx: &InferCx) -> Result<Vec<ValueType>> {
    let dtype = cx.dtype(0)?.or(cx.dtype(1)?);
    let shape = match (cx.shape(0), cx.shape(1)) {
        (Some(a), Some(b)) => Some(product_dims(a, b)?),
        _ => None,
    };
    Ok(vec![tensor_type(dtype, shape)])
}

/// Symbolic shape of a `MatMul`.
pub fn product_dims(a: &[Dim], b: &[Dim]) -> Result<Vec<Dim>> {
    let bad = || Error::model("MatMul needs operands of rank 1 or more");
    let k = a.last().ok_or_else(bad)?;
    let kb = if b.len() == 1 { b.first() } else { b.iter().rev().nth(1) };
    k.merge(kb.ok_or_else(bad)?)?;
    let batch = |s: &[Dim]| s[..s.len().saturating_sub(2)].to_vec();
    let mut out = broadcast_dims(&[&batch(a), &batch(b)])?;
    out.extend(a.iter().rev().nth(1).cloned());
    out.extend((b.len() > 1).then(|| b[b.len() - 1].clone()));
    Ok(out)
}

fn eval_matmul(cx: &EvalCx) -> Result<Vec<Value>> {
    Ok(one(matmul(cx.tensor(0)?, cx.tensor(1)?)?))
}

/// Attributes of `Gemm`: Y = alpha·A'·B' + beta·C.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct GemmAttrs {
    pub alpha: f32,
    pub beta: f32,
    pub trans_a: bool,
    pub trans_b: bool,
}

impl GemmAttrs {
    pub fn parse(attrs: &Attrs) -> Result<GemmAttrs> {
        Ok(GemmAttrs {
            alpha: attrs.float_or("alpha", 1.0)?,
            beta: attrs.float_or("beta", 1.0)?,
            trans_a: attrs.int_or("transA", 0)? != 0,
            trans_b: attrs.int_or("transB", 0)? != 0,
        })
    }
}

fn infer_gemm(cx: &InferCx) -> Result<Vec<ValueType>> {
    let g = GemmAttrs::parse(cx.attrs)?;
    let dtype = cx.dtype(0)?.or(cx.dtype(1)?);
    let side = |i: usize, transposed: bool| -> Result<[Dim; 2]> {
        match cx.shape(i) {
            None => Ok([Dim::Unknown, Dim::Unknown]),
            Some([r, c]) if transposed => Ok([c.clone(), r.clone()]),
            Some([r, c]) => Ok([r.clone(), c.clone()]),
            Some(s) => Err(Error::model(format!("input {i} must be a matrix, its rank is {}", s.len()))),
        }
    };
    let ([m, k], [kb, n]) = (side(0, g.trans_a)?, side(1, g.trans_b)?);
    k.merge(&kb)?;
    Ok(vec![tensor_type(dtype, Some(vec![m, n]))])
}

fn eval_gemm(cx: &EvalCx) -> Result<Vec<Value>> {
    let attrs = GemmAttrs::parse(cx.attrs)?;
    let (a, b, c) = (cx.tensor(0)?, cx.tensor(1)?, cx.optional(2)?);
    Ok(one(by_number!(a.dtype(), gemm(a, b, c, attrs))?))
}

fn gemm<T: Number>(a: &Tensor, b: &Tensor, c: Option<&Tensor>, attrs: GemmAttrs) -> Result<Tensor> {
    let (&[ar, ac], &[br, bc]) = (a.shape(), b.shape()) else {
        return Err(Error::model(format!("shapes {:?} and {:?} must be matrices", a.shape(), b.shape())));
    };
    let (m, k, a_strides) = if attrs.trans_a { (ac, ar, (1, ac)) } else { (ar, ac, (ac, 1)) };
    let (kb, n, b_strides) = if attrs.trans_b { (bc, br, (1, bc)) } else { (br, bc, (bc, 1)) };
    if k != kb || a.dtype() != b.dtype() || c.is_some_and(|c| c.dtype() != a.dtype()) {
        return Err(Error::model(format!("{a:?} and {b:?} do not multiply")));
    }
    let mut y = budget::filled(budget::elements(&[m, n])?, T::ZERO)?;
    if y.is_empty() {
        return T::write(a.dtype(), &[m, n], y);
    }
    let (x, w) = (T::read(a)?, T::read(b)?);
    let (x, w) = (Strided(&x, a_strides.0, a_strides.1), Strided(&w, b_strides.0, b_strides.1));
    T::gemm([m, k, n], x, w, &mut y, n)?;
    if attrs.alpha != 1.0 {
        y.iter_mut().for_each(|v| *v = v.scaled(attrs.alpha));
    }
    if let Some(c) = c.filter(|_| attrs.beta != 0.0) {
        if broadcast_shapes(&[c.shape(), &[m, n]])?[..] != [m, n] {
            return Err(Error::model(format!("C of shape {:?} does not broadcast to [{m}, {n}]", c.shape())));
        }
        let (bias, s) = (T::read(c)?, broadcast_strides(c.shape(), &[m, n]));
        for (i, row) in y.chunks_exact_mut(n.max(1)).enumerate() {
            let add = |j: usize| if attrs.beta == 1.0 { bias[j] } else { bias[j].scaled(attrs.beta) };
            row.iter_mut().enumerate().for_each(|(j, v)| *v = v.plus(add(i * s[0] + j * s[1])));
        }
    }
    T::write(a.dtype(), &[m, n], y)
}

#[cfg(test)]
mod tests {
    use super::*;
    use ir::DType;

    fn f32s(shape: &[usize], data: &[f32]) -> Tensor {
        Tensor::new(shape, data.to_vec()).unwrap()
    }

    #[test]
    fn vectors_and_batches_follow_numpy() {
        let v = f32s(&[2], &[1., 2.]);
        let m = f32s(&[2, 2], &[1., 2., 3., 4.]);
        let dot = matmul(&v, &v).unwrap();
        assert_eq!((dot.shape(), dot.to_f32s().unwrap()), (&[][..], vec![5.0]));
        assert_eq!(matmul(&v, &m).unwrap().to_f32s().unwrap(), [7., 10.]);
        assert_eq!(matmul(&m, &v).unwrap().to_f32s().unwrap(), [5., 11.]);
        let a = f32s(&[2, 1, 1, 2], &[1., 2., 3., 4.]);
        let b = f32s(&[3, 2, 1], &[1., 0., 0., 1., 1., 1.]);
        let y = matmul(&a, &b).unwrap();
        assert_eq!(y.shape(), [2, 3, 1, 1]);
        assert_eq!(y.to_f32s().unwrap(), [1., 2., 3., 3., 4., 7.]);
        assert!(matmul(&v, &f32s(&[3], &[0.; 3])).is_err());
        assert!(matmul(&v, &Tensor::scalar(1f32)).is_err());
    }

    #[test]
    fn empty_inner_dimension_gives_zeros() {
        let y = matmul(&f32s(&[2, 0], &[]), &f32s(&[0, 2], &[])).unwrap();
        assert_eq!(y.to_f32s().unwrap(), [0.; 4]);
    }

    #[test]
    fn integers_wrap() {
        let a = Tensor::new(&[1, 1], vec![i32::MAX]).unwrap();
        let b = Tensor::new(&[1, 1], vec![2]).unwrap();
        assert_eq!(matmul(&a, &b).unwrap().to_i64s().unwrap(), [-2]);
    }

    #[test]
    fn symbols_pass_through() {
        let (n, k) = (Dim::symbol("n"), Dim::Known(4));
        assert_eq!(
            product_dims(&[n.clone(), Dim::Known(3), k.clone()], &[k.clone(), 5.into()]).unwrap(),
            [n, 3.into(), 5.into()]
        );
        assert!(product_dims(&[k], &[3.into(), 2.into()]).is_err());
    }

    #[test]
    fn half_products_are_summed_in_single() {
        let a = Tensor::from_f32s(DType::F16, &[1, 4096], vec![1.0; 4096]).unwrap();
        let b = Tensor::from_f32s(DType::F16, &[4096, 1], vec![1.0; 4096]).unwrap();
        assert_eq!(matmul(&a, &b).unwrap().to_f32s().unwrap(), [4096.0]);
    }
}
