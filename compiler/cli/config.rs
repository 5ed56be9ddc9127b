//! Settings from files: `compress.toml`, and the report of an earlier run as a recipe. Arguments go before both.

use crate::args::CompressArgs;
use crate::exit::{Failure, Result};
use crate::{files, report};
use serde::Deserialize;
use std::path::{Path, PathBuf};

/// Read from the current folder when no other is named.
const NAME: &str = "compress.toml";

/// What `compress.toml` may say: the long options of the main job.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct Config {
    output: Option<PathBuf>,
    data: Option<PathBuf>,
    recipe: Option<PathBuf>,
    max_drop: Option<String>,
    target_size: Option<String>,
    target_ratio: Option<f64>,
    #[serde(default)]
    fastest: bool,
    target_latency: Option<String>,
    costs: Option<PathBuf>,
    metric: Option<String>,
    #[serde(default)]
    robust: Vec<String>,
    #[serde(default)]
    unproven: bool,
    methods: Option<Vec<String>>,
    #[serde(default)]
    layer: Vec<String>,
    threads: Option<usize>,
    seed: Option<u64>,
    max_memory: Option<String>,
}

/// The arguments with what they leave open filled in.
pub fn complete(mut args: CompressArgs) -> Result<CompressArgs> {
    let named = args.config.clone();
    let path = named.clone().unwrap_or_else(|| PathBuf::from(NAME));
    if named.is_some() || path.is_file() {
        fill(&mut args, read(&path)?);
    }
    if let Some(path) = args.recipe.clone() {
        follow(&mut args, &report::json::read(&path)?);
    }
    Ok(args)
}

/// Whether the arguments say more than that bytes count.
fn has_goal(args: &CompressArgs) -> bool {
    args.max_drop.is_some() || args.fastest || has_target(args)
}

fn has_target(args: &CompressArgs) -> bool {
    let sizes = args.target_size.is_some() || args.target_ratio.is_some() || args.target_sparsity.is_some();
    sizes || args.target_latency.is_some()
}

fn read(path: &Path) -> Result<Config> {
    let bad = |e: &dyn std::fmt::Display| Failure::usage(format!("{}: {e}", path.display()));
    let bytes = files::read(path)?;
    toml::from_str(std::str::from_utf8(&bytes).map_err(|e| bad(&e))?).map_err(|e| bad(&e))
}

fn fill(args: &mut CompressArgs, c: Config) {
    if !has_goal(args) && !args.smallest {
        (args.target_size, args.target_ratio, args.target_latency) =
            (c.target_size, c.target_ratio, c.target_latency);
        args.fastest = c.fastest;
    }
    if !has_target(args) {
        args.max_drop = args.max_drop.take().or(c.max_drop);
    }
    args.costs = args.costs.take().or(c.costs);
    args.output = args.output.take().or(c.output);
    args.data.path = args.data.path.take().or(c.data);
    args.recipe = args.recipe.take().or(c.recipe);
    args.metric = args.metric.take().or(c.metric);
    if args.robust.is_empty() {
        args.robust = c.robust;
    }
    args.unproven |= c.unproven;
    args.methods = args.methods.take().or(c.methods);
    args.threads = args.threads.or(c.threads);
    args.seed = args.seed.or(c.seed);
    args.bounds.max_memory = args.bounds.max_memory.take().or(c.max_memory);
    // The last match wins, so arguments come last.
    args.layer = [c.layer, std::mem::take(&mut args.layer)].concat();
}

/// Takes goal, seed and the choice for every layer from an earlier run.
fn follow(args: &mut CompressArgs, r: &report::json::Report) {
    if !has_goal(args) && !args.smallest {
        let goal = r.goal.strip_prefix("fastest, ");
        args.fastest = goal.is_some();
        args.max_drop = goal.unwrap_or(&r.goal).strip_prefix("max drop ").map(str::to_string);
        args.target_latency = r.goal.strip_prefix("target latency ").map(str::to_string);
        // Its choices were made by measurements; these are not repeated.
        args.replayed = true;
        args.target_size = r.goal.strip_prefix("target size ").map(str::to_string);
        args.target_sparsity = r.goal.strip_prefix("target sparsity ").map(str::to_string);
        args.target_ratio = r.goal.strip_prefix("target ratio ").and_then(|x| x.parse().ok());
    }
    args.seed = args.seed.or(Some(r.repro.seed));
    if args.robust.is_empty() {
        args.robust = r.repro.robust.clone();
    }
    args.repairs =
        r.repair.map_or(search::Repairs::Never, |repair| search::Repairs::Again { tuned: repair.tuned });
    let pins: Vec<String> = r.layers.iter().map(|l| l.pin.clone()).collect();
    args.layer = [pins, std::mem::take(&mut args.layer)].concat();
}
