//! Candidates in two passes: those that are quick to make tell how much the output may change, and forms that lose more than
//! that in one layer alone are never made.

use crate::allocate::Allocation;
use crate::bisect::{Bisection, COARSE};
use crate::goal::{Goal, Options, Repairs};
use crate::polish::LEAST_ERROR;
use crate::shares::Shares;
use crate::table::{self, Pass};
use crate::{Search, Size};
use ir::Result;
use lossy::{Hopes, Method, Scope, Stats};
use std::sync::Arc;

/// Methods of the first pass, and the recipe whose error the others are measured by.
const QUICK: [&str; 8] = ["float16", "int12", "int10", "int9", "int8-weight", "int7", "int6", "int5"];
const YARDSTICK: &str = "int5";
/// Quick methods that are enough to judge by.
const FEWEST: usize = 4;
/// Factor by which one layer alone may exceed what the quick ones show all may lose together: repair takes a good part of
/// large errors back, and none of small ones.
const ROOM: [f64; 2] = [1.5, 4.0];
/// Methods with integer activations, and what stores the same weights without them: as many bytes, and a smaller error.
const FASTER: (&[&str], &str) = (&["int8", "int8-dynamic"], "int8-weight");

type Methods = Vec<&'static dyn Method>;

/// The methods of both passes; the second has none where one pass makes all.
pub fn passes(options: &Options) -> (Methods, Methods) {
    let of_layers = options.methods.iter().copied().filter(|m| m.scope() == Scope::Layer);
    let (quick, mut rest): (Methods, Methods) = of_layers.partition(|m| QUICK.contains(&m.name()));
    let apart = matches!(options.goal, Goal::MaxDrop(_) | Goal::TargetBytes(_))
        && options.allocation == Allocation::Dynamic
        && options.judge.is_none()
        && !matches!(options.repairs, Repairs::Again { .. })
        && quick.len() >= FEWEST
        && quick.iter().any(|m| m.name() == YARDSTICK);
    if apart && quick.iter().any(|m| m.name() == FASTER.1) {
        rest.retain(|m| !FASTER.0.contains(&m.name()));
    }
    if apart { (quick, rest) } else { (options.methods.clone(), Vec::new()) }
}

impl table::Row {
    /// What is worth making for this layer, where all of them together may change the output by `together`.
    pub(crate) fn hopes(&self, together: f64) -> Hopes<'static> {
        let yardstick = self.candidates.iter().find(|o| o.head.recipe == YARDSTICK);
        let room = ROOM[usize::from(together >= LEAST_ERROR)];
        let most = if self.gain > 0.0 { room * together / self.gain } else { f64::INFINITY };
        Hopes { five_bits: yardstick.map_or(0.0, |o| o.head.error), most, late: None }
    }
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
        let hopes: Vec<Hopes> = self.rows.iter().map(|r| r.hopes(most)).collect();
        let layers = self.rows.iter().map(|r| r.layer.clone()).collect();
        let pass = Pass { methods: rest, hopes: &hopes, second: true };
        let more = table::build(self.graph, layers, stats, pass, self.options, self.progress)?;
        self.rows.iter_mut().zip(more).for_each(|(row, more)| row.join(more));
        self.items = self.rows.iter().map(table::Row::items).collect();
        self.shares = Shares::of(&self.rows);
        self.seen.clear();
        Ok(())
    }

    /// The most that all layers may change the output by.
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
        Ok(known.unwrap_or(f64::INFINITY))
    }
}
