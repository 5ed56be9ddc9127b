//! `compress explain`: what a report says of single layers.

use crate::args::ExplainArgs;
use crate::exit::{Failure, Result};
use crate::report;
use crate::report::table::Table;
use crate::report::terminal::megabytes;
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
    found.iter().take(SHOWN).for_each(|l| print!("{}", text(l)));
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
    if let Some(r) = &l.runner_up {
        s += &format!(
            "  runner-up: {}, {}, costs {:+.2e} of error\n",
            r.recipe,
            megabytes(r.bytes),
            r.extra_error
        );
    }
    let mut table = Table::new(&["  candidate", "bytes", "error of the output"]);
    for (recipe, bytes, error) in &l.candidates {
        let mark = if *recipe == l.recipe { "* " } else { "  " };
        table.row(&[&format!("{mark}{recipe}"), &megabytes(*bytes), &format!("{error:.2e}")]);
    }
    s += &table.to_string();
    l.refusals.iter().for_each(|(method, why)| s += &format!("  {method}: {why}\n"));
    s + &format!("  fix it: --layer '{}'\n", l.pin)
}
