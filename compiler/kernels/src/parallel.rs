//! The seam to whatever runs tasks on threads.

/// Runs independent tasks.
pub trait Pool: Sync {
    /// How many tasks run at the same time, at least one.
    fn threads(&self) -> usize;

    /// Calls `f(0)`, `f(1)`, … `f(tasks - 1)`, each once, in any order and on any thread, and returns when all are
    /// done.
    fn run(&self, tasks: usize, f: &(dyn Fn(usize) + Sync));
}

/// Runs tasks one after the other on the calling thread.
#[derive(Clone, Copy, Debug, Default)]
pub struct Serial;

impl Pool for Serial {
    fn threads(&self) -> usize {
        1
    }

    fn run(&self, tasks: usize, f: &(dyn Fn(usize) + Sync)) {
        for task in 0..tasks {
            f(task);
        }
    }
}
