//! Machine code that was generated earlier, in memory of its own.

use memmap2::{Mmap, MmapMut};

/// Functions start at cache lines, as their constants demand.
const ALIGN: usize = 64;

/// Executable memory that is never written again.
pub struct Text {
    _memory: Option<Mmap>,
    /// Where each function starts.
    pub table: Vec<*const u8>,
}

impl Text {
    pub fn new(texts: &[Vec<u8>]) -> Option<Text> {
        let mut starts = Vec::new();
        let mut end = 0usize;
        for t in texts {
            let at = end.next_multiple_of(ALIGN);
            starts.push(at);
            end = at.checked_add(t.len())?;
        }
        if end == 0 {
            return texts.is_empty().then_some(Text { _memory: None, table: Vec::new() });
        }
        let mut memory = MmapMut::map_anon(end).ok()?;
        for (at, t) in starts.iter().zip(texts) {
            memory[*at..*at + t.len()].copy_from_slice(t);
        }
        let memory = memory.make_exec().ok()?;
        let table = starts.iter().map(|at| memory[*at..].as_ptr()).collect();
        Some(Text { _memory: Some(memory), table })
    }
}
