//! `compress explain`: what a report says of single layers.

use crate::args::ExplainArgs;
use crate::exit::{Failure, Result, lines};
use crate::report;
use crate::report::table::Table;
use crate::report::terminal::{megabytes, microseconds};
use regex::Regex;
use search::LayerDecision;

/// Layers explained at once; a narrower pattern shows the others.
const SHOWN: usize = 8;

pub fn run(args: ExplainArgs) -> Result {
    let layers = report::json::read(&args.report)?.layers;
    let pattern = Regex::new(&args.layer).map_err(|e| {
        Failure::usage(format!("--layer '{}': {}", args.layer, e.to_string().replace('\n', " ")))
    })?;
    let found: Vec<&LayerDecision> =
        layers.iter().filter(|l| pattern.is_match(&l.layer) || pattern.is_match(&l.weight)).collect();
    if found.is_empty() {
        let some: Vec<&str> = layers.iter().take(5).map(|l| l.layer.as_str()).collect();
        let (of, all) = (args.layer, layers.len());
        return Err(Failure::bad(format!(
            "no layer matches '{of}'; the {all} layers begin with {}",
            some.join(", ")
        )));
    }
    found.iter().take(SHOWN).for_each(|l| print!("{}", lines(&text(l))));
    if found.len() > SHOWN {
        println!("… and {} more layers match", found.len() - SHOWN);
    }
    Ok(())
}

fn text(l: &LayerDecision) -> String {
    let mut s = format!(
        "{} ({} {:?}, weight {})\n  {}: {} → {}, {:.1}% of the loss, error {:.2e} of the layer's output power, gain {:.2e}\n",
        l.layer,
        l.op,
        l.shape,
        l.weight,
        l.summary(),
        megabytes(l.bytes_before),
        megabytes(l.bytes_after),
        l.share * 100.0,
        l.relative_error,
        l.gain
    );
    if let (Some(before), Some(after)) = (l.ns_before, l.ns_after) {
        s += &format!("  one run: {} → {}\n", microseconds(before), microseconds(after));
    }
    if l.sharing > 0 {
        s += &format!("  factors stored once for {} layers\n", l.sharing);
    }
    if let Some(r) = &l.runner_up {
        let time = r.ns.map_or(String::new(), |ns| format!("{}, ", microseconds(ns)));
        s += &format!(
            "  runner-up: {}, {}, {time}costs {:+.2e} of error\n",
            r.recipe,
            megabytes(r.bytes),
            r.extra_error
        );
    }
    let timed = l.ns_before.is_some();
    let head: &[&str] = &["  candidate", "bytes", "error of the output", "one run"];
    let mut table = Table::new(&head[..if timed { 4 } else { 3 }]);
    for (i, (recipe, bytes, error)) in l.candidates.iter().enumerate() {
        let mark = if *recipe == l.recipe { "* " } else { "  " };
        let ns = l.candidates_ns.get(i).copied().flatten().map_or("-".into(), microseconds);
        let cells = [&format!("{mark}{recipe}"), &megabytes(*bytes), &format!("{error:.2e}"), &ns];
        table.row(&cells.map(String::as_str)[..if timed { 4 } else { 3 }]);
    }
    s += &table.to_string();
    l.refusals.iter().for_each(|(method, why)| s += &format!("  {method}: {why}\n"));
    s + &format!("  fix it: --layer '{}'\n", l.pin)
}
