//! The search as a whole, on a model small enough for every run of the tests.

use crate::{Goal, Options, Override, Samples, Silent, Status, compress};
use ir::{Attrs, DType, Evaluate, Feeds, Graph, Reference, Result, Tensor, Value, ValueType};

/// SplitMix64 as nearly normal values.
struct Random(u64);

impl Random {
    fn uniform(&mut self) -> f32 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        ((z ^ (z >> 27)) >> 40) as f32 / (1u32 << 24) as f32
    }
    fn tensor(&mut self, shape: &[usize], scale: f32) -> Tensor {
        let n = shape.iter().product();
        let one = |r: &mut Random| ((0..6).map(|_| r.uniform()).sum::<f32>() - 3.0) * scale;
        Tensor::new(shape, (0..n).map(|_| one(self)).collect::<Vec<f32>>()).unwrap()
    }
}

/// Two layers with a rectifier between; ten scores.
fn model() -> Graph {
    let (mut g, mut r) = (Graph::new("g"), Random(1));
    let x = g.add_input("x", ValueType::known(DType::F32, &[1, 32]));
    let w1 = g.add_initializer("w1", r.tensor(&[32, 64], 0.2));
    let b1 = g.add_initializer("b1", r.tensor(&[64], 0.1));
    let w2 = g.add_initializer("w2", r.tensor(&[64, 10], 0.3));
    let h = g.apply("first", ops::standard("MatMul").unwrap(), Attrs::new(), &[x, w1]);
    let h = g.apply("add", ops::standard("Add").unwrap(), Attrs::new(), &[h, b1]);
    let h = g.apply("relu", ops::standard("Relu").unwrap(), Attrs::new(), &[h]);
    let y = g.apply("second", ops::standard("MatMul").unwrap(), Attrs::new(), &[h, w2]);
    g.add_output("logits", y);
    ir::infer(&mut g).unwrap();
    g
}

struct Noise(Vec<Tensor>);

impl Noise {
    fn new(n: usize) -> Noise {
        let mut r = Random(7);
        Noise((0..n).map(|_| r.tensor(&[1, 32], 1.0)).collect())
    }
}

impl Samples for Noise {
    fn len(&self) -> usize {
        self.0.len()
    }
    fn feeds(&self, i: usize) -> Result<Feeds> {
        Ok([("x".to_string(), Value::Tensor(self.0[i].clone()))].into())
    }
}

fn size(g: &Graph) -> Result<u64> {
    Ok(lossy::candidate::graph_bytes(g))
}

fn search(goal: Goal, edit: impl Fn(&mut Options)) -> crate::Outcome {
    let mut options = Options::new(goal);
    edit(&mut options);
    compress(&model(), Some(&Noise::new(96)), &options, &Reference, &size, &Silent).unwrap()
}

#[test]
fn the_drop_is_kept_and_bytes_fall() {
    let loose = search(Goal::MaxDrop(0.05), |_| {});
    let tight = search(Goal::MaxDrop(0.002), |_| {});
    for (o, drop) in [(&loose, 0.05), (&tight, 0.002)] {
        assert_eq!(o.decision.status, Status::Met, "{:?}", o.decision.trials);
        assert!(o.decision.held_back.unwrap().drop <= drop);
        assert!(size(&o.graph).unwrap() < size(&model()).unwrap());
    }
    assert!(loose.decision.bytes_after < tight.decision.bytes_after);
    let used = |o: &crate::Outcome| o.decision.layers.iter().map(|l| l.share).sum::<f64>();
    assert!((used(&loose) - 1.0).abs() < 1e-9);
}

#[test]
fn a_size_goal_is_an_upper_limit() {
    let whole = size(&model()).unwrap();
    let o = search(Goal::TargetBytes(whole / 4), |_| {});
    assert_eq!(o.decision.status, Status::Met);
    assert!(size(&o.graph).unwrap() <= whole / 4);
    let none = search(Goal::TargetBytes(100), |_| {});
    assert_eq!(none.decision.status, Status::NotReached);
}

#[test]
fn the_compressed_graph_computes_what_was_measured() {
    let o = search(Goal::MaxDrop(0.02), |_| {});
    let samples = Noise::new(4);
    let drift: f32 = (0..4)
        .map(|i| {
            let out = |g: &Graph| {
                Reference.run(g, &samples.feeds(i).unwrap(), &[]).unwrap().outputs[0]
                    .tensor()
                    .unwrap()
                    .to_f32s()
                    .unwrap()
            };
            let (a, b) = (out(&model()), out(&o.graph));
            let power: f32 = a.iter().map(|x| x * x).sum();
            a.iter().zip(&b).map(|(p, q)| (p - q).powi(2)).sum::<f32>() / power
        })
        .sum::<f32>()
        / 4.0;
    let measured = o.decision.held_back.unwrap().distortion as f32;
    assert!(drift < 5.0 * measured && drift > 0.05 * measured, "{drift} {measured}");
}

#[test]
fn threads_do_not_change_the_answer() {
    let run = |n: usize| search(Goal::MaxDrop(0.02), |o| o.threads = n);
    let (one, two) = (run(1), run(2));
    assert!(one.graph == two.graph);
    assert_eq!(one.decision, two.decision);
}

#[test]
fn overrides_are_obeyed() {
    let o = search(Goal::MaxDrop(0.02), |o| {
        o.overrides =
            vec![Override::parse("^first$=int4").unwrap(), Override::parse("^second$=keep").unwrap()];
    });
    let recipe = |name: &str| o.decision.layers.iter().find(|l| l.layer == name).unwrap().recipe.clone();
    assert!(recipe("first").starts_with("int4"));
    assert_eq!(recipe("second"), "keep");
}

#[test]
fn without_data_the_report_says_so() {
    let options = Options::new(Goal::MaxDrop(0.01));
    let o = compress(&model(), None, &options, &Reference, &size, &Silent).unwrap();
    assert_eq!(o.decision.status, Status::Unchecked);
    assert!(o.decision.notes[0].starts_with("no data"));
    assert!(size(&o.graph).unwrap() < size(&model()).unwrap());
}
