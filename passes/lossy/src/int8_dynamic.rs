//! Dynamic int8: activations uint8 by the range that each run finds, weights int8 per output row, products of integers.
//!
//! Slower than static ranges, as every run looks for its range and nothing is handed on in bytes, but no value is ever
//! clipped, so it serves where ranges differ from sample to sample. Error: the weights' rounding plus `‖W‖²` times the mean
//! squared rounding error of an activation, by the widest range that was seen.

use crate::candidate::Candidate;
use crate::factor::Order;
use crate::int8::power;
use crate::layer::{Layer, Role};
use crate::method::{Context, Method, Refusal, Serves};
use crate::quant::grid;
use crate::range::Choice;
use crate::replace::NodeBuild;
use crate::rounding::round;
use crate::view::View;
use ir::{Attrs, DType, Result, Tensor};

pub struct Int8Dynamic;

const NAME: &str = "int8-dynamic";

impl Method for Int8Dynamic {
    fn name(&self) -> &'static str {
        NAME
    }

    fn applies(&self, layer: &Layer, stats: bool) -> Result<(), Refusal> {
        if !matches!(layer.role, Role::MatMul | Role::Gemm) {
            return Err(Refusal::new(format!("{} has no kernel with dynamic ranges", layer.op)));
        }
        if layer.users != 1 {
            return Err(Refusal::new("the weight has several users"));
        }
        if !stats {
            return Err(Refusal::new("the error of rounded activations needs data"));
        }
        Ok(())
    }

    fn serves(&self) -> Serves {
        Serves::Time
    }

    fn candidates(&self, cx: &Context) -> Result<Vec<Candidate>> {
        let (Some(stats), Some(mut n)) = (cx.stats, NodeBuild::new(cx)?) else { return Ok(Vec::new()) };
        let node = cx.graph.node(cx.layer.node)?;
        let scaled = |name: &str| node.attrs.float_or(name, 1.0) != Ok(1.0);
        if cx.layer.role == Role::Gemm
            && (scaled("alpha") || scaled("beta") || node.attrs.int_or("transA", 0)? != 0)
        {
            return Ok(Vec::new());
        }
        let g = grid(cx.matrix.view(), 8, cx.matrix.ncols(), None, false);
        let rounded = round(cx.matrix, cx.node_stats(), Order::Activity, &g);
        let quantize = ops::standard("DynamicQuantizeLinear")?;
        let name = format!("{}.xq", cx.layer.weight);
        let id = n.b.graph.add_node(&name, quantize, Attrs::new(), &[Some(n.x)], &["xq", "xs", "xz"]);
        let node = n.b.graph.node(id)?;
        let (Some(xq), Some(xs), Some(xz)) = (node.output(0), node.output(1), node.output(2)) else {
            return Ok(Vec::new());
        };
        // Columns × rows, as the operator multiplies.
        let across = View::trailing(&[cx.matrix.ncols(), cx.matrix.nrows()]);
        let codes = across.stored(&rounded.codes).into_iter();
        let codes: Vec<u8> = codes.map(|c| (i32::from(c) - g.offset()) as u8).collect();
        let shape = [cx.matrix.ncols(), cx.matrix.nrows()];
        let w = n.b.constant("q", Tensor::from_unpacked(DType::I8, &shape, &codes)?);
        let ws = n.b.constant("s", Tensor::vector::<f32>(g.scales.iter().copied().collect()));
        let sums = n.b.op("MatMulInteger", "sum", Attrs::new(), &[xq, w, xz])?;
        let sums = n.b.cast(sums, DType::F32, "sumf")?;
        let scale = n.b.op("Mul", "scale", Attrs::new(), &[xs, ws])?;
        let mut y = n.b.op("Mul", "y", Attrs::new(), &[sums, scale])?;
        if let Some(bias) = n.bias {
            y = n.b.op("Add", "yb", Attrs::new(), &[y, bias])?;
        }
        let fragment = n.b.finish(&[y])?;
        let mut c = cx.node(NAME, NAME.to_string(), fragment, &rounded.values);
        c.error += power(cx.matrix) * stats.range.noise(stats.range.range(Choice::MinMax));
        Ok(vec![c])
    }
}
