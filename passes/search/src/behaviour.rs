//! The search as a whole, on a model small enough for every run of the tests.

use crate::{Goal, Options, Override, Repairs, Samples, Silent, Status, compress};
use ir::{Attrs, DType, Evaluate, Feeds, Graph, Reference, Result, Tensor, Value, ValueType};
use std::collections::BTreeSet;
use std::sync::Mutex;

/// SplitMix64 as nearly normal values.
pub struct Random(pub u64);

impl Random {
    fn uniform(&mut self) -> f32 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        ((z ^ (z >> 27)) >> 40) as f32 / (1u32 << 24) as f32
    }
    pub fn values(&mut self, n: usize) -> Vec<f32> {
        (0..n).map(|_| (0..6).map(|_| self.uniform()).sum::<f32>() - 3.0).collect()
    }
    fn tensor(&mut self, shape: &[usize], scale: f32) -> Tensor {
        let values = self.values(shape.iter().product());
        Tensor::new(shape, values.into_iter().map(|v| v * scale).collect::<Vec<f32>>()).unwrap()
    }
}

/// Two layers with a rectifier between; ten scores.
pub fn model() -> Graph {
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

pub struct Noise(Vec<Tensor>);

impl Noise {
    pub fn new(n: usize) -> Noise {
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

pub fn size(g: &Graph) -> Result<u64> {
    Ok(lossy::candidate::graph_bytes(g))
}

fn search(goal: Goal, edit: impl Fn(&mut Options)) -> crate::Outcome {
    let mut options = Options::new(goal);
    edit(&mut options);
    compress(&model(), Some(&Noise::new(288)), &options, &Reference, &size, &Silent).unwrap()
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

/// The model with the weight of each layer as 8-bit integers with a scale for each column.
fn in_bytes() -> Graph {
    let mut g = model();
    for (v, t) in g.initializers().map(|(v, t)| (v, t.clone())).collect::<Vec<_>>() {
        let &[rows, columns] = t.shape() else { continue };
        let w = t.to_f32s().unwrap();
        let of = |c: usize| (0..rows).map(move |r| r * columns + c);
        let scales: Vec<f32> =
            (0..columns).map(|c| of(c).fold(1e-3, |m: f32, i| m.max(w[i].abs())) / 127.0).collect();
        let codes =
            w.iter().enumerate().map(|(i, x)| (x / scales[i % columns]).round() as i8 as u8).collect();
        let q = g.add_initializer("q", Tensor::from_bytes(DType::I8, t.shape(), codes).unwrap());
        let s = g.add_initializer("s", Tensor::vector(scales));
        let attrs = Attrs::new().with("axis", 1);
        let decoded = g.apply("decode", ops::standard("DequantizeLinear").unwrap(), attrs, &[q, s]);
        g.replace_uses(v, decoded);
    }
    g.prune();
    ir::infer(&mut g).unwrap();
    g
}

#[test]
fn weights_stored_as_integers_are_layers() {
    let g = in_bytes();
    let layers = lossy::layers(&g);
    assert_eq!(layers.iter().map(|l| l.op.as_str()).collect::<Vec<_>>(), ["MatMul"; 2]);
    assert!(layers.iter().all(|l| l.bytes() < 2 * l.tensor.len() as u64 && !l.inputs.is_empty()));
    let options = Options::new(Goal::MaxDrop(0.2));
    let o = compress(&g, Some(&Noise::new(288)), &options, &Reference, &size, &Silent).unwrap();
    assert_eq!(o.decision.status, Status::Met, "{:?}", o.decision.trials);
    assert!(size(&o.graph).unwrap() < size(&g).unwrap());
    let before: Vec<u64> = o.decision.layers.iter().map(|l| l.bytes_before).collect();
    assert_eq!(before, layers.iter().map(|l| l.bytes()).collect::<Vec<_>>());
    // What stays keeps its integers.
    let mut options = Options::new(Goal::MaxDrop(0.3));
    options.overrides =
        vec![Override::parse("^first$=int4").unwrap(), Override::parse("^second$=keep").unwrap()];
    let o = compress(&g, Some(&Noise::new(288)), &options, &Reference, &size, &Silent).unwrap();
    assert_eq!(o.decision.status, Status::Met, "{:?}", o.decision.trials);
    let whole = |g: &Graph| {
        g.initializers().filter(|(_, t)| t.dtype() == DType::I8).map(|(_, t)| t.len()).collect::<Vec<_>>()
    };
    assert_eq!((whole(&g), whole(&o.graph)), (vec![32 * 64, 64 * 10], vec![64 * 10]));
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
fn repair_lowers_the_error_at_the_same_size_or_is_left_out() {
    let whole = size(&model()).unwrap();
    let mut helped = 0;
    for percent in [25, 30, 35, 40] {
        let goal = Goal::TargetBytes(whole * percent / 100);
        let (plain, repaired) = (search(goal, |o| o.repairs = Repairs::Never), search(goal, |_| {}));
        assert_eq!(plain.decision.bytes_after, repaired.decision.bytes_after);
        let Some(change) = repaired.decision.repair else {
            assert!(plain.graph == repaired.graph);
            continue;
        };
        helped += 1;
        let held = |o: &crate::Outcome| o.decision.held_back.unwrap();
        assert!(change.after < change.before && held(&repaired).drop <= held(&plain).drop, "{change:?}");
        assert_eq!([held(&plain).distortion, held(&repaired).distortion], [change.before, change.after]);
    }
    assert!(helped > 0);
}

#[test]
fn a_repair_is_repeated_to_the_bit() {
    let whole = size(&model()).unwrap();
    let mut repeated = 0;
    for percent in [25, 30, 35, 40] {
        let goal = Goal::TargetBytes(whole * percent / 100);
        let first = search(goal, |_| {});
        let Some(repair) = first.decision.repair else { continue };
        repeated += 1;
        let again = search(goal, |o| {
            o.repairs = Repairs::Again { tuned: repair.tuned };
            o.overrides = first.decision.layers.iter().map(|l| Override::parse(&l.pin).unwrap()).collect();
        });
        assert_eq!(again.decision.status, Status::Met);
        assert!(again.graph == first.graph, "{goal:?}");
        assert_eq!(again.decision.repair, first.decision.repair);
    }
    assert!(repeated > 0);
}

/// Refuses the first run of each pair of models that repair compares, as if several samples did not fit memory.
#[derive(Default)]
struct Narrow(Mutex<BTreeSet<usize>>);

impl Evaluate for Narrow {
    fn run(&self, graph: &Graph, inputs: &Feeds, taps: &[ir::ValueId]) -> Result<ir::Outcome> {
        let compares = graph.outputs().iter().any(|o| o.name.starts_with("original:"));
        if compares && self.0.lock().unwrap().insert(graph.node_count()) {
            return Err(ir::Error::limit("no room for several"));
        }
        Reference.run(graph, inputs, taps)
    }
}

/// Layers whose inputs do not fit memory sample beside sample are repaired from one after the other, to the same bits.
#[test]
fn repair_takes_as_many_samples_at_once_as_fit() {
    let (whole, data) = (size(&model()).unwrap(), Noise::new(96));
    let mut refused = 0;
    for percent in [25, 30, 35, 40] {
        let options = Options::new(Goal::TargetBytes(whole * percent / 100));
        let run = |e: &dyn Evaluate| compress(&model(), Some(&data), &options, e, &size, &Silent).unwrap();
        let narrow = Narrow::default();
        let (tight, wide) = (run(&narrow), run(&Reference));
        refused += narrow.0.into_inner().unwrap().len();
        assert!(tight.graph == wide.graph, "{percent}");
        assert_eq!(tight.decision.repair, wide.decision.repair);
    }
    assert!(refused > 0);
}

#[test]
fn predictions_hold_where_the_search_ends() {
    let o = search(Goal::MaxDrop(0.05), |_| {});
    let (predicted, measured) = o.decision.prediction().unwrap();
    assert!((0.5..2.0).contains(&(measured / predicted)), "{predicted} {measured}");
    assert!(o.decision.trials.len() <= 12);
    // Both layers' errors meet in the scores: what they do together is part of the prediction.
    let own: f64 = o.decision.layers.iter().map(|l| l.error).sum();
    assert!(o.decision.together != 0.0 && (own + o.decision.together - predicted).abs() < 1e-9 * predicted);
    let apart = search(Goal::MaxDrop(0.05), |o| o.interactions = false);
    assert_eq!(apart.decision.together, 0.0);
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

/// Selections of other kinds take the place of the joint one only where they are smaller and confirmed.
#[test]
fn rivals_are_smaller_and_keep_the_promise() {
    let mut smaller = 0;
    for drop in [0.01, 0.02, 0.03, 0.05, 0.08, 0.12] {
        let [with, without] = [true, false].map(|r| search(Goal::MaxDrop(drop), |o| o.rivals = r));
        let [a, b] = [&with, &without].map(|o| size(&o.graph).unwrap());
        assert!(a <= b, "{drop}: {a} {b}");
        assert_eq!(with.decision.status, Status::Met);
        assert!(with.decision.held_back.unwrap().bound <= drop && with.decision.trials.len() <= 12);
        smaller += usize::from(a < b);
    }
    assert!(smaller > 0);
    // Nothing that the user did not ask for.
    let pinned = search(Goal::MaxDrop(0.05), |o| {
        o.overrides = vec![Override::parse("^first$=int8-weight").unwrap()];
    });
    assert_eq!(pinned.decision.layers.iter().find(|l| l.layer == "first").unwrap().method, "int8-weight");
}

/// The model of [`model`] half of whose hidden layer is silent.
pub fn redundant() -> Graph {
    let mut g = model();
    for (name, axis) in [("w1", 1), ("b1", 0)] {
        let v = g.find(name).unwrap();
        let t = g.constant(v).unwrap();
        let width = t.shape()[axis];
        let data = t.to_f32s().unwrap();
        let half =
            (0..data.len()).map(|i| if (i % width).is_multiple_of(2) { data[i] } else { 0.0 }).collect();
        let t = Tensor::new(t.shape(), half).unwrap();
        g.set_constant(v, t);
    }
    g
}

fn run_on(g: &Graph, edit: impl Fn(&mut Options)) -> crate::Outcome {
    let mut options = Options::new(Goal::MaxDrop(0.05));
    edit(&mut options);
    compress(g, Some(&Noise::new(700)), &options, &Reference, &size, &Silent).unwrap()
}

#[test]
fn redundant_channels_go_and_what_is_left_is_compressed_too() {
    let g = redundant();
    let only = run_on(&g, |o| o.methods = crate::select("channels").unwrap());
    assert_eq!(only.decision.status, Status::Met, "{:?}", only.decision.notes);
    let first = &only.decision.layers[0];
    assert_eq!((first.shape.clone(), first.recipe.as_str()), (vec![32, 64], "keep"));
    assert!(first.channels.unwrap().outputs[0] <= 32, "{:?}", first.channels);
    assert!(first.summary().contains("of 64 outputs"), "{}", first.summary());
    assert!(first.bytes_after * 2 < first.bytes_before + 100);
    let (with, without) =
        (run_on(&g, |_| {}), run_on(&g, |o| o.methods = crate::select("-channels").unwrap()));
    let bytes = |o: &crate::Outcome| size(&o.graph).unwrap();
    assert!(bytes(&with) * 10 < bytes(&without) * 9, "{} {}", bytes(&with), bytes(&without));
    assert!(with.decision.layers[0].recipe != "keep" && with.decision.held_back.unwrap().drop <= 0.05);
}

#[test]
fn fewer_channels_are_not_taken_when_they_do_not_pay() {
    let (with, without) =
        (run_on(&model(), |_| {}), run_on(&model(), |o| o.methods = crate::select("-channels").unwrap()));
    assert!(size(&with.graph).unwrap() <= size(&without.graph).unwrap());
}

#[test]
fn the_number_of_channels_can_be_fixed() {
    for samples in [true, false] {
        let mut options = Options::new(Goal::MaxDrop(1.0));
        options.overrides = vec![
            Override::parse("^first$=channels 7/8").unwrap(),
            Override::parse("^second$=channels").unwrap(),
            Override::parse("second=keep").unwrap(),
        ];
        let data = Noise::new(96);
        let data = samples.then_some(&data as &dyn Samples);
        let o = compress(&model(), data, &options, &Reference, &size, &Silent).unwrap();
        let layers = &o.decision.layers;
        assert_eq!(layers[0].channels.unwrap().outputs, [56, 64]);
        assert_eq!((layers[1].channels.unwrap().inputs, layers[1].recipe.as_str()), ([56, 64], "keep"));
        assert!(
            o.decision.notes.iter().any(|n| n.contains("second keeps its channels")),
            "{:?}",
            o.decision.notes
        );
        assert!(o.graph.initializers().all(|(_, t)| !t.shape().contains(&64)));
    }
}

#[test]
fn without_data_the_report_says_so() {
    let options = Options::new(Goal::MaxDrop(0.01));
    let o = compress(&model(), None, &options, &Reference, &size, &Silent).unwrap();
    assert_eq!(o.decision.status, Status::Unchecked);
    assert!(o.decision.notes[0].starts_with("no data"));
    assert!(size(&o.graph).unwrap() < size(&model()).unwrap());
}

/// Fifty pictures of one kind of thing prove nothing of the other kinds.
#[test]
fn data_of_one_class_are_told() {
    let (g, samples) = (model(), Noise::new(1500));
    let class = |i: usize| {
        let y = Reference.run(&g, &samples.feeds(i).unwrap(), &[]).unwrap().outputs.remove(0);
        let y = y.tensor().unwrap().to_f32s().unwrap();
        (0..y.len()).fold(0, |b, i| if y[i] > y[b] { i } else { b })
    };
    let of_one: Vec<Tensor> = (0..1500).filter(|&i| class(i) == 3).map(|i| samples.0[i].clone()).collect();
    assert!(of_one.len() > 20);
    let all = Noise(samples.0[..of_one.len()].to_vec());
    for (samples, told) in [(Noise(of_one), true), (all, false)] {
        let options = Options { unproven: true, ..Options::new(Goal::MaxDrop(0.05)) };
        let d = compress(&g, Some(&samples), &options, &Reference, &size, &Silent).unwrap().decision;
        assert_eq!(d.notes.iter().any(|n| n.contains("class 3 in all samples")), told, "{:?}", d.notes);
    }
}

#[test]
fn data_that_cannot_prove_the_drop_are_refused_unless_asked() {
    let run = |samples: Noise, unproven: bool| {
        let options = Options { unproven, ..Options::new(Goal::MaxDrop(0.01)) };
        compress(&model(), Some(&samples), &options, &Reference, &size, &Silent).unwrap().decision
    };
    let few = run(Noise::new(10), false);
    assert_eq!(few.status, Status::Unsupported);
    assert!(few.notes[0].contains("10 samples prove no drop below"), "{:?}", few.notes);
    let asked = run(Noise::new(10), true);
    assert!(asked.status != Status::Unsupported && asked.notes.iter().any(|n| n.contains("cannot support")));
    // Copies count once.
    let copies = Noise((0..200).map(|i| Noise::new(9).0[i % 9].clone()).collect());
    let d = run(copies, false);
    assert_eq!(d.status, Status::Unsupported);
    assert!(d.notes[0].contains("9 samples (of 200"), "{:?}", d.notes);
}

#[test]
fn dynamic_programming_beats_one_recipe_for_all() {
    let with = |allocation| {
        let o = search(Goal::MaxDrop(0.03), |o| {
            o.allocation = allocation;
            o.methods = crate::select("int8-weight,int6,int5,int4,int3,int2").unwrap();
        });
        o.decision.bytes_after
    };
    use crate::Allocation::*;
    assert!(with(Dynamic) <= with(Uniform) && with(Dynamic) <= with(Greedy) + 64);
}

/// What is held of large outputs may be a single sample, which has no spread.
#[test]
fn outputs_too_large_to_compare_prove_nothing() {
    let mut g = model();
    let y = g.outputs()[0].value;
    let shape = g.add_initializer("shape", Tensor::new(&[2], vec![30_000i64, 10]).unwrap());
    let wide = g.apply("wide", ops::standard("Expand").unwrap(), Attrs::new(), &[y, shape]);
    g.set_outputs(vec![ir::Output { name: "wide".into(), value: wide }]);
    ir::infer(&mut g).unwrap();
    let mut options = Options::new(Goal::MaxDrop(0.05));
    options.metric = Some(crate::Metric::Cosine);
    let run =
        |options: &Options| compress(&g, Some(&Noise::new(16)), options, &Reference, &size, &Silent).unwrap();
    let refused = run(&options).decision;
    assert_eq!(refused.status, Status::Unsupported);
    assert!(refused.notes[0].contains("only 1 of 4 held-back ones"), "{:?}", refused.notes);
    options.unproven = true;
    assert_eq!(run(&options).decision.status, Status::Met);
}
