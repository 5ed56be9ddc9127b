//! The loop of `compress fuzz`: mutated pairs, kept where they reach what no pair before them reached.

use crate::check::{self, Finding, check};
use crate::mutate::{self, Limits};
use crate::pair::Pair;
use crate::passes::{Pass, Pipeline};
use crate::random::Random;
use crate::targets::{self, Target};
use ir::Graph;
use std::collections::BTreeSet;
use std::time::{Duration, Instant};
use tally::Seen;

/// Pairs to begin with.
const FIRST: usize = 48;
/// Most pairs kept.
const KEPT: usize = 4096;
/// Passes are changed after so many changes of the graph that reached nothing new.
const FRUITLESS: usize = 4;
/// What changing passes reaches for its cost beside what changing graphs does, at least: else it would never be tried again.
const LEAST: f64 = 0.25;
/// Cost after which what was reached before counts half.
const HALF: f64 = 50_000.0;

/// Seconds for one pair that are worth telling.
const SLOW: f64 = 1.0;

/// What is mutated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mutate {
    Both,
    Graph,
    Passes,
    /// Every graph is a new one.
    Nothing,
}

/// How to fuzz.
pub struct Settings {
    pub target: Target,
    pub time: Duration,
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
    pub executions: u64,
    /// Of them, graphs that ran.
    pub graphs: u64,
    pub features: usize,
}

#[derive(Default)]
pub struct Outcome {
    pub end: Point,
    /// At even intervals.
    pub curve: Vec<Point>,
    pub findings: Vec<(Pair, Finding)>,
    /// The pair that took longest, and its seconds.
    pub slowest: Option<(Pair, f64)>,
    entries: Vec<Entry>,
}

struct Entry {
    pair: Pair,
    reaches: Vec<(u16, u8)>,
    fruitless: usize,
    cost: usize,
}

/// What a kind of change reached, and what it cost: in passes judged times nodes, as clocks would make runs differ.
#[derive(Default)]
struct Yield {
    features: f64,
    cost: f64,
}

