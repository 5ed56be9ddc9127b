//! Pieces of work that take much memory, no more of them open at once than there are threads.
//!
//! A thread of a pool that waits for a part of its piece takes other work meanwhile. From a parallel iterator that may be a
//! whole further piece, and another inside that, so that memory grows with the pieces; here it only finds parts.

use ir::Result;
use std::sync::Mutex;

/// What `one` gives for each item, in order, or one of the errors; after an error no further item is begun.
pub fn in_turns<T: Send, R: Send>(items: Vec<T>, one: impl Fn(T) -> Result<R> + Sync) -> Result<Vec<R>> {
    let count = items.len();
    let mut found: Vec<Option<R>> = Vec::new();
    found.resize_with(count, || None);
    let state = Mutex::new((items.into_iter().enumerate(), found, None));
    let lock = || state.lock().unwrap_or_else(|e| e.into_inner());
    let next = || {
        let mut state = lock();
        if state.2.is_some() { None } else { state.0.next() }
    };
    let work = || {
        while let Some((i, item)) = next() {
            let result = one(item);
            let mut state = lock();
            match result {
                Ok(r) => state.1[i] = Some(r),
                Err(e) => state.2 = Some(e),
            }
        }
    };
    rayon::scope(|s| (0..rayon::current_num_threads().min(count)).for_each(|_| s.spawn(|_| work())));
    let (_, found, failed) = state.into_inner().unwrap_or_else(|e| e.into_inner());
    match failed {
        Some(e) => Err(e),
        None => Ok(found.into_iter().flatten().collect()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ir::Error;
    use rayon::prelude::*;
    use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

    fn on_two<R: Send>(work: impl FnOnce() -> R + Send) -> R {
        rayon::ThreadPoolBuilder::new().num_threads(2).build().unwrap().install(work)
    }

    #[test]
    fn no_more_are_open_than_threads_and_results_are_in_order() {
        let (open, most) = (AtomicUsize::new(0), AtomicUsize::new(0));
        let one = |i: u64| {
            most.fetch_max(open.fetch_add(1, SeqCst) + 1, SeqCst);
            let parts: u64 = (0..64u64)
                .into_par_iter()
                .map(|p| {
                    std::thread::sleep(std::time::Duration::from_micros(50));
                    p + i
                })
                .sum();
            open.fetch_sub(1, SeqCst);
            Ok(parts)
        };
        let found = on_two(|| in_turns((0..40).collect(), one)).unwrap();
        assert_eq!(found, (0..40).map(|i| 64 * 63 / 2 + 64 * i).collect::<Vec<u64>>());
        assert!(most.into_inner() <= 2);
    }

    #[test]
    fn an_error_ends_the_work() {
        let begun = AtomicUsize::new(0);
        let one = |i: usize| {
            begun.fetch_add(1, SeqCst);
            if i == 3 { Err(Error::data("the fourth fails")) } else { Ok(i) }
        };
        assert!(on_two(|| in_turns((0..1000).collect(), one)).is_err());
        assert!(begun.load(SeqCst) < 1000);
        assert!(on_two(|| in_turns(Vec::new(), Ok::<usize, Error>)).unwrap().is_empty());
    }
}
