//! Operators of "ai.onnx.ml": small models that work, each with one attribute at a time left out, cut, of another kind or full
//! of extremes, and with inputs of shapes and types that nobody trained for.

use super::operators::Row;
use super::proto::*;
use ir::{DType, Tensor};

/// An attribute's value.
#[derive(Clone)]
enum Value {
    Int(i64),
    Str(&'static str),
    Ints(Vec<i64>),
    Floats(Vec<f32>),
    Strs(Vec<&'static str>),
    Numbers(Tensor),
}
use Value::*;

type List = Vec<(&'static str, Value)>;

/// A model of one operator as tools write it; its last number counts results.
struct Model(&'static str, i64, Tensor, List, usize);

const EXTREME: [i64; 6] = [i64::MIN, -1, 1 << 31, 1 << 40, 1 << 62, i64::MAX];

fn put(name: &str, v: &Value) -> Msg {
    match v {
        Int(i) => int(name, *i),
        Str(s) => string(name, s),
        Ints(v) => ints(name, v),
        Floats(v) => floats(name, v),
        Strs(v) => strings(name, v),
        Numbers(t) => value(name, &honest("", t)),
    }
}

/// What else may stand in a value's place.
fn instead(v: &Value) -> Vec<Value> {
    let places = |n: usize| if n > 1 { vec![0, n - 1] } else { vec![0] };
    match v {
        Int(_) => [0, 2, 3].into_iter().chain(EXTREME).map(Int).chain([Ints(vec![1, 2])]).collect(),
        Str(_) => {
            vec![Str(""), Str("\u{1b}[31m"), Str("PROBIT"), Str("SOFTMAX_ZERO"), Int(1), Strs(vec!["NONE"])]
        }
        Ints(v) => {
            let put_at = |(at, x)| {
                let mut w: Vec<i64> = v.clone();
                w[at] = x;
                Ints(w)
            };
            let all = EXTREME.iter().map(|&x| Ints(vec![x; v.len()]));
            let longer = [vec![], v[1..].to_vec(), [&v[..], v].concat(), vec![0; v.len()]].map(Ints);
            let one = places(v.len()).into_iter().flat_map(|at| EXTREME.map(|x| (at, x))).map(put_at);
            let other = [Floats(v.iter().map(|&i| i as f32).collect()), Int(1)];
            one.chain(all).chain(longer).chain(other).collect()
        }
        Floats(v) => {
            let all =
                [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, 3e38, -1e-45].map(|x| Floats(vec![x; v.len()]));
            let longer = [vec![], v[1..].to_vec(), [&v[..], v].concat()].map(Floats);
            all.into_iter().chain(longer).chain([Ints(vec![1; v.len()]), Strs(vec!["1"])]).collect()
        }
        Strs(v) => {
            let longer =
                [vec![], v[1..].to_vec(), [&v[..], v].concat(), vec![""; v.len()], vec!["LEAF"; v.len()]];
            longer.map(Strs).into_iter().chain([Ints(vec![1; v.len()]), Str("LEAF")]).collect()
        }
        Numbers(t) => {
            let d = t.dtype();
            let n = t.len();
            let all = EXTREME.map(|x| Tensor::from_i64s(DType::I64, &[n], vec![x; n]).unwrap());
            let nan = Tensor::from_f32s(DType::F32, &[n], vec![f32::NAN; n]).unwrap();
            let shapes = [&[][..], &[0], &[n + 1], &[n, n]].map(|s| Tensor::zeros(d, s).unwrap());
            let text = Tensor::strings(&[n], vec!["0".to_string(); n]).unwrap();
            let all = all.into_iter().chain(shapes).chain([nan, text]);
            all.map(Numbers).chain([Ints(vec![0; n])]).collect()
        }
    }
}

/// Inputs in place of the one that works.
fn inputs() -> Vec<Tensor> {
    let f = |shape: &[usize], v: f32| Tensor::new(shape, vec![v; shape.iter().product()]).unwrap();
    let text =
        |shape: &[usize], s: &str| Tensor::strings(shape, vec![s.into(); shape.iter().product()]).unwrap();
    let mut all: Vec<Tensor> =
        [&[][..], &[0], &[1], &[3], &[0, 2], &[2, 0], &[2, 1], &[2, 3], &[1, 2, 2], &[1; 9]]
            .map(|s| f(s, 0.5))
            .into();
    all.extend([f32::NAN, f32::INFINITY, -f32::MAX].map(|v| f(&[2, 2], v)));
    let types =
        [DType::F64, DType::F16, DType::BF16, DType::Bool, DType::I8, DType::U64, DType::I4, DType::I32];
    all.extend(types.map(|d| Tensor::zeros(d, &[2, 2]).unwrap()));
    all.extend(EXTREME.map(|x| Tensor::new(&[2, 2], vec![x; 4]).unwrap()));
    all.extend([text(&[2, 2], "a"), text(&[0], ""), text(&[], "\u{1b}")]);
    all
}

fn table() -> Tensor {
    Tensor::new(&[2, 2], vec![-1f32, 2.0, 0.5, 1.0]).unwrap()
}

fn post() -> (&'static str, Value) {
    ("post_transform", Str("SOFTMAX"))
}

/// x₀ ≤ 0 ? node 1 : (x₁ > 1 ? node 3 : node 4), and a tree of one leaf.
fn nodes() -> List {
    vec![
        ("nodes_treeids", Ints(vec![0, 0, 0, 0, 0, 1])),
        ("nodes_nodeids", Ints(vec![0, 1, 2, 3, 4, 0])),
        ("nodes_featureids", Ints(vec![0, 0, 1, 0, 0, 0])),
        ("nodes_values", Floats(vec![0.0, 0.0, 1.0, 0.0, 0.0, 0.0])),
        ("nodes_modes", Strs(vec!["BRANCH_LEQ", "LEAF", "BRANCH_GT", "LEAF", "LEAF", "LEAF"])),
        ("nodes_truenodeids", Ints(vec![1, 0, 3, 0, 0, 0])),
        ("nodes_falsenodeids", Ints(vec![2, 0, 4, 0, 0, 0])),
        ("nodes_missing_value_tracks_true", Ints(vec![0, 0, 1, 0, 0, 0])),
    ]
}

fn forests() -> Vec<Model> {
    let with = |more: List| nodes().into_iter().chain(more).chain([post()]).collect();
    let numbers = |v: &[f64]| Numbers(Tensor::vector(v.to_vec()));
    vec![
        Model(
            "TreeEnsembleClassifier",
            3,
            table(),
            with(vec![
                ("class_treeids", Ints(vec![0, 0, 0, 1])),
                ("class_nodeids", Ints(vec![1, 3, 4, 0])),
                ("class_ids", Ints(vec![0, 1, 2, 0])),
                ("class_weights", Floats(vec![0.3, 0.6, -0.2, 0.1])),
                ("classlabels_int64s", Ints(vec![5, 9, 7])),
                ("base_values", Floats(vec![0.1, 0.2, 0.3])),
            ]),
            2,
        ),
        Model(
            "TreeEnsembleRegressor",
            3,
            table(),
            with(vec![
                ("target_treeids", Ints(vec![0, 0, 0, 1])),
                ("target_nodeids", Ints(vec![1, 3, 4, 0])),
                ("target_ids", Ints(vec![0, 1, 0, 1])),
                ("target_weights_as_tensor", numbers(&[0.3, 0.6, -0.2, 0.1])),
                ("n_targets", Int(2)),
                ("aggregate_function", Str("AVERAGE")),
                ("base_values_as_tensor", numbers(&[0.1, 0.2])),
            ]),
            1,
        ),
        Model(
            "TreeEnsemble",
            5,
            table(),
            vec![
                ("n_targets", Int(2)),
                ("aggregate_function", Int(1)),
                ("post_transform", Int(0)),
                ("tree_roots", Ints(vec![0, 0])),
                ("nodes_modes", Numbers(Tensor::vector(vec![0u8, 6]))),
                ("nodes_splits", Numbers(Tensor::vector(vec![3f32, 0.0]))),
                ("membership_values", Numbers(Tensor::vector(vec![1f32, 2.0, f32::NAN]))),
                ("nodes_featureids", Ints(vec![0, 1])),
                ("nodes_trueleafs", Ints(vec![0, 1])),
                ("nodes_truenodeids", Ints(vec![1, 0])),
                ("nodes_falseleafs", Ints(vec![1, 1])),
                ("nodes_falsenodeids", Ints(vec![2, 1])),
                ("leaf_targetids", Ints(vec![0, 1, 0])),
                ("leaf_weights", Numbers(Tensor::vector(vec![1f32, 10.0, 100.0]))),
            ],
            1,
        ),
    ]
}

fn machines() -> Vec<Model> {
    let kernel = || {
        vec![
            ("kernel_type", Str("POLY")),
            ("kernel_params", Floats(vec![0.5, 0.1, 3.0])),
            ("support_vectors", Floats(vec![1.0, 2.0, -1.0, 0.0, 0.5, 0.5])),
        ]
    };
    let with = |more: List| kernel().into_iter().chain(more).chain([post()]).collect();
    vec![
        Model(
            "SVMClassifier",
            1,
            table(),
            with(vec![
                ("coefficients", Floats(vec![0.3, -0.2, 0.1, 0.4, -0.5, 0.6])),
                ("vectors_per_class", Ints(vec![1, 1, 1])),
                ("rho", Floats(vec![0.25, 0.5, -0.1])),
                ("prob_a", Floats(vec![-1.0, -0.5, -0.7])),
                ("prob_b", Floats(vec![0.1, 0.0, 0.2])),
                ("classlabels_ints", Ints(vec![5, 9, 7])),
            ]),
            2,
        ),
        Model(
            "SVMRegressor",
            1,
            table(),
            with(vec![
                ("coefficients", Floats(vec![0.3, -0.2, 0.1])),
                ("n_supports", Int(3)),
                ("one_class", Int(1)),
                ("rho", Floats(vec![0.25])),
            ]),
            1,
        ),
        Model(
            "LinearClassifier",
            1,
            table(),
            vec![
                ("coefficients", Floats(vec![0.5, -0.2, 0.3, 0.1, 0.7, -0.4])),
                ("intercepts", Floats(vec![0.1, -0.1, 0.2])),
                ("classlabels_strings", Strs(vec!["a", "b", "c"])),
                ("multi_class", Int(1)),
                post(),
            ],
            2,
        ),
        Model(
            "LinearRegressor",
            1,
            table(),
            vec![
                ("coefficients", Floats(vec![0.5, -0.2, 0.3, 0.1])),
                ("intercepts", Floats(vec![0.1, -0.1])),
                ("targets", Int(2)),
                post(),
            ],
            1,
        ),
    ]
}

fn tables() -> Vec<Model> {
    let words = || Tensor::strings(&[3], ["a", "b", "?"].map(String::from).into()).unwrap();
    let whole = || Tensor::vector(vec![1i64, 2, -7]);
    let model = |op, version, x, list| Model(op, version, x, list, 1);
    vec![
        model(
            "LabelEncoder",
            2,
            words(),
            vec![
                ("keys_strings", Strs(vec!["a", "b"])),
                ("values_int64s", Ints(vec![4, 5])),
                ("default_int64", Int(-1)),
            ],
        ),
        model(
            "LabelEncoder",
            4,
            whole(),
            vec![
                ("keys_tensor", Numbers(Tensor::vector(vec![1i64, 2]))),
                ("values_tensor", Numbers(Tensor::vector(vec![0.5f64, 0.25]))),
                ("default_tensor", Numbers(Tensor::vector(vec![f64::NAN]))),
            ],
        ),
        model(
            "LabelEncoder",
            1,
            whole(),
            vec![("classes_strings", Strs(vec!["a", "b"])), ("default_string", Str("?"))],
        ),
        model(
            "CategoryMapper",
            1,
            whole(),
            vec![
                ("cats_int64s", Ints(vec![1, 2])),
                ("cats_strings", Strs(vec!["a", "b"])),
                ("default_string", Str("?")),
            ],
        ),
        model("OneHotEncoder", 1, whole(), vec![("cats_int64s", Ints(vec![1, 2, 3])), ("zeros", Int(1))]),
        model("OneHotEncoder", 1, words(), vec![("cats_strings", Strs(vec!["a", "b"]))]),
    ]
}

fn columns() -> Vec<Model> {
    let model = |op, list| Model(op, 1, table(), list, 1);
    vec![
        model("Binarizer", vec![("threshold", Floats(vec![0.5]))]),
        model("FeatureVectorizer", vec![("inputdimensions", Ints(vec![3]))]),
        model(
            "Imputer",
            vec![
                ("imputed_value_floats", Floats(vec![7.0, 8.0])),
                ("imputed_value_int64s", Ints(vec![7, 8])),
                ("replaced_value_int64", Int(2)),
            ],
        ),
        model("Normalizer", vec![("norm", Str("L2"))]),
        model("Scaler", vec![("offset", Floats(vec![0.1, 0.2])), ("scale", Floats(vec![2.0, 3.0]))]),
        model(
            "ZipMap",
            vec![("classlabels_int64s", Ints(vec![1, 2])), ("classlabels_strings", Strs(vec!["a", "b"]))],
        ),
        model("Unheard", vec![("of", Int(1))]),
    ]
}

/// A chain of `n` branches over `rows` rows, which goes on to its end for each of them.
fn chain(n: i64, rows: usize) -> Row {
    let list = [
        ("nodes_treeids", Ints(vec![0; n as usize + 1])),
        ("nodes_nodeids", Ints((0..=n).collect())),
        ("nodes_featureids", Ints(vec![0; n as usize + 1])),
        ("nodes_values", Floats(vec![0.0; n as usize + 1])),
        ("nodes_modes", Strs([vec!["BRANCH_LEQ"; n as usize], vec!["LEAF"]].concat())),
        ("nodes_truenodeids", Ints(vec![n; n as usize + 1])),
        ("nodes_falsenodeids", Ints((1..=n + 1).collect())),
        ("target_treeids", Ints(vec![0])),
        ("target_nodeids", Ints(vec![n])),
        ("target_ids", Ints(vec![0])),
        ("target_weights", Floats(vec![1.0])),
    ];
    row("TreeEnsembleRegressor", 3, Tensor::new(&[rows, 1], vec![1f32; rows]).unwrap(), &list, 1)
}

fn row(op: &'static str, version: i64, x: Tensor, list: &[(&'static str, Value)], outputs: usize) -> Row {
    let attrs = list.iter().map(|(name, v)| put(name, v)).collect();
    Row { op, inputs: vec![Some(x)], attrs, outputs, learned: Some(version) }
}

/// All rows.
pub fn all() -> Vec<Row> {
    let mut r = vec![chain(20_000, 1000)];
    let extractor = |x: Tensor, y: &[i64]| Row {
        op: "ArrayFeatureExtractor",
        inputs: vec![Some(x), Some(Tensor::vector(y.to_vec()))],
        attrs: vec![],
        outputs: 1,
        learned: Some(1),
    };
    r.extend(EXTREME.map(|k| extractor(table(), &[k])));
    r.extend(inputs().into_iter().map(|x| extractor(x, &[1, 0])));
    r.push(extractor(table(), &[]));
    for Model(op, version, x, list, outputs) in
        [forests(), machines(), tables(), columns()].into_iter().flatten()
    {
        r.push(row(op, version, x.clone(), &list, outputs));
        r.push(row(op, version, x.clone(), &[], outputs));
        r.push(row(op, version, x.clone(), &list, outputs + 2));
        for version in [0, 1, 5, 99] {
            r.push(row(op, version, x.clone(), &list, outputs));
        }
        r.extend(inputs().into_iter().map(|x| row(op, version, x, &list, outputs)));
        for (k, (name, v)) in list.iter().enumerate() {
            let mut less = list.clone();
            less.remove(k);
            r.push(row(op, version, x.clone(), &less, outputs));
            for other in instead(v) {
                let mut changed = list.clone();
                changed[k] = (name, other);
                r.push(row(op, version, x.clone(), &changed, outputs));
            }
        }
    }
    r
}
