//! The loop of `compress fuzz`: mutated pairs, kept where they reach what no pair before them reached.

use crate::check::{self, Finding};
use crate::mutate::{self, Limits};
use crate::pair::Pair;
use crate::passes::{Pass, Pipeline};
use crate::random::Random;
use crate::targets::{self, Target};
use ir::Graph;
use std::collections::BTreeSet;
use std::time::{Duration, Instant};
use tally::{Feature, Seen};

/// Pairs to begin with.
const FIRST: usize = 48;
/// Most pairs kept.
const KEPT: usize = 4096;
/// Passes are changed after so many changes of the graph that reached nothing new.
const FRUITLESS: usize = 4;
/// Most changes of one pair before another is chosen.
const STAY: usize = 24;
/// New pairs, one of so many where they reach as much for their cost as changed ones; at least, and at most.
const NEW: (f64, f64, f64) = (1.0 / 8.0, 1.0 / 32.0, 1.0 / 2.0);
/// What changing passes reaches for its cost beside what changing graphs does, at least, as it would never be tried again
/// else; and at most, which is how many changes of passes follow each other.
const WORTH: (f64, f64) = (0.25, 6.0);
/// Cost after which what kinds of changes, and what changes of one pair reached before counts half.
const HALF: (f64, f64) = (4e6, 4e4);
/// What a pair reached itself counts for it, up to so many features.
const OWN: usize = 16;
/// The entry that promises most of so many is changed.
const OF: usize = 3;
/// One change of passes in so many goes on from what the passes gave, where that is another graph.
const ONWARD: usize = 3;
/// Constants of a graph that is kept to go on from, bytes.
const ONWARD_BYTES: usize = 64 << 10;
/// How many executions apart clocks are read.
const CLOCK: u64 = 16;

/// Seconds for one pair that are worth telling.
const SLOW: f64 = 1.0;

/// What is mutated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mutate {
    Both,
    /// All graphs go through one sequence of passes.
    Graph,
    /// Passes are drawn once for each new graph and stay.
    Drawn,
    Passes,
    /// Every graph is a new one.
    Nothing,
}

/// How to fuzz.
pub struct Settings {
    pub target: Target,
    pub time: Duration,
    /// Ends after so much time of processors, where the system tells it.
    pub core_time: Option<Duration>,
    pub executions: u64,
    pub seed: u64,
    pub mutate: Mutate,
    /// Whether pairs are kept for what they reach; else at random.
    pub feedback: bool,
    /// The graph to start from, in place of generated ones.
    pub model: Option<Graph>,
    /// The passes to start from.
    pub passes: Option<Vec<Pass>>,
    /// More pairs to start from.
    pub seeds: Vec<Pair>,
    /// Ends after so many different findings.
    pub findings: usize,
}

impl Settings {
    pub fn new(target: Target, time: Duration, seed: u64) -> Settings {
        Settings {
            target,
            time,
            core_time: None,
            executions: u64::MAX,
            seed,
            mutate: Mutate::Both,
            feedback: true,
            model: None,
            passes: None,
            seeds: Vec::new(),
            findings: 1,
        }
    }
}

/// How far the loop is.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Point {
    pub seconds: f64,
    /// Of processors; 0 where the system does not tell.
    pub core_seconds: f64,
    pub executions: u64,
    /// Of them, graphs that ran.
    pub graphs: u64,
    /// Counters in each of their ranges.
    pub features: usize,
    /// Counters that were ever above 0.
    pub events: usize,
    /// Pairs above the limit of time, not judged to the end.
    pub late: u64,
}

