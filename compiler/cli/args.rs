//! The command line, declared once; clap derives parser and help from it.

mod fuzz;

use crate::values;
use clap::{Args, Parser, Subcommand};
use std::path::PathBuf;

pub use fuzz::{FuzzArgs, FuzzMutate, ReduceArgs};

/// Compress a trained ONNX model inside a quality budget, and run it.
///
/// `compress MODEL` writes MODEL.compressed.onnx (plain ONNX that every runtime loads) with a report that says, for every
/// layer, what was done, what it saved and what it cost. The file is written only if it is smaller and inside the budget,
/// measured in that run.
#[derive(Debug, Parser)]
#[command(
    name = "compress",
    version,
    args_conflicts_with_subcommands = true,
    subcommand_negates_reqs = true,
    after_help = "Exit codes: 0 done · 1 model or data bad or unsupported · 2 usage · 3 goal not reachable or nothing gained \
                  (no file written) · 4 self-check failed · 130 interrupted"
)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Option<Command>,
    #[command(flatten)]
    pub compress: CompressArgs,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run a model on inputs from an npz file.
    Run(RunArgs),
    /// Apply exact rewrites only: same answers, fewer and cheaper operators.
    Optimize(OptimizeArgs),
    /// Show inputs, outputs, operators, parameters, bytes and MACs per layer, and what is not supported.
    Inspect(InspectArgs),
    /// Compile a model ahead of time: an object or library for C, with weights and kernels inside.
    Build(BuildArgs),
    /// Measure latency, load time and peak memory.
    Bench(BenchArgs),
    /// Measure the quality of a file beside the original's, or against labels, with confidence bounds.
    Eval(EvalArgs),
    /// Compare two models' outputs and name the first layer that diverges.
    Diff(DiffArgs),
    /// Say why a report's layers are stored as they are, and what else was possible.
    Explain(ExplainArgs),
    /// Compress as one point of a front says that --pareto wrote.
    Pick(PickArgs),
    /// Entropy-code a model file into a .cmpx container, which run, bench and the other commands read directly.
    Pack(PackArgs),
    /// Give back the model file inside a container, bit for bit.
    Unpack(UnpackArgs),
    /// Look for bugs: changed models through changed passes, every result checked; ends with 4 on a finding, reduced.
    Fuzz(FuzzArgs),
    /// Make a failing model and pass list minimal, and print a regression test.
    Reduce(ReduceArgs),
}

#[derive(Debug, Args)]
pub struct ExplainArgs {
    /// The .report.json of a run.
    pub report: PathBuf,
    /// Layers whose name matches.
    #[arg(long, value_name = "REGEX", default_value = "")]
    pub layer: String,
}

#[derive(Debug, Args)]
pub struct PickArgs {
    /// The .front.json of a run.
    pub front: PathBuf,
    /// Number of the point.
    pub point: Option<usize>,
    /// The smallest point that loses at most this.
    #[arg(long, value_name = "X", conflicts_with_all = ["point", "target_size"])]
    pub max_drop: Option<String>,
    /// The best point of at most this many bytes.
    #[arg(long, value_name = "S", conflicts_with = "point")]
    pub target_size: Option<String>,
    /// The samples that the front was measured on; without, those at the path that it names.
    #[command(flatten)]
    pub data: DataArgs,
    /// Where to write [default: MODEL.compressed.onnx].
    #[arg(short, long, value_name = "OUT")]
    pub output: Option<PathBuf>,
    /// Overwrite existing output files.
    #[arg(long)]
    pub force: bool,
    #[arg(short, long)]
    pub quiet: bool,
}

#[derive(Debug, Args)]
pub struct PackArgs {
    pub model: PathBuf,
    /// Where to write [default: MODEL.cmpx].
    #[arg(short, long, value_name = "OUT.cmpx")]
    pub output: Option<PathBuf>,
    /// Overwrite an existing output file.
    #[arg(long)]
    pub force: bool,
    #[arg(short, long)]
    pub quiet: bool,
}

#[derive(Debug, Args)]
pub struct UnpackArgs {
    pub container: PathBuf,
    /// Where to write [default: CONTAINER.onnx].
    #[arg(short, long, value_name = "OUT.onnx")]
    pub output: Option<PathBuf>,
    /// Overwrite an existing output file.
    #[arg(long)]
    pub force: bool,
    #[arg(short, long)]
    pub quiet: bool,
}

