//! Contractions with what follows them, and activations.

use crate::function::{Body, Outputs, plain};
use ir::{Attrs, Error, Result, ValueId};

pub fn gelu(b: &mut Body) -> Result<Outputs> {
    let x = b.need(0)?;
    Ok(vec![Some(b.op("Gelu", &[x])?)])
}

fn fast(b: &mut Body, x: ValueId) -> Result<ValueId> {
    b.op_with("Gelu", plain().with("approximate", "tanh"), &[x])
}

pub fn fast_gelu(b: &mut Body) -> Result<Outputs> {
    let x = b.need(0)?;
    let x = b.plus(x, b.get(1))?;
    Ok(vec![Some(fast(b, x)?)])
}

/// x · sigmoid(alpha · x)
pub fn quick_gelu(b: &mut Body) -> Result<Outputs> {
    let x = b.need(0)?;
    let alpha = b.number(x, b.attrs.float_or("alpha", 1.702)?)?;
    let scaled = b.op("Mul", &[x, alpha])?;
    let s = b.op("Sigmoid", &[scaled])?;
    Ok(vec![Some(b.op("Mul", &[x, s])?)])
}

pub fn bias_gelu(b: &mut Body) -> Result<Outputs> {
    let x = b.op("Add", &[b.need(0)?, b.need(1)?])?;
    Ok(vec![Some(b.op("Gelu", &[x])?)])
}

pub fn bias_add(b: &mut Body) -> Result<Outputs> {
    let x = b.op("Add", &[b.need(0)?, b.need(1)?])?;
    Ok(vec![Some(b.op("Add", &[x, b.need(2)?])?)])
}

/// Inference keeps everything.
pub fn bias_dropout(b: &mut Body) -> Result<Outputs> {
    if b.outputs > 1 || b.get(4).is_some() {
        return Err(Error::unsupported("BiasDropout while training"));
    }
    let x = b.op("Add", &[b.need(0)?, b.need(1)?])?;
    Ok(vec![Some(b.plus(x, b.get(2))?), None])
}

pub fn bias_softmax(b: &mut Body) -> Result<Outputs> {
    let (axis, x) = (b.attrs.int_or("axis", 1)?, b.need(0)?);
    let rank = b.rank(x)? as i64;
    let at = if axis < 0 { axis + rank } else { axis };
    if at != rank - 1 {
        return Err(Error::unsupported("BiasSoftmax over more than the last axis"));
    }
    let x = b.op("Add", &[x, b.need(1)?])?;
    Ok(vec![Some(b.op_with("Softmax", plain().with("axis", -1), &[x])?)])
}

/// left · gelu(right), the halves of the last axis after the bias.
pub fn bias_split_gelu(b: &mut Body) -> Result<Outputs> {
    let x = b.op("Add", &[b.need(0)?, b.need(1)?])?;
    let halves = b.node("Split", plain().with("axis", -1).with("num_outputs", 2), &[Some(x)], 2)?;
    let g = b.op("Gelu", &[halves[1]])?;
    Ok(vec![Some(b.op("Mul", &[halves[0], g])?)])
}

/// The activation that attributes name, with parameters in their order of definition.
fn activate(b: &mut Body, x: ValueId, params: [Option<f32>; 2]) -> Result<ValueId> {
    let name = b.attrs.str_or("activation", "")?.to_string();
    let [p, q] = params;
    let attrs = |names: &[(&str, Option<f32>)]| -> Attrs {
        names.iter().fold(plain(), |a, (n, v)| v.map_or(a.clone(), |v| a.with(n, v)))
    };
    match name.as_str() {
        "" => Ok(x),
        "Relu" | "Sigmoid" | "Tanh" | "HardSwish" | "Softsign" | "Softplus" => b.op(&name, &[x]),
        "LeakyRelu" | "Elu" | "ThresholdedRelu" => b.op_with(&name, attrs(&[("alpha", p)]), &[x]),
        "HardSigmoid" => b.op_with(&name, attrs(&[("alpha", p), ("beta", q)]), &[x]),
        "Clip" => {
            let (lo, hi) = (p.unwrap_or(f32::MIN), q.unwrap_or(f32::MAX));
            let (lo, hi) = (b.number(x, lo)?, b.number(x, hi)?);
            b.op("Clip", &[x, lo, hi])
        }
        other => Err(Error::unsupported(format!("activation '{}'", other.escape_debug()))),
    }
}

fn convolve(b: &mut Body, x: ValueId, sum: Option<ValueId>) -> Result<ValueId> {
    let attrs = b.attrs_without(&["activation", "activation_params"]);
    let y = b.opt("Conv", attrs, &[Some(x), Some(b.need(1)?), b.get(2)])?;
    let y = b.plus(y, sum)?;
    let p = b.attrs.floats("activation_params")?.unwrap_or(&[]).to_vec();
    activate(b, y, [p.first().copied(), p.get(1).copied()])
}

pub fn fused_conv(b: &mut Body) -> Result<Outputs> {
    let x = b.need(0)?;
    Ok(vec![Some(convolve(b, x, b.get(3))?)])
}

pub fn nhwc_conv(b: &mut Body) -> Result<Outputs> {
    let x = b.channels(b.need(0)?, false)?;
    let sum = b.get(3).map(|z| b.channels(z, false)).transpose()?;
    let y = convolve(b, x, sum)?;
    Ok(vec![Some(b.channels(y, true)?)])
}

fn named_params(b: &Body) -> Result<[Option<f32>; 2]> {
    Ok([b.attrs.float("activation_alpha")?, b.attrs.float("activation_beta")?])
}

pub fn fused_gemm(b: &mut Body) -> Result<Outputs> {
    let attrs = b.attrs_without(&["activation", "activation_alpha", "activation_beta", "activation_gamma"]);
    let y = b.opt("Gemm", attrs, &[Some(b.need(0)?), Some(b.need(1)?), b.get(2)])?;
    let params = named_params(b)?;
    Ok(vec![Some(activate(b, y, params)?)])
}

pub fn gemm_fast_gelu(b: &mut Body) -> Result<Outputs> {
    let y = b.op("MatMul", &[b.need(0)?, b.need(1)?])?;
    let y = b.plus(y, b.get(2))?;
    Ok(vec![Some(fast(b, y)?)])
}

/// `alpha · op(A) · op(B)`: `trans` swaps the two last axes, `transBatch` takes the first axis for the row axis.
pub fn fused_matmul(b: &mut Body) -> Result<Outputs> {
    let mut sides = [b.need(0)?, b.need(1)?];
    for (side, name) in sides.iter_mut().zip(["A", "B"]) {
        let (swap, batch) = (b.flag(&format!("trans{name}"))?, b.flag(&format!("transBatch{name}"))?);
        if !swap && !batch {
            continue;
        }
        let rank = b.rank(*side)? as i64;
        if rank < 2 {
            continue;
        }
        let mut perm: Vec<i64> = (0..rank).collect();
        if batch {
            perm = (1..rank - 1).chain([0, rank - 1]).collect();
        }
        if swap {
            perm.swap(rank as usize - 2, rank as usize - 1);
        }
        *side = b.transpose(*side, &perm)?;
    }
    let mut y = b.op("MatMul", &sides)?;
    let alpha = b.attrs.float_or("alpha", 1.0)?;
    if alpha != 1.0 {
        let alpha = b.number(y, alpha)?;
        y = b.op("Mul", &[y, alpha])?;
    }
    let params = named_params(b)?;
    Ok(vec![Some(activate(b, y, params)?)])
}
