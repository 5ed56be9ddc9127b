//! Contractions with what follows their sums: `act(sum + residual)`, or the residual after the activation.

use super::required;
use ir::{Attrs, DType, Error, Graph, Lookup, Result, Tensor, ValueId};

/// Attributes that say what follows the sums; the others are the contraction's own.
const EPILOGUE: [&str; 4] = ["activation", "act_alpha", "act_beta", "residual_last"];

/// The function in an `activation` attribute.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Activation {
    Relu,
    Clip {
        lo: f32,
        hi: f32,
    },
    LeakyRelu {
        alpha: f32,
    },
    HardSwish,
    HardSigmoid {
        alpha: f32,
        beta: f32,
    },
    Sigmoid,
    Tanh,
    /// x·σ(x)
    Swish,
    Gelu,
    GeluTanh,
}

impl Activation {
    /// What a standard operator with these attributes applies to its first input; `bounds` are those of a Clip.
    pub fn of_node(op: &str, attrs: &Attrs, bounds: (f32, f32)) -> Option<Activation> {
        let float = |name: &str, default: f32| attrs.float_or(name, default).ok();
        Some(match op {
            "Relu" => Activation::Relu,
            "Clip" => Activation::Clip { lo: bounds.0, hi: bounds.1 },
            "LeakyRelu" => Activation::LeakyRelu { alpha: float("alpha", 0.01)? },
            "HardSwish" => Activation::HardSwish,
            "HardSigmoid" => {
                Activation::HardSigmoid { alpha: float("alpha", 0.2)?, beta: float("beta", 0.5)? }
            }
            "Sigmoid" => Activation::Sigmoid,
            "Tanh" => Activation::Tanh,
            "Swish" if float("alpha", 1.0)? == 1.0 => Activation::Swish,
            "Gelu" if attrs.str_or("approximate", "none").ok()? == "tanh" => Activation::GeluTanh,
            "Gelu" => Activation::Gelu,
            _ => return None,
        })
    }

    /// The activation of a fused node, if it has one.
    pub fn read(attrs: &Attrs) -> Result<Option<Activation>> {
        let (a, b) = (attrs.float_or("act_alpha", 0.0)?, attrs.float_or("act_beta", 0.0)?);
        Ok(Some(match attrs.str_or("activation", "")? {
            "" => return Ok(None),
            "Relu" => Activation::Relu,
            "Clip" => Activation::Clip { lo: a, hi: b },
            "LeakyRelu" => Activation::LeakyRelu { alpha: a },
            "HardSwish" => Activation::HardSwish,
            "HardSigmoid" => Activation::HardSigmoid { alpha: a, beta: b },
            "Sigmoid" => Activation::Sigmoid,
            "Tanh" => Activation::Tanh,
            "Swish" => Activation::Swish,
            "Gelu" => Activation::Gelu,
            "GeluTanh" => Activation::GeluTanh,
            other => return Err(Error::model(format!("activation '{other}' is not known"))),
        }))
    }

    /// Sets the attributes that [`Activation::read`] reads.
    pub fn write(self, attrs: &mut Attrs) {
        let (name, numbers) = match self {
            Activation::Relu => ("Relu", None),
            Activation::Clip { lo, hi } => ("Clip", Some((lo, hi))),
            Activation::LeakyRelu { alpha } => ("LeakyRelu", Some((alpha, 0.0))),
            Activation::HardSwish => ("HardSwish", None),
            Activation::HardSigmoid { alpha, beta } => ("HardSigmoid", Some((alpha, beta))),
            Activation::Sigmoid => ("Sigmoid", None),
            Activation::Tanh => ("Tanh", None),
            Activation::Swish => ("Swish", None),
            Activation::Gelu => ("Gelu", None),
            Activation::GeluTanh => ("GeluTanh", None),
        };
        attrs.set("activation", name);
        if let Some((a, b)) = numbers {
            attrs.set("act_alpha", a);
            attrs.set("act_beta", b);
        }
    }

