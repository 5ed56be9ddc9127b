//! TreeEnsemble of the "ai.onnx.ml" domain: sums, means or extremes of the leaves that trees lead each row to.

use crate::Op;
use crate::typing::{one, tensor_type};
use ir::DType::{F16, F32, F64};
use ir::{
    Arity, AttrFormal, AttrKind, Attrs, Dim, Error, EvalCx, Formal, InferCx, Operator, Result, Signature,
};
use ir::{Tensor, Types, Value, ValueType, budget};

pub static OPERATORS: &[&dyn Operator] =
    &[&Op::new("TreeEnsemble", &TREE_ENSEMBLE, infer, eval).domain(crate::ml::DOMAIN)];

const FLOATS: Types = Types::Of(&[F32, F64, F16]);
const fn a(name: &'static str, kind: AttrKind, required: bool) -> AttrFormal {
    AttrFormal { name, kind, required }
}
static TREE_ENSEMBLE: Signature = Signature {
    since: &[5],
    inputs: &[Formal { name: "X", type_name: "T", types: FLOATS, arity: Arity::Required }],
    outputs: &[Formal { name: "Y", type_name: "T", types: FLOATS, arity: Arity::Required }],
    attrs: &[
        a("aggregate_function", AttrKind::Int, false),
        a("leaf_targetids", AttrKind::Ints, true),
        a("leaf_weights", AttrKind::Tensor, true),
        a("membership_values", AttrKind::Tensor, false),
        a("n_targets", AttrKind::Int, false),
        a("nodes_falseleafs", AttrKind::Ints, true),
        a("nodes_falsenodeids", AttrKind::Ints, true),
        a("nodes_featureids", AttrKind::Ints, true),
        a("nodes_hitrates", AttrKind::Tensor, false),
        a("nodes_missing_value_tracks_true", AttrKind::Ints, false),
        a("nodes_modes", AttrKind::Tensor, true),
        a("nodes_splits", AttrKind::Tensor, true),
        a("nodes_trueleafs", AttrKind::Ints, true),
        a("nodes_truenodeids", AttrKind::Ints, true),
        a("post_transform", AttrKind::Int, false),
        a("tree_roots", AttrKind::Ints, true),
    ],
};

fn targets(attrs: &Attrs) -> Result<usize> {
    let n = attrs.int_or("n_targets", 1)?;
    usize::try_from(n).map_err(|_| Error::model(format!("n_targets is {n}")))
}

fn infer(cx: &InferCx) -> Result<Vec<ValueType>> {
    let rows = cx.shape(0).and_then(<[Dim]>::first).cloned().unwrap_or(Dim::Unknown);
    Ok(vec![tensor_type(cx.dtype(0)?, Some(vec![rows, Dim::Known(targets(cx.attrs)?)]))])
}

#[derive(Debug, Clone, Copy)]
enum Way {
    Node(usize),
    Leaf(usize),
}

struct Node {
    feature: usize,
    mode: i64,
    split: f64,
    /// What a membership node looks for.
    members: Vec<f64>,
    missing_is_true: bool,
    yes: Way,
    no: Way,
}

impl Node {
    fn takes(&self, x: f64) -> Result<bool> {
        let holds = match self.mode {
            0 => x <= self.split,
            1 => x < self.split,
            2 => x >= self.split,
            3 => x > self.split,
            4 => x == self.split,
            5 => x != self.split,
            6 => self.members.contains(&x),
            m => return Err(Error::model(format!("node mode {m} is not known"))),
        };
        Ok(holds || (self.missing_is_true && x.is_nan()))
    }
}

struct Trees {
    nodes: Vec<Node>,
    roots: Vec<usize>,
    leaves: Vec<(usize, f64)>,
}

