//! Two products in a row whose middle is narrow: a weight of low rank. Blocks of rows go through both, so the middle
//! stays in the cache and never lies in the arena.

use super::contract::Finish;
use super::product::Product;
use super::{Cx, Lowered};
use crate::group::Group;
use artefact::{Call, Pair};
use ir::NodeId;
use kernels::Activation;
use std::collections::BTreeMap;

/// Widest middle, in floats.
const WIDEST: usize = 512;

/// For groups that are the first of two, the place of the second.
pub fn find(cx: &Cx, groups: &[Group]) -> BTreeMap<usize, usize> {
    let mut found = BTreeMap::new();
    let root = |g: &Group| match g {
        Group::Contraction { root, .. } => Some(*root),
        _ => None,
    };
    let at: BTreeMap<NodeId, usize> =
        groups.iter().enumerate().filter_map(|(i, g)| root(g).map(|r| (r, i))).collect();
    let counts = cx.graph.use_counts();
    for (i, first) in groups.iter().enumerate() {
        let Some(f) = finish(first).filter(|f| counts[f.output.index()] == 1 && is_bare(f)) else { continue };
        let Some(second) = cx.graph.consumers(f.output).first().and_then(|next| at.get(next)) else {
            continue;
        };
        let fits = || {
            let (a, b) = (product(cx, first)?, product(cx, &groups[*second])?);
            // Factors of one weight have nothing between them.
            let narrow = a.n <= WIDEST && a.n < a.k && a.n < b.n && a.bias.is_none();
            let chained = b.x == f.output && b.k == a.n && b.m == a.m && a.m > 0;
            (narrow && chained && !found.contains_key(&i)).then_some(())
        };
        if fits().is_some() {
            found.insert(i, *second);
        }
    }
    // A group is in one pair only.
    let seconds: Vec<usize> = found.values().copied().collect();
    found.retain(|first, _| !seconds.contains(first));
    found
}

fn is_bare(f: &Finish) -> bool {
    f.act == Activation::None
        && f.residual.is_none()
        && f.affine.is_none()
        && f.grid.is_none()
        && f.quantize.is_none()
}

fn finish(g: &Group) -> Option<&Finish> {
    match g {
        Group::Contraction { finish, .. } => Some(finish),
        _ => None,
    }
}

fn product(cx: &Cx, g: &Group) -> Option<Product> {
    let Group::Contraction { root, finish, .. } = g else { return None };
    if finish.quantize.is_some() {
        return None;
    }
    let p = Product::of(cx, cx.graph.get(*root)?, finish)?;
    cx.is_weight(p.w).then_some(p)
}

pub fn lower(cx: &Cx, first: &Group, second: &Group) -> Option<Lowered> {
    let (a, b) = (product(cx, first)?, product(cx, second)?);
    let (wa, wb) = (a.weights(cx)?, b.weights(cx)?);
    let f = finish(second)?;
    let flops = a.flops() + b.flops();
    let reads = [a.x].into_iter().chain(f.residual).collect();
    let pair = Pair { m: a.m, weights: [wa, wb], alpha: [a.alpha, b.alpha], finish: f.made(1, b.bias) };
    Some(Lowered::call("low-rank product", reads, f.output, flops, Call::Pair(Box::new(pair))))
}

#[cfg(test)]
mod tests {
    use ir::{Attrs, DType, Evaluate, Feeds, Graph, Tensor, Value, ValueType};
    use kernels::{Pool, Serial};

    /// Tasks of three threads, last first.
    struct Many;
    impl Pool for Many {
        fn threads(&self) -> usize {
            3
        }
        fn run(&self, tasks: usize, f: &(dyn Fn(usize) + Sync)) {
            (0..tasks).rev().for_each(f);
        }
    }

    fn data(shape: &[usize], seed: usize) -> Tensor {
        let n = shape.iter().product();
        Tensor::new(shape, (0..n).map(|i| (((i + seed) * 7919) % 613) as f32 / 300.0 - 1.0).collect())
            .unwrap()
    }

    fn check(x: &[usize], op: &str, weights: [&[usize]; 2], bias: usize) {
        let mut g = Graph::new("t");
        let input = g.add_input("x", ValueType::known(DType::F32, x));
        let [a, b] = [0, 1].map(|i| g.add_initializer("w", data(weights[i], i)));
        let c = g.add_initializer("b", data(&[bias], 5));
        let op = ops::standard(op).unwrap();
        let h = g.apply("h", op, Attrs::new(), &[input, a]);
        let y = match op.name() {
            "MatMul" => {
                let y = g.apply("y", op, Attrs::new(), &[h, b]);
                g.apply("z", ops::standard("Add").unwrap(), Attrs::new(), &[y, c])
            }
            _ => g.apply("y", op, Attrs::new(), &[h, b, c]),
        };
        let y = g.apply("r", ops::standard("Relu").unwrap(), Attrs::new(), &[y]);
        g.add_output("y", y);
        ir::infer(&mut g).unwrap();
        let x = data(x, 9);
        let feeds = Feeds::from([("x".to_string(), Value::Tensor(x.clone()))]);
        let want = ir::Reference.run(&g, &feeds, &[]).unwrap().outputs.remove(0);
        let program = crate::compile(&g).unwrap();
        let kinds: Vec<&str> = program.steps().iter().map(|s| s.kind).filter(|k| *k != "movement").collect();
        assert_eq!(kinds, ["low-rank product"]);
        let run = |pool: &dyn Pool| program.run(&[Value::Tensor(x.clone())], pool).unwrap().remove(0);
        let (got, many) = (run(&Serial), run(&Many));
        let floats = |v: &Value| v.tensor().unwrap().to_f32s().unwrap();
        assert_eq!(floats(&got), floats(&many), "threads change nothing");
        for (a, b) in floats(&want).iter().zip(floats(&got)) {
            assert!((a - b).abs() < 1e-4, "{a} {b}");
        }
    }

    #[test]
    fn both_products_run_in_one_step() {
        for m in [1, 7, 700] {
            check(&[m, 64], "MatMul", [&[64, 12], &[12, 50]], 50);
            check(&[m, 64], "Gemm", [&[64, 12], &[12, 50]], 50);
        }
        check(&[2, 64, 20, 20], "Conv", [&[12, 64, 1, 1], &[50, 12, 1, 1]], 50);
    }
}
