//! What the user asks for.

use crate::allocate::Allocation;
use crate::calibrate::spread;
use crate::clock::Clock;
use crate::metric::Metric;
use crate::shelf::{Memory, Shelf};
use ir::{Error, Feeds, Graph, Result, Tensor};
use lossy::candidate::tensor_bytes;
use lossy::{Candidate, Common, Layer, METHODS, Method, Serves, methods};
use regex::Regex;
use std::collections::BTreeMap;

/// What ends the search.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Goal {
    /// Fewest bytes whose metric falls by at most this much (0.01 is one point).
    MaxDrop(f64),
    /// Best quality within this many bytes of file.
    TargetBytes(u64),
    /// Least measured time of one run whose metric falls by at most this much.
    Fastest(f64),
    /// Best quality within this measured time of one run.
    TargetLatency(Time),
    /// Best quality with this share of zeros in the layers that the method `sparse` prunes.
    TargetSparsity(f64),
}

/// A time of one run.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Time {
    Milliseconds(f64),
    /// Of the original's, measured in the same run.
    Share(f64),
}

impl Time {
    /// In milliseconds, for an original that takes `original`.
    pub fn milliseconds(self, original: f64) -> f64 {
        match self {
            Time::Milliseconds(ms) => ms,
            Time::Share(share) => share * original,
        }
    }
}

impl Goal {
    /// The most that the metric may fall, where that is bounded.
    pub fn drop(self) -> Option<f64> {
        match self {
            Goal::MaxDrop(drop) | Goal::Fastest(drop) => Some(drop),
            Goal::TargetBytes(_) | Goal::TargetLatency(_) | Goal::TargetSparsity(_) => None,
        }
    }

    /// True for goals that are about time.
    pub fn timed(self) -> bool {
        matches!(self, Goal::Fastest(_) | Goal::TargetLatency(_))
    }
}

/// A layer whose method the user chose.
#[derive(Debug, Clone)]
pub struct Override {
    pub layer: Regex,
    /// A method's name, a whole recipe ("int4 block 32"), or "keep".
    pub recipe: String,
}

impl Override {
    /// From `REGEX=METHOD`.
    pub fn parse(text: &str) -> Result<Override> {
        let (pattern, recipe) = text
            .rsplit_once('=')
            .ok_or_else(|| Error::data(format!("layer override '{text}' must be REGEX=METHOD")))?;
        let layer = Regex::new(pattern).map_err(|e| {
            Error::data(format!("layer override '{text}': {}", e.to_string().replace('\n', " ")))
        })?;
        let recipe = recipe.trim().to_string();
        if let Some(share) = recipe.strip_prefix("channels ").filter(|s| fraction(s).is_none()) {
            return Err(Error::data(format!("channels '{share}' must be a share such as 3/4")));
        }
        let known = recipe == "keep" || METHODS.iter().any(|m| recipe.split(' ').next() == Some(m.name()));
        if !known {
            return Err(Error::data(format!(
                "unknown method '{recipe}'; methods are keep, {}",
                names().join(", ")
            )));
        }
        Ok(Override { layer, recipe })
    }

    /// The name of the method.
    pub fn method(&self) -> &str {
        self.recipe.split(' ').next().unwrap_or("")
    }

    /// The share of the channels that stay, when this is about channels.
    pub(crate) fn channels(&self) -> Option<(usize, usize)> {
        (self.method() == "channels")
            .then(|| self.recipe.strip_prefix("channels ").and_then(fraction).unwrap_or((3, 4)))
    }

    /// True when it is about this layer.
    pub(crate) fn names(&self, layer: &Layer) -> bool {
        self.layer.is_match(&layer.name) || self.layer.is_match(&layer.weight)
    }

    /// True when it fixes how this layer is stored.
    pub(crate) fn fixes(&self, layer: &Layer) -> bool {
        self.method() != "channels" && self.names(layer)
    }
}

/// `3/4` as two numbers; more than nothing, less than all.
fn fraction(text: &str) -> Option<(usize, usize)> {
    let (a, b) = text.split_once('/')?;
    let (a, b) = (a.trim().parse().ok()?, b.trim().parse().ok()?);
    (0 < a && a < b && b <= 1 << 20).then_some((a, b))
}