    /// The standard node of a value of this element type.
    fn append(self, g: &mut Graph, x: ValueId, dtype: DType, lookup: &dyn Lookup) -> Result<ValueId> {
        let (plain, mut inputs) = (Attrs::new(), vec![x]);
        let (name, attrs) = match self {
            Activation::Clip { lo, hi } => {
                for bound in [lo, hi] {
                    let t = Tensor::from_f32s(dtype, &[], vec![bound])?;
                    inputs.push(g.add_initializer("bound", t));
                }
                ("Clip", plain)
            }
            Activation::Relu => ("Relu", plain),
            Activation::LeakyRelu { alpha } => ("LeakyRelu", plain.with("alpha", alpha)),
            Activation::HardSwish => ("HardSwish", plain),
            Activation::HardSigmoid { alpha, beta } => {
                ("HardSigmoid", plain.with("alpha", alpha).with("beta", beta))
            }
            Activation::Sigmoid => ("Sigmoid", plain),
            Activation::Tanh => ("Tanh", plain),
            Activation::Swish => ("Swish", plain),
            Activation::Gelu => ("Gelu", plain),
            Activation::GeluTanh => ("Gelu", plain.with("approximate", "tanh")),
        };
        Ok(g.apply("activation", lookup.require("", name)?, attrs, &inputs))
    }
}

/// Whether the residual of a fused node comes after its activation.
pub fn residual_last(attrs: &Attrs) -> Result<bool> {
    Ok(attrs.int_or("residual_last", 0)? != 0)
}

type Inputs<'a> = &'a [Option<ValueId>];

fn finish(g: &mut Graph, attrs: &Attrs, inputs: Inputs, sum: ValueId, l: &dyn Lookup) -> Result<ValueId> {
    let (residual, last) = (inputs.get(3).copied().flatten(), residual_last(attrs)?);
    let (add, mut y) = (l.require("", "Add")?, sum);
    if let (Some(r), false) = (residual, last) {
        y = g.apply("sum", add, Attrs::new(), &[y, r]);
    }
    if let Some(a) = Activation::read(attrs)? {
        let dtype = g.dtype(required(inputs, 0)?).filter(|d| d.is_float()).unwrap_or(DType::F32);
        y = a.append(g, y, dtype, l)?;
    }
    if let (Some(r), true) = (residual, last) {
        y = g.apply("sum", add, Attrs::new(), &[y, r]);
    }
    Ok(y)
}

fn contraction(
    name: &str,
    g: &mut Graph,
    attrs: &Attrs,
    inputs: Inputs,
    lookup: &dyn Lookup,
) -> Result<ValueId> {
    let mut own = attrs.clone();
    EPILOGUE.iter().for_each(|e| drop(own.remove(e)));
    let mut operands = vec![required(inputs, 0)?, required(inputs, 1)?];
    operands.extend(inputs.get(2).copied().flatten());
    let sum = g.apply(&name.to_lowercase(), lookup.require("", name)?, own, &operands);
    finish(g, attrs, inputs, sum, lookup)
}

/// A convolution, its activation and a residual of its result's shape.
pub fn conv(g: &mut Graph, a: &Attrs, i: Inputs, l: &dyn Lookup) -> Result<ValueId> {
    contraction("Conv", g, a, i, l)
}

/// As [`conv`], transposed.
pub fn conv_transpose(g: &mut Graph, a: &Attrs, i: Inputs, l: &dyn Lookup) -> Result<ValueId> {
    contraction("ConvTranspose", g, a, i, l)
}

/// A Gemm, its activation and a residual.
pub fn gemm(g: &mut Graph, a: &Attrs, i: Inputs, l: &dyn Lookup) -> Result<ValueId> {
    contraction("Gemm", g, a, i, l)
}

/// A matrix product, a bias along the last axis, an activation and a residual.
pub fn matmul(g: &mut Graph, a: &Attrs, i: Inputs, l: &dyn Lookup) -> Result<ValueId> {
    let product = l.require("", "MatMul")?;
    let mut y = g.apply("matmul", product, Attrs::new(), &[required(i, 0)?, required(i, 1)?]);
    if let Some(bias) = i.get(2).copied().flatten() {
        y = g.apply("bias", l.require("", "Add")?, Attrs::new(), &[y, bias]);
    }
    finish(g, a, i, y, l)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn activations_survive_their_attributes() {
        let all = [
            Activation::Relu,
            Activation::Clip { lo: -1.0, hi: f32::INFINITY },
            Activation::LeakyRelu { alpha: 0.25 },
            Activation::HardSwish,
            Activation::HardSigmoid { alpha: 0.2, beta: 0.6 },
            Activation::Sigmoid,
            Activation::Tanh,
            Activation::Swish,
            Activation::Gelu,
            Activation::GeluTanh,
        ];
        for a in all {
            let mut attrs = Attrs::new();
            a.write(&mut attrs);
            assert_eq!(Activation::read(&attrs).unwrap(), Some(a));
        }
        assert_eq!(Activation::read(&Attrs::new()).unwrap(), None);
        assert!(Activation::read(&Attrs::new().with("activation", "Cube")).is_err());
    }
}
