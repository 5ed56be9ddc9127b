//! A pool of claim-based workers: tasks are taken from a ticket, so nobody waits for a helper that has not started.

use kernels::Pool;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::*};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::JoinHandle;

/// Turns a worker spins before it sleeps: 100 to 200 µs, longer than most steps that run on one thread, as waking up
/// takes about 50 µs.
const SPINS: usize = 16_000;

/// One call of `run`: the function and which tasks are taken and done.
struct Job {
    /// The function with its lifetime erased; valid until `left` is zero.
    f: *const (dyn Fn(usize) + Sync),
    tasks: usize,
    next: AtomicUsize,
    left: AtomicUsize,
    panicked: AtomicBool,
}

// SAFETY: `f` points to a `Sync` function that outlives the job (see `ThreadPool::run`); the rest is atomic.
unsafe impl Send for Job {}
// SAFETY: as above.
unsafe impl Sync for Job {}

impl Job {
    /// Takes and runs tasks until none is left to take.
    fn work(&self) {
        loop {
            let i = self.next.fetch_add(1, Relaxed);
            if i >= self.tasks {
                return;
            }
            // SAFETY: task `i` is not done, so `left` is not zero and `run` has not returned.
            let f = unsafe { &*self.f };
            if std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| f(i))).is_err() {
                self.panicked.store(true, Relaxed);
            }
            self.left.fetch_sub(1, Release);
        }
    }
}

struct Shared {
    /// Number of the latest job; workers look for a change.
    epoch: AtomicU64,
    job: Mutex<Option<Arc<Job>>>,
    wake: Condvar,
    /// Workers that wait for `wake`; changed under the lock of `job`.
    sleeping: AtomicUsize,
    stop: AtomicBool,
}

/// Workers beside the calling thread.
pub struct ThreadPool {
    shared: Arc<Shared>,
    workers: Vec<JoinHandle<()>>,
    /// One job at a time; a second caller runs its tasks alone.
    busy: AtomicBool,
}

impl ThreadPool {
    /// A pool of `threads` in all, the caller included.
    pub fn new(threads: usize) -> ThreadPool {
        let shared = Arc::new(Shared {
            epoch: AtomicU64::new(0),
            job: Mutex::new(None),
            wake: Condvar::new(),
            sleeping: AtomicUsize::new(0),
            stop: AtomicBool::new(false),
        });
        let spawn = |_| {
            let s = Arc::clone(&shared);
            std::thread::Builder::new()
                .name("compress-worker".into())
                .stack_size(8 << 20)
                .spawn(move || worker(&s))
                .ok()
        };
        let workers = (1..threads.clamp(1, 256)).filter_map(spawn).collect();
        ThreadPool { shared, workers, busy: AtomicBool::new(false) }
    }
}

fn worker(s: &Shared) {
    let mut seen = 0;
    loop {
        let mut spins = 0;
        while s.epoch.load(Acquire) == seen && spins < SPINS && !s.stop.load(Relaxed) {
            std::hint::spin_loop();
            spins += 1;
        }
        let job = {
            let mut slot = s.job.lock().unwrap_or_else(|e| e.into_inner());
            while s.epoch.load(Acquire) == seen && !s.stop.load(Relaxed) {
                s.sleeping.fetch_add(1, Relaxed);
                slot = s.wake.wait(slot).unwrap_or_else(|e| e.into_inner());
                s.sleeping.fetch_sub(1, Relaxed);
            }
            if s.stop.load(Relaxed) {
                return;
            }
            seen = s.epoch.load(Acquire);
            slot.clone()
        };
        if let Some(j) = job {
            j.work();
        }
    }
}

impl Pool for ThreadPool {
    fn threads(&self) -> usize {
        self.workers.len() + 1
    }

    fn run(&self, tasks: usize, f: &(dyn Fn(usize) + Sync)) {
        if tasks <= 1 || self.workers.is_empty() || self.busy.swap(true, Acquire) {
            (0..tasks).for_each(f);
            return;
        }
        // SAFETY: only the lifetime changes; this function returns after every task is done, and no worker touches `f`
        // without having taken a task.
        let f: &'static (dyn Fn(usize) + Sync) = unsafe { std::mem::transmute(f) };
        let job = Arc::new(Job {
            f,
            tasks,
            next: AtomicUsize::new(0),
            left: AtomicUsize::new(tasks),
            panicked: AtomicBool::new(false),
        });
        let sleeping = {
            let mut slot = self.shared.job.lock().unwrap_or_else(|e| e.into_inner());
            *slot = Some(Arc::clone(&job));
            self.shared.epoch.fetch_add(1, Release);
            self.shared.sleeping.load(Relaxed)
        };
        if sleeping > 0 {
            self.shared.wake.notify_all();
        }
        job.work();
        let mut spins = 0usize;
        while job.left.load(Acquire) > 0 {
            spins += 1;
            if spins.is_multiple_of(1 << 14) { std::thread::yield_now() } else { std::hint::spin_loop() }
        }
        self.busy.store(false, Release);
        if job.panicked.load(Relaxed) {
            panic!("a task of a parallel kernel panicked");
        }
    }
}

impl Drop for ThreadPool {
    fn drop(&mut self) {
        {
            let _slot = self.shared.job.lock().unwrap_or_else(|e| e.into_inner());
            self.shared.stop.store(true, Relaxed);
        }
        self.shared.wake.notify_all();
        for w in self.workers.drain(..) {
            drop(w.join());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_task_runs_once() {
        let pool = ThreadPool::new(4);
        for n in [0, 1, 2, 7, 1000] {
            let counts: Vec<AtomicUsize> = (0..n).map(|_| AtomicUsize::new(0)).collect();
            pool.run(n, &|i| {
                counts[i].fetch_add(1, Relaxed);
            });
            assert!(counts.iter().all(|c| c.load(Relaxed) == 1));
        }
    }

    #[test]
    fn nested_runs_do_not_deadlock() {
        let pool = ThreadPool::new(2);
        let sum = AtomicUsize::new(0);
        pool.run(8, &|_| {
            pool.run(8, &|i| {
                sum.fetch_add(i, Relaxed);
            })
        });
        assert_eq!(sum.load(Relaxed), 8 * 28);
    }
}