/// Names of all methods.
pub fn names() -> Vec<&'static str> {
    METHODS.iter().map(|m| m.name()).collect()
}

/// Methods by comma-separated names; a leading `-` excludes from all.
pub fn select(list: &str) -> Result<Vec<&'static dyn Method>> {
    let words: Vec<&str> = list.split(',').map(str::trim).filter(|w| !w.is_empty()).collect();
    for w in &words {
        let name = w.trim_start_matches('-');
        if methods::find(name).is_none() {
            return Err(Error::data(format!("unknown method '{name}'; methods are {}", names().join(", "))));
        }
    }
    let excludes = words.iter().all(|w| w.starts_with('-'));
    let keep = |m: &&&'static dyn Method| {
        if excludes {
            !m.on_request() && !words.iter().any(|w| w.trim_start_matches('-') == m.name())
        } else {
            words.contains(&m.name())
        }
    };
    Ok(METHODS.iter().filter(keep).copied().collect())
}

/// Whether the layers of a selection are repaired for the inputs that the compressed layers before them give.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Repairs {
    Never,
    /// Where the outputs get nearer to the original's.
    #[default]
    Paying,
    /// As an earlier run did that had these layers, with tuning or without: what repair does follows from both and the data.
    Again {
        tuned: bool,
    },
}

/// Everything the search needs to know besides graph and data.
pub struct Options {
    pub goal: Goal,
    pub methods: Vec<&'static dyn Method>,
    pub overrides: Vec<Override>,
    /// Threads for statistics and candidates; 0 takes all. The answer does not depend on it.
    pub threads: usize,
    /// Where candidates wait.
    pub shelf: Box<dyn Shelf>,
    /// What the errors of two layers do together counts; false shows what that is worth.
    pub interactions: bool,
    /// Steps along gradients follow a repair; false shows what that is worth.
    pub tune: bool,
    /// Gains are measured again where the search arrives; false shows what that is worth.
    pub again: bool,
    /// Selections of other kinds are tried in the end; false shows what that is worth.
    pub rivals: bool,
    /// Whether the selection is repaired.
    pub repairs: Repairs,
    /// Bytes of memory that the search may take; no bound where absent.
    pub memory: Option<u64>,
    /// Bytes of a tensor in the output, when that is not a plain ONNX file.
    pub price: Option<Price>,
    /// What is measured; without it, the outputs' form decides.
    pub metric: Option<Metric>,
    /// Gives a model a number, the higher the better; it takes the place of the metric.
    pub judge: Option<Box<Judge>>,
    /// Times layers and models when speed is the goal; without one, choices are those of the overrides alone.
    pub clock: Option<Box<dyn Clock>>,
    /// How layers share a budget.
    pub allocation: Allocation,
    /// Methods make up for their errors; false shows what that is worth.
    pub compensate: bool,
    /// Data too few to prove the drop at 95 % are taken, and what is expected decides.
    pub unproven: bool,
}

/// Gives a model a number.
pub type Judge = dyn Fn(&Graph) -> Result<f64> + Send + Sync;

/// Tells the bytes of a tensor in the output.
pub type Price = fn(&Tensor) -> u64;

impl Options {
    pub fn new(goal: Goal) -> Options {
        Options {
            goal,
            methods: METHODS.iter().copied().filter(|m| m.plain() && useful(goal, *m)).collect(),
            overrides: Vec::new(),
            threads: 0,
            shelf: Box::new(Memory::default()),
            interactions: true,
            again: true,
            tune: true,
            rivals: true,
            repairs: Repairs::default(),
            memory: None,
            price: None,
            metric: None,
            judge: None,
            clock: None,
            allocation: Allocation::default(),
            compensate: true,
            unproven: false,
        }
    }

    /// Counts bytes as `price` tells, and takes the methods that pay only there along.
    pub fn priced(mut self, price: Price) -> Options {
        self.methods = METHODS.iter().copied().filter(|m| useful(self.goal, *m)).collect();
        self.price = Some(price);
        self
    }