#[derive(Default)]
pub struct Outcome {
    pub end: Point,
    /// At even intervals.
    pub curve: Vec<Point>,
    pub findings: Vec<(Pair, Finding)>,
    /// Of each kind of counter: its name, those that were ever above 0, and how many there are.
    pub counters: Vec<(&'static str, usize, usize)>,
    /// Of new pairs, changed graphs and changed passes: executions, and features that they were the first to reach.
    pub kinds: [(u64, usize); 3],
    /// The pair that took longest, and its seconds.
    pub slowest: Option<(Pair, f64)>,
    entries: Vec<Entry>,
}

struct Entry {
    pair: Pair,
    /// What its passes gave.
    result: Option<Graph>,
    reaches: Vec<Feature>,
    worth: Yield,
}

/// What changes of a kind, or of one pair, reached, and what they cost: as passes and nodes tell, since clocks would make
/// runs differ.
#[derive(Debug, Clone, Default)]
struct Yield {
    features: f64,
    cost: f64,
}

impl Yield {
    fn add(&mut self, features: usize, cost: usize, half: f64) {
        self.features += features as f64;
        self.cost += cost as f64;
        if self.cost > half {
            (self.features, self.cost) = (self.features / 2.0, self.cost / 2.0);
        }
    }

    fn rate(&self) -> f64 {
        (1.0 + self.features) / (1.0 + self.cost)
    }
}

/// Where a pair comes from: an entry, and whether its passes were changed.
#[derive(Clone, Copy)]
struct Parent {
    at: usize,
    passes: bool,
}

/// The entry that is being changed, how often, and how often in a row in vain.
#[derive(Clone, Copy)]
struct Turn {
    at: usize,
    changes: usize,
    fruitless: usize,
}

/// Seconds that processors spent on this process, where the system tells it.
pub fn core_seconds() -> Option<f64> {
    let all = std::fs::read_to_string("/proc/self/stat").ok()?;
    // The name before the parenthesis may hold spaces; hundredths of a second, for itself and for the system.
    let fields = all.rsplit_once(')')?.1.split_whitespace().skip(11).take(2);
    fields.map(|f| f.parse::<f64>().ok()).sum::<Option<f64>>().map(|ticks| ticks / 100.0)
}

/// What is told while the loop runs, so that nothing is lost when the process ends before it.
pub enum Event<'a> {
    /// A pair that is checked next.
    Begin(&'a Pair),
    /// How far the loop is, at even intervals.
    At(Point),
    Found(&'a Pair, &'a Finding),
}

/// Runs the loop.
pub fn fuzz(settings: Settings, tell: &mut dyn FnMut(Event)) -> Outcome {
    check::set_limits();
    let mut fuzzer = Fuzzer {
        r: Random(settings.seed),
        limits: settings.model.as_ref().map_or(Limits::default(), Limits::of),
        start: Instant::now(),
        began: core_seconds().unwrap_or(0.0),
        core: 0.0,
        seen: Seen::default(),
        known: BTreeSet::new(),
        new: Yield::default(),
        graphs: Yield::default(),
        passes: Yield::default(),
        turn: None,
        out: Outcome::default(),
        settings,
    };
    fuzzer.run(tell);
    fuzzer.out.end = fuzzer.point();
    fuzzer.out.curve.push(fuzzer.out.end);
    fuzzer.out.counters = fuzzer.seen.by_kind().map(|(k, n, of)| (k.name(), n, of)).collect();
    fuzzer.out
}

struct Fuzzer {
    settings: Settings,
    limits: Limits,
    r: Random,
    start: Instant,
    /// Core-seconds of the process before.
    began: f64,
    /// Core-seconds since, when they were last read.
    core: f64,
    seen: Seen,
    known: BTreeSet<String>,
    new: Yield,
    graphs: Yield,
    passes: Yield,
    turn: Option<Turn>,
    out: Outcome,
}

impl Fuzzer {
    fn run(&mut self, tell: &mut dyn FnMut(Event)) {
        let mut first = std::mem::take(&mut self.settings.seeds);
        if let Some(graph) = self.settings.model.clone() {
            let passes = self.first_passes();
            first.push(Pair { graph, pipeline: Pipeline::new(1, passes) });
        }
        for pair in first {
            self.one(pair, None, tell);
        }
        let mut next = 0.005;
        while self.share() < 1.0
            && self.out.end.executions < self.settings.executions
            && self.out.findings.len() < self.settings.findings
        {
            if let Some((pair, parent)) = self.next(tell) {
                self.one(pair, parent, tell);
            }
            if self.out.end.executions.is_multiple_of(CLOCK) {
                self.core = core_seconds().map_or(0.0, |s| s - self.began);
            }
            if self.share() >= next {
                next = self.share() + 0.005;
                let p = self.point();
                self.out.curve.push(p);
                tell(Event::At(p));
            }
        }
    }

