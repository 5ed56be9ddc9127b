//! Goals of speed and limits on time, with clocks made up for the tests.

use crate::behaviour::{Noise, model, size};
use crate::{
    Clock, Goal, Options, Outcome, Override, Piece, Progress, Silent, Spread, Status, Time, compress,
};
use ir::{Evaluate, Feeds, Graph, Reference, Result, ValueId};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// Integers take `integer` of 100 where bytes come in, floats 100; whole models take what their own form promises, times
/// `truth` for compressed ones.
struct Made {
    integer: f64,
    truth: f64,
    asked: Mutex<Vec<String>>,
}

fn integer(g: &Graph) -> bool {
    g.nodes().any(|(_, n)| n.is("QuantizeLinear"))
}

impl Clock for Made {
    fn pieces(&self, pieces: &[Piece]) -> Vec<Option<f64>> {
        let mut asked = self.asked.lock().unwrap();
        asked.extend(pieces.iter().map(|p| p.form.clone()));
        // Pieces stand alone: their inputs are theirs, and they run.
        for p in pieces {
            assert!(p.graph.inputs().iter().all(|&v| p.graph.ty(v).concrete().is_some()));
            assert_eq!((p.op.as_str(), p.graph.outputs().len()), ("MatMul", 1));
        }
        pieces
            .iter()
            .map(|p| {
                Some(if p.form.starts_with("int8") && !p.form.starts_with("int8-w") {
                    self.integer
                } else {
                    100.0
                })
            })
            .collect()
    }
    fn race(&self, graphs: &[&Graph], _: &Feeds) -> Option<Vec<Spread>> {
        let one = |g: &&Graph| {
            let count = g.nodes().filter(|(_, n)| n.is("QuantizeLinear")).count() as f64;
            let ns = 300.0 - count * (100.0 - self.integer);
            let ms = if integer(g) { ns * self.truth } else { ns } / 1e6;
            Spread { median_ms: ms, p10_ms: ms, p90_ms: ms, runs: 1 }
        };
        Some(graphs.iter().map(one).collect())
    }
    fn threads(&self) -> usize {
        1
    }
}

fn made(integer: f64, truth: f64) -> Box<Made> {
    Box::new(Made { integer, truth, asked: Mutex::default() })
}

fn search(goal: Goal, clock: Option<Box<Made>>, edit: impl Fn(&mut Options)) -> Outcome {
    let mut options = Options::new(goal);
    options.clock = clock.map(|c| c as Box<dyn Clock>);
    edit(&mut options);
    compress(&model(), Some(&Noise::new(96)), &options, &Reference, &size, &Silent).unwrap()
}

#[test]
fn the_fastest_selection_within_the_drop_is_taken_and_explained() {
    let o = search(Goal::Fastest(0.05), Some(made(40.0, 1.0)), |_| {});
    assert_eq!(o.decision.status, Status::Met, "{:?}", o.decision.trials);
    assert!(integer(&o.graph) && o.decision.held_back.unwrap().drop <= 0.05);
    let latency = o.decision.latency.unwrap();
    assert!(latency.compressed.median_ms < latency.original.median_ms);
    assert!((latency.predicted_ms - latency.compressed.median_ms).abs() < 1e-9, "{latency:?}");
    for l in &o.decision.layers {
        assert_eq!(l.ns_before, Some(100.0));
        assert_eq!(l.ns_after, Some(if l.method == "int8" { 40.0 } else { 100.0 }), "{l:?}");
        assert_eq!(l.candidates_ns.len(), l.candidates.len());
    }
}

#[test]
fn what_is_slower_in_the_end_is_not_taken() {
    let o = search(Goal::Fastest(0.05), Some(made(40.0, 9.0)), |_| {});
    assert_eq!(o.decision.status, Status::NotFaster);
    let o = search(Goal::Fastest(0.05), Some(made(140.0, 1.0)), |_| {});
    assert_eq!(o.decision.status, Status::NothingGained, "slow layers stay as they are");
}

