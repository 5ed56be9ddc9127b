//! Signed bytes between a quantization and the contractions that read them become unsigned ones, which dot products take as
//! they are: a zero point higher by 128 makes them the same values.

use ir::{DType, Graph, NodeId, Result, Tensor, Use, ValueId, ValueType};
use std::collections::BTreeSet;

/// Rewrites every quantization to signed bytes whose readers all take unsigned ones, a contraction among them.
pub fn to_unsigned(graph: &mut Graph) -> Result<()> {
    let signed = |graph: &Graph, v: ValueId| graph.dtype(v) == Some(DType::I8);
    let made: Vec<NodeId> = graph
        .nodes()
        .filter(|(_, n)| n.is("QuantizeLinear") && n.output(0).is_some_and(|v| signed(graph, v)))
        .map(|(id, _)| id)
        .collect();
    for id in made {
        let Some(found) = Readers::of(graph, id) else { continue };
        for v in found.values {
            if let Some(dims) = graph.ty(v).shape() {
                let ty = ValueType::tensor(DType::U8, dims.to_vec());
                graph.set_type(v, ty);
            }
        }
        for (node, scale) in found.zeros.into_iter().chain([(id, 1)]) {
            let n = graph.node(node)?;
            let zero = match (n.input(2), n.input(scale)) {
                (Some(z), _) => raised(graph, z),
                (None, Some(s)) => graph.ty(s).concrete().and_then(|dims| {
                    let count = dims.iter().product::<usize>();
                    Tensor::new(&dims, vec![128u8; count]).ok()
                }),
                _ => None,
            };
            let zero = zero.ok_or_else(|| ir::Error::internal("a zero point that was there is gone"))?;
            let zero = graph.add_initializer("zero", zero);
            graph.set_input(node, 2, Some(zero));
        }
        let (_, attrs) = graph.node_mut(id)?;
        if attrs.int_or("output_dtype", 0)? != 0 {
            *attrs = attrs.clone().with("output_dtype", i64::from(DType::U8.onnx()));
        }
    }
    Ok(())
}

/// A constant signed zero point as an unsigned one.
fn raised(graph: &Graph, z: ValueId) -> Option<Tensor> {
    let t = graph.constant(z).filter(|t| t.dtype() == DType::I8)?;
    Tensor::new(t.shape(), t.bytes().iter().map(|b| b ^ 0x80).collect::<Vec<u8>>()).ok()
}

/// What reads the bytes of a quantization.
struct Readers {
    /// The bytes, and the same moved.
    values: Vec<ValueId>,
    /// Nodes with a zero point of theirs at input 2, which, left out, has the shape of this input's.
    zeros: Vec<(NodeId, usize)>,
}

impl Readers {
    fn of(graph: &Graph, id: NodeId) -> Option<Readers> {
        let n = graph.node(id).ok()?;
        raised(graph, n.input(2)?)?;
        let mut found = Readers { values: vec![n.output(0)?], zeros: Vec::new() };
        let (mut contracted, mut next) = (false, 0);
        let mut seen = BTreeSet::new();
        while let Some(&v) = found.values.get(next) {
            next += 1;
            for u in graph.uses(v) {
                let Use::Input(reader, 0) = u else { return None };
                if !seen.insert(reader) {
                    continue;
                }
                let n = graph.node(reader).ok()?;
                let known = n.input(2).is_none_or(|z| raised(graph, z).is_some());
                let quantized = matches!(n.op.name(), "QuantizedConv" | "QuantizedMatMul")
                    && matches!(n.op.domain(), crate::channels_last::DOMAIN | ops::quantized::DOMAIN);
                let moves = ["Reshape", "Transpose", "Squeeze", "Unsqueeze", "Flatten", "Slice", "Identity"];
                if (quantized || n.is("DequantizeLinear")) && known {
                    contracted |= quantized;
                    found.zeros.push((reader, 1));
                } else if moves.iter().any(|m| n.is(m)) && n.outputs().len() == 1 {
                    found.values.push(n.output(0)?);
                } else {
                    return None;
                }
            }
        }
        contracted.then_some(found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ir::{Evaluate, Feeds};

    const TEXT: &str = "<ir_version: 10, opset_import: [\"\": 21]>
        g (float[2,4] x) => (float[2,2] y, float[4,2] z, float[2,4] u, int8[2,4] v)
        <float s = {0.05}, int8 zero = {-3}, int8[4,2] w = {1, -2, 3, 4, -5, 6, 7, 127}, float t = {0.5}> {
            q = QuantizeLinear (x, s, zero)
            y = ir.QuantizedMatMul (q, s, zero, w, t)
            m = Transpose (q)
            z = DequantizeLinear (m, s, zero)
            p = QuantizeLinear (x, t, zero)
            u = DequantizeLinear (p, t, zero)
            v = QuantizeLinear (x, s, zero)
        }";

    #[test]
    fn bytes_of_contractions_become_unsigned() {
        let mut g = ir::text::parse(TEXT, &ops::Standard).unwrap();
        ir::infer(&mut g).unwrap();
        let x: Vec<f32> = (0..8).map(|i| (i * i) as f32 * 0.25 - 5.0).collect();
        let feeds = Feeds::from([("x".to_string(), Tensor::new(&[2, 4], x).unwrap().into())]);
        let run = |g: &Graph| ir::Reference.run(g, &feeds, &[]).unwrap().outputs;
        let before = run(&g);
        to_unsigned(&mut g).unwrap();
        ir::infer(&mut g).unwrap();
        for (a, b) in before.iter().zip(run(&g)) {
            assert_eq!(a.tensor().unwrap().bytes(), b.tensor().unwrap().bytes());
        }
        let dtype = |name: &str| g.find(name).and_then(|v| g.dtype(v));
        // Without a contraction there is nothing to gain, and what leaves the graph keeps its type.
        let wanted = [DType::U8, DType::U8, DType::I8, DType::I8].map(Some);
        assert_eq!(["q", "m", "p", "v"].map(dtype), wanted);
    }
}