    /// How much of the time is over.
    fn share(&self) -> f64 {
        let wall = self.start.elapsed().as_secs_f64() / self.settings.time.as_secs_f64();
        self.settings.core_time.map_or(wall, |t| wall.max(self.core / t.as_secs_f64()))
    }

    fn point(&self) -> Point {
        let core_seconds = core_seconds().map_or(0.0, |s| s - self.began);
        let seconds = self.start.elapsed().as_secs_f64();
        Point { seconds, core_seconds, events: self.seen.events(), ..self.out.end }
    }

    fn first_passes(&mut self) -> Vec<Pass> {
        match &self.settings.passes {
            Some(p) => p.clone(),
            None if self.settings.mutate == Mutate::Graph => self.settings.target.usual(),
            None => self.settings.target.passes(&mut self.r),
        }
    }

    /// A pair to check, and the entry it comes from.
    fn next(&mut self, tell: &mut dyn FnMut(Event)) -> Option<(Pair, Option<Parent>)> {
        let n = self.out.entries.len();
        let generates = self.settings.model.is_none();
        let enough = self.settings.mutate == Mutate::Passes && n >= FIRST;
        let share = if self.settings.feedback { NEW.0 * self.new.rate() / self.graphs.rate() } else { NEW.0 };
        let fresh = n < FIRST
            || self.settings.mutate == Mutate::Nothing
            || (!enough && self.r.share(share.clamp(NEW.1, NEW.2)));
        if generates && fresh {
            return Some((self.fresh(tell)?, None));
        }
        if n == 0 {
            return None;
        }
        let (at, passes) = match self.settings.mutate {
            Mutate::Graph | Mutate::Drawn => (self.pick(n), false),
            Mutate::Passes | Mutate::Nothing => (self.pick(n), true),
            Mutate::Both => self.turn(n),
        };
        let mut pair = self.out.entries.get(at)?.pair.clone();
        if passes {
            let onward = self.settings.mutate == Mutate::Both && self.r.chance(1, ONWARD);
            let result = if onward { self.out.entries.get(at)?.result.clone() } else { None };
            match result.and_then(|g| mutate::settled(g, pair.pipeline.seed, self.limits)) {
                Some(g) => {
                    pair.graph = g;
                    pair.pipeline.passes = self.settings.target.passes(&mut self.r);
                }
                None => mutate::passes::mutate(&mut pair.pipeline, self.settings.target, &mut self.r),
            }
        } else {
            let other = &self.out.entries[self.r.below(n)].pair.graph;
            let (r, limits) = (&mut self.r, self.limits);
            match check::guarded(|| mutate::graph(&pair, other, r, limits)) {
                Ok(Some((g, _))) => pair.graph = g,
                // Mutators look at what operators give beside what is inferred of them.
                Err(message) => {
                    self.found(pair, Finding { oracle: "inference", at: 0, pass: "mutate", message }, tell);
                    return None;
                }
                Ok(None) => {
                    self.tried(at, true);
                    return None;
                }
            }
        }
        Some((pair, Some(Parent { at, passes })))
    }

    /// The entry to change, and whether its passes: after some changes of its graph in vain, for as many changes as those of
    /// passes are worth; then it is another entry's turn.
    fn turn(&mut self, n: usize) -> (usize, bool) {
        let worth = (self.passes.rate() / self.graphs.rate()).clamp(WORTH.0, WORTH.1);
        let worth = if self.settings.feedback { worth } else { 1.0 };
        let most = FRUITLESS + worth.ceil() as usize;
        let turn = match self.turn {
            Some(t) if t.changes < STAY && t.fruitless < most => t,
            _ => Turn { at: self.pick(n), changes: 0, fruitless: 0 },
        };
        self.turn = Some(turn);
        let due = turn.fruitless >= FRUITLESS && self.r.share(worth);
        (turn.at, due)
    }

