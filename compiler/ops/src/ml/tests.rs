//! Operators of "ai.onnx.ml" against what ONNX Runtime gives, and attributes that contradict each other.

use crate::testing::eval;
use ir::{Attrs, Lookup, Result, Tensor, Value};

fn run(op: &str, attrs: Attrs, x: Tensor, outputs: usize) -> Result<Vec<Tensor>> {
    let op = crate::Standard.require(super::DOMAIN, op)?;
    let made = eval(op, attrs, &[Some(Value::from(x))], outputs)?;
    made.iter().map(|v| v.tensor().cloned()).collect()
}

fn close(t: &Tensor, want: &[f32]) {
    let got = t.to_f32s().unwrap();
    let near = got.iter().zip(want).all(|(a, b)| (a - b).abs() < 2e-4);
    assert!(got.len() == want.len() && near, "{got:?} {want:?}");
}

fn column(v: &[f32]) -> Tensor {
    Tensor::new(&[v.len(), 1], v.to_vec()).unwrap()
}

fn texts(v: &[&str]) -> Vec<String> {
    v.iter().map(|s| s.to_string()).collect()
}

/// x₀ ≤ 0 ? node 1 : node 2.
fn stump() -> Attrs {
    Attrs::new()
        .with("nodes_treeids", vec![0, 0, 0])
        .with("nodes_nodeids", vec![0, 1, 2])
        .with("nodes_featureids", vec![0, 0, 0])
        .with("nodes_values", vec![0f32; 3])
        .with("nodes_modes", texts(&["BRANCH_LEQ", "LEAF", "LEAF"]))
        .with("nodes_truenodeids", vec![1, 0, 0])
        .with("nodes_falsenodeids", vec![2, 0, 0])
}

fn classes(leaves: &[(i64, i64, f32)], labels: &[i64]) -> Attrs {
    stump()
        .with("class_treeids", vec![0; leaves.len()])
        .with("class_nodeids", leaves.iter().map(|l| l.0).collect::<Vec<_>>())
        .with("class_ids", leaves.iter().map(|l| l.1).collect::<Vec<_>>())
        .with("class_weights", leaves.iter().map(|l| l.2).collect::<Vec<_>>())
        .with("classlabels_int64s", labels.to_vec())
}

#[test]
fn classes_of_trees() {
    let case = |leaves: &[(i64, i64, f32)], labels: &[i64], post: &str| {
        let a = classes(leaves, labels).with("post_transform", post);
        run("TreeEnsembleClassifier", a, column(&[-1.0, 1.0]), 2).unwrap()
    };
    let one = [(1, 0, 0.3), (2, 0, 0.6)];
    let got = case(&one, &[5, 9], "NONE");
    assert_eq!(got[0].to_i64s().unwrap(), [5, 9]);
    close(&got[1], &[0.7, 0.3, 0.4, 0.6]);
    close(&case(&one, &[5, 9], "LOGISTIC")[1], &[0.4256, 0.5744, 0.3543, 0.6457]);
    let mixed = [(1, 0, -0.3), (2, 0, 0.6)];
    let got = case(&mixed, &[5, 9], "SOFTMAX");
    assert_eq!(got[0].to_i64s().unwrap(), [5, 9]);
    close(&got[1], &[0.3, -0.3, -0.6, 0.6]);
    let three = [(1, 0, 0.3), (1, 2, 0.4), (2, 1, -0.6)];
    let got = case(&three, &[3, 4, 5], "SOFTMAX_ZERO");
    assert_eq!(got[0].to_i64s().unwrap(), [5, 4]);
    close(&got[1], &[0.475, 0.0, 0.525, 0.0, 1.0, 0.0]);
    assert_eq!(case(&[(1, 0, -0.3), (2, 0, 0.6)], &[7], "NONE")[0].to_i64s().unwrap(), [0, 1]);
}

#[test]
fn values_of_trees() {
    let targets = |aggregate: &str| {
        stump()
            .with("target_treeids", vec![0; 3])
            .with("target_nodeids", vec![1, 2, 2])
            .with("target_ids", vec![0, 0, 1])
            .with("target_weights", vec![0.3f32, 0.6, -0.4])
            .with("n_targets", 2)
            .with("aggregate_function", aggregate)
            .with("base_values", vec![0.1f32, 0.2])
    };
    for aggregate in ["SUM", "AVERAGE", "MIN", "MAX"] {
        let y = run("TreeEnsembleRegressor", targets(aggregate), column(&[-1.0, 1.0]), 1).unwrap();
        // What no tree reaches has no base value either.
        close(&y[0], &[0.4, 0.0, 0.7, -0.2]);
    }
    assert!(run("TreeEnsembleRegressor", targets("MEAN"), column(&[1.0]), 1).is_err());
}

