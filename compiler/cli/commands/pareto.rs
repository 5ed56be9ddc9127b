//! `compress MODEL --pareto` and `compress pick`: the whole trade between bytes and quality, and one point of it.

use crate::args::{CompressArgs, PickArgs};
use crate::exit::{Failure, Result, lines};
use crate::report::front::{self, Front};
use crate::report::terminal::megabytes;
use crate::{files, limits};
use search::Point;
use std::path::{Path, PathBuf};

/// The files of a front: for machines and for people.
pub fn targets(base: &Path) -> Vec<PathBuf> {
    let with = |ending: &str| {
        let mut s = base.as_os_str().to_owned();
        s.push(ending);
        PathBuf::from(s)
    };
    vec![with(".front.json"), with(".front.html")]
}

/// Writes a measured front beside the output.
pub fn write(front: &Front, base: &Path, quiet: bool) -> Result {
    let [json, html] = &targets(base)[..] else { return Ok(()) };
    let text = serde_json::to_vec_pretty(front).map_err(|e| Failure::bad(e.to_string()))?;
    let a = files::Pending::write(json, |w| std::io::Write::write_all(w, &text))?;
    let b = files::Pending::write(html, |w| front::html(w, front))?;
    a.commit()?;
    b.commit()?;
    if !quiet {
        print!("{}", lines(&front::text(front)));
        println!(
            "wrote {} and {}; take a point with: compress pick {0} POINT",
            json.display(),
            html.display()
        );
    }
    Ok(())
}

/// Compresses as one point of a front says.
pub fn pick(args: PickArgs) -> Result {
    let shown = args.front.display();
    let text = files::read(&args.front)?;
    let front: Front = serde_json::from_slice(&text)
        .map_err(|e| Failure::bad(format!("{shown}: not a front that compress --pareto wrote: {e}")))?;
    let layer = chosen(&args, &front.points)?.pins.clone();
    let mut data = args.data;
    data.path = data.path.or(Some(front.data));
    super::compress::run(CompressArgs {
        model: Some(front.model),
        data,
        output: args.output,
        layer,
        max_drop: Some("100%".into()),
        force: args.force,
        quiet: args.quiet,
        ..CompressArgs::default()
    })
}

fn chosen<'a>(args: &PickArgs, points: &'a [Point]) -> Result<&'a Point> {
    let none = |what: String| Failure::no_gain(format!("no point of the front {what}; no file written"));
    if let Some(n) = args.point {
        let at = n.checked_sub(1).and_then(|i| points.get(i));
        return at
            .ok_or_else(|| Failure::usage(format!("the front has points 1 to {}, not {n}", points.len())));
    }
    if let Some(size) = &args.target_size {
        let most = limits::parse_bytes(size)
            .ok_or_else(|| Failure::usage(format!("--target-size '{size}' is no size such as 5MB")))?;
        let least = points.iter().map(|p| p.bytes).min().unwrap_or(0);
        return points.iter().find(|p| p.bytes <= most).ok_or_else(|| {
            none(format!("has at most {}, the smallest has {}", megabytes(most), megabytes(least)))
        });
    }
    let text = args
        .max_drop
        .as_deref()
        .ok_or_else(|| Failure::usage("say which point: its number, --max-drop or --target-size"))?;
    let most = super::compress::parse_drop(text)
        .ok_or_else(|| Failure::usage(format!("--max-drop '{text}' is not 1%, 0.5pt or 0.01")))?;
    let within = |p: &&Point| p.measured.expected_within(most);
    points.iter().rev().find(within).ok_or_else(|| none(format!("loses at most {text}")))
}