impl Trees {
    fn read(attrs: &Attrs, features: usize) -> Result<Trees> {
        let tensor =
            |name: &str| -> Result<Vec<f64>> { attrs.tensor(name)?.map_or(Ok(vec![]), Tensor::to_f64s) };
        let (modes, splits) = (tensor("nodes_modes")?, tensor("nodes_splits")?);
        let (weights, ids) = (tensor("leaf_weights")?, attrs.require_ints("leaf_targetids")?);
        let n = modes.len();
        let column = |name: &str| -> Result<&[i64]> {
            let c = attrs.require_ints(name)?;
            if c.len() == n {
                Ok(c)
            } else {
                Err(Error::model(format!("{name} has {} entries for {n} nodes", c.len())))
            }
        };
        let below = |x: i64, most: usize, what: &str| {
            let i = usize::try_from(x).ok().filter(|&i| i < most);
            i.ok_or_else(|| Error::model(format!("{what} {x} is outside 0..{most}")))
        };
        if splits.len() != n || weights.len() != ids.len() {
            return Err(Error::model(format!(
                "{} splits, {} weights, {} targets",
                splits.len(),
                weights.len(),
                ids.len()
            )));
        }
        let all = targets(attrs)?;
        let leaves = ids.iter().zip(&weights).map(|(&t, &w)| Ok((below(t, all, "target")?, w)));
        let leaves = leaves.collect::<Result<Vec<_>>>()?;
        let way = |leaf: i64, id: i64| -> Result<Way> {
            Ok(if leaf != 0 {
                Way::Leaf(below(id, leaves.len(), "leaf")?)
            } else {
                Way::Node(below(id, n, "node")?)
            })
        };
        let feature = column("nodes_featureids")?;
        let (yes, no) = (column("nodes_truenodeids")?, column("nodes_falsenodeids")?);
        let (yes_leaf, no_leaf) = (column("nodes_trueleafs")?, column("nodes_falseleafs")?);
        let missing = attrs.ints("nodes_missing_value_tracks_true")?.unwrap_or(&[]);
        let members = tensor("membership_values")?;
        let mut sets = members.split(|m| m.is_nan());
        let mut nodes = budget::vec(n)?;
        for i in 0..n {
            let members = if modes[i] == 6.0 { sets.next().unwrap_or(&[]).to_vec() } else { vec![] };
            nodes.push(Node {
                feature: below(feature[i], features, "feature")?,
                mode: modes[i] as i64,
                split: splits[i],
                members,
                missing_is_true: missing.get(i).is_some_and(|&m| m != 0),
                yes: way(yes_leaf[i], yes[i])?,
                no: way(no_leaf[i], no[i])?,
            });
        }
        let roots = attrs.require_ints("tree_roots")?.iter().map(|&r| below(r, n, "root"));
        let roots = roots.collect::<Result<_>>()?;
        Ok(Trees { nodes, roots, leaves })
    }

    /// The leaf that `row` ends in, from node `at` on.
    fn leaf(&self, mut at: usize, row: &[f64]) -> Result<(usize, f64)> {
        for _ in 0..=self.nodes.len() {
            let n = &self.nodes[at];
            match if n.takes(row[n.feature])? { n.yes } else { n.no } {
                Way::Leaf(l) => return Ok(self.leaves[l]),
                Way::Node(next) => at = next,
            }
        }
        Err(Error::model("a tree leads back into itself"))
    }
}

