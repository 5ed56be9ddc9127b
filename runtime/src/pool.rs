//! A pool of claim-based workers: tasks are taken from tickets, so nobody waits for a helper that has not started.
//!
//! Every thread has a ticket of its own for its share of consecutive tasks, and takes from the others' when that is used up.
//! Tasks go through a tensor in order, so a thread finds in its caches what it wrote in the job before.

use kernels::Pool;
use std::cell::UnsafeCell;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering, Ordering::*};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::JoinHandle;

/// Turns a worker spins before it sleeps: 100 to 200 µs, longer than most steps that run on one thread, as waking up
/// takes about 50 µs.
const SPINS: usize = 16_000;

/// Bits of a ticket's next task and of the end of its tasks; the rest numbers the job.
const BITS: u32 = 20;
const MASK: u64 = (1 << BITS) - 1;
/// Tasks of one job: every worker may take one number past the last of a ticket.
const MOST_TASKS: usize = (MASK as usize) - 1024;

/// What workers take tasks from. Taking one is one addition, whose result says of which job it is and whether it is one at
/// all; only then is the function read, which its job cannot replace before all of its tasks are done.
#[repr(align(128))]
struct Ticket(AtomicU64);

impl Ticket {
    /// The job it is of.
    fn job(&self, order: Ordering) -> u64 {
        self.0.load(order) >> (2 * BITS)
    }

    fn set(&self, job: u64, tasks: Range<usize>) {
        self.0.store(job << (2 * BITS) | (tasks.end as u64) << BITS | tasks.start as u64, SeqCst);
    }

    /// The next task, if there is one left.
    fn take(&self) -> Option<usize> {
        let word = self.0.fetch_add(1, AcqRel);
        let (next, end) = (word & MASK, word >> BITS & MASK);
        (next < end).then_some(next as usize)
    }
}

/// Tasks of the job at hand that are not done, on a line of its own.
#[repr(align(128))]
struct Left(AtomicUsize);

struct Shared {
    /// One for each thread, the caller's first. That one is set last, and tells of a new job.
    tickets: Vec<Ticket>,
    left: Left,
    /// The function of the job, its lifetime erased.
    f: UnsafeCell<Option<&'static Task<'static>>>,
    panicked: AtomicBool,
    /// Workers that wait for `wake`; changed under `lock`.
    sleeping: AtomicUsize,
    lock: Mutex<()>,
    wake: Condvar,
    stop: AtomicBool,
}

type Task<'a> = dyn Fn(usize) + Sync + 'a;

// SAFETY: `f` is written while no task is left and read by who has a task; tickets and `left` order the two.
unsafe impl Sync for Shared {}
// SAFETY: `f` is a reference to what is `Sync`.
unsafe impl Send for Shared {}

impl Shared {
    fn job(&self, order: Ordering) -> u64 {
        self.tickets[0].job(order)
    }

    /// Takes and runs tasks, those of thread `own` first, until none is left to take.
    fn work(&self, own: usize) {
        let mut done = 0;
        let (before, from) = self.tickets.split_at(own);
        for ticket in from.iter().chain(before) {
            while let Some(i) = ticket.take() {
                // SAFETY: `run` stored the function before this job's tickets, one of which was read with `Acquire`; task
                // `i` is not done, so `left` is not zero and `run`, which keeps the function alive and alone, has not
                // returned.
                let Some(f) = (unsafe { *self.f.get() }) else { break };
                if std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| f(i))).is_err() {
                    self.panicked.store(true, Relaxed);
                }
                done += 1;
            }
        }
        if done > 0 {
            self.left.0.fetch_sub(done, Release);
        }
    }
}

/// Most workers for each core: they wait by spinning first, and more of them would only take each other's turns.
const FOR_EACH_CORE: usize = 4;

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
        let cores = std::thread::available_parallelism().map_or(1, |n| n.get());
        let threads = threads.clamp(1, FOR_EACH_CORE * cores);
        let shared = Arc::new(Shared {
            tickets: (0..threads).map(|_| Ticket(AtomicU64::new(0))).collect(),
            left: Left(AtomicUsize::new(0)),
            f: UnsafeCell::new(None),
            panicked: AtomicBool::new(false),
            sleeping: AtomicUsize::new(0),
            lock: Mutex::new(()),
            wake: Condvar::new(),
            stop: AtomicBool::new(false),
        });
        let spawn = |own| {
            let s = Arc::clone(&shared);
            std::thread::Builder::new()
                .name("compress-worker".into())
                .stack_size(8 << 20)
                .spawn(move || worker(&s, own))
                .ok()
        };
        let workers = (1..threads).filter_map(spawn).collect();
        ThreadPool { shared, workers, busy: AtomicBool::new(false) }
    }
}

