//! Operators of the "ir." domain: what exact rewrites put together for running here. Each is described by its expansion
//! into standard operators; types and reference semantics follow from that, and files hold the expansion.

pub mod fused;

use crate::broadcast::broadcast_shapes;
use crate::schema;
use ir::{
    Accuracy, Attrs, DType, Error, EvalCx, Evaluate, Feeds, Graph, InferCx, Kind, Lookup, NodeId, Operator,
    Reference, Result, Signature, Tensor, Value, ValueId, ValueType,
};

pub static OPERATORS: &[&dyn Operator] = &[
    &Packed { name: "Attention", signature: &schema::IR_ATTENTION, build: attention, like: None },
    &Packed {
        name: "FusedConv",
        signature: &schema::IR_FUSED_CONV,
        build: fused::conv,
        like: Some(("Conv", 3)),
    },
    &Packed {
        name: "FusedConvTranspose",
        signature: &schema::IR_FUSED_CONV_TRANSPOSE,
        build: fused::conv_transpose,
        like: Some(("ConvTranspose", 3)),
    },
    &Packed {
        name: "FusedGemm",
        signature: &schema::IR_FUSED_GEMM,
        build: fused::gemm,
        like: Some(("Gemm", 3)),
    },
    &Packed {
        name: "FusedMatMul",
        signature: &schema::IR_FUSED_MAT_MUL,
        build: fused::matmul,
        like: Some(("MatMul", 2)),
    },
];

/// Appends what the node stands for, over its inputs.
type Build = fn(&mut Graph, &Attrs, &[Option<ValueId>], &dyn Lookup) -> Result<ValueId>;

struct Packed {
    name: &'static str,
    signature: &'static Signature,
    build: Build,
    /// The operator whose result has this one's type when all is known of its first inputs: a shortcut.
    like: Option<(&'static str, usize)>,
}

impl Packed {
    /// The expansion as a graph of its own, whose inputs have these types and are numbered by name.
    fn body(&self, attrs: &Attrs, types: &[Option<ValueType>]) -> Result<Graph> {
        let mut g = Graph::new(self.name);
        let inputs: Vec<Option<ValueId>> = types
            .iter()
            .enumerate()
            .map(|(i, t)| t.as_ref().map(|t| g.add_input(&i.to_string(), t.clone())))
            .collect();
        let y = (self.build)(&mut g, attrs, &inputs, &crate::Standard)?;
        g.add_output("y", y);
        ir::infer(&mut g)?;
        Ok(g)
    }
}

impl Operator for Packed {
    fn name(&self) -> &'static str {
        self.name
    }
    fn domain(&self) -> &'static str {
        "ir."
    }
    fn signature(&self) -> &'static Signature {
        self.signature
    }
    fn infer(&self, cx: &InferCx) -> Result<Vec<ValueType>> {
        if let Some(t) = self.like.and_then(|like| shortcut(cx, like)) {
            return Ok(vec![t]);
        }
        let g = self.body(cx.attrs, cx.inputs)?;
        Ok(g.outputs().iter().map(|o| g.ty(o.value).clone()).collect())
    }
    fn kind(&self, _: &Attrs) -> Kind {
        Kind::Contract
    }
    fn eval(&self, cx: &EvalCx) -> Result<Vec<Value>> {
        let types: Vec<_> = cx.inputs.iter().map(|v| v.as_ref().map(Value::value_type)).collect();
        let g = self.body(cx.attrs, &types)?;
        let feeds: Feeds =
            cx.inputs.iter().enumerate().filter_map(|(i, v)| Some((i.to_string(), v.clone()?))).collect();
        Ok(Reference.run(&g, &feeds, &[])?.outputs)
    }
    fn expand(&self, g: &mut Graph, n: NodeId, lookup: &dyn Lookup) -> Result<Option<Vec<Option<ValueId>>>> {
        let (attrs, inputs) = (g.node(n)?.attrs.clone(), g.node(n)?.inputs().to_vec());
        Ok(Some(vec![Some((self.build)(g, &attrs, &inputs, lookup)?)]))
    }
    fn accuracy(&self) -> Accuracy {
        Accuracy::Accumulated
    }
}

