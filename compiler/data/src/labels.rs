//! Labels of files: the folders they lie in, or a table.

use crate::npz;
use ir::{Error, Result};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// Largest table read, bytes.
const MAX_TABLE: u64 = 256 << 20;
/// Classes listed in a note.
const SHOWN: usize = 4;
/// Most characters shown of a name from a table or a folder.
const NAME: usize = 80;

/// A name as a message shows it.
fn short(name: &str) -> String {
    let start: String = name.chars().take(NAME).collect();
    let more = if start.len() < name.len() { "…" } else { "" };
    format!("{}{more}", start.escape_debug())
}

/// Labels of files and how they came about.
#[derive(Debug, PartialEq)]
pub struct Labels {
    /// One for each file; `None` where there is none.
    pub of: Vec<Option<i64>>,
    pub note: String,
}

/// Class names to numbers: names that are all integers stand for themselves, others for their place in the alphabet.
fn numbers(names: &BTreeSet<&str>) -> BTreeMap<String, i64> {
    let own: Option<BTreeMap<String, i64>> =
        names.iter().map(|n| Some((n.to_string(), n.parse::<i64>().ok()?))).collect();
    own.unwrap_or_else(|| names.iter().zip(0..).map(|(n, i)| (n.to_string(), i)).collect())
}

fn listed(classes: &BTreeMap<String, i64>) -> String {
    let mut by_number: Vec<(&i64, &String)> = classes.iter().map(|(n, i)| (i, n)).collect();
    by_number.sort();
    let mut s: Vec<String> =
        by_number.iter().take(SHOWN).map(|(i, n)| format!("{i} = {}", short(n))).collect();
    if by_number.len() > SHOWN {
        s.push("…".into());
    }
    s.join(", ")
}

/// The first folder below `root` on the way to each file names its class. `None` where files lie in no or in one folder.
pub fn from_folders(root: &Path, files: &[PathBuf]) -> Option<Labels> {
    let class = |f: &PathBuf| -> Option<String> {
        let mut parts = f.strip_prefix(root).ok()?.components();
        let first = parts.next()?;
        parts.next()?;
        Some(first.as_os_str().to_string_lossy().into_owned())
    };
    let of: Vec<Option<String>> = files.iter().map(class).collect();
    let names: BTreeSet<&str> = of.iter().flatten().map(String::as_str).collect();
    if names.len() < 2 {
        return None;
    }
    let classes = numbers(&names);
    let note = format!("labels are {} folder names: {}", classes.len(), listed(&classes));
    Some(Labels { of: of.iter().map(|n| classes.get(n.as_ref()?).copied()).collect(), note })
}

/// Labels from a table of file names (below `root`) and labels: comma-separated, a header line allowed.
pub fn from_table(table: &Path, root: &Path, files: &[PathBuf]) -> Result<Labels> {
    let named = |e: Error| Error { message: format!("{}: {}", table.display(), e.message), ..e };
    let file = npz::open(table)?;
    if file.metadata().is_ok_and(|m| m.len() > MAX_TABLE) {
        return Err(named(Error::limit(format!("a table of labels is limited to {MAX_TABLE} bytes"))));
    }
    parse(file, root, files).map_err(named)
}

