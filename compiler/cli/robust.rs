//! `--robust`: samples made worse on purpose.

use crate::args::DataArgs;
use crate::exit::{Failure, Result};
use data::degrade::{Degradation, Pixels};
use ir::{Feeds, Graph};

/// The degradations that a list names.
pub fn parse(list: &[String]) -> Result<Vec<Degradation>> {
    let names = Degradation::ALL.map(Degradation::name).join(", ");
    let one = |w: &String| {
        Degradation::parse(w).ok_or_else(|| Failure::usage(format!("--robust '{w}' is none of {names}")))
    };
    list.iter().map(one).collect()
}

/// How samples at `args` are degraded, and what opens them: arrays are taken as they are, so what is said of pixels tells
/// only what their values mean.
pub fn opening(args: &DataArgs, robust: bool) -> DataArgs {
    let mut plain = args.clone();
    if robust && args.path.as_ref().is_some_and(|p| !p.is_dir()) {
        (plain.mean, plain.std, plain.scale, plain.channels, plain.layout) =
            (vec![], vec![], None, None, None);
    }
    plain
}

/// What values of the samples' images mean; says so on stderr.
pub fn pixels(args: &DataArgs, graph: &Graph, samples: &dyn search::Samples) -> Result<Pixels> {
    let options = args.options().images;
    let images = args.path.as_ref().is_some_and(|p| p.is_dir());
    let told = !options.mean.is_empty() || !options.std.is_empty() || options.scale.is_some();
    let pixels = Pixels::of(graph, &samples.feeds(0)?, &options, images || told)?;
    eprintln!("compress: {}", pixels.describe());
    Ok(pixels)
}

/// All samples, degraded in one way.
pub struct Degraded<'a> {
    pub samples: &'a dyn search::Samples,
    pub pixels: &'a Pixels,
    pub how: Degradation,
    pub seed: u64,
}

impl search::Samples for Degraded<'_> {
    fn len(&self) -> usize {
        self.samples.len()
    }
    fn feeds(&self, i: usize) -> ir::Result<Feeds> {
        self.pixels.degraded(&self.samples.feeds(i)?, self.how, seed_of(self.seed, i))
    }
    fn label(&self, i: usize) -> Option<i64> {
        self.samples.label(i)
    }
}

/// Every sample as it is and once degraded, in turn in each way.
pub struct Mixed<'a> {
    pub samples: &'a dyn search::Samples,
    pub pixels: Pixels,
    pub ways: Vec<Degradation>,
    pub seed: u64,
}

impl search::Samples for Mixed<'_> {
    fn len(&self) -> usize {
        2 * self.samples.len()
    }
    fn feeds(&self, i: usize) -> ir::Result<Feeds> {
        let (of, clean) = (i / 2, self.samples.feeds(i / 2)?);
        // Clean and degraded change places, so that every stride over samples meets both.
        let way = self.ways.get(of % self.ways.len().max(1)).filter(|_| (i + of) % 2 == 1);
        way.map_or_else(|| Ok(clean.clone()), |&w| self.pixels.degraded(&clean, w, seed_of(self.seed, of)))
    }
    fn label(&self, i: usize) -> Option<i64> {
        self.samples.label(i / 2)
    }
    fn source(&self, i: usize) -> usize {
        i / 2
    }
}

fn seed_of(seed: u64, sample: usize) -> u64 {
    (seed ^ 0x5851_f42d_4c95_7f2d).wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(sample as u64)
}
