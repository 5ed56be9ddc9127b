//! One file per command.

pub mod bench;
pub mod build;
pub mod compress;
pub mod diff;
pub mod eval;
pub mod explain;
pub mod fuzz;
pub mod inspect;
pub mod optimize;
pub mod pack;
pub mod pareto;
pub mod run;

use crate::args::DataArgs;
use crate::exit::{Failure, Result, line};
use ir::Graph;

/// The samples the user gave for `graph`, if any; what is to know about them goes to stderr.
pub fn samples(args: &DataArgs, graph: &Graph) -> Result<Option<data::Samples>> {
    let options = args.options();
    let Some(path) = &args.path else {
        if options.labels.is_some() || !options.images.is_default() {
            return Err(Failure::usage("options for images and labels need --data"));
        }
        return Ok(None);
    };
    let samples = data::Samples::open(path, graph, &options)?;
    samples.notes().iter().for_each(|n| eprintln!("compress: {}", line(&format!("{}: {n}", path.display()))));
    Ok(Some(samples))
}
