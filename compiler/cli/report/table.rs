//! Plain text tables: first column left, the rest right.

use std::fmt;

pub struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    pub fn new(head: &[&str]) -> Table {
        Table { rows: vec![head.iter().map(|s| s.to_string()).collect()] }
    }
    pub fn row(&mut self, cells: &[&str]) {
        self.rows.push(cells.iter().map(|s| cell(s)).collect());
    }
}

/// Most characters of a cell: names from files may be of any length, and one would widen all rows.
const WIDEST: usize = 160;

/// A text that is too long keeps its start and end.
fn cell(text: &str) -> String {
    let n = text.chars().count();
    if n <= WIDEST {
        return text.to_string();
    }
    let part = |from: usize, len: usize| text.chars().skip(from).take(len);
    part(0, WIDEST / 2).chain(['…']).chain(part(n - WIDEST / 2, WIDEST / 2)).collect()
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let columns = self.rows[0].len();
        let width: Vec<usize> = (0..columns)
            .map(|c| self.rows.iter().filter_map(|r| r.get(c)).map(|s| s.chars().count()).max().unwrap_or(0))
            .collect();
        for r in &self.rows {
            let line: Vec<String> = r
                .iter()
                .enumerate()
                .map(|(c, s)| {
                    let pad = " ".repeat(width[c].saturating_sub(s.chars().count()));
                    if c == 0 { format!("{s}{pad}") } else { format!("{pad}{s}") }
                })
                .collect();
            writeln!(f, "{}", line.join("  ").trim_end())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_names_keep_their_start_and_end() {
        let name = format!("a{}z", "é".repeat(1 << 20));
        let mut table = Table::new(&["layer", "op"]);
        table.row(&[&name, "Conv"]);
        table.row(&["short", "Conv"]);
        let text = table.to_string();
        assert!(text.lines().all(|l| l.chars().count() <= WIDEST + 8), "{text}");
        assert!(text.contains("aéé") && text.contains("éz"));
    }
}
