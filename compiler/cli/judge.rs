//! `--metric`: a named measure of outputs, or a command that judges model files.

use crate::exit::{Failure, Result};
use crate::files::Pending;
use ir::{Error, Graph};
use search::{Judge, Metric};
use std::path::PathBuf;
use std::process::{Command, Stdio};

/// What a word of `--metric` asks for.
pub enum Wanted {
    Named(Metric),
    /// A shell command.
    Command(String),
}

/// Reads a word of `--metric`.
pub fn parse(word: &str) -> Result<Wanted> {
    if let Some(command) = word.strip_prefix("cmd:").filter(|c| !c.trim().is_empty()) {
        return Ok(Wanted::Command(command.to_string()));
    }
    match search::NAMED.iter().find(|(n, _)| *n == word) {
        Some((_, m)) => Ok(Wanted::Named(*m)),
        None => {
            let names: Vec<&str> = search::NAMED.iter().map(|n| n.0).collect();
            Err(Failure::usage(format!("--metric '{word}' is none of {}, cmd:COMMAND", names.join(", "))))
        }
    }
}

/// Writes each model beside `target`, calls `command` with its path, and reads the last number it prints.
pub fn of(command: String, target: PathBuf) -> Box<Judge> {
    Box::new(move |g: &Graph| {
        let candidate = Pending::write(&target.with_extension("candidate.onnx"), |w| {
            onnx::write(g, &ops::Standard, w).map(drop).map_err(|e| std::io::Error::other(e.to_string()))
        })
        .map_err(|e| Error::data(e.message))?;
        judge(&command, candidate.path())
    })
}

/// The last number that `command` prints when it gets the path of a model.
pub fn judge(command: &str, model: &std::path::Path) -> ir::Result<f64> {
    let failed = |why: String| Error::data(format!("--metric cmd:{command}: {why}"));
    let ran = Command::new("sh")
        .arg("-c")
        .arg(format!("{command} \"$0\""))
        .arg(model)
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .map_err(|e| failed(e.to_string()))?;
    if !ran.status.success() {
        return Err(failed(format!("ended with {}", ran.status)));
    }
    let text = String::from_utf8_lossy(&ran.stdout);
    let number = text.split_whitespace().rev().find_map(|w| w.parse::<f64>().ok()).filter(|x| x.is_finite());
    number.ok_or_else(|| failed("printed no number; it must print one, the higher the better".into()))
}
