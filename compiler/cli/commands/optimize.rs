//! `compress optimize`: exact rewrites only.

use crate::args::OptimizeArgs;
use crate::exit::{Failure, Result};
use crate::report::table::Table;
use crate::{files, limits, model};
use serde_json::json;

pub fn run(args: OptimizeArgs) -> Result {
    limits::set(&args.model, &args.bounds)?;
    files::check_target(&args.output, Some(&args.model), args.force)?;
    let opened = model::open(&args.model)?;
    let (graph, trace) = exact::optimize(&opened.graph, exact::Options::PORTABLE)?;
    let pending = model::write(&graph, &args.output, &[], args.force)?;
    let bytes = pending.bytes();
    let own = std::fs::metadata(&args.model).map_or(0, |m| m.len());
    // Merging and folding never have to grow a file; keep the original bytes if they did.
    if bytes > opened.file_bytes && own == opened.file_bytes && pending.first().is_none() {
        drop(pending);
        let bad = |e: std::io::Error| Failure::bad(format!("{}: {e}", args.model.display()));
        let mut original = std::fs::File::open(&args.model).map_err(bad)?;
        files::Pending::write(&args.output, |w| std::io::copy(&mut original, w).map(drop))?.commit()?;
    } else {
        pending.commit()?;
    }
    if args.json {
        println!(
            "{:#}",
            json!({
                "nodes_before": trace.nodes_before, "nodes_after": trace.nodes_after, "folded": trace.folded,
                "merged_initializers": trace.merged_initializers, "rules": trace.fired, "stopped": trace.stopped,
                "bytes_before": opened.file_bytes, "bytes_after": bytes.min(opened.file_bytes),
            })
        );
    } else if !args.quiet {
        println!(
            "{}: {} → {} nodes, {} → {} bytes, {} folded, {} initializers merged",
            args.output.display(),
            trace.nodes_before,
            trace.nodes_after,
            opened.file_bytes,
            bytes.min(opened.file_bytes),
            trace.folded,
            trace.merged_initializers
        );
        let mut table = Table::new(&["rule", "fired"]);
        trace.fired.iter().for_each(|(r, n)| table.row(&[r, &n.to_string()]));
        print!("{table}");
        if let Some(s) = &trace.stopped {
            println!("note: rewriting stopped early: {s}");
        }
    }
    Ok(())
}