    /// What storing `t` adds to the output, its header included.
    pub(crate) fn tensor_bytes(&self, t: &Tensor) -> u64 {
        match self.price {
            None => tensor_bytes(t),
            Some(price) => price(t) + tensor_bytes(t).saturating_sub(t.stored_bytes() as u64),
        }
    }

    /// What storing a layer as it is takes in the output.
    pub(crate) fn layer_bytes(&self, layer: &Layer) -> u64 {
        layer.tensors().iter().map(|t| self.tensor_bytes(t)).sum()
    }

    /// A candidate with the bytes that it takes in the output.
    pub(crate) fn counted(&self, c: Candidate) -> Result<Candidate> {
        if self.price.is_none() {
            return Ok(c);
        }
        let priced = |g: &Graph, bytes: u64| {
            let constants = || g.initializers().map(|(_, t)| t);
            let plain: u64 = constants().map(tensor_bytes).sum();
            (bytes + constants().map(|t| self.tensor_bytes(t)).sum::<u64>()).saturating_sub(plain)
        };
        let (Some(common), Some(graph)) = (c.common, c.common_graph()?) else {
            return Ok(Candidate { bytes: priced(&c.fragment, c.bytes), ..c });
        };
        let all = priced(&c.fragment, c.own_bytes() + common.bytes);
        let common = Common { bytes: priced(&graph, common.bytes), ..common };
        Ok(Candidate { bytes: all.saturating_sub(common.bytes) + common.part(), common: Some(common), ..c })
    }
}

/// Whether a method may serve the goal.
fn useful(goal: Goal, m: &dyn Method) -> bool {
    let serves = m.serves() == Serves::Both || (m.serves() == Serves::Time) == goal.timed();
    serves && !m.on_request()
}

/// Samples of model inputs, made one at a time.
pub trait Samples: Sync {
    fn len(&self) -> usize;
    fn is_empty(&self) -> bool {
        self.len() == 0
    }
    /// The model's inputs for sample `i`.
    fn feeds(&self, i: usize) -> Result<Feeds>;
    /// The class of sample `i`, when the data say.
    fn label(&self, _i: usize) -> Option<i64> {
        None
    }
    /// The number of what sample `i` was made from: versions of one thing count as one.
    fn source(&self, i: usize) -> usize {
        i
    }
}

/// Told how far the search is; may ask it to stop.
pub trait Progress: Sync {
    fn stage(&self, _name: &str, _steps: usize) {}
    fn step(&self) {}
    /// True when the user interrupted.
    fn stopped(&self) -> bool {
        false
    }
    /// The share of the allowed time that is gone; 0 where time is not limited.
    fn gone(&self) -> f64 {
        0.0
    }
    /// Told what the limit on time cut short: how many of how many were done.
    fn cut(&self, _what: &str, _done: usize, _of: usize) {}
}

/// No progress shown.
pub struct Silent;
impl Progress for Silent {}

/// An error when the user interrupted.
pub(crate) fn check(progress: &dyn Progress) -> Result<()> {
    if progress.stopped() { Err(Error::data("interrupted")) } else { Ok(()) }
}

/// Whether this share of the allowed time is gone.
pub(crate) fn late(progress: &dyn Progress, share: f64) -> bool {
    progress.gone() >= share
}

/// Sample numbers by purpose; disjoint and spread over the whole data.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Split {
    pub calibration: Vec<usize>,
    pub selection: Vec<usize>,
    pub held_back: Vec<usize>,
}

impl Split {
    /// Of every four samples two calibrate, one selects, one is held back; tiny data serve every purpose.
    pub fn of(samples: usize) -> Split {
        let by = |part: usize| (0..samples).filter(|i| TURNS[i % TURNS.len()] == part).collect::<Vec<_>>();
        let mut s = Split { calibration: by(0), selection: by(1), held_back: by(2) };
        for part in [&mut s.calibration, &mut s.selection, &mut s.held_back] {
            if part.is_empty() {
                *part = (0..samples).collect();
            }
        }
        s
    }

