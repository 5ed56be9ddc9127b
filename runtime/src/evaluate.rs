//! The JIT as an [`Evaluate`] engine for searches: sessions are kept by graph.

use crate::{Session, ThreadPool};
use ir::{Evaluate, Feeds, Graph, Outcome, Output, Result, ValueId};
use kernels::Pool;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// Graphs whose sessions are kept unless asked otherwise.
const KEPT: usize = 2;

/// A graph, the values tapped, and the session that runs both.
type Kept = (Graph, Vec<ValueId>, Arc<Session>);

/// Compiles each graph it is given, once, and runs it.
pub struct Jit {
    pool: Arc<ThreadPool>,
    sessions: Mutex<Vec<Kept>>,
    most: usize,
}

impl Jit {
    /// An engine on `threads` threads. Results do not depend on the number.
    pub fn new(threads: usize) -> Jit {
        Jit { pool: Arc::new(ThreadPool::new(threads)), sessions: Mutex::default(), most: KEPT }
    }

    /// Keeps the sessions of at most `graphs` graphs, each with its packed weights.
    pub fn keeping(self, graphs: usize) -> Jit {
        Jit { most: graphs.max(1), ..self }
    }

    fn session(&self, graph: &Graph, taps: &[ValueId]) -> Arc<Session> {
        let mut kept = self.sessions.lock().unwrap_or_else(|e| e.into_inner());
        if let Some(i) = kept.iter().position(|(g, t, _)| t == taps && g == graph) {
            let entry = kept.remove(i);
            let session = Arc::clone(&entry.2);
            kept.push(entry);
            return session;
        }
        while kept.len() >= self.most {
            kept.remove(0);
        }
        let mut tapped = graph.clone();
        let mut outputs: Vec<Output> = graph.outputs().to_vec();
        outputs.extend(taps.iter().enumerate().map(|(i, &v)| Output { name: format!("tap:{i}"), value: v }));
        tapped.set_outputs(outputs);
        let session = Arc::new(Session::with_pool(&tapped, Arc::clone(&self.pool)));
        kept.push((graph.clone(), taps.to_vec(), Arc::clone(&session)));
        session
    }
}

impl Evaluate for Jit {
    fn run(&self, graph: &Graph, inputs: &Feeds, taps: &[ValueId]) -> Result<Outcome> {
        let mut outputs = self.session(graph, taps).evaluate(inputs)?;
        let taps = outputs.split_off(graph.outputs().len());
        Ok(Outcome { outputs, taps })
    }

    fn forget(&self) {
        self.sessions.lock().unwrap_or_else(|e| e.into_inner()).clear();
    }

    fn side_by_side(&self) -> bool {
        self.pool.threads() == 1
    }

    fn apart(&self) -> Option<Box<dyn Evaluate>> {
        (!self.side_by_side()).then(|| Box::new(Jit::new(1).keeping(self.most)) as Box<dyn Evaluate>)
    }

    fn times(&self, graphs: &[(&Graph, &Feeds)], turns: usize, span: Duration) -> Option<Vec<Vec<Duration>>> {
        let turn = span / u32::try_from(turns.max(1)).unwrap_or(1);
        let mut sessions: Vec<Option<Session>> = graphs
            .iter()
            .map(|(g, inputs)| {
                let s = Session::with_pool(g, Arc::clone(&self.pool));
                s.evaluate(inputs).is_ok().then_some(s)
            })
            .collect();
        let mut times = vec![Vec::new(); graphs.len()];
        for _ in 0..turns.max(1) {
            for ((slot, (_, inputs)), times) in sessions.iter_mut().zip(graphs).zip(&mut times) {
                let Some(s) = slot else { continue };
                // The others have taken the caches: the first run of a turn fills them again and does not count.
                let started = Instant::now();
                let mut failed = s.evaluate(inputs).is_err();
                while !failed {
                    let t = Instant::now();
                    failed = s.evaluate(inputs).is_err();
                    times.push(t.elapsed());
                    if started.elapsed() >= turn {
                        break;
                    }
                }
                if failed {
                    times.clear();
                    *slot = None;
                }
            }
        }
        Some(times)
    }
}
