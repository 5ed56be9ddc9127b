//! The `compress` binary: arguments in, one line of failure or a result out.

mod args;
mod commands;
mod config;
mod costs;
mod engine;
mod exit;
mod feeds;
mod files;
mod judge;
mod layers;
mod limits;
mod model;
mod packed;
mod progress;
mod provenance;
mod report;
mod robust;
mod shelf;
mod states;
mod values;

use args::{Cli, Command};
use clap::Parser;
use exit::{Code, Failure, Result};
use std::process::ExitCode;

/// Recursion in patterns and nested graphs is bounded, but generously: the default stack of a thread is not enough.
const STACK: usize = 256 << 20;

fn main() -> ExitCode {
    if let Err(e) = ctrlc::set_handler(|| {
        files::discard_pending();
        std::process::exit(Code::Interrupted as i32);
    }) {
        eprintln!("compress: warning: Ctrl-C will not clean up: {e}");
    }
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(e) => {
            let code = if e.use_stderr() { Code::Usage as u8 } else { 0 };
            drop(e.print());
            return ExitCode::from(code);
        }
    };
    if matches!(cli.command, Some(Command::Run(_) | Command::Bench(_))) {
        runtime::one_heap();
    }
    let result = std::thread::Builder::new().stack_size(STACK).spawn(move || guarded(cli)).map(|t| t.join());
    let failure = match result {
        Ok(Ok(Ok(()))) => return ExitCode::SUCCESS,
        Ok(Ok(Err(f))) => f,
        Ok(Err(_)) => Failure::self_check("internal error: the worker thread died"),
        Err(e) => Failure::bad(format!("cannot start a thread: {e}")),
    };
    files::discard_pending();
    exit::last_word(&failure);
    ExitCode::from(failure.code as u8)
}

/// Runs the command; a bug that panics becomes one line with its place instead of a backtrace.
fn guarded(cli: Cli) -> Result {
    use std::sync::{Arc, Mutex};
    let place = Arc::new(Mutex::new(String::new()));
    let seen = Arc::clone(&place);
    std::panic::set_hook(Box::new(move |info| {
        let at = info.location().map_or(String::new(), |l| format!(" at {}:{}", l.file(), l.line()));
        let what = info.payload_as_str().unwrap_or("unknown cause");
        *seen.lock().unwrap_or_else(|e| e.into_inner()) = format!("{what}{at}");
    }));
    std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| dispatch(cli))).unwrap_or_else(|_| {
        let what = place.lock().unwrap_or_else(|e| e.into_inner()).clone();
        if what.contains("failed printing to stdout") {
            // Whoever read the output has left (`compress bench … | head`): there is nobody to tell.
            files::discard_pending();
            return Ok(());
        }
        Err(Failure::self_check(format!("internal error: {what}; please report this with the model")))
    })
}

fn dispatch(cli: Cli) -> Result {
    match cli.command {
        None => commands::compress::run(config::complete(cli.compress)?),
        Some(Command::Run(a)) => commands::run::run(a),
        Some(Command::Optimize(a)) => commands::optimize::run(a),
        Some(Command::Inspect(a)) => commands::inspect::run(a),
        Some(Command::Build(a)) => commands::build::run(a),
        Some(Command::Bench(a)) => commands::bench::run(a),
        Some(Command::Eval(a)) => commands::eval::run(a),
        Some(Command::Diff(a)) => commands::diff::run(a),
        Some(Command::Explain(a)) => commands::explain::run(a),
        Some(Command::Pick(a)) => commands::pareto::pick(a),
        Some(Command::Pack(a)) => commands::pack::pack(a),
        Some(Command::Unpack(a)) => commands::pack::unpack(a),
        Some(Command::Fuzz(a)) => commands::fuzz::fuzz(a),
        Some(Command::Reduce(a)) => commands::fuzz::reduce(a),
    }
}
