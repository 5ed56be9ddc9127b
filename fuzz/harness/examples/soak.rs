//! Feeds a target pseudo-random inputs until time is up, without a fuzzer, on any toolchain:
//! `cargo run --release -p compress-harness --example soak -- TARGET [SECONDS] [FIRST_SEED] [GRAPHS]`. A failure names its seed, and
//! running again with that seed repeats it.

use compress_harness::{random_bytes, targets};
use std::collections::BTreeSet;
use std::time::{Duration, Instant};

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let number = |i: usize, default: u64| args.get(i).and_then(|a| a.parse().ok()).unwrap_or(default);
    let check: fn(&[u8]) = match args.first().map(String::as_str) {
        Some("exact") => targets::exact,
        Some("codegen") => targets::codegen,
        Some("roundtrip") => targets::roundtrip,
        Some("prescan_import") => targets::prescan_import,
        _ => {
            eprintln!("usage: soak exact|codegen|roundtrip|prescan_import [SECONDS] [FIRST_SEED] [GRAPHS]");
            std::process::exit(2);
        }
    };
    let (seconds, first) = (number(1, 60), number(2, 1000));
    let most = number(3, u64::MAX);
    let (start, mut failed) = (Instant::now(), 0);
    let mut seed = first;
    let (mut graphs, mut operators) = (0, BTreeSet::new());
    while start.elapsed() < Duration::from_secs(seconds) && graphs < most {
        if let Some(case) = targets::generated(&random_bytes(seed)) {
            graphs += 1;
            operators.extend(case.graph.nodes().map(|(_, n)| n.op.name()));
        }
        if std::panic::catch_unwind(|| check(&random_bytes(seed))).is_err() {
            failed += 1;
            eprintln!("seed {seed} fails");
        }
        seed += 1;
    }
    let taken = start.elapsed().as_secs();
    println!(
        "{} inputs, {graphs} graphs of {} operators in {taken} s, {failed} failed",
        seed - first,
        operators.len()
    );
    std::process::exit(i32::from(failed > 0));
}
