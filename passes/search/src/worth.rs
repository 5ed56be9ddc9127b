//! Candidates in two passes: those that are quick to make tell how much the output may change, and forms that lose more than
//! that in one layer alone are never made.

use crate::allocate::Allocation;
use crate::bisect::{Bisection, COARSE};
use crate::goal::{Goal, Options, Repairs};
use crate::table::{self, Pass};
use crate::{Search, Size};
use ir::Result;
use lossy::{Hopes, Method, Scope, Stats};
use std::sync::Arc;

/// Methods of the first pass, and the recipe whose error the others are measured by.
const QUICK: [&str; 7] = ["float16", "int12", "int10", "int8-weight", "int7", "int6", "int5"];
const YARDSTICK: &str = "int5";
/// Quick methods that are enough to judge by.
const FEWEST: usize = 4;
/// Factor by which one layer alone may exceed what the quick ones show all may lose together.
const ROOM: f64 = 4.0;

type Methods = Vec<&'static dyn Method>;

/// The methods of both passes; the second has none where one pass makes all.
pub fn passes(options: &Options) -> (Methods, Methods) {
    let of_layers = options.methods.iter().copied().filter(|m| m.scope() == Scope::Layer);
    let (quick, rest): (Methods, Methods) = of_layers.partition(|m| QUICK.contains(&m.name()));
    let apart = matches!(options.goal, Goal::MaxDrop(_) | Goal::TargetBytes(_))
        && options.allocation == Allocation::Dynamic
        && options.judge.is_none()
        && !matches!(options.repairs, Repairs::Again { .. })
        && quick.len() >= FEWEST
        && quick.iter().any(|m| m.name() == YARDSTICK);
    if apart { (quick, rest) } else { (options.methods.clone(), Vec::new()) }
}

impl Search<'_> {
    /// Makes what is worth it of the methods left.
    pub(crate) fn widen(
        &mut self,
        rest: &[&'static dyn Method],
        stats: Vec<Option<Arc<Stats>>>,
        size: Size,
    ) -> Result<()> {
        let most = self.most(size)?;
        let hopes = |r: &table::Row| {
            let five = r.candidates.iter().find(|o| o.head.recipe == YARDSTICK).map_or(0.0, |o| o.head.error);
            let most = if r.gain > 0.0 { most / r.gain } else { f64::INFINITY };
            Hopes { five_bits: five, most, late: None }
        };
        let hopes: Vec<Hopes> = self.rows.iter().map(hopes).collect();
        let layers = self.rows.iter().map(|r| r.layer.clone()).collect();
        let pass = Pass { methods: rest, hopes: &hopes, second: true };
        let more = table::build(self.graph, layers, stats, pass, self.options, self.progress)?;
        self.rows.iter_mut().zip(more).for_each(|(row, more)| row.join(more));
        self.items = self.rows.iter().map(table::Row::items).collect();
        self.seen.clear();
        Ok(())
    }

    /// The most that one layer may change the output by.
    fn most(&mut self, size: Size) -> Result<f64> {
        let known = match self.options.goal {
            Goal::MaxDrop(drop) => {
                self.progress.stage("search", COARSE);
                let b = self.tried(Bisection::coarse(self.start, 1e-9, self.ceiling()), drop)?;
                // Where all that is quick passes, it tells nothing of the rest.
                self.start = match (b.passed, b.failed) {
                    (Some(p), Some(f)) => (p * f).sqrt(),
                    (None, Some(f)) => f,
                    _ => self.start,
                };
                b.failed
            }
            Goal::TargetBytes(bytes) => {
                let fixed = size(self.graph)?.saturating_sub(self.rows.iter().map(|r| r.bytes).sum());
                self.least_error(bytes.saturating_sub(fixed)).map(|s| s.error)
            }
            Goal::Fastest(_) | Goal::TargetLatency(_) | Goal::TargetSparsity(_) => None,
        };
        Ok(known.map_or(f64::INFINITY, |k| ROOM * k))
    }
}
