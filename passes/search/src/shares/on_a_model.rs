//! The search on a model whose layers of one shape read and write the same few directions.

use crate::behaviour::{Random, size};
use crate::{Goal, Options, Outcome, Override, Repairs, Samples, Silent, Status, compress, select};
use ir::{Attrs, DType, Feeds, Graph, Reference, Result, Tensor, Value, ValueType};

const WIDTH: usize = 24;
const RANK: usize = 6;
const BLOCKS: usize = 6;
const IMAGE: [usize; 4] = [1, WIDTH, 4, 4];

/// `noise` is the part of each kernel that is its own.
fn residual(noise: f32) -> Graph {
    let (mut g, mut r) = (Graph::new("g"), Random(3));
    let (out, inp) = (r.values(WIDTH * RANK), r.values(RANK * WIDTH));
    let mut h = g.add_input("x", ValueType::known(DType::F32, &IMAGE));
    for block in 0..BLOCKS {
        let (core, own) = (r.values(RANK * RANK * 9), r.values(WIDTH * WIDTH * 9));
        let weight = |at: usize| {
            let (o, i, tap) = (at / (WIDTH * 9), at / 9 % WIDTH, at % 9);
            let terms = (0..RANK * RANK)
                .map(|t| out[o * RANK + t / RANK] * core[t * 9 + tap] * inp[t % RANK * WIDTH + i]);
            0.05 * (terms.sum::<f32>() / RANK as f32 + noise * own[at])
        };
        let w = Tensor::new(&[WIDTH, WIDTH, 3, 3], (0..own.len()).map(weight).collect::<Vec<_>>()).unwrap();
        let w = g.add_initializer(&format!("w{block}"), w);
        let b = g.add_initializer(&format!("b{block}"), Tensor::vector(r.values(WIDTH)));
        let relu = g.apply("relu", ops::standard("Relu").unwrap(), Attrs::new(), &[h]);
        let attrs = Attrs::new().with("pads", vec![1i64; 4]);
        let y = g.apply(&format!("conv{block}"), ops::standard("Conv").unwrap(), attrs, &[relu, w, b]);
        h = g.apply("add", ops::standard("Add").unwrap(), Attrs::new(), &[h, y]);
    }
    g.add_output("y", h);
    ir::infer(&mut g).unwrap();
    g
}

struct Images(Vec<Tensor>);

impl Images {
    fn new(n: usize) -> Images {
        let mut r = Random(5);
        let one = |_| Tensor::new(&IMAGE, r.values(IMAGE.iter().product())).unwrap();
        Images((0..n).map(one).collect())
    }
}

impl Samples for Images {
    fn len(&self) -> usize {
        self.0.len()
    }
    fn feeds(&self, i: usize) -> Result<Feeds> {
        Ok([("x".to_string(), Value::Tensor(self.0[i].clone()))].into())
    }
}

fn search(g: &Graph, goal: Goal, edit: impl Fn(&mut Options)) -> Outcome {
    let mut options = Options::new(goal);
    options.methods = select("int8-weight,int6,int5,int4,int3,int2,codebook,low-rank,tucker,joint").unwrap();
    edit(&mut options);
    compress(g, Some(&Images::new(48)), &options, &Reference, &size, &Silent).unwrap()
}

fn bytes(o: &Outcome) -> u64 {
    size(&o.graph).unwrap()
}

fn joint(o: &Outcome) -> Vec<&str> {
    let recipes = o.decision.layers.iter().map(|l| l.recipe.as_str());
    recipes.filter(|r| r.starts_with("joint tucker")).collect()
}

/// Factors of the graph: constants of 8 bits that convolutions of 1×1 read.
fn factors(g: &Graph) -> usize {
    g.initializers().filter(|(_, t)| t.dtype() == DType::I8 && t.shape()[2..] == [1, 1]).count()
}

#[test]
fn shared_directions_are_stored_once() {
    let g = residual(0.01);
    for goal in [Goal::MaxDrop(0.01), Goal::MaxDrop(0.0005), Goal::TargetBytes(size(&g).unwrap() / 11)] {
        let with = search(&g, goal, |_| {});
        let without = search(&g, goal, |o| o.methods.retain(|m| m.name() != "joint"));
        assert_eq!((with.decision.status, without.decision.status), (Status::Met, Status::Met));
        let recipes: std::collections::BTreeSet<&str> = joint(&with).into_iter().collect();
        assert!(joint(&with).len() > recipes.len(), "{:?}", with.decision.layers);
        if goal.drop().is_some() {
            assert_eq!(factors(&with.graph), 2 * recipes.len());
            assert!(bytes(&with) * 10 < bytes(&without) * 9, "{} {}", bytes(&with), bytes(&without));
        } else {
            let held = |o: &Outcome| o.decision.held_back.unwrap().distortion;
            assert!(held(&with) <= held(&without), "{} {}", held(&with), held(&without));
        }
        assert!(with.decision.layers.iter().all(|l| (l.sharing > 0) == (l.method == "joint")));
        // What is said of the layers is what they take.
        let saved = size(&g).unwrap() - bytes(&with);
        let said = with.decision.bytes_before - with.decision.bytes_after;
        assert!(saved.abs_diff(said) < 600, "{saved} {said}");
        assert!(with.decision.gap < 0.25, "{}", with.decision.gap);
    }
}

#[test]
fn a_selection_with_shared_factors_is_repeated_to_the_bit() {
    let g = residual(0.05);
    for goal in [Goal::MaxDrop(0.01), Goal::TargetBytes(size(&g).unwrap() / 16)] {
        let first = search(&g, goal, |_| {});
        assert!(!joint(&first).is_empty());
        let repairs = first.decision.repair.map_or(Repairs::Never, |r| Repairs::Again { tuned: r.tuned });
        let again = search(&g, goal, |o| {
            o.repairs = repairs;
            o.overrides = first.decision.layers.iter().map(|l| Override::parse(&l.pin).unwrap()).collect();
        });
        assert!(again.graph == first.graph);
        assert_eq!(bytes(&again), bytes(&first));
    }
}

#[test]
fn kernels_with_nothing_in_common_share_nothing() {
    let g = residual(2.0);
    let with = search(&g, Goal::MaxDrop(0.01), |_| {});
    let without = search(&g, Goal::MaxDrop(0.01), |o| o.methods.retain(|m| m.name() != "joint"));
    assert!(joint(&with).is_empty() && bytes(&with) == bytes(&without));
}