fn parse(from: impl std::io::Read, root: &Path, files: &[PathBuf]) -> Result<Labels> {
    let mut reader =
        csv::ReaderBuilder::new().has_headers(false).flexible(true).trim(csv::Trim::All).from_reader(from);
    // Files by their path below the root, by name and by name without ending.
    let mut index: BTreeMap<String, Vec<usize>> = BTreeMap::new();
    for (i, f) in files.iter().enumerate() {
        let below = f.strip_prefix(root).unwrap_or(f);
        let text = |p: Option<&std::ffi::OsStr>| p.map(|s| s.to_string_lossy().into_owned());
        let keys = [text(Some(below.as_os_str())), text(below.file_name()), text(below.file_stem())];
        let keys: BTreeSet<String> = keys.into_iter().flatten().collect();
        keys.into_iter().for_each(|k| index.entry(k).or_default().push(i));
    }
    let mut of: Vec<Option<String>> = vec![None; files.len()];
    let (mut absent, mut first_absent, mut column) = (0usize, None, 1usize);
    for (line, record) in reader.records().enumerate() {
        let record = record.map_err(|e| Error::data(format!("not a table of file names and labels: {e}")))?;
        let name = record.get(0).unwrap_or_default();
        let name = name.strip_prefix("./").unwrap_or(name);
        let found = index.get(name);
        if line == 0 && found.is_none() {
            let header =
                |f: &str| ["label", "labels", "class", "target"].contains(&f.to_lowercase().as_str());
            column = record.iter().position(header).unwrap_or(1);
            continue;
        }
        match found.map(Vec::as_slice) {
            Some([i]) => {
                let label = record.get(column).filter(|l| !l.is_empty());
                of[*i] =
                    Some(label.ok_or_else(|| Error::data(format!("line {} has no label", line + 1)))?.into());
            }
            Some(_) => {
                return Err(Error::data(format!("line {}: '{}' names several files", line + 1, short(name))));
            }
            None => {
                absent += 1;
                first_absent.get_or_insert(name.to_string());
            }
        }
    }
    let names: BTreeSet<&str> = of.iter().flatten().map(String::as_str).collect();
    if names.is_empty() {
        return Err(Error::data("names none of the files that hold samples"));
    }
    let classes = numbers(&names);
    let mut note = format!("labels are from the table: {}", listed(&classes));
    if let Some(first) = first_absent {
        note += &format!("; {absent} lines name no file (first '{}')", short(&first));
    }
    Ok(Labels { of: of.iter().map(|n| classes.get(n.as_ref()?).copied()).collect(), note })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files(names: &[&str]) -> Vec<PathBuf> {
        names.iter().map(|n| Path::new("d").join(n)).collect()
    }

    #[test]
    fn folders_are_classes_in_order_or_numbers() {
        let root = Path::new("d");
        let l = from_folders(root, &files(&["dog/a.png", "cat/b.png", "dog/deep/c.png"])).unwrap();
        assert_eq!(l.of, [Some(1), Some(0), Some(1)]);
        assert!(l.note.contains("0 = cat"), "{}", l.note);
        let l = from_folders(root, &files(&["10/a.png", "2/b.png"])).unwrap();
        assert_eq!(l.of, [Some(10), Some(2)]);
        assert!(from_folders(root, &files(&["a.png", "b.png"])).is_none());
        assert!(from_folders(root, &files(&["all/a.png", "all/b.png"])).is_none());
    }

    #[test]
    fn tables_name_files_in_any_usual_way() {
        let (root, f) = (Path::new("d"), files(&["a.png", "x/b.png", "c.png"]));
        let of = |t: &str| parse(t.as_bytes(), root, &f).map(|l| l.of);
        assert_eq!(of("a.png,3\nx/b.png,4\n").unwrap(), [Some(3), Some(4), None]);
        assert_eq!(
            of("file,size,label\na,9,7\n\"b.png\",9,8\n./c.png,9,7\n").unwrap(),
            [Some(7), Some(8), Some(7)]
        );
        assert_eq!(of("a.png,cat\nb.png,dog\nc.png,cat").unwrap(), [Some(0), Some(1), Some(0)]);
        assert!(parse("a.png,1\nz.png,1\n".as_bytes(), root, &f).unwrap().note.contains("1 lines"));
        let long = "x".repeat(1_000_000);
        let note = |t: String| parse(t.as_bytes(), root, &f).unwrap().note;
        assert!(note(format!("a.png,{long}\n{long},1\n")).len() < 400);
        assert!(!note("a.png,\u{1b}[31m\n".into()).contains('\u{1b}'));
        for bad in ["", "name,label\n", "a.png\n", "a.png,\n", "z.png,1\n"] {
            assert!(of(bad).is_err(), "{bad:?}");
        }
        let twice = files(&["x/a.png", "y/a.png"]);
        assert!(parse("x/a.png,1\na.png,1\n".as_bytes(), root, &twice).is_err());
    }
}