    /// As [`Split::of`] with samples of one group in one part. Groups of several samples, the largest first, go to the
    /// part that lacks most.
    pub fn grouped(groups: &[usize]) -> Split {
        let mut members = BTreeMap::<usize, Vec<usize>>::new();
        groups.iter().enumerate().for_each(|(i, g)| members.entry(*g).or_default().push(i));
        if members.len() == groups.len() || members.len() < PARTS {
            return Split::of(groups.len());
        }
        let mut order: Vec<Vec<usize>> = members.into_values().collect();
        order.sort_by_key(|m| (std::cmp::Reverse(m.len()), m[0]));
        let mut parts: [Vec<usize>; 3] = Default::default();
        for (done, m) in order.into_iter().enumerate() {
            let lacks = |p: &usize| {
                let share = TURNS.iter().filter(|t| *t == p).count() as f64 / TURNS.len() as f64;
                share * groups.len() as f64 - parts[*p].len() as f64
            };
            // No part stays empty.
            let most = (0..PARTS).rev().max_by(|a, b| lacks(a).total_cmp(&lacks(b))).unwrap_or(0);
            parts[if done < PARTS { done } else { most }].extend(m);
        }
        parts.iter_mut().for_each(|p| p.sort());
        let [calibration, selection, held_back] = parts;
        Split { calibration, selection, held_back }
    }

    /// A few of the samples that are not held back, spread over them: the first ones may all resemble each other.
    pub fn probes(&self, most: usize) -> Vec<usize> {
        let mut seen = [&self.calibration[..], &self.selection].concat();
        seen.sort();
        seen.dedup();
        spread(&seen, most)
    }

    /// True when held-back samples chose nothing.
    pub fn held_apart(&self) -> bool {
        self.held_back
            .iter()
            .all(|i| self.selection.binary_search(i).is_err() && self.calibration.binary_search(i).is_err())
    }
}

/// Parts of the samples: those that calibrate, select, are held back.
const PARTS: usize = 3;
/// The part that each of four samples in a row belongs to: half calibrate, as statistics of layers need samples most.
const TURNS: [usize; 4] = [0, 1, 0, 2];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn splits_are_disjoint_and_complete() {
        let s = Split::of(128);
        let mut all = [s.calibration, s.selection, s.held_back].concat();
        all.sort();
        assert_eq!(all, (0..128).collect::<Vec<_>>());
        assert_eq!(Split::of(1).held_back, [0]);
    }

    #[test]
    fn groups_stay_together() {
        assert_eq!(Split::grouped(&(0..40).collect::<Vec<_>>()), Split::of(40));
        let groups: Vec<usize> = (0..96).map(|i| i % 12).collect();
        let s = Split::grouped(&groups);
        let of = |part: &[usize]| part.iter().map(|i| i % 12).collect::<std::collections::BTreeSet<_>>();
        let all = [of(&s.calibration), of(&s.selection), of(&s.held_back)];
        assert_eq!(all.iter().map(|p| p.len()).sum::<usize>(), 12);
        assert!(s.held_apart() && s.held_back.len() == 24 && s.calibration.len() == 48, "{s:?}");
        let two = Split::grouped(&[0, 0, 0, 3]);
        assert!(!Split::of(1).held_apart() && two == Split::of(4));
        let lopsided = Split::grouped(&[vec![0; 50], vec![50], vec![51]].concat());
        assert_eq!((lopsided.selection, lopsided.held_back), (vec![50], vec![51]));
    }

    #[test]
    fn method_lists_and_overrides() {
        assert_eq!(select("int4,float16").unwrap().len(), 2);
        let usual = METHODS.iter().filter(|m| !m.on_request()).count();
        assert_eq!(select("-int4").unwrap().len(), usual - 1);
        assert_eq!(select("").unwrap().len(), usual);
        assert_eq!(select("sparse").unwrap().len(), 1);
        assert!(select("magic").is_err());
        assert!(Override::parse("^conv=int4 block 32").is_ok());
        assert_eq!(Override::parse("^conv=channels 5/8").unwrap().channels(), Some((5, 8)));
        assert!(Override::parse("^conv=channels 9/8").is_err() && Override::parse("a=channels x").is_err());
        assert!(
            Override::parse("(=int4").is_err()
                && Override::parse("x=y").is_err()
                && Override::parse("x").is_err()
        );
    }
}
