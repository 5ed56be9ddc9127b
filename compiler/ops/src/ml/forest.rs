//! TreeEnsembleClassifier and TreeEnsembleRegressor: trees as lists of nodes that name their children.

use super::scores::{Post, logistic, probit};
use super::{DOMAIN, FLOATS, LABELS, Label, NUMBERS, Names, a, f, floats, numbers, rows, table};
use crate::Op;
use crate::typing::{one, tensor_type};
use ir::DType::{F32, F64};
use ir::{AttrKind, Attrs, Dim, Error, EvalCx, InferCx, Operator, Result, Signature};
use ir::{Tensor, Value, ValueType, budget};
use std::collections::{BTreeMap, BTreeSet};

pub static OPERATORS: &[&dyn Operator] = &[
    &Op::new("TreeEnsembleClassifier", &CLASSIFIER, infer_classes, classify).domain(DOMAIN),
    &Op::new("TreeEnsembleRegressor", &REGRESSOR, infer_targets, regress).domain(DOMAIN),
];

static CLASSIFIER: Signature = Signature {
    since: &[1, 3],
    inputs: &[f("X", "T1", NUMBERS)],
    outputs: &[f("Y", "T2", LABELS), f("Z", "O", FLOATS)],
    attrs: &[
        a("base_values", AttrKind::Floats),
        a("base_values_as_tensor", AttrKind::Tensor),
        a("class_ids", AttrKind::Ints),
        a("class_nodeids", AttrKind::Ints),
        a("class_treeids", AttrKind::Ints),
        a("class_weights", AttrKind::Floats),
        a("class_weights_as_tensor", AttrKind::Tensor),
        a("classlabels_int64s", AttrKind::Ints),
        a("classlabels_strings", AttrKind::Strs),
        a("nodes_falsenodeids", AttrKind::Ints),
        a("nodes_featureids", AttrKind::Ints),
        a("nodes_hitrates", AttrKind::Floats),
        a("nodes_hitrates_as_tensor", AttrKind::Tensor),
        a("nodes_missing_value_tracks_true", AttrKind::Ints),
        a("nodes_modes", AttrKind::Strs),
        a("nodes_nodeids", AttrKind::Ints),
        a("nodes_treeids", AttrKind::Ints),
        a("nodes_truenodeids", AttrKind::Ints),
        a("nodes_values", AttrKind::Floats),
        a("nodes_values_as_tensor", AttrKind::Tensor),
        a("post_transform", AttrKind::Str),
    ],
};
static REGRESSOR: Signature = Signature {
    since: &[1, 3],
    inputs: &[f("X", "T", NUMBERS)],
    outputs: &[f("Y", "O", FLOATS)],
    attrs: &[
        a("aggregate_function", AttrKind::Str),
        a("base_values", AttrKind::Floats),
        a("base_values_as_tensor", AttrKind::Tensor),
        a("n_targets", AttrKind::Int),
        a("nodes_falsenodeids", AttrKind::Ints),
        a("nodes_featureids", AttrKind::Ints),
        a("nodes_hitrates", AttrKind::Floats),
        a("nodes_hitrates_as_tensor", AttrKind::Tensor),
        a("nodes_missing_value_tracks_true", AttrKind::Ints),
        a("nodes_modes", AttrKind::Strs),
        a("nodes_nodeids", AttrKind::Ints),
        a("nodes_treeids", AttrKind::Ints),
        a("nodes_truenodeids", AttrKind::Ints),
        a("nodes_values", AttrKind::Floats),
        a("nodes_values_as_tensor", AttrKind::Tensor),
        a("post_transform", AttrKind::Str),
        a("target_ids", AttrKind::Ints),
        a("target_nodeids", AttrKind::Ints),
        a("target_treeids", AttrKind::Ints),
        a("target_weights", AttrKind::Floats),
        a("target_weights_as_tensor", AttrKind::Tensor),
    ],
};

fn infer_classes(cx: &InferCx) -> Result<Vec<ValueType>> {
    let names = Names::read(cx.attrs, "classlabels_int64s")?;
    let n = rows(cx);
    let scores = vec![n.clone(), Dim::Known(names.len())];
    Ok(vec![tensor_type(Some(names.dtype()), Some(vec![n])), tensor_type(Some(F32), Some(scores))])
}

fn targets(attrs: &Attrs) -> Result<usize> {
    let n = attrs.int_or("n_targets", 1)?;
    usize::try_from(n).ok().filter(|&n| n > 0).ok_or_else(|| Error::model(format!("n_targets is {n}")))
}

fn infer_targets(cx: &InferCx) -> Result<Vec<ValueType>> {
    let shape = vec![rows(cx), Dim::Known(targets(cx.attrs)?)];
    Ok(vec![tensor_type(Some(F32), Some(shape))])
}