/// Kinds of artefacts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Emit {
    /// An object file.
    Obj,
    /// A static library.
    Lib,
    /// A shared library; needs a C compiler to link it.
    Cdylib,
}

/// CPUs that an artefact is made for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Cpu {
    /// This machine's.
    Native,
    /// AVX-512 F, BW, DQ, VL and VNNI.
    Avx512,
    /// AVX2, FMA and F16C.
    Avx2,
    /// Any of this architecture.
    Portable,
}

/// What contractions compute in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Precision {
    F32,
    Bf16,
}

impl Precision {
    /// The session with what was asked for, if anything was.
    pub fn set(asked: Option<Precision>, session: runtime::Session) -> runtime::Session {
        match asked {
            None => session,
            Some(Precision::F32) => session.with_precision(runtime::Precision::Float32),
            Some(Precision::Bf16) => session.with_precision(runtime::Precision::Bf16),
        }
    }
}

#[derive(Debug, Args)]
pub struct BuildArgs {
    pub model: PathBuf,
    /// What to write.
    #[arg(long, value_enum)]
    pub emit: Emit,
    /// Where to write [default: MODEL with .o, .a or .so]. The name of the file becomes the prefix of the C names.
    #[arg(short, long, value_name = "OUT")]
    pub output: Option<PathBuf>,
    /// Write the C header beside it, ending in .h.
    #[arg(long)]
    pub header: bool,
    /// Shape of an input, such as `input=1x3x224x224`; open dims are 1 otherwise. Repeatable.
    #[arg(long, value_name = "NAME=DIMS")]
    pub shape: Vec<String>,
    /// Value of an integer input that decides shapes or branches, such as `sr=16000` or `size=1,3`; it is compiled in, and a
    /// run with another is refused. Repeatable.
    #[arg(long, value_name = "NAME=VALUE")]
    pub value: Vec<String>,
    /// The CPU weights are packed for; the artefact refuses to run on lesser ones.
    #[arg(long, value_enum, default_value = "native")]
    pub cpu: Cpu,
    /// Overwrite existing output files.
    #[arg(long)]
    pub force: bool,
    #[arg(short, long)]
    pub quiet: bool,
    #[command(flatten)]
    pub bounds: Bounds,
}

