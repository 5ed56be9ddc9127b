//! `compress build`: a model as an object or a library for C.

use crate::args::{BuildArgs, Cpu, Emit};
use crate::exit::{Failure, Result};
use crate::{feeds, files, limits, model};
use runtime::Tier;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Kernels as one object file; empty when the build could not make it.
static KERNELS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/artefact.o"));

pub fn run(args: BuildArgs) -> Result {
    if KERNELS.is_empty() {
        return Err(Failure::bad(
            "this program was built without the kernels that artefacts carry; see the build's warning",
        ));
    }
    limits::set(&args.model, &args.bounds)?;
    let extension = match args.emit {
        Emit::Obj => "o",
        Emit::Lib => "a",
        Emit::Cdylib => "so",
    };
    let output = args.output.clone().unwrap_or_else(|| args.model.with_extension(extension));
    let header = args.header.then(|| output.with_extension("h"));
    for target in [Some(&output), header.as_ref()].into_iter().flatten() {
        files::check_target(target, Some(&args.model), args.force)?;
    }
    let opened = model::open(&args.model)?;
    let name = identifier(&output);
    let ahead = runtime::Ahead {
        shapes: feeds::parse_shapes(&args.shape)?,
        values: feeds::parse_values(&args.value)?,
        name: &name,
        kernels: KERNELS,
        tier: tier(args.cpu)?,
    };
    let made = runtime::compile_ahead(&opened.graph, ahead)?;
    let pending = match args.emit {
        Emit::Obj => files::Pending::write(&output, |w| w.write_all(&made.object))?,
        Emit::Lib => files::Pending::write(&output, |w| w.write_all(&archive(&made.object, &made.symbols)))?,
        Emit::Cdylib => shared(&output, &made.object)?,
    };
    if let Some(h) = &header {
        files::Pending::write(h, |w| w.write_all(made.header.as_bytes()))?.commit()?;
    }
    pending.commit()?;
    if !args.quiet {
        let bytes = std::fs::metadata(&output).map_or(0, |m| m.len());
        println!(
            "{}: {bytes} bytes, {}(), {} bytes of workspace",
            output.display(),
            made.symbols[0],
            made.workspace
        );
    }
    Ok(())
}

/// The file's name as a C identifier.
fn identifier(path: &Path) -> String {
    let stem = path.file_stem().map(|s| s.to_string_lossy().into_owned()).unwrap_or_default();
    let name = stem.strip_prefix("lib").filter(|n| !n.is_empty()).unwrap_or(&stem);
    let name: String = name.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect();
    if name.starts_with(|c: char| c.is_ascii_alphabetic()) { name } else { format!("model_{name}") }
}

/// The kernels of a CPU; packing for wider instructions than this one's would pack for this one's.
fn tier(cpu: Cpu) -> Result<Tier> {
    let tier = match cpu {
        Cpu::Native => Tier::best(),
        Cpu::Avx512 => Tier::Avx512,
        Cpu::Avx2 => Tier::Avx2,
        Cpu::Portable => Tier::Portable,
    };
    if tier > Tier::best() {
        return Err(Failure::bad(
            "--cpu asks for instructions that this machine lacks; build on one that has them",
        ));
    }
    Ok(tier)
}

/// A static library of one object, in the format of System V.
fn archive(object: &[u8], symbols: &[String]) -> Vec<u8> {
    let names: String = symbols.iter().flat_map(|s| [s.as_str(), "\0"]).collect();
    let size = (4 + 4 * symbols.len() + names.len()).next_multiple_of(2);
    let mut index = Vec::from((symbols.len() as u32).to_be_bytes());
    symbols.iter().for_each(|_| index.extend(((8 + 60 + size) as u32).to_be_bytes()));
    index.extend(names.as_bytes());
    index.resize(size, 0);
    let mut out = Vec::from(*b"!<arch>\n");
    for (name, data) in [("/", &index[..]), ("model.o/", object)] {
        out.extend(format!("{name:<16}{:<12}{:<6}{:<6}{:<8}{:<10}`\n", 0, 0, 0, 644, data.len()).bytes());
        out.extend(data);
        if data.len() % 2 == 1 {
            out.push(b'\n');
        }
    }
    out
}

/// A shared library, linked by the system's C compiler.
fn shared(output: &Path, object: &[u8]) -> Result<files::Pending> {
    let compiler: PathBuf = std::env::var_os("CC").unwrap_or("cc".into()).into();
    let source = files::Pending::write(&output.with_extension("so.o"), |w| w.write_all(object))?;
    let linked = files::Pending::write(output, |_| Ok(()))?;
    let mut cc = Command::new(&compiler);
    cc.args(["-shared", "-x", "none", "-o"]).arg(linked.path()).arg(source.path()).args(["-lm", "-lpthread"]);
    let done = cc.output().map_err(|e| {
        let name = compiler.display();
        Failure::bad(format!(
            "a shared library needs a C compiler to link it; '{name}': {e}; set CC, or --emit lib"
        ))
    })?;
    if !done.status.success() {
        return Err(Failure::bad(format!(
            "{}: {}",
            compiler.display(),
            String::from_utf8_lossy(&done.stderr)
        )));
    }
    Ok(linked)
}
