//! Resize: linear in its input and separable, so the gradient is a product with one small matrix per axis.

use super::Cx;
use super::pool::evaluated;
use ir::{DType, Error, Result, Tensor, ValueId};

pub fn resize(cx: &mut Cx) -> Result<Vec<Option<ValueId>>> {
    let (mut g, shape, out) = (cx.g()?, cx.shape(0)?, cx.output_shape(0)?);
    let rank = shape.len();
    let cropped =
        cx.node.attrs.str_or("coordinate_transformation_mode", "half_pixel")? == "tf_crop_and_resize";
    if cropped || rank < 3 || shape[..2] != out[..2] || cx.node.attrs.has("axes") {
        return Err(Error::unsupported(
            "a derivative is known of maps (batch, channels, …) without cropping only",
        ));
    }
    let dtype = cx.b.dtype(cx.x(0)?)?;
    let mut now = out.to_vec();
    for a in 2..rank {
        let weights = probe(cx, &shape, &out, a)?;
        let t = Tensor::from_f64s(dtype, &[out[a], shape[a]], weights)?;
        let m = cx.b.constant(t);
        let mut perm: Vec<usize> = (0..rank).collect();
        perm.swap(a, rank - 1);
        g = cx.b.transpose(g, &perm)?;
        g = cx.b.op("MatMul", &[g, m])?;
        g = cx.b.transpose(g, &perm)?;
        now[a] = shape[a];
    }
    Ok(cx.first(g))
}

/// What each output position along axis `a` takes from each input position, row-major (output × input): the node's own
/// answer to one sample per input position, which is 1 there and 0 elsewhere.
fn probe(cx: &Cx, shape: &[usize], out: &[usize], a: usize) -> Result<Vec<f64>> {
    let n = shape[a];
    let mut probes = shape.to_vec();
    (probes[0], probes[1]) = (n, 1);
    let inner: usize = shape[a + 1..].iter().product();
    let total: usize = probes.iter().product();
    let plane = total / n.max(1);
    let data: Vec<f64> =
        (0..total).map(|i| f64::from(u8::from(i % plane / inner % n == i / plane))).collect();
    let mut inputs = vec![Some(Tensor::from_f64s(DType::F64, &probes, data)?)];
    for i in 1..cx.node.inputs().len() {
        let mut t = cx.constant(i)?;
        if i == 3
            && let Some(sizes) = &t
        {
            let mut sizes = sizes.to_i64s()?;
            (sizes[0], sizes[1]) = (n as i64, 1);
            t = Some(Tensor::vector::<i64>(sizes));
        }
        inputs.push(t);
    }
    let found = evaluated(&cx.node, &inputs)?;
    let y = found.to_f64s()?;
    let stride: usize = out[a + 1..].iter().product();
    let plane: usize = out[2..].iter().product();
    Ok((0..out[a])
        .flat_map(|o| (0..n).map(move |j| (o, j)))
        .map(|(o, j)| y[j * plane + o * stride])
        .collect())
}