#[derive(Debug, Default, Args)]
pub struct CompressArgs {
    /// The trained model (ONNX).
    #[arg(required = true)]
    pub model: Option<PathBuf>,
    /// Where to write [default: MODEL.compressed.onnx]. A name that ends in .cmpx makes a container with entropy-coded
    /// weights, and the search then counts coded bytes.
    #[arg(short, long, value_name = "OUT")]
    pub output: Option<PathBuf>,
    #[command(flatten)]
    pub data: DataArgs,
    /// The output that the next step takes as an input, such as `hn=h`. Samples are then the steps of one sequence, in order (a
    /// non-zero array `reset` starts another); states start from the data's, else from zeros. Repeatable.
    #[arg(long, value_name = "OUT=IN", requires = "data")]
    pub state: Vec<String>,
    /// Largest loss of quality: `1%` of the original's metric, `0.5pt` absolute points, or a fraction such as `0.01`.
    #[arg(long, value_name = "X", conflicts_with_all = ["target_size", "target_ratio", "target_latency"])]
    pub max_drop: Option<String>,
    /// Fewest bytes within --max-drop: what is done when no other goal is named.
    #[arg(long, conflicts_with_all = ["target_size", "target_ratio", "target_latency", "fastest"])]
    pub smallest: bool,
    /// Least measured time of one run within --max-drop instead of fewest bytes. Layers are timed with the kernels of this CPU;
    /// the file is written only if it was not slower than the original, measured in turns in this run. Needs data.
    #[arg(long, conflicts_with_all = ["target_size", "target_ratio", "target_latency"])]
    pub fastest: bool,
    /// Largest measured time of one run instead of a quality budget: milliseconds such as `5ms`, or `60%` of the original's.
    /// Needs data.
    #[arg(long, value_name = "X", conflicts_with_all = ["target_size", "target_ratio"])]
    pub target_latency: Option<String>,
    /// End the search by then, `60s` or `2m`, with the best that holds its promise; the report says what was cut short.
    #[arg(long, value_name = "T", value_parser = values::duration)]
    pub time: Option<std::time::Duration>,
    /// Where the times of layers on this CPU are kept for later runs [default: compress/costs.jsonl in the user's cache folder].
    #[arg(long, value_name = "FILE")]
    pub costs: Option<PathBuf>,
    /// Largest file instead of a quality budget: `25%` of the input's bytes, or bytes such as `5MB`.
    #[arg(long, value_name = "S", conflicts_with = "target_ratio")]
    pub target_size: Option<String>,
    /// How many times smaller: `--target-ratio 4` is `--target-size 25%`.
    #[arg(long, value_name = "N")]
    pub target_ratio: Option<f64>,
    /// Prune this share of the weights, such as `70%`, and store nothing else: how layers share it is chosen so that the output
    /// changes least (layer-adaptive pruning).
    #[arg(long, value_name = "S", conflicts_with_all = ["max_drop", "target_size", "target_ratio", "methods"], requires = "data")]
    pub target_sparsity: Option<String>,
    /// Leave out parts of the search, to see what they are worth: no-compensation (weights are rounded and removed one by one),
    /// no-interactions (errors of layers add up), no-regain (layers stay as they were first priced), no-repair, no-tune, no-rivals (selections of other kinds), greedy or
    /// uniform (layers share the budget by steps of least price, or one recipe serves all), global (with --target-sparsity).
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    pub ablate: Vec<String>,
    /// What must not fall: top1, top5 (both want `labels`), agreement, overlap, cosine, sqnr, or `cmd:./eval.sh`, a command that
    /// gets a model's path and prints a number, the higher the better; its drop is relative to the original's number
    /// [default: by the form of the outputs].
    #[arg(long, value_name = "M")]
    pub metric: Option<String>,
    /// Degradations under which images should keep their quality: noise, blur, contrast, jpeg. Half of the samples that calibrate,
    /// choose and check are then degraded, in turn in each way.
    #[arg(long, value_name = "LIST", value_delimiter = ',', requires = "data", conflicts_with = "state")]
    pub robust: Vec<String>,
    /// Write a file even where the data are too few to prove the drop at 95 %: what is expected decides.
    #[arg(long)]
    pub unproven: bool,
    #[arg(long, value_name = "LIST", value_delimiter = ',', help = values::methods_help())]
    pub methods: Option<Vec<String>>,
    /// Fix the method of layers whose name matches: `--layer '^head/=keep'`, `--layer 'fc1=channels 3/4'` (how many output
    /// channels stay; other methods still apply). Repeatable; the last match wins.
    #[arg(long, value_name = "REGEX=METHOD")]
    pub layer: Vec<String>,
    /// Worker threads [default: all cores]. The output does not depend on it. Goals of speed time runs on so many, without this
    /// on one.
    #[arg(long, value_name = "N")]
    pub threads: Option<usize>,
    /// Seed of every random choice.
    #[arg(long, value_name = "N")]
    pub seed: Option<u64>,
    /// Repeat an earlier run: goal, seed and the choice for every layer from its .report.json.
    #[arg(long, value_name = "REPORT.json")]
    pub recipe: Option<PathBuf>,
    /// Set when the goal comes from a recipe: nothing is measured again.
    #[arg(skip)]
    pub replayed: bool,
    /// What the recipe's run did to its selection.
    #[arg(skip)]
    pub repairs: search::Repairs,
    /// Settings for what the command line leaves open [default: compress.toml of the current folder, where there is one].
    #[arg(long, value_name = "FILE.toml")]
    pub config: Option<PathBuf>,
    /// Measure the whole trade between bytes and quality instead of one goal, and write it as .front.json and .front.html.
    #[arg(long, requires = "data", conflicts_with_all = ["max_drop", "target_size", "target_ratio", "smallest", "fastest", "target_latency"])]
    pub pareto: bool,
    /// Overwrite existing output files.
    #[arg(long)]
    pub force: bool,
    /// Continue an earlier run of the same command that was killed, from the layers it had finished.
    #[arg(long)]
    pub resume: bool,
    /// Search and report on the terminal, but write nothing.
    #[arg(long)]
    pub dry_run: bool,
    /// Print the report as JSON on stdout.
    #[arg(long)]
    pub json: bool,
    /// Print errors only.
    #[arg(short, long)]
    pub quiet: bool,
    #[command(flatten)]
    pub bounds: Bounds,
}

