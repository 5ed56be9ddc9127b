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

/// A folder of its own, removed on drop.
struct Dir(PathBuf);

impl Dir {
    fn new(name: &str) -> Dir {
        let d = std::env::temp_dir().join(format!("compress-data-{name}-{}", std::process::id()));
        drop(std::fs::remove_dir_all(&d));
        std::fs::create_dir_all(&d).unwrap();
        Dir(d)
    }
    fn file(&self, name: &str) -> PathBuf {
        let p = self.0.join(name);
        std::fs::create_dir_all(p.parent().unwrap()).unwrap();
        p
    }
    fn npz(&self, name: &str, arrays: &[(&str, Tensor)]) {
        let arrays: Vec<(String, Tensor)> = arrays.iter().map(|(n, t)| (n.to_string(), t.clone())).collect();
        crate::npz::write(&mut std::fs::File::create(self.file(name)).unwrap(), &arrays).unwrap();
    }
    fn image(&self, name: &str, shade: u8) {
        image::RgbImage::from_pixel(8, 8, image::Rgb([shade; 3])).save(self.file(name)).unwrap();
    }
    fn open(&self, g: &Graph) -> Result<Samples> {
        Samples::open(&self.0, g, &Options::default())
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        drop(std::fs::remove_dir_all(&self.0));
    }
}

fn ids() -> Graph {
    let mut g = Graph::new("g");
    g.add_input("ids", ValueType::tensor(DType::I64, vec![Dim::symbol("N"), Dim::symbol("T")]));
    g
}

fn photo() -> Graph {
    let mut g = Graph::new("g");
    g.add_input("x", ValueType::known(DType::F32, &[1, 3, 8, 8]));
    g
}

#[test]
fn a_folder_holds_one_sample_a_file_of_any_length() {
    let d = Dir::new("ragged");
    for (name, n) in [("b", 2usize), ("a", 3)] {
        let ids = Tensor::zeros(DType::I64, &[n]).unwrap();
        d.npz(&format!("{name}.npz"), &[("ids", ids), ("labels", Tensor::scalar(n as i64))]);
    }
    let g = ids();
    let s = d.open(&g).unwrap();
    assert_eq!(s.labels(), Some(&[3, 2][..]));
    assert_eq!(shape(&s.feeds(1, &g).unwrap(), "ids"), [1, 2]);
}

#[test]
fn bad_files_are_named_and_counted() {
    let (d, g) = (Dir::new("bad"), ids());
    let good = Tensor::zeros(DType::I64, &[4]).unwrap();
    d.npz("a.npz", &[("ids", good.clone())]);
    d.npz("b.npz", &[("other", good.clone())]);
    d.npz("c.npz", &[("ids", Tensor::scalar(1.5f32))]);
    std::fs::write(d.file("d.npz"), b"PK damaged").unwrap();
    std::fs::write(d.file("e.safetensors"), b"damaged").unwrap();
    crate::npy::write(&mut std::fs::File::create(d.file("f.npy")).unwrap(), &good).unwrap();
    let s = d.open(&g).unwrap();
    assert_eq!(s.len(), 2);
    let notes = s.notes().join("\n");
    for name in ["b.npz", "c.npz", "d.npz", "e.safetensors", "4 of 6 files are skipped"] {
        assert!(notes.contains(name), "{name} in {notes}");
    }
    for f in ["a.npz", "f.npy"] {
        std::fs::remove_file(d.file(f)).unwrap();
    }
    let e = d.open(&g).unwrap_err().to_string();
    assert!(e.contains("none of 4 files") && e.contains("b.npz"), "{e}");
    assert!(Samples::open(&d.0.join("nothing"), &g, &Options::default()).is_err());
    std::fs::create_dir(d.0.join("empty")).unwrap();
    assert!(Samples::open(&d.0.join("empty"), &g, &Options::default()).is_err());
}

#[test]
fn sub_folders_of_images_are_classes() {
    let (d, g) = (Dir::new("images"), photo());
    for (name, shade) in [("cat/1.png", 0), ("cat/2.png", 255), ("dog/1.jpg", 51), ("dog/2.bmp", 102)] {
        d.image(name, shade);
    }
    std::fs::write(d.file("dog/3.png"), b"\x89PNG damaged").unwrap();
    std::fs::write(d.file("readme.txt"), b"about").unwrap();
    let s = d.open(&g).unwrap();
    // The first of each folder comes before the second of any.
    assert_eq!(s.labels(), Some(&[0, 1, 0, 1][..]));
    let value = |i: usize| s.feeds(i, &g).unwrap()["x"].tensor().unwrap().to_f32s().unwrap()[0];
    for (i, want) in [(0, 0.0), (1, 0.2), (2, 1.0), (3, 0.4)] {
        assert!((value(i) - want).abs() < 0.01, "{i}: {}", value(i));
    }
    assert_eq!(shape(&s.feeds(0, &g).unwrap(), "x"), [1, 3, 8, 8]);
    let notes = s.notes().join("\n");
    for part in ["0 = cat, 1 = dog", "dog/3.png", "1 of 5 files are skipped", "readme.txt", "1/255"] {
        assert!(notes.contains(part), "{part} in {notes}");
    }
}

#[test]
fn a_table_labels_images() {
    let (d, g) = (Dir::new("table"), photo());
    ["a.png", "b.png", "c.png"].iter().for_each(|n| d.image(n, 9));
    std::fs::write(d.file("labels.csv"), "file,label\na.png,7\nc.png,5\nz.png,1\n").unwrap();
    let options = Options { labels: Some(d.file("labels.csv")), ..Options::default() };
    let s = Samples::open(&d.0, &g, &options).unwrap();
    assert_eq!(s.labels(), Some(&[7, 5][..]));
    let notes = s.notes().join("\n");
    assert!(notes.contains("b.png: has no label") && notes.contains("'z.png'"), "{notes}");
}

#[test]
fn safetensors_stack_samples_as_npz_does() {
    let (d, g) = (Dir::new("safetensors"), ids());
    let header = r#"{"ids":{"dtype":"I64","shape":[2,3],"data_offsets":[0,48]}}"#;
    let mut file = Vec::from((header.len() as u64).to_le_bytes());
    file.extend(header.as_bytes());
    (0..6i64).for_each(|i| file.extend(i.to_le_bytes()));
    let path = d.file("x.safetensors");
    std::fs::write(&path, file).unwrap();
    let s = Samples::open(&path, &g, &Options::default()).unwrap();
    assert_eq!(s.len(), 2);
    assert_eq!(s.feeds(1, &g).unwrap()["ids"].tensor().unwrap().to_i64s().unwrap(), [3, 4, 5]);
}

#[test]
fn arrays_that_were_put_away_are_the_same() {
    let mut g = Graph::new("g");
    g.add_input("x", ValueType::tensor(DType::F32, vec![Dim::symbol("N"), Dim::Known(1 << 20)]));
    let x = Tensor::new(&[2, 1 << 20], (0..2 << 20).map(|i| i as f32).collect()).unwrap();
    let mut s = Samples::from_arrays([("x".to_string(), x)].into(), &g).unwrap();
    let before = s.feeds(1, &g).unwrap();
    let kept = std::cell::Cell::new(0);
    s.put_away(&|bytes| {
        kept.set(kept.get() + bytes.len());
        Some(Arc::new(bytes.to_vec()))
    });
    assert_eq!(kept.get(), 8 << 20);
    assert_eq!(s.feeds(1, &g).unwrap(), before);
    // Where there is no room they stay.
    s.put_away(&|_| None);
    assert_eq!(s.feeds(1, &g).unwrap(), before);
}
