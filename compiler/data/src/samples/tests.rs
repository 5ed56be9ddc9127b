use super::*;
use ir::{Dim, ValueType};

/// A model with the inputs of a recurrent detector: a batch of frames, a state with its own axes, a scalar.
fn graph() -> Graph {
    let mut g = Graph::new("g");
    g.add_input("input", ValueType::tensor(DType::F32, vec![Dim::symbol("N"), Dim::Known(4)]));
    g.add_input("state", ValueType::known(DType::F32, &[2, 1, 3]));
    g.add_input("sr", ValueType::known(DType::I64, &[]));
    g
}

fn zeros(shape: &[usize]) -> Tensor {
    Tensor::zeros(DType::F32, shape).unwrap()
}

fn arrays(n: usize) -> Arrays {
    let sr = Tensor::vector((0..n as i32).collect());
    [("input", zeros(&[n, 4])), ("state", zeros(&[n, 2, 1, 3])), ("sr", sr)]
        .into_iter()
        .map(|(k, t)| (k.to_string(), t))
        .collect()
}

fn shape(f: &Feeds, name: &str) -> Vec<usize> {
    f[name].tensor().unwrap().shape().to_vec()
}

#[test]
fn each_input_gets_a_batch_axis_only_where_it_lacks_one() {
    let g = graph();
    let s = Samples::from_arrays(arrays(5), &g).unwrap();
    assert_eq!(s.len(), 5);
    let f = s.feeds(3, &g).unwrap();
    assert_eq!((shape(&f, "input"), shape(&f, "state")), (vec![1, 4], vec![2, 1, 3]));
    assert_eq!(f["sr"].tensor().unwrap(), &Tensor::scalar(3i64));
    assert_eq!(s.notes(), ["input 'sr': int32 values are converted to int64"]);
    assert!(s.feeds(5, &g).is_err());
}

#[test]
fn a_scalar_holds_for_all_samples() {
    let (g, mut a) = (graph(), arrays(5));
    a.insert("sr".into(), Tensor::scalar(16000i64));
    let s = Samples::from_arrays(a, &g).unwrap();
    assert_eq!(s.len(), 5);
    assert_eq!(s.feeds(4, &g).unwrap()["sr"].tensor().unwrap(), &Tensor::scalar(16000i64));
}

#[test]
fn labels_are_one_integer_each() {
    let (g, mut a) = (graph(), arrays(2));
    a.insert("labels".into(), Tensor::vector(vec![7i64, 8]));
    assert_eq!(Samples::from_arrays(a.clone(), &g).unwrap().labels(), Some(&[7, 8][..]));
    a.insert("labels".into(), Tensor::vector(vec![7i64]));
    assert!(Samples::from_arrays(a.clone(), &g).is_err());
    a.insert("labels".into(), Tensor::vector(vec![7f32, 8.0]));
    assert_eq!(Samples::from_arrays(a, &g).unwrap_err().tensor.as_deref(), Some("labels"));
}

#[test]
fn what_does_not_fit_is_named() {
    let g = graph();
    let with = |name: &str, t: Tensor| {
        let mut a = arrays(2);
        a.insert(name.to_string(), t);
        Samples::from_arrays(a, &g).unwrap_err().to_string()
    };
    assert!(with("input", zeros(&[2, 5])).contains("'input'"));
    assert!(with("input", zeros(&[3, 4])).contains("samples"));
    assert!(with("input", Tensor::zeros(DType::I64, &[2, 4]).unwrap()).contains("float"));
    let mut a = arrays(2);
    a.remove("state");
    let e = Samples::from_arrays(a, &g).unwrap_err().to_string();
    assert!(e.contains("'state'") && e.contains("\"sr\""), "{e}");
    assert!(Samples::from_arrays(arrays(0), &g).is_err());
}

#[test]
fn a_folder_holds_one_sample_a_file_of_any_length() {
    let dir = std::env::temp_dir().join(format!("compress-data-{}", std::process::id()));
    std::fs::create_dir_all(&dir).unwrap();
    let mut g = Graph::new("g");
    g.add_input("ids", ValueType::tensor(DType::I64, vec![Dim::symbol("N"), Dim::symbol("T")]));
    for (name, n) in [("b", 2usize), ("a", 3)] {
        let mut f = std::fs::File::create(dir.join(format!("{name}.npz"))).unwrap();
        let arrays = vec![
            ("ids".to_string(), Tensor::zeros(DType::I64, &[n]).unwrap()),
            ("labels".to_string(), Tensor::scalar(n as i64)),
        ];
        npz::write(&mut f, &arrays).unwrap();
    }
    let s = Samples::open(&dir, &g).unwrap();
    assert_eq!(s.labels(), Some(&[3, 2][..]));
    assert_eq!(shape(&s.feeds(1, &g).unwrap(), "ids"), [1, 2]);
    std::fs::remove_dir_all(&dir).unwrap();
}