#[test]
fn trees_that_contradict_themselves_are_errors() {
    let good = || classes(&[(1, 0, 0.3), (2, 0, 0.6)], &[5, 9]);
    let fails = |a: Attrs| assert!(run("TreeEnsembleClassifier", a, column(&[-1.0, 1.0]), 2).is_err());
    assert!(run("TreeEnsembleClassifier", good(), column(&[-1.0]), 2).is_ok());
    fails(good().with("nodes_truenodeids", vec![0, 0, 0]));
    fails(good().with("nodes_truenodeids", vec![7, 0, 0]));
    fails(good().with("nodes_falsenodeids", vec![i64::MIN, 0, 0]));
    fails(good().with("nodes_featureids", vec![1, 0, 0]));
    fails(good().with("nodes_featureids", vec![-1, 0, 0]));
    fails(good().with("nodes_nodeids", vec![0, 1, 1]));
    fails(good().with("nodes_values", vec![0f32; 2]));
    fails(good().with("nodes_treeids", vec![0i64; 9]));
    fails(good().with("nodes_modes", texts(&["BRANCH_LEQ", "LEAF", "TWIG"])));
    fails(good().with("nodes_missing_value_tracks_true", vec![1]));
    fails(good().with("class_ids", vec![0, 2]));
    fails(good().with("class_ids", vec![-1, 0]));
    fails(good().with("class_nodeids", vec![1, 8]));
    fails(good().with("class_weights", vec![0.5f32]));
    fails(good().with("base_values", vec![0.5f32; 3]));
    fails(good().with("classlabels_int64s", Vec::<i64>::new()));
    fails(good().with("post_transform", "COSINE"));
    fails(Attrs::new().with("classlabels_int64s", vec![1, 2]).with("nodes_treeids", vec![1]));
    let wide = |n: i64| stump().with("n_targets", n);
    for n in [0, -1, i64::MAX, 1 << 50] {
        assert!(run("TreeEnsembleRegressor", wide(n), column(&[1.0]), 1).is_err());
    }
}

#[test]
fn linear_models() {
    let x = Tensor::new(&[2, 3], vec![-1f32, 2., 0.5, 1., -3., 0.]).unwrap();
    let a = |n: usize, post: &str| {
        let w = [0.5f32, -0.2, 0.3, 0.1, 0.7, -0.4, -0.6, 0.2, 0.9];
        Attrs::new()
            .with("coefficients", w[..3 * n].to_vec())
            .with("intercepts", [0.1f32, -0.1, 0.2][..n].to_vec())
            .with("post_transform", post)
    };
    let three =
        |post| run("LinearClassifier", a(3, post).with("classlabels_ints", vec![4, 5, 9]), x.clone(), 2);
    let got = three("NONE").unwrap();
    assert_eq!(got[0].to_i64s().unwrap(), [9, 4]);
    close(&got[1], &[-0.65, 1.0, 1.65, 1.2, -2.1, -1.0]);
    close(&three("SOFTMAX_ZERO").unwrap()[1], &[0.0618, 0.3218, 0.6164, 0.8713, 0.0321, 0.0965]);
    let two = a(1, "LOGISTIC").with("classlabels_strings", texts(&["a", "b"]));
    let got = run("LinearClassifier", two, x.clone(), 2).unwrap();
    assert_eq!(got[0].string_data().unwrap(), ["a", "b"]);
    close(&got[1], &[0.657, 0.343, 0.2315, 0.7685]);
    let y = run("LinearRegressor", a(3, "LOGISTIC").with("targets", 3), x.clone(), 1).unwrap();
    close(&y[0], &[0.343, 0.7311, 0.8389, 0.7685, 0.1091, 0.2689]);
    for bad in
        [a(3, "NONE").with("targets", 2), a(3, "NONE").with("targets", 0), a(1, "NONE").with("targets", 3)]
    {
        assert!(run("LinearRegressor", bad, x.clone(), 1).is_err());
    }
}

