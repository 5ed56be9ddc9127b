//! Exit codes and the one line on stderr that goes with each.

use ir::{Blame, Error};
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};

/// Why the program ends other than well. The discriminant is the exit code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Code {
    /// The model or the data is bad or unsupported.
    Bad = 1,
    Usage = 2,
    /// The goal cannot be reached, or nothing was gained; no file was written.
    NoGain = 3,
    /// The written file did not behave as promised.
    SelfCheck = 4,
    Interrupted = 130,
}

#[derive(Debug)]
pub struct Failure {
    pub code: Code,
    pub message: String,
}

/// Says why the program ends. Whoever comes second waits for the first to end it: there is one line.
pub fn last_word(why: &dyn fmt::Display) {
    static SAID: AtomicBool = AtomicBool::new(false);
    if SAID.swap(true, SeqCst) {
        loop {
            std::thread::park();
        }
    }
    eprintln!("compress: {}", short(&why.to_string()));
}

/// Of a message longer than a screen the start and the end: names in it come from files, and may be megabytes.
fn short(message: &str) -> String {
    const PART: usize = 1500;
    let (start, end) = (message.char_indices().nth(PART), message.char_indices().rev().nth(PART));
    match (start, end) {
        (Some((a, _)), Some((b, _))) if a < b => format!("{} … {}", &message[..a], &message[b..]),
        _ => message.to_string(),
    }
}

pub type Result<T = (), E = Failure> = std::result::Result<T, E>;

impl Failure {
    pub fn bad(message: impl Into<String>) -> Failure {
        Failure { code: Code::Bad, message: message.into() }
    }
    pub fn usage(message: impl Into<String>) -> Failure {
        Failure { code: Code::Usage, message: message.into() }
    }
    pub fn no_gain(message: impl Into<String>) -> Failure {
        Failure { code: Code::NoGain, message: message.into() }
    }
    pub fn self_check(message: impl Into<String>) -> Failure {
        Failure { code: Code::SelfCheck, message: message.into() }
    }
    /// Prefixes the message with what was being worked on.
    pub fn on(mut self, what: impl fmt::Display) -> Failure {
        self.message = format!("{what}: {}", self.message);
        self
    }
}

impl From<Error> for Failure {
    fn from(e: Error) -> Failure {
        let code = if e.blame == Blame::Internal { Code::SelfCheck } else { Code::Bad };
        Failure { code, message: e.to_string() }
    }
}

impl fmt::Display for Failure {
    /// One line, whatever the cause put into the message.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&line(&self.message))
    }
}

/// Text that may hold names from files, as one line that no terminal takes for commands.
pub fn line(text: &str) -> String {
    let parts = text.split(['\n', '\r']).map(|p| lines(p.trim())).filter(|p| !p.is_empty());
    parts.collect::<Vec<_>>().join("; ")
}

/// The same with its lines kept.
pub fn lines(text: &str) -> String {
    let shown = |l: &str| short(l).chars().filter(|c| !c.is_control()).collect::<String>();
    text.split('\n').map(shown).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::short;

    #[test]
    fn long_messages_keep_their_start_and_end() {
        let of = |n: usize| format!("node '{}' is wrong", "é".repeat(n));
        assert_eq!(short(&of(2900)), of(2900));
        let s = short(&of(1 << 20));
        assert!(s.starts_with("node 'éé") && s.ends_with("é' is wrong") && s.chars().count() < 3010, "{s}");
        assert_eq!(short(""), "");
    }
}