#[derive(Clone, Copy)]
enum Test {
    AtMost,
    Below,
    AtLeast,
    Above,
    Equal,
    Differs,
}

enum Node {
    Leaf(std::ops::Range<usize>),
    Branch { test: Test, feature: usize, value: f64, missing: bool, yes: usize, no: usize },
}

/// Nodes of all trees, and what leaves add to which sum.
struct Forest {
    nodes: Vec<Node>,
    roots: Vec<usize>,
    weights: Vec<(usize, f64)>,
}

impl Forest {
    /// `what`: how attributes of leaves begin; `sums`: how many there are.
    fn read(attrs: &Attrs, what: &str, sums: usize, features: usize) -> Result<Forest> {
        let modes = attrs.strs("nodes_modes")?.unwrap_or(&[]);
        let values = floats(attrs, "nodes_values")?;
        let n = modes.len();
        let column = |name: &str| -> Result<&[i64]> {
            let c = attrs.ints(name)?.unwrap_or(&[]);
            let fits = c.len() == n;
            if fits { Ok(c) } else { Err(Error::model(format!("{name} has {} entries for {n}", c.len()))) }
        };
        let (trees, ids) = (column("nodes_treeids")?, column("nodes_nodeids")?);
        let (yes, no) = (column("nodes_truenodeids")?, column("nodes_falsenodeids")?);
        let feature = column("nodes_featureids")?;
        let missing = attrs.ints("nodes_missing_value_tracks_true")?.unwrap_or(&[]);
        if values.len() != n || (!missing.is_empty() && missing.len() != n) {
            return Err(Error::model(format!(
                "{} values and {} missing for {n} nodes",
                values.len(),
                missing.len()
            )));
        }
        let (mut places, mut roots, mut seen) = (BTreeMap::new(), Vec::new(), BTreeSet::new());
        for (i, (&t, &id)) in trees.iter().zip(ids).enumerate() {
            if places.insert((t, id), i).is_some() {
                return Err(Error::model(format!("node {id} of tree {t} is there twice")));
            }
            if seen.insert(t) {
                roots.push(i);
            }
        }
        let mut nodes = budget::vec(n)?;
        for i in 0..n {
            let test = match modes[i].as_str() {
                "LEAF" => {
                    nodes.push(Node::Leaf(0..0));
                    continue;
                }
                "BRANCH_LEQ" => Test::AtMost,
                "BRANCH_LT" => Test::Below,
                "BRANCH_GTE" => Test::AtLeast,
                "BRANCH_GT" => Test::Above,
                "BRANCH_EQ" => Test::Equal,
                "BRANCH_NEQ" => Test::Differs,
                m => return Err(Error::model(format!("node mode '{}' is not known", m.escape_debug()))),
            };
            let child = |id: i64| {
                let place = places.get(&(trees[i], id)).copied();
                place.ok_or_else(|| Error::model(format!("tree {} has no node {id}", trees[i])))
            };
            let at = usize::try_from(feature[i]).ok().filter(|&k| k < features);
            let missing_feature = || Error::model(format!("feature {} of {features}", feature[i]));
            nodes.push(Node::Branch {
                test,
                feature: at.ok_or_else(missing_feature)?,
                value: values[i],
                missing: missing.get(i).is_some_and(|&m| m != 0),
                yes: child(yes[i])?,
                no: child(no[i])?,
            });
        }
        let weights = leaves(attrs, what, sums, &places, &mut nodes)?;
        Ok(Forest { nodes, roots, weights })
    }

    /// What the leaf that `row` ends in adds, from node `at` on.
    fn leaf(&self, mut at: usize, row: &[f64]) -> Result<&[(usize, f64)]> {
        for _ in 0..=self.nodes.len() {
            match &self.nodes[at] {
                Node::Leaf(range) => return Ok(&self.weights[range.clone()]),
                Node::Branch { test, feature, value, missing, yes, no } => {
                    let x = row[*feature];
                    let holds = match test {
                        Test::AtMost => x <= *value,
                        Test::Below => x < *value,
                        Test::AtLeast => x >= *value,
                        Test::Above => x > *value,
                        Test::Equal => x == *value,
                        Test::Differs => x != *value,
                    };
                    at = if holds || (*missing && x.is_nan()) { *yes } else { *no };
                }
            }
        }
        Err(Error::model("a tree leads back into itself"))
    }
}