#[test]
fn support_vectors() {
    let x = Tensor::new(&[1, 3], vec![0.5f32, -1.0, 2.0]).unwrap();
    let a = || {
        Attrs::new()
            .with("kernel_type", "RBF")
            .with("kernel_params", vec![0.5f32, 0.0, 3.0])
            .with("coefficients", vec![0.3f32, -0.2])
            .with("support_vectors", vec![1f32, 2., 3., -1., 0., 1.])
            .with("rho", vec![0.25f32])
    };
    let rbf = |d: f32| (-0.5 * d).exp();
    let sum = 0.3 * rbf(0.25 + 9.0 + 1.0) - 0.2 * rbf(2.25 + 1.0 + 1.0) + 0.25;
    close(&run("SVMRegressor", a().with("n_supports", 2), x.clone(), 1).unwrap()[0], &[sum]);
    let two = || a().with("vectors_per_class", vec![1, 1]).with("classlabels_ints", vec![5, 9]);
    let got = run("SVMClassifier", two(), x.clone(), 2).unwrap();
    assert_eq!(got[0].to_i64s().unwrap(), [5]);
    close(&got[1], &[-sum, sum]);
    for bad in [
        two().with("vectors_per_class", vec![1, 2]),
        two().with("vectors_per_class", vec![-1, 3]),
        two().with("vectors_per_class", vec![i64::MAX, i64::MAX]),
        two().with("classlabels_ints", vec![5, 9, 7]).with("vectors_per_class", vec![i64::MAX, i64::MAX, 3]),
        two().with("vectors_per_class", vec![2]),
        two().with("coefficients", vec![0.3f32]),
        two().with("rho", Vec::<f32>::new()),
        two().with("prob_a", vec![1f32]),
        two().with("kernel_params", vec![1f32]),
        two().with("kernel_type", "GIANT"),
        two().with("classlabels_ints", (0..100_000).collect::<Vec<i64>>()),
    ] {
        assert!(run("SVMClassifier", bad, x.clone(), 2).is_err());
    }
    for n in [1, 3, i64::MAX] {
        assert!(run("SVMRegressor", a().with("n_supports", n), x.clone(), 1).is_err());
    }
}

#[test]
fn tables() {
    let x = || Tensor::vector(vec![1i64, 2, 3]);
    let keys = || Attrs::new().with("keys_int64s", vec![1, 2]);
    let y = run("LabelEncoder", keys().with("values_floats", vec![0.5f32, 0.6]), x(), 1).unwrap();
    close(&y[0], &[0.5, 0.6, -0.0]);
    let old = Attrs::new().with("classes_strings", texts(&["a", "b"]));
    let y = run("LabelEncoder", old, x(), 1).unwrap();
    assert_eq!(y[0].string_data().unwrap(), ["b", "_Unused", "_Unused"]);
    assert!(run("LabelEncoder", keys().with("values_int64s", vec![1]), x(), 1).is_err());
    assert!(run("LabelEncoder", keys().with("values_int64s", vec![1, 2]), column(&[1.0]), 1).is_err());
    let cats = || Attrs::new().with("cats_int64s", vec![1, 3]);
    close(&run("OneHotEncoder", cats(), x(), 1).unwrap()[0], &[1.0, 0.0, 0.0, 0.0, 0.0, 1.0]);
    assert!(run("OneHotEncoder", cats().with("zeros", 0), x(), 1).is_err());
    assert!(run("OneHotEncoder", Attrs::new(), x(), 1).is_err());
}

#[test]
fn columns() {
    let x = || Tensor::new(&[2, 3], vec![-1f32, 2., 0., 1., -3., 0.]).unwrap();
    let y = run("Normalizer", Attrs::new().with("norm", "L1"), x(), 1).unwrap();
    close(&y[0], &[-0.3333, 0.6667, 0.0, 0.25, -0.75, 0.0]);
    assert!(run("Normalizer", Attrs::new().with("norm", "L9"), x(), 1).is_err());
    let a = Attrs::new().with("imputed_value_floats", vec![7f32, 8., 9.]);
    close(&run("Imputer", a, x(), 1).unwrap()[0], &[-1.0, 2.0, 9.0, 1.0, -3.0, 9.0]);
    let ints = Tensor::new(&[2, 2], vec![0i64, 1, 2, 0]).unwrap();
    let a = Attrs::new().with("imputed_value_int64s", vec![4, 5]);
    assert_eq!(run("Imputer", a, ints, 1).unwrap()[0].to_i64s().unwrap(), [4, 1, 2, 5]);
    for other in [Tensor::strings(&[1, 1], texts(&["a"])).unwrap(), Tensor::vector(vec![true])] {
        let a = Attrs::new().with("imputed_value_int64s", vec![4]);
        let e = run("Imputer", a, other, 1).unwrap_err().to_string();
        assert!(!e.contains("internal"), "{e}");
    }
    let a = |w: i64| Attrs::new().with("inputdimensions", vec![w]);
    close(&run("FeatureVectorizer", a(4), x(), 1).unwrap()[0], &[-1.0, 2.0, 0.0, 0.0, 1.0, -3.0, 0.0, 0.0]);
    close(&run("FeatureVectorizer", a(1), x(), 1).unwrap()[0], &[-1.0, 1.0]);
    for w in [-1, i64::MAX, 1 << 60] {
        assert!(run("FeatureVectorizer", a(w), x(), 1).is_err());
    }
}

#[test]
fn many_texts_are_many_bytes() {
    let x = Tensor::zeros(ir::DType::I64, &[1 << 26]).unwrap();
    let a = Attrs::new().with("keys_int64s", vec![0]).with("values_strings", texts(&["a"]));
    assert!(run("LabelEncoder", a, x, 1).is_err());
}
