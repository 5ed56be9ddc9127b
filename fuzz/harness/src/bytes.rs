//! The target that reads bytes: pre-scan, import, verification.

/// Bytes as a model file: an error or a graph that verifies, exports and imports again to the same file, never a panic.
pub fn prescan_import(bytes: &[u8]) {
    crate::limits::set_limits();
    let Ok(m) = onnx::from_bytes(bytes.to_vec(), &ops::Standard) else { return };
    ir::verify(&m.graph).unwrap_or_else(|e| panic!("an imported graph does not verify: {e}"));
    let Ok(out) = onnx::to_bytes(&m.graph, &ops::Standard) else { return };
    let back = match onnx::from_bytes(out.clone(), &ops::Standard) {
        Ok(back) => back,
        Err(e) => panic!("an exported model does not import: {e}"),
    };
    let again = match onnx::to_bytes(&back.graph, &ops::Standard) {
        Ok(again) => again,
        Err(e) => panic!("an imported model does not export: {e}"),
    };
    if let Some(d) = difference(&out, &again) {
        panic!("export and import change the file: {d}");
    }
}

/// Where two files part, with what is around there.
pub fn difference(a: &[u8], b: &[u8]) -> Option<String> {
    let at = (0..a.len().max(b.len())).find(|&i| a.get(i) != b.get(i))?;
    let part = |x: &[u8]| {
        let from = at.saturating_sub(24).min(x.len());
        String::from_utf8_lossy(&x[from..(at + 16).min(x.len())]).escape_debug().to_string()
    };
    Some(format!("byte {at} of {} and {}: {} against {}", a.len(), b.len(), part(a), part(b)))
}

/// The first lines in which two printed graphs part.
pub fn lines_apart(a: &str, b: &str) -> String {
    let short = |s: Option<&str>| s.unwrap_or("no line").trim().chars().take(400).collect::<String>();
    let (mut x, mut y) = (a.lines(), b.lines());
    loop {
        match (x.next(), y.next()) {
            (None, None) => return "printed alike".to_string(),
            (p, q) if p == q => {}
            (p, q) => return format!("{} against {}", short(p), short(q)),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    /// Every file of the corpus: one of each kind of hostile model, and what fuzzing kept.
    #[test]
    fn the_corpus_is_clean() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../seeds/prescan_import");
        let mut files: Vec<_> = std::fs::read_dir(&folder).unwrap().map(|e| e.unwrap().path()).collect();
        files.sort();
        assert!(files.len() >= 100, "{} files", files.len());
        files.iter().for_each(|f| super::prescan_import(&std::fs::read(f).unwrap()));
    }

    /// Each file with bytes changed, moved or cut off, the same every time.
    #[test]
    fn what_is_near_the_corpus_is_clean() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../seeds/prescan_import");
        let mut files: Vec<_> = std::fs::read_dir(&folder).unwrap().map(|e| e.unwrap().path()).collect();
        files.sort();
        let mut state = 1u64;
        let mut below = |n: usize| {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            (state >> 33) as usize % n.max(1)
        };
        for f in files {
            let whole = std::fs::read(f).unwrap();
            for _ in 0..60 {
                let mut b = whole.clone();
                for _ in 0..1 + below(4) {
                    let at = below(b.len());
                    match below(5) {
                        0 => b.truncate(at),
                        1 => drop(b.drain(at..(at + below(8)).min(b.len()))),
                        2 => {
                            let part = b[at..(at + below(24)).min(b.len())].to_vec();
                            let to = below(b.len());
                            b.splice(to..to, part);
                        }
                        _ if at < b.len() => b[at] = [b[at] ^ 1 << below(8), 0, 0x7f, 0x80, 0xff][below(5)],
                        _ => {}
                    }
                }
                super::prescan_import(&b);
            }
        }
    }
}