/// Weights of leaves, those of one leaf beside each other.
fn leaves(
    attrs: &Attrs,
    what: &str,
    sums: usize,
    places: &BTreeMap<(i64, i64), usize>,
    nodes: &mut [Node],
) -> Result<Vec<(usize, f64)>> {
    let list = |name: &str| Ok::<_, Error>(attrs.ints(&format!("{what}_{name}"))?.unwrap_or(&[]));
    let (trees, ids, targets) = (list("treeids")?, list("nodeids")?, list("ids")?);
    let weights = floats(attrs, &format!("{what}_weights"))?;
    if [ids.len(), targets.len(), weights.len()].iter().any(|&n| n != trees.len()) {
        return Err(Error::model(format!("lists of {what} differ in length")));
    }
    let mut all = Vec::new();
    for i in 0..trees.len() {
        let leaf = places.get(&(trees[i], ids[i])).copied();
        let leaf = leaf.ok_or_else(|| Error::model(format!("tree {} has no node {}", trees[i], ids[i])))?;
        let target = usize::try_from(targets[i]).ok().filter(|&t| t < sums);
        let target = target.ok_or_else(|| Error::model(format!("{what} {} of {sums}", targets[i])))?;
        all.push((leaf, target, weights[i]));
    }
    all.sort_by_key(|w| w.0);
    let mut from = 0;
    for group in all.chunk_by(|a, b| a.0 == b.0) {
        let range = from..from + group.len();
        from = range.end;
        // What branches are given is theirs alone.
        if let Node::Leaf(own) = &mut nodes[group[0].0] {
            *own = range;
        }
    }
    Ok(all.into_iter().map(|(_, target, w)| (target, w)).collect())
}

/// A sum that may have got nothing.
#[derive(Clone, Copy, Default)]
struct Score {
    value: f64,
    has: bool,
}

impl Score {
    fn shown(self) -> f64 {
        if self.has { self.value } else { 0.0 }
    }
}

/// Rounding of sums: to float unless X is double.
fn rounding(x: &Tensor) -> fn(f64) -> f64 {
    if x.dtype() == F64 { |v| v } else { |v| f64::from(v as f32) }
}

fn base_values(attrs: &Attrs, sums: usize, also: usize) -> Result<Vec<f64>> {
    let base = floats(attrs, "base_values")?;
    if base.is_empty() || base.len() == sums || base.len() == also {
        return Ok(base);
    }
    Err(Error::model(format!("{} base values for {sums}", base.len())))
}

fn regress(cx: &EvalCx) -> Result<Vec<Value>> {
    let x = cx.tensor(0)?;
    let ((rows, features), n) = (table(x)?, targets(cx.attrs)?);
    let forest = Forest::read(cx.attrs, "target", n, features)?;
    let (base, post, round) = (base_values(cx.attrs, n, n)?, Post::read(cx.attrs)?, rounding(x));
    let aggregate: fn(f64, f64) -> f64 = match cx.attrs.str_or("aggregate_function", "SUM")? {
        "SUM" | "AVERAGE" => |a, b| a + b,
        "MIN" => f64::min,
        "MAX" => f64::max,
        o => return Err(Error::model(format!("aggregate_function '{}' is not known", o.escape_debug()))),
    };
    let mean = cx.attrs.str_or("aggregate_function", "SUM")? == "AVERAGE";
    let (data, mut y) = (numbers(x)?, budget::filled(budget::elements(&[rows, n])?, 0f32)?);
    let mut sums = budget::filled(n, Score::default())?;
    for (r, out) in y.chunks_mut(n).enumerate() {
        sums.fill(Score::default());
        for &root in &forest.roots {
            for &(t, w) in forest.leaf(root, &data[r * features..(r + 1) * features])? {
                let s = &mut sums[t];
                *s = Score { value: if s.has { round(aggregate(s.value, w)) } else { w }, has: true };
            }
        }
        for (t, s) in sums.iter_mut().enumerate() {
            if mean {
                s.value = round(s.value / forest.roots.len() as f64);
            }
            s.value = round(s.value + base.get(t).copied().unwrap_or(0.0));
        }
        let mut shown: Vec<f64> = sums.iter().map(|s| s.shown()).collect();
        match (n, post) {
            (1, Post::Probit) => shown[0] = probit(sums[0].value),
            (1, _) => shown[0] = sums[0].value,
            _ => post.row(&mut shown),
        }
        out.iter_mut().zip(shown).for_each(|(o, v)| *o = v as f32);
    }
    Ok(one(Tensor::new(&[rows, n], y)?))
}

/// How sums become labels and scores.
struct Judge {
    classes: usize,
    base: Vec<f64>,
    post: Post,
    /// Two classes, of which leaves know one.
    binary: bool,
    positive: bool,
    round: fn(f64) -> f64,
}

/// What stands beside the one score of two classes.
#[derive(Clone, Copy)]
enum Other {
    Nothing,
    Complement,
    Opposite,
}