fn eval(cx: &EvalCx) -> Result<Vec<Value>> {
    let x = cx.tensor(0)?;
    if !matches!(x.dtype(), F16 | F32 | F64) {
        return Err(Error::model(format!("X is {}, not float16, float or double", x.dtype())));
    }
    let &[rows, features] = x.shape() else {
        return Err(Error::model(format!("X {:?} must have rank 2", x.shape())));
    };
    let (trees, all) = (Trees::read(cx.attrs, features)?, targets(cx.attrs)?);
    let aggregate = cx.attrs.int_or("aggregate_function", 1)?;
    let start = match aggregate {
        0 | 1 => 0.0,
        2 => f64::INFINITY,
        3 => f64::NEG_INFINITY,
        n => return Err(Error::model(format!("aggregate_function {n} is not known"))),
    };
    let data = x.to_f64s()?;
    let mut y = budget::filled(budget::elements(&[rows, all])?, start)?;
    for (row, out) in data.chunks(features.max(1)).zip(y.chunks_mut(all.max(1))) {
        for &root in &trees.roots {
            let (target, weight) = trees.leaf(root, row)?;
            out[target] = match aggregate {
                2 => out[target].min(weight),
                3 => out[target].max(weight),
                _ => out[target] + weight,
            };
        }
        // A target that no tree reaches.
        out.iter_mut().filter(|v| v.is_infinite() && **v == start).for_each(|v| *v = 0.0);
        if aggregate == 0 {
            out.iter_mut().for_each(|v| *v /= trees.roots.len().max(1) as f64);
        }
        match cx.attrs.int_or("post_transform", 0)? {
            0 => {}
            1 => crate::softmax::softmax(out),
            2 => out.iter_mut().for_each(|v| *v = 1.0 / (1.0 + (-*v).exp())),
            n => return Err(Error::unsupported(format!("post_transform {n}"))),
        }
    }
    Ok(one(Tensor::from_f64s(x.dtype(), &[rows, all], y)?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use ir::Lookup;

    /// x₀ ≤ 3 ? (x₁ in {1, 2} ? leaf 0 : leaf 1) : leaf 2, and again.
    fn attrs() -> Attrs {
        let t = |v: Vec<f32>| Tensor::vector(v);
        Attrs::new()
            .with("n_targets", 2)
            .with("tree_roots", vec![0, 0])
            .with("nodes_modes", Tensor::vector(vec![0u8, 6]))
            .with("nodes_splits", t(vec![3.0, 0.0]))
            .with("membership_values", t(vec![1.0, 2.0, f32::NAN]))
            .with("nodes_featureids", vec![0, 1])
            .with("nodes_trueleafs", vec![0, 1])
            .with("nodes_truenodeids", vec![1, 0])
            .with("nodes_falseleafs", vec![1, 1])
            .with("nodes_falsenodeids", vec![2, 1])
            .with("leaf_targetids", vec![0, 1, 0])
            .with("leaf_weights", t(vec![1.0, 10.0, 100.0]))
    }

    fn run(a: Attrs) -> Result<Vec<f32>> {
        on(a, Tensor::new(&[3, 2], vec![2f32, 1., 3., 5., 4., 1.]).unwrap())
    }

    fn on(a: Attrs, x: Tensor) -> Result<Vec<f32>> {
        let op = crate::Standard.require("ai.onnx.ml", "TreeEnsemble")?;
        crate::testing::eval(op, a, &[Some(x.into())], 1)?[0].tensor()?.to_f32s()
    }

    #[test]
    fn rows_follow_their_branches() {
        assert_eq!(run(attrs()).unwrap(), [2., 0., 0., 20., 200., 0.]);
        assert_eq!(run(attrs().with("aggregate_function", 0)).unwrap(), [1., 0., 0., 10., 100., 0.]);
        assert_eq!(run(attrs().with("aggregate_function", 3)).unwrap(), [1., 0., 0., 10., 100., 0.]);
    }

    #[test]
    fn trees_that_lead_nowhere_are_errors() {
        assert!(run(attrs().with("nodes_trueleafs", vec![0, 0])).is_err());
        assert!(run(attrs().with("nodes_featureids", vec![0, 2])).is_err());
        assert!(run(attrs().with("tree_roots", vec![5])).is_err());
        assert!(run(attrs().with("leaf_targetids", vec![0, 1, 2])).is_err());
    }

    #[test]
    fn other_types_are_errors_of_the_model() {
        for d in [ir::DType::I64, ir::DType::Bool, ir::DType::I4] {
            let e = on(attrs(), Tensor::zeros(d, &[2, 2]).unwrap()).unwrap_err().to_string();
            assert!(!e.contains("internal"), "{e}");
        }
    }
}
