//! Runs the binary on one case and judges how it ended.

use crate::harness::Dir;
use std::fs::File;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

/// Longest run.
const LIMIT: Duration = Duration::from_secs(30);
/// Most resident memory of a run, MB: the program's own bound on tensors plus what it takes itself.
pub const MEMORY: u64 = 1024;

/// Longest line of a message, bytes: what is named in it may be a path or a text from a file.
const LINE: usize = 8192;

/// How a run ended.
pub struct End {
    status: ExitStatus,
    late: bool,
    err: String,
    pub rss_mb: u64,
    pub seconds: f64,
}

/// Runs `args` in `dir`.
#[allow(clippy::zombie_processes)] // waited for by `wait4`, which tells the memory it took
pub fn run(dir: &Path, args: &[&str]) -> End {
    // A name of its own for each thread's messages.
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    let messages = dir.join(format!(".messages{}", NEXT.fetch_add(1, Relaxed)));
    let mut command = Command::new(env!("CARGO_BIN_EXE_compress"));
    command.args(args).current_dir(dir).stdin(Stdio::null()).stdout(Stdio::null());
    command.stderr(File::create(&messages).unwrap());
    let started = Instant::now();
    let mut child = command.spawn().unwrap();
    let pid = child.id() as libc::pid_t;
    let (mut raw, mut late) = (0, false);
    // SAFETY: `rusage` is plain numbers, for which zeros are values.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    loop {
        // SAFETY: the pointers are to locals; `pid` is our child and nobody else waits for it.
        if unsafe { libc::wait4(pid, &mut raw, libc::WNOHANG, &mut usage) } == pid {
            break;
        }
        if started.elapsed() > LIMIT && !late {
            late = true;
            child.kill().unwrap();
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    let err = String::from_utf8_lossy(&std::fs::read(&messages).unwrap_or_default()).into_owned();
    std::fs::remove_file(messages).unwrap();
    End {
        status: ExitStatus::from_raw(raw),
        late,
        err,
        rss_mb: usage.ru_maxrss as u64 / 1024,
        seconds: started.elapsed().as_secs_f64(),
    }
}

impl End {
    /// What is wrong with this end, if anything is.
    pub fn fault(&self) -> Option<String> {
        let Some(code) = self.status.code() else {
            return Some(match (self.late, self.status.signal()) {
                (true, _) => format!("not done after {} s", LIMIT.as_secs()),
                (_, signal) => format!("ended by signal {signal:?}: {}", self.shown()),
            });
        };
        if !(0..=4).contains(&code) {
            return Some(format!("exit code {code}: {}", self.shown()));
        }
        if ["panicked", "internal error", "please report"].iter().any(|w| self.err.contains(w)) {
            return Some(format!("exit code {code}: {}", self.shown()));
        }
        // Warnings and notes may come first; what failed is said in one line.
        let said =
            self.err.lines().filter(|l| !l.is_empty() && !l.starts_with("compress: warning: ")).count();
        if code != 0 && said == 0 {
            return Some(format!("exit code {code} without a word"));
        }
        let noted = ["skipped", "images are", "values are converted"].iter().any(|w| self.err.contains(w));
        if code == 1 && said > 1 && !noted {
            return Some(format!("{said} lines: {}", self.shown()));
        }
        if self.err.bytes().any(|b| b.is_ascii_control() && b != b'\n') {
            return Some("control characters reach the terminal".to_string());
        }
        if let Some(n) = self.err.lines().map(str::len).max().filter(|&n| n > LINE) {
            return Some(format!("a line of {n} bytes"));
        }
        (self.rss_mb > MEMORY).then(|| format!("{} MB of memory", self.rss_mb))
    }

    fn shown(&self) -> String {
        self.err.chars().take(300).collect()
    }
}

/// What all runs of one test came to.
#[derive(Default)]
pub struct Tally {
    pub runs: usize,
    pub faults: Vec<String>,
    pub rss_mb: u64,
    pub seconds: f64,
}

/// Runs `work` for every item on two threads, each with a folder of its own.
pub fn each<T: Sync>(name: &str, items: &[T], work: impl Fn(&Dir, &T, &dyn Fn(&str, End)) + Sync) -> Tally {
    let (next, tally) = (AtomicUsize::new(0), Mutex::new(Tally::default()));
    std::thread::scope(|s| {
        for _ in 0..2 {
            s.spawn(|| {
                loop {
                    let i = next.fetch_add(1, Relaxed);
                    let Some(item) = items.get(i) else { return };
                    let dir = Dir::new(&format!("hostile-{name}-{i}"));
                    work(&dir, item, &|what: &str, end: End| {
                        let mut t = tally.lock().unwrap();
                        t.runs += 1;
                        t.rss_mb = t.rss_mb.max(end.rss_mb);
                        t.seconds = t.seconds.max(end.seconds);
                        if let Some(f) = end.fault() {
                            t.faults.push(format!("{what}: {f}"));
                        }
                    });
                }
            });
        }
    });
    tally.into_inner().unwrap()
}

impl Tally {
    /// Fails the test when there are faults; prints the figures.
    pub fn judge(self, cases: usize) {
        println!(
            "{cases} cases, {} runs, {} faults, at most {} MB and {:.1} s",
            self.runs,
            self.faults.len(),
            self.rss_mb,
            self.seconds
        );
        assert!(self.runs >= cases);
        assert!(self.faults.is_empty(), "{} faults:\n{}", self.faults.len(), self.faults.join("\n"));
    }
}
