//! Progress on stderr: bars with an ETA on a terminal, nothing elsewhere.

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::io::IsTerminal;
use std::sync::Mutex;

/// Shows one stage at a time.
pub struct Progress {
    visible: bool,
    bar: Mutex<ProgressBar>,
}

impl Progress {
    pub fn new(quiet: bool) -> Progress {
        Progress {
            visible: !quiet && std::io::stderr().is_terminal(),
            bar: Mutex::new(ProgressBar::hidden()),
        }
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
}