/// The type of `base` over the first `n` inputs, when the others do not widen it.
fn shortcut(cx: &InferCx, (base, n): (&str, usize)) -> Option<ValueType> {
    let inputs = cx.inputs.get(..n)?;
    let t = crate::standard(base).ok()?.infer(&InferCx { inputs, ..*cx }).ok()?.into_iter().next()?;
    let shape = t.concrete()?;
    let narrow = cx.inputs[n..].iter().flatten().all(|other| {
        other.dtype() == t.dtype()
            && other.concrete().is_some_and(|s| broadcast_shapes(&[&s, &shape]).is_ok_and(|b| b == shape))
    });
    narrow.then_some(t)
}

fn required(inputs: &[Option<ValueId>], i: usize) -> Result<ValueId> {
    inputs.get(i).copied().flatten().ok_or_else(|| Error::model(format!("input {i} is missing")))
}

fn permuted(g: &mut Graph, x: ValueId, perm: &[i64], lookup: &dyn Lookup) -> Result<ValueId> {
    if perm.iter().copied().eq(0..perm.len() as i64) {
        return Ok(x);
    }
    let attrs = Attrs::new().with("perm", perm.to_vec());
    Ok(g.apply("transpose", lookup.require("", "Transpose")?, attrs, &[x]))
}