impl Yield {
    fn add(&mut self, features: usize, cost: usize) {
        self.features += features as f64;
        self.cost += cost as f64;
        if self.cost > HALF {
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

/// Runs the loop. `begin` is told each pair before it is checked, so that one that ends the process is known.
pub fn fuzz(settings: Settings, begin: &mut dyn FnMut(&Pair)) -> Outcome {
    check::set_limits();
    let mut fuzzer = Fuzzer {
        r: Random(settings.seed),
        limits: settings.model.as_ref().map_or(Limits::default(), Limits::of),
        start: Instant::now(),
        seen: Seen::default(),
        known: BTreeSet::new(),
        graphs: Yield::default(),
        passes: Yield::default(),
        out: Outcome::default(),
        settings,
    };
    fuzzer.run(begin);
    fuzzer.out.end = fuzzer.point();
    fuzzer.out.curve.push(fuzzer.out.end);
    fuzzer.out
}

struct Fuzzer {
    settings: Settings,
    limits: Limits,
    r: Random,
    start: Instant,
    seen: Seen,
    known: BTreeSet<String>,
    graphs: Yield,
    passes: Yield,
    out: Outcome,
}

impl Fuzzer {
    fn run(&mut self, begin: &mut dyn FnMut(&Pair)) {
        let mut first = std::mem::take(&mut self.settings.seeds);
        if let Some(graph) = self.settings.model.clone() {
            let passes = self.first_passes();
            first.push(Pair { graph, pipeline: Pipeline::new(1, passes) });
        }
        for pair in first {
            self.one(pair, None, begin);
        }
        let mut next = self.settings.time.as_secs_f64() / 200.0;
        while self.start.elapsed() < self.settings.time
            && self.out.end.executions < self.settings.executions
            && self.out.findings.len() < self.settings.findings
        {
            if let Some((pair, parent)) = self.next() {
                self.one(pair, parent, begin);
            }
            if self.start.elapsed().as_secs_f64() >= next {
                next += self.settings.time.as_secs_f64() / 200.0;
                let p = self.point();
                self.out.curve.push(p);
            }
        }
    }

    fn point(&self) -> Point {
        Point { seconds: self.start.elapsed().as_secs_f64(), ..self.out.end }
    }

    fn first_passes(&mut self) -> Vec<Pass> {
        self.settings.passes.clone().unwrap_or_else(|| self.settings.target.passes(&mut self.r))
    }

    /// A pair to check, and the entry it comes from.
    fn next(&mut self) -> Option<(Pair, Option<Parent>)> {
        let n = self.out.entries.len();
        let generates = self.settings.model.is_none();
        let enough = self.settings.mutate == Mutate::Passes && n >= FIRST;
        let fresh = n < FIRST || self.settings.mutate == Mutate::Nothing || (!enough && self.r.chance(1, 8));
        if generates && fresh {
            return Some((self.fresh()?, None));
        }
        if n == 0 {
            return None;
        }
        let mut at = self.pick(n);
        if self.settings.feedback {
            // Of two the cheaper one, as more of them can be run.
            let other = self.pick(n);
            if self.out.entries.get(other)?.cost < self.out.entries.get(at)?.cost {
                at = other;
            }
        }
        let entry = self.out.entries.get(at)?;
        let mut pair = entry.pair.clone();
        let passes = match self.settings.mutate {
            Mutate::Graph => false,
            Mutate::Passes | Mutate::Nothing => true,
            Mutate::Both => {
                let worth = (self.passes.rate() / self.graphs.rate()).clamp(LEAST, 1.0);
                let due = entry.fruitless % (FRUITLESS + 1) == FRUITLESS;
                due && (!self.settings.feedback || self.r.chance((worth * 1000.0) as usize, 1000))
            }
        };
        if passes {
            mutate::passes::mutate(&mut pair.pipeline, self.settings.target, &mut self.r);
        } else {
            let other = &self.out.entries[self.r.below(n)].pair.graph;
            let (r, limits) = (&mut self.r, self.limits);
            match check::guarded(|| mutate::graph(&pair, other, r, limits)) {
                Ok(Some((g, _))) => pair.graph = g,
                // Mutators look at what operators give beside what is inferred of them.
                Err(message) => {
                    self.found(pair, Finding { oracle: "inference", at: 0, pass: "mutate", message });
                    return None;
                }
                Ok(None) => {
                    self.out.entries[at].fruitless += 1;
                    return None;
                }
            }
        }
        Some((pair, Some(Parent { at, passes })))
    }

    /// An entry; recent ones, the least explored, more often.
    fn pick(&mut self, n: usize) -> usize {
        let recent = self.settings.feedback && self.r.chance(1, 2);
        if recent { n - 1 - self.r.below(n.min(24)) } else { self.r.below(n) }
    }

    fn found(&mut self, pair: Pair, f: Finding) {
        if self.known.insert(kind(&f)) {
            self.out.findings.push((pair, f));
        }
    }

    fn fresh(&mut self) -> Option<Pair> {
        let n = 64 + self.r.below(1024);
        let bytes = self.r.bytes(n);
        let pipeline = Pipeline::new(self.r.bits() >> 40, self.first_passes());
        let case = match check::guarded(|| targets::generated(&bytes)) {
            Ok(case) => case?,
            Err(message) => {
                let pair = Pair { graph: Graph::new("generated"), pipeline };
                self.found(pair, Finding { oracle: "inference", at: 0, pass: "generate", message });
                return None;
            }
        };
        Some(Pair::from((case, pipeline)))
    }

    fn one(&mut self, pair: Pair, parent: Option<Parent>, begin: &mut dyn FnMut(&Pair)) {
        begin(&pair);
        tally::clear();
        let started = Instant::now();
        let result = check(&pair);
        let taken = started.elapsed().as_secs_f64();
        if taken > SLOW.max(self.out.slowest.as_ref().map_or(0.0, |s| s.1)) {
            self.out.slowest = Some((pair.clone(), taken));
        }
        let new = self.seen.add();
        self.out.end.executions += 1;
        self.out.end.features += new.len();
        let mut cost = 4 + pair.graph.node_count();
        match result {
            Ok(ran) => {
                self.out.end.graphs += u64::from(ran.valid);
                cost *= 1 + ran.passes;
            }
            Err(f) => {
                self.out.end.graphs += 1;
                return self.found(pair, f);
            }
        }
        let n = self.out.entries.len();
        let keep = if self.settings.feedback { !new.is_empty() } else { n < FIRST || self.r.chance(1, 4) };
        if let Some(p) = parent {
            let kind = if p.passes { &mut self.passes } else { &mut self.graphs };
            kind.add(new.len(), cost);
            if let Some(e) = self.out.entries.get_mut(p.at) {
                e.fruitless = if new.is_empty() { e.fruitless + 1 } else { 0 };
            }
        }
        if keep || n < FIRST {
            let entry = Entry { pair, reaches: tally::features(), fruitless: 0, cost };
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
        type Coded<'a> = (Vec<u8>, &'a [(u16, u8)]);
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
