//! Rotary position embeddings of float32 heads.

use super::{Cx, Lowered};
use artefact::Call;
use ir::{DType, Node};
use kernels::rotary::Rotary;

pub fn lower(cx: &Cx, n: &Node) -> Option<Lowered> {
    if n.op.name() != "RotaryEmbedding" || !n.op.domain().is_empty() {
        return None;
    }
    let (x, cos, sin) = (n.input(0)?, n.input(1)?, n.input(2)?);
    let (shape, tables) = (cx.f32_shape(x)?, cx.f32_shape(cos)?);
    let int = |name: &str| usize::try_from(n.attrs.int_or(name, 0).ok()?).ok();
    let (batch, heads, length, size, heads_first) = match shape[..] {
        [batch, heads, length, size] => (batch, heads, length, size, true),
        [batch, length, hidden] => {
            let heads = int("num_heads").filter(|&h| h > 0 && hidden % h == 0)?;
            (batch, heads, length, hidden / heads, false)
        }
        _ => return None,
    };
    let dim = match int("rotary_embedding_dim")? {
        0 => size,
        dim => dim,
    };
    let half = dim / 2;
    let known = match n.input(3) {
        Some(p) => {
            cx.graph.dtype(p) == Some(DType::I64)
                && cx.shape(p)?[..] == [batch, length]
                && matches!(tables[..], [_, width] if width == half)
        }
        None => tables[..] == [batch, length, half],
    };
    let sized = dim % 2 == 0 && dim <= size && !shape.contains(&0) && cx.f32_shape(sin)? == tables;
    let interleaved = n.attrs.int_or("interleaved", 0).ok()? != 0;
    (known && sized).then(|| {
        let of = Rotary { batch, heads, length, size, heads_first, half, interleaved };
        let call = Call::Rotary { tier: cx.tier, of };
        let reads = [x, cos, sin].into_iter().chain(n.input(3)).collect();
        Some(Lowered::call("rotary embedding", reads, n.output(0)?, 0.0, call))
    })?
}

#[cfg(test)]
mod tests {
    use ir::{Attrs, DType, Evaluate, Feeds, Graph, Tensor, Value, ValueType};
    use kernels::Serial;

    fn data(shape: &[usize], seed: usize) -> Tensor {
        let n = shape.iter().product();
        let value = |i: usize| ((i + seed) * 7919 % 613) as f32 / 300.0 - 1.0;
        Tensor::new(shape, (0..n).map(value).collect::<Vec<f32>>()).unwrap()
    }

    #[test]
    fn heads_are_turned_as_by_the_reference() {
        for (x, heads, dim, positions) in [
            (&[2usize, 3, 5, 16][..], 0i64, 0i64, true),
            (&[2, 5, 48], 3, 0, true),
            (&[2, 5, 48], 3, 8, true),
            (&[2, 3, 5, 16], 0, 0, false),
        ] {
            for interleaved in [0i64, 1] {
                let half = if dim == 0 { 8 } else { dim as usize / 2 };
                let tables = if positions { vec![9, half] } else { vec![2, 5, half] };
                let mut g = Graph::new("t");
                let input = g.add_input("x", ValueType::known(DType::F32, x));
                let cos = g.add_initializer("cos", data(&tables, 3));
                let sin = g.add_initializer("sin", data(&tables, 5));
                let mut reads = vec![input, cos, sin];
                if positions {
                    let p: Vec<i64> = (0..10).map(|i| i * 4 % 9).collect();
                    reads.push(g.add_initializer("p", Tensor::new(&[2, 5], p).unwrap()));
                }
                let attrs = Attrs::new()
                    .with("interleaved", interleaved)
                    .with("num_heads", heads)
                    .with("rotary_embedding_dim", dim);
                let y = g.apply("y", ops::standard("RotaryEmbedding").unwrap(), attrs, &reads);
                g.add_output("y", y);
                ir::infer(&mut g).unwrap();
                let x = Value::Tensor(data(x, 9));
                let want = ir::Reference.run(&g, &Feeds::from([("x".to_string(), x.clone())]), &[]).unwrap();
                let program = crate::compile(&g).unwrap();
                assert!(program.steps().iter().any(|s| s.kind == "rotary embedding"));
                assert_eq!(program.run(&[x], &Serial).unwrap(), want.outputs);
            }
        }
    }
}