/// `yᵀ`, where y = softmax(scale·q·kᵀ (+ mask))·v over the last two axes of q, k and v as permuted by their attributes.
/// With `fill`, scores whose mask is false become that instead; with `guard`, weights that are not a number become zero.
fn attention(
    g: &mut Graph,
    attrs: &Attrs,
    inputs: &[Option<ValueId>],
    lookup: &dyn Lookup,
) -> Result<ValueId> {
    let perm = |name: &str| -> Result<Vec<i64>> {
        let p = attrs.ints(name)?.map(<[i64]>::to_vec);
        p.ok_or_else(|| Error::model(format!("attribute '{name}' is missing")))
    };
    let (q, k, v) = (required(inputs, 0)?, required(inputs, 1)?, required(inputs, 2)?);
    let mut k_perm = perm("k_perm")?;
    let [.., position, width] = &mut k_perm[..] else {
        return Err(Error::model("k_perm must have two axes or more"));
    };
    std::mem::swap(position, width);
    let dtype = g.dtype(q).filter(|d| d.is_float()).unwrap_or(DType::F32);
    let q = permuted(g, q, &perm("q_perm")?, lookup)?;
    let k = permuted(g, k, &k_perm, lookup)?;
    let v = permuted(g, v, &perm("v_perm")?, lookup)?;
    let op = |g: &mut Graph, name: &str, inputs: &[ValueId]| -> Result<ValueId> {
        Ok(g.apply(&name.to_lowercase(), lookup.require("", name)?, Attrs::new(), inputs))
    };
    let number =
        |g: &mut Graph, x: f32| Ok(g.add_initializer("constant", Tensor::from_f32s(dtype, &[], vec![x])?));
    let mut scores = op(g, "MatMul", &[q, k])?;
    let scale = attrs.float_or("scale", 1.0)?;
    if scale != 1.0 {
        let scale = number(g, scale)?;
        scores = op(g, "Mul", &[scores, scale])?;
    }
    if let Some(mask) = inputs.get(3).copied().flatten() {
        scores = match attrs.float("fill")? {
            Some(fill) => {
                let fill = number(g, fill)?;
                op(g, "Where", &[mask, scores, fill])?
            }
            None => op(g, "Add", &[scores, mask])?,
        };
    }
    let mut p = op(g, "Softmax", &[scores])?;
    if attrs.int_or("guard", 0)? != 0 {
        let (odd, zero) = (op(g, "IsNaN", &[p])?, number(g, 0.0)?);
        p = op(g, "Where", &[odd, zero, p])?;
    }
    let y = op(g, "MatMul", &[p, v])?;
    permuted(g, y, &perm("y_perm")?, lookup)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attention as standard;

    fn perms(k: [i64; 4], rest: [i64; 4]) -> Attrs {
        let a = Attrs::new().with("k_perm", k.to_vec()).with("scale", 0.5f32);
        ["q_perm", "v_perm", "y_perm"].iter().fold(a, |a, n| a.with(n, rest.to_vec()))
    }

    fn run(attrs: &Attrs, inputs: &[Option<Value>]) -> Result<Tensor> {
        let op = crate::internal("Attention")?;
        let subgraph = |_: &Graph, _: Vec<Value>| Err(Error::internal("none"));
        let cx = EvalCx { node: "", attrs, inputs, captures: &[], outputs: 1, subgraph: &subgraph };
        op.eval(&cx)?.remove(0).tensor().cloned()
    }

    #[test]
    fn permuted_attention_is_the_standard_one() {
        let data = |n: usize, k: usize| -> Vec<f32> { (0..n).map(|i| ((i * k) % 17) as f32 * 0.1).collect() };
        let shape = [2, 3, 2, 4]; // (batch, position, head, width)
        let [q, k, v] = [5, 7, 11].map(|s| Tensor::new(&shape, data(48, s)).unwrap());
        let swap = [0, 2, 1, 3];
        let inputs: Vec<Option<Value>> = [&q, &k, &v].map(|t| Some(Value::Tensor(t.clone()))).to_vec();
        let y = run(&perms(swap, swap), &inputs).unwrap();
        let by_head = |t: &Tensor| {
            crate::transpose::transpose(t, &swap.map(|d| d as usize)).unwrap().to_f32s().unwrap()
        };
        let g = standard::geometry(
            &Attrs::new().with("scale", 0.5f32),
            &[2, 2, 3, 4],
            &[2, 2, 3, 4],
            &[2, 2, 3, 4],
            0,
        )
        .unwrap();
        let (want, _) =
            standard::attend::<f32>(&by_head(&q), &by_head(&k), &by_head(&v), &g, None, |_, _, _, row| {
                row.fill(0.0)
            })
            .unwrap();
        for (a, b) in by_head(&y).iter().zip(want) {
            assert!((a - b).abs() < 1e-6, "{a} {b}");
        }
    }

    #[test]
    fn types_of_fused_operators_are_those_of_their_expansions() {
        let ty = |s: &[usize]| Some(ValueType::known(DType::F32, s));
        let none = |_: &Graph, _: &[ValueType]| Err(Error::internal("none"));
        let relu = Attrs::new().with("activation", "Relu");
        for (op, inputs) in [
            ("FusedConv", [ty(&[1, 2, 5, 5]), ty(&[3, 2, 3, 3]), ty(&[3]), ty(&[1, 3, 3, 3])]),
            ("FusedConv", [ty(&[1, 2, 5, 5]), ty(&[3, 2, 3, 3]), None, ty(&[2, 3, 3, 3])]),
            ("FusedConvTranspose", [ty(&[1, 2, 5, 5]), ty(&[2, 3, 3, 3]), ty(&[3]), None]),
            ("FusedGemm", [ty(&[4, 2]), ty(&[2, 3]), ty(&[3]), ty(&[4, 3])]),
            ("FusedMatMul", [ty(&[7, 4, 2]), ty(&[2, 3]), ty(&[3]), ty(&[7, 4, 3])]),
            ("FusedMatMul", [ty(&[7, 4, 2]), ty(&[2, 3]), ty(&[6, 7, 4, 3]), None]),
        ] {
            let name = op;
            let op = crate::internal(name).unwrap();
            let cx = InferCx {
                attrs: &relu,
                inputs: &inputs,
                consts: &[],
                dims: &[],
                outputs: 1,
                subgraph: &none,
            };
            let packed = Packed {
                name,
                signature: op.signature(),
                like: None,
                build: match name {
                    "FusedConv" => fused::conv,
                    "FusedConvTranspose" => fused::conv_transpose,
                    "FusedGemm" => fused::gemm,
                    _ => fused::matmul,
                },
            };
            assert_eq!(op.infer(&cx).unwrap(), packed.infer(&cx).unwrap(), "{name}");
        }
    }

    #[test]
    fn hostile_permutations_are_errors() {
        let x = Some(Value::Tensor(Tensor::new(&[1, 1, 2, 2], vec![1f32; 4]).unwrap()));
        let inputs = [x.clone(), x.clone(), x];
        let id = [0, 1, 2, 3];
        assert!(run(&perms(id, id), &inputs).is_ok());
        assert!(run(&perms([0, 1, 2, 9], id), &inputs).is_err());
        assert!(run(&perms(id, id).with("k_perm", vec![0]), &inputs).is_err());
        assert!(run(&Attrs::new(), &inputs).is_err());
    }
}