    fn tried(&mut self, at: usize, in_vain: bool) {
        if let Some(t) = self.turn.as_mut().filter(|t| t.at == at) {
            t.changes += 1;
            t.fruitless = if in_vain { t.fruitless + 1 } else { 0 };
        }
    }

    /// An entry: of some, recent ones more often, the one whose changes reach most for their cost.
    fn pick(&mut self, n: usize) -> usize {
        if !self.settings.feedback {
            return self.r.below(n);
        }
        let mut best = (0, -1.0);
        for _ in 0..OF {
            let at = if self.r.chance(1, 2) { n - 1 - self.r.below(n.min(24)) } else { self.r.below(n) };
            let rate = self.out.entries.get(at).map_or(0.0, |e| e.worth.rate());
            if rate > best.1 {
                best = (at, rate);
            }
        }
        best.0
    }

    fn found(&mut self, pair: Pair, f: Finding, tell: &mut dyn FnMut(Event)) {
        if self.known.insert(kind(&f)) {
            tell(Event::Found(&pair, &f));
            self.out.findings.push((pair, f));
        }
    }

    fn fresh(&mut self, tell: &mut dyn FnMut(Event)) -> Option<Pair> {
        let n = 64 + self.r.below(1024);
        let bytes = self.r.bytes(n);
        let pipeline = Pipeline::new(self.r.bits() >> 40, self.first_passes());
        let case = match check::guarded(|| targets::generated(&bytes)) {
            Ok(case) => case?,
            Err(message) => {
                let pair = Pair { graph: Graph::new("generated"), pipeline };
                self.found(pair, Finding { oracle: "inference", at: 0, pass: "generate", message }, tell);
                return None;
            }
        };
        Some(Pair::from((case, pipeline)))
    }

    fn one(&mut self, pair: Pair, parent: Option<Parent>, tell: &mut dyn FnMut(Event)) {
        tell(Event::Begin(&pair));
        tally::clear();
        let started = Instant::now();
        let result = check::follow(&pair);
        let taken = started.elapsed().as_secs_f64();
        if taken > SLOW {
            // Other work on the machine is not the pair's.
            let core = core_seconds().map(|s| s - self.began);
            let taken = core.map_or(taken, |c| taken.min(c - self.core));
            self.core = core.unwrap_or(0.0);
            if taken > SLOW.max(self.out.slowest.as_ref().map_or(0.0, |s| s.1)) {
                self.out.slowest = Some((pair.clone(), taken));
            }
        }
        let new = self.seen.add();
        self.out.end.executions += 1;
        self.out.end.features += new.len();
        let (ran, graph) = match result {
            Ok(done) => done,
            Err(f) => {
                self.out.end.graphs += 1;
                return self.found(pair, f, tell);
            }
        };
        self.out.end.graphs += u64::from(ran.valid);
        self.out.end.late += u64::from(ran.late);
        let n = self.out.entries.len();
        let keep = if self.settings.feedback { !new.is_empty() } else { n < FIRST || self.r.chance(1, 4) };
        let (kind, worth) = match parent {
            None => (0, &mut self.new),
            Some(Parent { passes: false, .. }) => (1, &mut self.graphs),
            Some(Parent { passes: true, .. }) => (2, &mut self.passes),
        };
        worth.add(new.len(), ran.cost, HALF.0);
        self.out.kinds[kind].0 += 1;
        self.out.kinds[kind].1 += new.len();
        if let Some(p) = parent {
            self.tried(p.at, new.is_empty());
            if let Some(e) = self.out.entries.get_mut(p.at) {
                e.worth.add(new.len(), ran.cost, HALF.1);
            }
        }
        // What is above the limit would only cost again.
        if (keep || n < FIRST) && !ran.late {
            let onward = self.settings.mutate == Mutate::Both
                && check::bytes(&graph) <= ONWARD_BYTES
                && !check::only_runs_here(&graph)
                && graph != pair.graph;
            let worth = Yield { features: new.len().min(OWN) as f64, cost: ran.cost as f64 };
            let reaches = tally::features();
            let entry = Entry { pair, result: onward.then_some(graph), reaches, worth };
            if n < KEPT {
                self.out.entries.push(entry);
            } else {
                let at = self.r.below(n);
                self.out.entries[at] = entry;
            }
        }
    }
}

/// What makes two findings one: who noticed, where, and the message without its numbers.
pub fn kind(f: &Finding) -> String {
    let words: String = f.message.chars().filter(|c| !c.is_ascii_digit()).take(60).collect();
    format!("{} {} {words}", f.oracle, f.pass)
}

impl Outcome {
    /// The fewest pairs that reach nearly all that was reached, at most `most`: each time the one that adds most a byte.
    pub fn smallest(&self, most: usize) -> Vec<Vec<u8>> {
        /// The bytes of a pair, and what it reaches.
        type Coded<'a> = (Vec<u8>, &'a [Feature]);
        let mut left: Vec<Coded> = self
            .entries
            .iter()
            .filter_map(|e| Some((e.pair.encode().ok()?, &e.reaches[..])))
            .filter(|(b, _)| b.len() < 16 << 10)
            .collect();
        let (mut seen, mut chosen) = (BTreeSet::new(), Vec::new());
        while chosen.len() < most {
            let worth = |(b, f): &Coded| {
                f.iter().filter(|x| !seen.contains(*x)).count() * 1_000_000 / (2000 + b.len())
            };
            let Some(best) =
                (0..left.len()).max_by_key(|&i| worth(&left[i])).filter(|&i| worth(&left[i]) > 0)
            else {
                break;
            };
            let (bytes, reaches) = left.swap_remove(best);
            seen.extend(reaches.iter().copied());
            chosen.push(bytes);
        }
        chosen
    }
}

