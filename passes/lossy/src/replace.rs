//! Fragments that stand for a whole node: two or three smaller products in place of one.

use crate::fragment::Build;
use crate::gptq::{Rounded, nearest};
use crate::layer::Role;
use crate::method::Context;
use crate::quant::{Grid, grid};
use crate::view::View;
use ir::{Attrs, Graph, Result, ValueId};
use ndarray::Array2;

/// How a factor is stored.
pub enum Stored<'a> {
    Float(&'a Array2<f32>),
    /// Codes with scales; decoded by DequantizeLinear.
    Integers(&'a Rounded, &'a Grid),
}

impl Stored<'_> {
    /// The factor as a value of the fragment, laid out as `view`.
    pub fn emit(&self, b: &mut Build, what: &str, view: &View) -> Result<ValueId> {
        match self {
            Stored::Float(m) => Ok(b.constant(what, view.tensor(m)?)),
            Stored::Integers(r, g) => crate::fragment::integers_into(b, what, view, r, g),
        }
    }
}

/// Emits one factor, as floats or rounded to 8 bits, and returns what it decodes to.
pub fn emit(
    b: &mut Build,
    what: &str,
    view: &View,
    m: Array2<f32>,
    int8: bool,
) -> Result<(ValueId, Array2<f32>)> {
    if !int8 {
        return Ok((Stored::Float(&m).emit(b, what, view)?, m));
    }
    let g = grid(m.view(), 8, m.ncols(), None, false);
    let r = nearest(m.view(), &g);
    Ok((Stored::Integers(&r, &g).emit(b, what, view)?, r.values))
}

/// A fragment with the node's inputs except the weight.
pub struct NodeBuild {
    pub b: Build,
    /// The data input.
    pub x: ValueId,
    /// The bias, where the node has one.
    pub bias: Option<ValueId>,
}

impl NodeBuild {
    /// `None` when the node reads more than data, weight and bias.
    pub fn new(cx: &Context) -> Result<Option<NodeBuild>> {
        let node = cx.graph.node(cx.layer.node)?;
        let mut graph = Graph::new("fragment");
        let (mut x, mut bias) = (None, None);
        for (i, v) in node.inputs().iter().enumerate() {
            let Some(v) = *v else { continue };
            match i {
                1 => continue,
                0 => x = Some(graph.add_input(cx.graph.value_name(v), cx.graph.ty(v).clone())),
                2 => bias = Some(graph.add_input(cx.graph.value_name(v), cx.graph.ty(v).clone())),
                _ => return Ok(None),
            }
        }
        Ok(x.map(|x| NodeBuild { b: Build::around(&cx.layer.weight, graph), x, bias }))
    }
}

/// Whether a layer's node can be split in two products at all.
pub fn splits(layer: &crate::layer::Layer) -> bool {
    let role = matches!(layer.role, Role::Conv | Role::MatMul | Role::Gemm);
    role && layer.users == 1 && layer.view.groups == 1 && layer.op != "ConvTranspose"
}

/// The node as `A·(B·x)`: A is rows × rank, B is rank × cols.
pub fn two_factors(cx: &Context, a: &Stored, b: &Stored, rank: usize) -> Result<Option<Graph>> {
    let Some(mut n) = NodeBuild::new(cx)? else { return Ok(None) };
    let node = cx.graph.node(cx.layer.node)?;
    let view = &cx.layer.view;
    let out = match cx.layer.role {
        Role::Conv => {
            let mut inner = view.shape.clone();
            inner[0] = rank;
            let mut outer = vec![1; view.shape.len()];
            (outer[0], outer[1]) = (view.rows, rank);
            let wb = b.emit(&mut n.b, "b", &View::leading(&inner, 1))?;
            let wa = a.emit(&mut n.b, "a", &View::leading(&outer, 1))?;
            let h = n.b.op("Conv", "h", node.attrs.clone(), &[n.x, wb])?;
            let pointwise = Attrs::new().with("kernel_shape", vec![1i64; view.shape.len() - 2]);
            let inputs: Vec<ValueId> = [h, wa].into_iter().chain(n.bias).collect();
            n.b.op("Conv", "y", pointwise, &inputs)?
        }
        Role::MatMul | Role::Gemm => {
            let wb = b.emit(&mut n.b, "b", &View::trailing(&[view.cols, rank]))?;
            let wa = a.emit(&mut n.b, "a", &View::trailing(&[rank, view.rows]))?;
            let h = n.b.op("MatMul", "h", Attrs::new(), &[n.x, wb])?;
            if cx.layer.role == Role::MatMul {
                n.b.op("MatMul", "y", Attrs::new(), &[h, wa])?
            } else {
                if node.attrs.int_or("transA", 0)? != 0 {
                    return Ok(None);
                }
                let mut attrs = node.attrs.clone();
                attrs.remove("transB");
                let inputs: Vec<ValueId> = [h, wa].into_iter().chain(n.bias).collect();
                n.b.op("Gemm", "y", attrs, &inputs)?
            }
        }
        _ => return Ok(None),
    };
    Ok(Some(n.b.finish(&[out])?))
}
