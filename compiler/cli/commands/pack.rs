//! `compress pack` and `compress unpack`: model files into containers and back, bit for bit.

use crate::args::{Bounds, PackArgs, UnpackArgs};
use crate::exit::{Failure, Result};
use crate::report::terminal::megabytes;
use crate::{files, limits, packed};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Instant;

pub fn pack(args: PackArgs) -> Result {
    limits::set(&args.model, &Bounds::default())?;
    let output = args.output.unwrap_or_else(|| beside(&args.model, "cmpx"));
    files::check_target(&output, Some(&args.model), args.force)?;
    let start = Instant::now();
    let model = files::read(&args.model)?;
    if container::is_container(&model) {
        return Err(Failure::bad(format!("{} is a container already", args.model.display())));
    }
    let bytes = packed::pack(&model).map_err(|e| e.on(args.model.display()))?;
    if bytes.len() >= model.len() {
        let shown = args.model.display();
        return Err(Failure::no_gain(format!(
            "nothing gained: {shown} does not get smaller; no file written"
        )));
    }
    // A container that does not give its file back is worth nothing, so this is seen before it exists.
    match container::unpack(&bytes, model.len() as u64) {
        Ok(back) if back == model => {}
        _ => return Err(Failure::self_check("the container does not give the file back; no file written")),
    }
    files::Pending::write(&output, |w| w.write_all(&bytes))?.commit()?;
    if !args.quiet {
        let ratio = model.len() as f64 / bytes.len() as f64;
        println!(
            "{}  {} → {}  ({ratio:.2}× smaller) in {:.1} s",
            output.display(),
            megabytes(model.len() as u64),
            megabytes(bytes.len() as u64),
            start.elapsed().as_secs_f64()
        );
    }
    Ok(())
}

pub fn unpack(args: UnpackArgs) -> Result {
    let output = args.output.unwrap_or_else(|| beside(&args.container, "onnx"));
    files::check_target(&output, Some(&args.container), args.force)?;
    let model = packed::read(&args.container)?.ok_or_else(|| {
        Failure::bad(format!("{} is no .cmpx container; compress pack makes one", args.container.display()))
    })?;
    files::Pending::write(&output, |w| w.write_all(&model))?.commit()?;
    if !args.quiet {
        println!("{}  {}", output.display(), megabytes(model.len() as u64));
    }
    Ok(())
}

/// The same name with another ending, in the current folder.
fn beside(path: &Path, ending: &str) -> PathBuf {
    PathBuf::from(path.file_name().unwrap_or("model".as_ref())).with_extension(ending)
}