#[test]
fn a_target_latency_is_met_with_little_error_or_refused() {
    let loose = search(Goal::TargetLatency(Time::Share(0.9)), Some(made(40.0, 1.0)), |_| {});
    let tight = search(Goal::TargetLatency(Time::Milliseconds(200e-6)), Some(made(40.0, 1.0)), |_| {});
    for (o, most) in [(&loose, 270e-6), (&tight, 200e-6)] {
        assert_eq!(o.decision.status, Status::Met);
        assert!(o.decision.latency.unwrap().compressed.median_ms <= most);
    }
    assert!(loose.decision.predicted < tight.decision.predicted);
    let none = search(Goal::TargetLatency(Time::Share(0.1)), Some(made(40.0, 1.0)), |_| {});
    assert_eq!(none.decision.status, Status::NotReached);
    assert!(none.decision.latency.is_some(), "the nearest is told");
    // A promise of the layers that the whole model does not keep is made up for by a smaller one, or refused.
    let liar = search(Goal::TargetLatency(Time::Share(0.7)), Some(made(40.0, 1.1)), |_| {});
    match liar.decision.status {
        Status::Met => assert!(liar.decision.latency.unwrap().compressed.median_ms <= 210e-6),
        status => assert_eq!(status, Status::NotReached),
    }
}

#[test]
fn a_selection_of_overrides_is_repeated_without_a_clock() {
    let goal = Goal::Fastest(0.05);
    let first = search(goal, Some(made(40.0, 1.0)), |_| {});
    let pins = |o: &mut Options| {
        o.overrides = first.decision.layers.iter().map(|l| Override::parse(&l.pin).unwrap()).collect();
    };
    let again = search(goal, None, pins);
    assert_eq!(again.decision.status, Status::Met);
    assert!(again.graph == first.graph && again.decision.latency.is_none());
}

#[test]
fn overrides_that_lose_much_are_taken_where_much_may_be_lost() {
    let o = search(Goal::MaxDrop(1.0), None, |o| {
        o.overrides = ["first=int2", "second=int2"].map(|p| Override::parse(p).unwrap()).into();
    });
    assert_eq!(o.decision.status, Status::Met, "{:?}", o.decision.trials);
    assert!(o.decision.predicted > 1e-2, "more than the first budget tried");
}

/// Every question about the time is a moment.
struct Moments {
    of: usize,
    asked: AtomicUsize,
    cut: Mutex<Vec<String>>,
}

impl Progress for Moments {
    fn gone(&self) -> f64 {
        self.asked.fetch_add(1, Relaxed) as f64 / self.of as f64
    }
    fn cut(&self, what: &str, done: usize, of: usize) {
        assert!(done < of, "{what} {done} {of}");
        self.cut.lock().unwrap().push(what.to_string());
    }
}

/// Counts the runs after the end of the time.
struct Counted<'a>(&'a Moments, AtomicUsize);

impl Evaluate for Counted<'_> {
    fn run(&self, graph: &Graph, inputs: &Feeds, taps: &[ValueId]) -> Result<ir::Outcome> {
        self.1.fetch_add(usize::from(self.0.asked.load(Relaxed) > self.0.of), Relaxed);
        Reference.run(graph, inputs, taps)
    }
}

#[test]
fn the_search_ends_in_time_with_what_holds() {
    let data = Noise::new(96);
    let bytes = |moments: usize| {
        let clock = Moments { of: moments, asked: AtomicUsize::new(0), cut: Mutex::default() };
        let mut options = Options::new(Goal::MaxDrop(0.05));
        options.threads = 1;
        let engine = Counted(&clock, AtomicUsize::new(0));
        let o = compress(&model(), Some(&data), &options, &engine, &size, &clock).unwrap();
        // What is always done: a few samples to calibrate, to choose and to check by, and one check.
        let late = engine.1.into_inner();
        assert!(late <= 200, "{moments} {late}");
        let cut = clock.cut.into_inner().unwrap();
        if o.decision.status == Status::Met {
            assert!(o.decision.held_back.unwrap().drop <= 0.05);
        } else {
            assert!(!cut.is_empty(), "{moments} {:?}", o.decision.status);
        }
        (o.decision.status == Status::Met).then(|| (size(&o.graph).unwrap(), cut))
    };
    let (all, nothing_cut) = bytes(1_000_000).unwrap();
    assert!(nothing_cut.is_empty());
    let met: Vec<(u64, Vec<String>)> = (1..=20).map(|n| 20 * n).filter_map(bytes).collect();
    assert!(!met.is_empty() && all > 0);
    assert!(met.iter().any(|m| !m.1.is_empty()), "{met:?}");
}
