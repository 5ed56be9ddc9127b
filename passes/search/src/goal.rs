//! What the user asks for.

use crate::clock::Clock;
use crate::metric::Metric;
use crate::shelf::{Memory, Shelf};
use ir::{Error, Feeds, Graph, Result, Tensor};
use lossy::candidate::tensor_bytes;
use lossy::{Candidate, Layer, METHODS, Method, Serves, methods};
use regex::Regex;

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
            Goal::TargetBytes(_) | Goal::TargetLatency(_) => None,
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
            !words.iter().any(|w| w.trim_start_matches('-') == m.name())
        } else {
            words.contains(&m.name())
        }
    };
    Ok(METHODS.iter().filter(keep).copied().collect())
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
            memory: None,
            price: None,
            metric: None,
            judge: None,
            clock: None,
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

    /// Bytes of a candidate in the output.
    pub(crate) fn bytes(&self, c: &Candidate) -> u64 {
        if self.price.is_none() {
            return c.bytes;
        }
        let constants = || c.fragment.initializers().map(|(_, t)| t);
        let plain: u64 = constants().map(tensor_bytes).sum();
        (c.bytes + constants().map(|t| self.tensor_bytes(t)).sum::<u64>()).saturating_sub(plain)
    }
}

/// Whether a method may serve the goal.
fn useful(goal: Goal, m: &dyn Method) -> bool {
    m.serves() == Serves::Both || (m.serves() == Serves::Time) == goal.timed()
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
    /// Of every eight samples three calibrate, three select, two are held back; tiny data serve every purpose.
    pub fn of(samples: usize) -> Split {
        let by = |wanted: &[usize]| (0..samples).filter(|i| wanted.contains(&(i % 8))).collect::<Vec<_>>();
        let mut s = Split { calibration: by(&[0, 3, 5]), selection: by(&[1, 4, 6]), held_back: by(&[2, 7]) };
        for part in [&mut s.calibration, &mut s.selection, &mut s.held_back] {
            if part.is_empty() {
                *part = (0..samples).collect();
            }
        }
        s
    }
}

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
    fn method_lists_and_overrides() {
        assert_eq!(select("int4,float16").unwrap().len(), 2);
        assert_eq!(select("-int4").unwrap().len(), METHODS.len() - 1);
        assert_eq!(select("").unwrap().len(), METHODS.len());
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