/// The same for a check of bytes: seeds with bytes changed, moved, cut off. Ends at the first panic, with the input.
pub fn fuzz_bytes(
    check: fn(&[u8]),
    seeds: &[Vec<u8>],
    time: Duration,
    executions: u64,
    seed: u64,
) -> (u64, Option<(Vec<u8>, String)>) {
    check::set_limits();
    let (start, mut r, mut done) = (Instant::now(), Random(seed), 0);
    while done < executions && (done % 64 != 0 || start.elapsed() < time) {
        let mut b = r.pick(seeds).cloned().unwrap_or_default();
        if b.is_empty() || r.chance(1, 20) {
            let n = r.below(300);
            b = r.bytes(n);
        }
        for _ in 0..1 + r.below(5) {
            change(&mut b, &mut r);
        }
        if let Err(e) = check::guarded(|| check(&b)) {
            return (done + 1, Some((b, e)));
        }
        done += 1;
    }
    (done, None)
}

fn change(b: &mut Vec<u8>, r: &mut Random) {
    let at = r.below(b.len());
    match r.below(7) {
        0 => b.truncate(at),
        1 => drop(b.drain(at..(at + r.below(8)).min(b.len()))),
        2 => {
            let part = b[at..(at + r.below(24)).min(b.len())].to_vec();
            let to = r.below(b.len());
            b.splice(to..to, part);
        }
        3 => b.insert(at, r.bits() as u8),
        _ if at < b.len() => {
            let flipped = b[at] ^ (1 << r.below(8));
            b[at] = r.one(&[flipped, flipped, 0, 1, 0x7f, 0x80, 0xff], 0);
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_loop_reaches_more_and_finds_nothing() {
        let mut settings = Settings::new(Target::Joint, Duration::from_secs(20), 3);
        settings.executions = 150;
        let out = fuzz(settings, &mut |_| {});
        assert_eq!(out.findings.first().map(|f| f.1.to_string()), None);
        assert!(out.end.graphs > 100 && out.end.features > 500, "{:?}", out.end);
        let few = out.smallest(10);
        assert!(!few.is_empty() && few.iter().all(|b| Pair::decode(b).is_some()));
    }

    #[test]
    fn a_check_of_bytes_that_panics_is_found() {
        let picky: fn(&[u8]) = |b| assert!(b.first() != Some(&0x7f), "seven f");
        let (n, found) = fuzz_bytes(picky, &[vec![1, 2, 3]], Duration::from_secs(10), 100_000, 1);
        assert!(found.is_some_and(|(b, e)| b[0] == 0x7f && e.contains("seven f")), "{n}");
    }
}