fn classify(cx: &EvalCx) -> Result<Vec<Value>> {
    let x = cx.tensor(0)?;
    let (rows, features) = table(x)?;
    let names = Names::read(cx.attrs, "classlabels_int64s")?;
    let n = names.len();
    let forest = Forest::read(cx.attrs, "class", n, features)?;
    let known: BTreeSet<usize> = forest.weights.iter().map(|w| w.0).collect();
    let judge = Judge {
        classes: n,
        base: base_values(cx.attrs, n, if n <= 2 { 3 - n } else { n })?,
        post: Post::read(cx.attrs)?,
        binary: n == 2 && known.len() == 1,
        positive: forest.weights.iter().all(|w| w.1 >= 0.0),
        round: rounding(x),
    };
    let (data, mut z) = (numbers(x)?, budget::filled(budget::elements(&[rows, n])?, 0f32)?);
    let mut labels = budget::vec(rows)?;
    for (r, out) in z.chunks_mut(n).enumerate() {
        let mut sums = vec![Score::default(); n];
        for &root in &forest.roots {
            for &(t, w) in forest.leaf(root, &data[r * features..(r + 1) * features])? {
                sums[t] = Score { value: (judge.round)(sums[t].value + w), has: true };
            }
        }
        let (label, scores) = match n {
            1 => judge.alone(sums[0].value),
            2 => judge.two(sums),
            _ => judge.many(sums),
        };
        labels.push(label);
        out.iter_mut().zip(scores).for_each(|(o, v)| *o = v as f32);
    }
    Ok(vec![names.of(&labels)?.into(), Tensor::new(&[rows, n], z)?.into()])
}

impl Judge {
    fn add(&self, x: f64, k: usize) -> f64 {
        (self.round)(x + self.base.get(k).copied().unwrap_or(0.0))
    }

    fn many(&self, mut sums: Vec<Score>) -> (Label, Vec<f64>) {
        if !self.base.is_empty() {
            for (k, s) in sums.iter_mut().enumerate() {
                *s = Score { value: self.add(s.value, k), has: true };
            }
        }
        let mut best: Option<usize> = None;
        for (k, s) in sums.iter().enumerate().filter(|(_, s)| s.has) {
            if best.is_none_or(|b| s.value > sums[b].value) {
                best = Some(k);
            }
        }
        let mut shown: Vec<f64> = sums.iter().map(|s| s.shown()).collect();
        self.post.row(&mut shown);
        debug_assert_eq!(shown.len(), self.classes);
        (Label::Class(best.unwrap_or(0)), shown)
    }

    fn two(&self, mut sums: Vec<Score>) -> (Label, Vec<f64>) {
        let mut other = if self.base.is_empty() { Other::Opposite } else { Other::Nothing };
        match self.base.len() {
            2 if sums[1].has => {
                sums[1].value = self.add(sums[0].value, 1);
                sums[0].value = -sums[1].value;
            }
            2 => {
                sums[1].value = self.add(sums[1].value, 1);
                sums[0].value = self.add(sums[0].value, 0);
            }
            _ => {
                sums[0].value = self.add(sums[0].value, 0);
                if !sums[1].has {
                    sums.pop();
                }
            }
        }
        let second = sums.get(1).filter(|s| s.has);
        let weight = second.map_or(sums[0].shown(), |s| s.value);
        let label = match (self.binary, self.positive) {
            (true, true) => {
                other = Other::Complement;
                Label::Class(usize::from(weight > 0.5))
            }
            (true, false) => {
                other = Other::Opposite;
                Label::Class(usize::from(weight > 0.0))
            }
            _ => Label::Sign(weight > 0.0),
        };
        let mut shown: Vec<f64> = sums.iter().map(|s| s.shown()).collect();
        if let [s] = shown[..] {
            shown = match (self.post, other) {
                (Post::Probit, _) => vec![probit(s)],
                (_, Other::Nothing) => vec![s],
                (Post::Logistic, _) => vec![logistic(-s), logistic(s)],
                (_, Other::Complement) => vec![1.0 - s, s],
                (_, Other::Opposite) => vec![-s, s],
            };
        } else {
            self.post.row(&mut shown);
        }
        (label, shown)
    }

    fn alone(&self, sum: f64) -> (Label, Vec<f64>) {
        let mut shown = match self.base.len() {
            2 => {
                let s = self.add(sum, 1);
                vec![-s, s]
            }
            _ => vec![self.add(sum, 0)],
        };
        let label = Label::Sign(shown[shown.len() - 1] > 0.0);
        match (shown.len(), self.post) {
            (1, Post::Probit) => shown[0] = probit(shown[0]),
            (1, _) => {}
            _ => self.post.row(&mut shown),
        }
        (label, shown)
    }
}