fn worker(s: &Shared, own: usize) {
    let mut seen = 0;
    let changed = |seen: u64| s.job(SeqCst) != seen || s.stop.load(Relaxed);
    loop {
        let mut spins = 0;
        while spins < SPINS && !changed(seen) {
            std::hint::spin_loop();
            spins += 1;
        }
        if spins == SPINS {
            let mut guard = s.lock.lock().unwrap_or_else(|e| e.into_inner());
            // `run` sets the ticket and then looks for sleepers; here it is the other way around, so one sees the other.
            s.sleeping.fetch_add(1, SeqCst);
            while !changed(seen) {
                guard = s.wake.wait(guard).unwrap_or_else(|e| e.into_inner());
            }
            s.sleeping.fetch_sub(1, SeqCst);
        }
        if s.stop.load(Relaxed) {
            return;
        }
        seen = s.job(Acquire);
        s.work(own);
    }
}

impl Pool for ThreadPool {
    fn threads(&self) -> usize {
        self.workers.len() + 1
    }

    fn run(&self, tasks: usize, f: &(dyn Fn(usize) + Sync)) {
        if tasks <= 1 || tasks > MOST_TASKS || self.workers.is_empty() || self.busy.swap(true, Acquire) {
            (0..tasks).for_each(f);
            return;
        }
        let s = &*self.shared;
        // SAFETY: only the lifetime changes; this function returns after every task is done, and no worker touches `f`
        // without having taken a task. None is left of the job before, so nobody reads what is written.
        unsafe { *s.f.get() = Some(std::mem::transmute::<&Task, &Task>(f)) };
        s.left.0.store(tasks, Relaxed);
        let job = s.job(Relaxed).wrapping_add(1);
        let threads = s.tickets.len();
        for (own, ticket) in s.tickets.iter().enumerate().rev() {
            ticket.set(job, tasks * own / threads..tasks * (own + 1) / threads);
        }
        if s.sleeping.load(SeqCst) > 0 {
            drop(s.lock.lock().unwrap_or_else(|e| e.into_inner()));
            s.wake.notify_all();
        }
        s.work(0);
        let mut spins = 0usize;
        while s.left.0.load(Acquire) > 0 {
            spins += 1;
            if spins.is_multiple_of(1 << 14) { std::thread::yield_now() } else { std::hint::spin_loop() }
        }
        let panicked = s.panicked.swap(false, Relaxed);
        self.busy.store(false, Release);
        if panicked {
            panic!("a task of a parallel kernel panicked");
        }
    }
}

impl Drop for ThreadPool {
    fn drop(&mut self) {
        {
            let _guard = self.shared.lock.lock().unwrap_or_else(|e| e.into_inner());
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
    fn more_threads_than_cores_can_use_are_not_started() {
        let cores = std::thread::available_parallelism().map_or(1, |n| n.get());
        assert_eq!(ThreadPool::new(usize::MAX).threads(), FOR_EACH_CORE * cores);
    }

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
    fn jobs_follow_each_other_while_workers_come_late_or_sleep() {
        let pool = ThreadPool::new(3);
        for round in 0..3000usize {
            let counts: [AtomicUsize; 5] = Default::default();
            let tasks = 2 + round % 4;
            pool.run(tasks, &|i| {
                counts[i].fetch_add(round + 1, Relaxed);
            });
            let want = |i: usize| if i < tasks { round + 1 } else { 0 };
            assert!(counts.iter().enumerate().all(|(i, c)| c.load(Relaxed) == want(i)));
            if round % 1000 == 999 {
                std::thread::sleep(std::time::Duration::from_millis(5));
            }
        }
    }

    #[test]
    fn a_panic_of_a_task_is_the_callers() {
        let pool = ThreadPool::new(2);
        let run = || pool.run(4, &|i| assert!(i < 3, "planned"));
        assert!(std::panic::catch_unwind(std::panic::AssertUnwindSafe(run)).is_err());
        let sum = AtomicUsize::new(0);
        pool.run(4, &|i| {
            sum.fetch_add(i, Relaxed);
        });
        assert_eq!(sum.load(Relaxed), 6);
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
