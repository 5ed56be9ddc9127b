//! How results are shown: on the terminal, as JSON, as one self-contained HTML page.

pub mod front;
pub mod html;
pub mod json;
pub mod table;
pub mod terminal;

use std::path::PathBuf;

/// What the run knows besides the search's decision.
pub struct Facts {
    pub model: PathBuf,
    pub output: PathBuf,
    /// BLAKE3 of the input file.
    pub input_hash: String,
    pub input_bytes: u64,
    pub output_bytes: u64,
    /// Nodes before and after the exact rewrites.
    pub nodes: (usize, usize),
    /// Firings by exact rule.
    pub rules: Vec<(String, usize)>,
    pub seconds: f64,
    pub goal: String,
    pub seed: u64,
    /// Degradations that half of the samples got.
    pub robust: Vec<String>,
}
