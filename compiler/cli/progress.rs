//! Progress on stderr: bars with an ETA on a terminal, nothing elsewhere.

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::io::IsTerminal;
use std::sync::Mutex;
use std::time::{Duration, Instant};

/// Share of the allowed time that is kept for writing and checking the file.
const RESERVED: f64 = 0.06;

/// Shows one stage at a time, and tells the search how much of its time is gone.
pub struct Progress {
    visible: bool,
    bar: Mutex<ProgressBar>,
    started: Instant,
    allowed: Option<Duration>,
    cut: Mutex<Vec<String>>,
}

impl Progress {
    pub fn new(quiet: bool) -> Progress {
        Progress {
            visible: !quiet && std::io::stderr().is_terminal(),
            bar: Mutex::new(ProgressBar::hidden()),
            started: Instant::now(),
            allowed: None,
            cut: Mutex::default(),
        }
    }

    /// The search must be done so long after `started`.
    pub fn within(self, started: Instant, allowed: Option<Duration>) -> Progress {
        Progress { started, allowed, ..self }
    }

    /// One note about all that the limit on time cut short, if anything was.
    pub fn cuts(&self) -> Option<String> {
        let cut = self.cut.lock().unwrap_or_else(|e| e.into_inner());
        let seconds = self.allowed?.as_secs_f64();
        (!cut.is_empty()).then(|| {
            format!(
                "the {seconds} s of --time cut the search short: {}; with more time it may find better",
                cut.join(", ")
            )
        })
    }

    /// Starts a stage of `total` steps, or one of unknown length when `total` is 0.
    pub fn stage(&self, name: &str, total: u64) {
        if !self.visible {
            return;
        }
        let bar = ProgressBar::with_draw_target((total > 0).then_some(total), ProgressDrawTarget::stderr());
        let template = if total > 0 {
            "{msg:28} {bar:30} {pos}/{len} ETA {eta}"
        } else {
            "{msg:28} {spinner} {elapsed}"
        };
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style);
        }
        bar.set_message(name.to_string());
        let mut slot = self.bar.lock().unwrap_or_else(|e| e.into_inner());
        slot.finish_and_clear();
        *slot = bar;
    }

    pub fn advance(&self, steps: u64) {
        self.bar.lock().unwrap_or_else(|e| e.into_inner()).inc(steps);
    }

    pub fn finish(&self) {
        self.bar.lock().unwrap_or_else(|e| e.into_inner()).finish_and_clear();
    }
}

impl search::Progress for Progress {
    fn stage(&self, name: &str, steps: usize) {
        Progress::stage(self, name, steps as u64);
    }
    fn step(&self) {
        self.advance(1);
    }
    fn gone(&self) -> f64 {
        let of = |d: Duration| d.as_secs_f64() * (1.0 - RESERVED);
        self.allowed.map_or(0.0, |d| self.started.elapsed().as_secs_f64() / of(d).max(1e-9))
    }
    fn cut(&self, what: &str, done: usize, of: usize) {
        self.cut.lock().unwrap_or_else(|e| e.into_inner()).push(format!("{done} of {of} {what}"));
    }
}
