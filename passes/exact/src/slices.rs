//! A Split of dequantized bytes as slices, each of which rules can take to the bytes: nodes of several outputs are opaque to
//! them.

use ir::{Attrs, Graph, NodeId, Result, Tensor, ValueId};

/// Replaces every Split whose input is dequantized while running, where all sizes are known. Types must be inferred. Returns
/// how many went.
pub fn of_splits(graph: &mut Graph) -> Result<usize> {
    let mut replaced = 0;
    for id in graph.order()? {
        let Some((x, axis, parts)) = dequantized_split(graph, id) else { continue };
        let name = graph.node(id)?.name.clone();
        let axes = graph.add_initializer("axes", Tensor::vector(vec![axis as i64]));
        let mut from = 0;
        for (k, (old, n)) in parts.into_iter().enumerate() {
            let bound = |graph: &mut Graph, at: usize| {
                graph.add_initializer("bound", Tensor::vector(vec![at as i64]))
            };
            let (start, end) = (bound(graph, from), bound(graph, from + n));
            from += n;
            let Some(old) = old else { continue };
            let inputs = [Some(x), Some(start), Some(end), Some(axes)];
            let value = graph.value_name(old).to_string();
            let slice = graph.add_node(
                &format!("{name}.{k}"),
                ops::standard("Slice")?,
                Attrs::new(),
                &inputs,
                &[&value],
            );
            ir::infer_node(graph, slice)?;
            if let Some(new) = graph.node(slice)?.output(0) {
                graph.replace_uses(old, new);
            }
        }
        graph.remove_node(id)?;
        replaced += 1;
    }
    Ok(replaced)
}

/// Outputs of a Split, and their sizes along its axis.
type Pieces = Vec<(Option<ValueId>, usize)>;

/// What a Split reads, its axis, and its pieces.
fn dequantized_split(graph: &Graph, id: NodeId) -> Option<(ValueId, usize, Pieces)> {
    let n = graph.get(id).filter(|n| n.is("Split"))?;
    let x = n.input(0)?;
    let made = graph.producer(x).and_then(|p| graph.get(p))?;
    let bytes = made.input(0).filter(|_| made.is("DequantizeLinear"))?;
    if graph.constant(bytes).is_some() {
        return None;
    }
    let shape = graph.ty(x).concrete()?;
    let axis = ops::broadcast::axis(n.attrs.int_or("axis", 0).ok()?, shape.len()).ok()?;
    let size = |v: &Option<ValueId>| Some((*v, *graph.ty((*v)?).concrete()?.get(axis)?));
    let parts: Vec<_> = n.outputs().iter().map(size).collect::<Option<_>>()?;
    (parts.iter().map(|p| p.1).sum::<usize>() == shape[axis]).then_some((x, axis, parts))
}

#[cfg(test)]
mod tests {
    #[test]
    fn slices_of_a_split_are_of_bytes() {
        let weights: Vec<String> = (0..128).map(|i| format!("{}", i % 11 - 3)).collect();
        let text = format!(
            "<ir_version: 10, opset_import: [\"\": 18]> g (float[1,32,20,20] x) => (float[1,8,20,20] y) \
             <float s = {{0.05}}, uint8 o = {{7}}, int8[8,16,1,1] w = {{{}}}, float t = {{0.1}}, int8 p = {{0}}, \
              int64[2] n = {{16, 16}}> {{
                q = QuantizeLinear (x, s, o)
                d = DequantizeLinear (q, s, o)
                a, b = Split <axis = 1> (d, n)
                v = DequantizeLinear (w, t, p)
                e = Conv (a, v)
                f = Conv (b, v)
                y = Add (e, f)
            }}",
            weights.join(", ")
        );
        let graph = ir::text::parse(&text, &ops::Standard).unwrap();
        let (g, _) = crate::optimize(&graph, crate::Options::RUNTIME).unwrap();
        let reads = |name| {
            let of = g.nodes().filter(move |(_, n)| n.op.name() == name);
            of.map(|(_, n)| n.input(0).and_then(|v| g.dtype(v))).collect::<Vec<_>>()
        };
        assert_eq!((reads("Slice"), reads("Split").len()), (vec![Some(ir::DType::U8); 2], 0));
        let (portable, _) = crate::optimize(&graph, crate::Options::PORTABLE).unwrap();
        assert!(portable.nodes().any(|(_, n)| n.is("Split")));
    }
}
