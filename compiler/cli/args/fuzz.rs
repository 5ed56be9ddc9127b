//! Options of `compress fuzz` and `compress reduce`.

use clap::Args;
use std::path::PathBuf;

/// What `fuzz` changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum FuzzMutate {
    /// Graphs, and passes where changing a graph reached nothing
    #[default]
    Both,
    /// Graphs, which all go through one sequence of passes
    Graph,
    /// Graphs; passes are drawn once for each new one
    Drawn,
    /// Passes
    Passes,
    /// Nothing: every graph is a new one
    Nothing,
}

#[derive(Debug, Args)]
pub struct FuzzArgs {
    /// How long: 90s, 10m, 2h [default: 1m, or as long as --core-time takes].
    #[arg(long, value_name = "T", value_parser = crate::commands::fuzz::duration)]
    pub time: Option<std::time::Duration>,
    /// Ends after so much processor time of its own (on Linux; not where the input is bytes).
    #[arg(long, value_name = "T", value_parser = crate::commands::fuzz::duration)]
    pub core_time: Option<std::time::Duration>,
    /// The passes to start from, as [[pass]] entries; without, made-up ones.
    #[arg(long, value_name = "P.toml")]
    pub pipeline: Option<PathBuf>,
    /// The model to start from; without, made-up graphs.
    #[arg(long, value_name = "M.onnx")]
    pub model: Option<PathBuf>,
    /// joint, exact, lossy, codegen, roundtrip, prescan_import, container or runtime_quant.
    #[arg(long, value_name = "NAME", default_value = "joint")]
    pub target: String,
    /// Seed of every choice.
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub seed: u64,
    /// Ends after so many executions.
    #[arg(long, value_name = "N")]
    pub executions: Option<u64>,
    /// What is changed.
    #[arg(long, value_enum, default_value_t)]
    pub mutate: FuzzMutate,
    /// Keep pairs at random instead of for what they reach.
    #[arg(long)]
    pub blind: bool,
    /// Ends after so many different findings.
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub findings: usize,
    /// Folder of pairs or files to start from, such as one that --keep wrote.
    #[arg(long, value_name = "DIR")]
    pub seeds: Option<PathBuf>,
    /// Folder for the fewest pairs that reach what was reached.
    #[arg(long, value_name = "DIR")]
    pub keep: Option<PathBuf>,
    /// Folder for findings.
    #[arg(short, long, value_name = "DIR", default_value = "findings")]
    pub output: PathBuf,
    /// Write findings as they are, not reduced.
    #[arg(long)]
    pub raw: bool,
    /// Keep the pair at hand, and how coverage grows, in the folder for findings, so that neither is lost when the process
    /// ends.
    #[arg(long)]
    pub trace: bool,
    /// Print the result, with how coverage grew, as JSON.
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
pub struct ReduceArgs {
    pub model: PathBuf,
    /// The passes after which an oracle objects, as `fuzz` writes them.
    #[arg(long, value_name = "P.toml")]
    pub pipeline: PathBuf,
    /// Where to write the model [default: MODEL.min.onnx]; the passes go beside it, ending in .toml.
    #[arg(short, long, value_name = "OUT")]
    pub output: Option<PathBuf>,
    /// Longest time to go on.
    #[arg(long, value_name = "T", default_value = "2m", value_parser = crate::commands::fuzz::duration)]
    pub time: std::time::Duration,
    /// Overwrite existing output files.
    #[arg(long)]
    pub force: bool,
}