/// What a run may take.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Bounds")]
pub struct Bounds {
    /// Bound on memory, such as `2G` [default: 2.8 GB and 8 times the model].
    #[arg(long, value_name = "BYTES")]
    pub max_memory: Option<String>,
    /// Give up after so many seconds.
    #[arg(long, value_name = "S", value_parser = values::seconds)]
    pub timeout: Option<f64>,
}

/// Samples, and how they become inputs.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Data")]
pub struct DataArgs {
    /// Sample inputs: a file of arrays (npz, npy, safetensors; named after model inputs, first axis = samples, optional integer
    /// `labels`), or a folder with one such file or one image (png, jpeg, bmp, webp) per sample. Sub-folder names are labels.
    /// Bad files are named and skipped. `compress` calibrates on a part and holds back another to check the result; without
    /// data it uses only methods that need none, and `diff` compares on seeded random values.
    #[arg(id = "data", long = "data", alias = "calib", value_name = "D")]
    pub path: Option<PathBuf>,
    /// Size that images get, `224` or HEIGHTxWIDTH [default: the model's].
    #[arg(long, value_name = "N|HxW", value_parser = values::image_size)]
    pub image_size: Option<[usize; 2]>,
    /// Mean of each channel, or one for all: pixels become (pixel · scale − mean) / std [default: 0].
    #[arg(long, value_name = "M,..", value_delimiter = ',', allow_hyphen_values = true)]
    pub mean: Vec<f32>,
    /// Standard deviation of each channel, or one for all [default: 1].
    #[arg(long, value_name = "S,..", value_delimiter = ',')]
    pub std: Vec<f32>,
    /// Factor on pixels of 0 to 255, a number or a fraction [default: 1/255].
    #[arg(long, value_name = "X", value_parser = values::fraction)]
    pub scale: Option<f32>,
    /// Order of an image's axes [default: from the model's input].
    #[arg(long, value_enum, ignore_case = true)]
    pub layout: Option<Layout>,
    /// What the channels hold [default: rgb, or gray where the input has one].
    #[arg(long, value_enum, ignore_case = true)]
    pub channels: Option<Channels>,
    /// How images of other proportions get the size: `crop` resizes until the image covers it with a margin and cuts out the
    /// centre; `stretch` changes proportions. Images that have the size already stay as they are.
    #[arg(long, value_enum, default_value_t = Fit::Crop)]
    pub fit: Fit,
    /// Share of the resized image's sides that `crop` keeps, 1 for no margin [default: 0.875].
    #[arg(long, value_name = "X")]
    pub crop: Option<f32>,
    /// Labels of a folder's files: a table of file names and labels, comma-separated.
    #[arg(long, value_name = "L.csv")]
    pub labels: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Layout {
    Nchw,
    Nhwc,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Channels {
    Rgb,
    Bgr,
    Gray,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum Fit {
    #[default]
    Crop,
    Stretch,
}

impl DataArgs {
    pub fn options(&self) -> data::Options {
        use data::images;
        let images = images::Options {
            size: self.image_size,
            mean: self.mean.clone(),
            std: self.std.clone(),
            scale: self.scale,
            layout: self.layout.map(|l| match l {
                Layout::Nchw => images::Layout::Nchw,
                Layout::Nhwc => images::Layout::Nhwc,
            }),
            channels: self.channels.map(|c| match c {
                Channels::Rgb => images::Channels::Rgb,
                Channels::Bgr => images::Channels::Bgr,
                Channels::Gray => images::Channels::Gray,
            }),
            fit: match self.fit {
                Fit::Crop => images::Fit::Crop,
                Fit::Stretch => images::Fit::Stretch,
            },
            crop: self.crop,
        };
        data::Options { images, labels: self.labels.clone() }
    }
}

#[derive(Debug, Args)]
pub struct RunArgs {
    pub model: PathBuf,
    /// Arrays named after the model's inputs (npz, safetensors, or npy for one input). bfloat16 travels as uint16, float 8 and 4 as uint8, (u)int4/2 as (u)int8.
    #[arg(long, value_name = "IN.npz")]
    pub inputs: PathBuf,
    /// Where to write the outputs, named after the model's outputs; an existing file is replaced.
    #[arg(long, value_name = "OUT.npz")]
    pub outputs: PathBuf,
    /// Worker threads.
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub threads: usize,
    /// What matrix products and convolutions of float32 compute in: bf16 rounds their operands and sums in float32; f32
    /// rounds nothing [default: f32, but rows of large products whose weights are stored in at most 8 bits are rounded to 16;
    /// bf16 for a model of bfloat16 weights where the CPU has instructions for it].
    #[arg(long, value_enum, conflicts_with = "reference")]
    pub precision: Option<Precision>,
    /// Use the reference evaluator instead of generated code: slow, and the definition of right.
    #[arg(long)]
    pub reference: bool,
    /// Keep compiled programs and packed weights in this folder, and start from them [default: COMPRESS_CACHE, if set].
    #[arg(long, value_name = "DIR")]
    pub cache: Option<PathBuf>,
    #[command(flatten)]
    pub bounds: Bounds,
}

#[derive(Debug, Args)]
pub struct OptimizeArgs {
    pub model: PathBuf,
    #[arg(short, long, value_name = "OUT")]
    pub output: PathBuf,
    /// Overwrite an existing output file.
    #[arg(long)]
    pub force: bool,
    /// Print what was rewritten as JSON on stdout.
    #[arg(long)]
    pub json: bool,
    #[arg(short, long)]
    pub quiet: bool,
    #[command(flatten)]
    pub bounds: Bounds,
}

#[derive(Debug, Args)]
pub struct InspectArgs {
    pub model: PathBuf,
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub bounds: Bounds,
}

#[derive(Debug, Args)]
pub struct BenchArgs {
    pub model: PathBuf,
    /// Inputs to time on; without them, seeded random values of the model's shapes.
    #[arg(long, value_name = "IN.npz")]
    pub inputs: Option<PathBuf>,
    /// Size of an input whose shape is not fixed: `--shape input=1x3x224x224`. Repeatable.
    #[arg(long, value_name = "NAME=DIMS")]
    pub shape: Vec<String>,
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub threads: usize,
    /// As for `compress run`.
    #[arg(long, value_enum)]
    pub precision: Option<Precision>,
    /// How long to repeat the run; 0 measures load and first run only.
    #[arg(long, value_name = "S", default_value_t = 1.5)]
    pub seconds: f64,
    /// Time per fused group, with its share and its fraction of this machine's measured roof.
    #[arg(long)]
    pub profile: bool,
    /// Keep compiled programs and packed weights in this folder, and start from them [default: COMPRESS_CACHE, if set].
    #[arg(long, value_name = "DIR")]
    pub cache: Option<PathBuf>,
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub bounds: Bounds,
}

#[derive(Debug, Args)]
pub struct EvalArgs {
    /// The model whose answers count as right where there are no labels.
    pub original: PathBuf,
    /// The model to judge; without, the first is judged by labels.
    pub compressed: Option<PathBuf>,
    #[command(flatten)]
    pub data: DataArgs,
    /// What is measured: top1, top5, agreement, overlap, cosine, sqnr, or `cmd:./eval.sh` [default: by labels and the form of the
    /// outputs].
    #[arg(long, value_name = "M")]
    pub metric: Option<String>,
    /// Also on degraded images: noise (σ 0.08 of the range), blur (σ 1 pixel), contrast (× 0.4), jpeg (quality 25). Arrays are
    /// degraded within the range that --mean, --std and --scale say, else each within its own.
    #[arg(long, value_name = "LIST", value_delimiter = ',', conflicts_with = "state")]
    pub robust: Vec<String>,
    /// The output that the next step takes as an input, such as `hn=h`. Samples are then the steps of one sequence, in order (a
    /// non-zero array `reset` starts another); both files get the states of the first. Repeatable.
    #[arg(long, value_name = "OUT=IN", requires = "data")]
    pub state: Vec<String>,
    /// Seed of the noise.
    #[arg(long, value_name = "N")]
    pub seed: Option<u64>,
    /// Worker threads [default: all cores].
    #[arg(long, value_name = "N")]
    pub threads: Option<usize>,
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub bounds: Bounds,
}

#[derive(Debug, Args)]
pub struct DiffArgs {
    pub a: PathBuf,
    pub b: PathBuf,
    #[command(flatten)]
    pub data: DataArgs,
    /// Compare on at most this many samples.
    #[arg(long, value_name = "N", default_value_t = 16)]
    pub samples: usize,
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub bounds: Bounds,
}
