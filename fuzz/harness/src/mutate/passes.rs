//! Changes of pass sequences: add, drop, reorder, repeat, other options and budgets.

use crate::passes::{Growth, Level, Pass, Pipeline, Tier};
use crate::random::Random;
use crate::targets::Target;

/// Most passes of a sequence.
const MOST: usize = 8;
/// From so many on a pass takes the place of another: each costs a whole check.
const LONG: usize = 4;
const LEVELS: &[Level] = &[Level::Portable, Level::Runtime];
const GROWTHS: &[Growth] = &[Growth::Never, Growth::Bounded, Growth::Allowed];
const TIERS: &[Tier] = &[Tier::Best, Tier::Best, Tier::Portable, Tier::Avx2, Tier::Avx512];
/// One in so many passes is a whole search, which is slow.
const SEARCHES: usize = 60;

/// A method on a layer.
pub fn compress(r: &mut Random) -> Pass {
    if r.chance(1, SEARCHES) {
        return Pass::Search { percent: 20 + r.below(80) as u32, methods: Vec::new() };
    }
    let method = r.pick(lossy::METHODS).map_or("int8", |m| m.name()).to_string();
    Pass::Compress { method, layer: r.below(6), candidate: r.below(40), data: r.chance(1, 2) }
}

fn exact(r: &mut Random) -> Pass {
    let names: Vec<&str> = exact::rules().map(|x| x.name).collect();
    let without = if r.chance(1, 3) { r.below(6) } else { 0 };
    Pass::Exact {
        level: r.one(LEVELS, Level::Runtime),
        growth: r.one(GROWTHS, Growth::Never),
        without: (0..without).filter_map(|_| r.pick(&names)).map(|s| s.to_string()).collect(),
        order: if r.chance(1, 3) { 1 + r.below(1 << 20) as u64 } else { 0 },
    }
}

fn any(r: &mut Random) -> Pass {
    match r.below(12) {
        0..=4 => exact(r),
        5 => Pass::Fold,
        6 => Pass::Widen,
        7 => Pass::File,
        8 => Pass::Text,
        9 | 10 => compress(r),
        _ => Pass::Run { tier: r.one(TIERS, Tier::Best) },
    }
}

/// A whole pipeline: exact rewrites, at times a method, files, and code at the end.
pub fn sequence(r: &mut Random) -> Vec<Pass> {
    let mut all: Vec<Pass> = (0..r.below(3)).map(|_| any(r)).collect();
    all.push(Pass::Run { tier: r.one(TIERS, Tier::Best) });
    all
}

/// Changes the sequence, within what the target looks at.
pub fn mutate(p: &mut Pipeline, target: Target, r: &mut Random) {
    for _ in 0..1 + r.below(2) {
        once(p, target, r);
    }
    p.passes.truncate(MOST);
    if p.passes.is_empty() {
        p.passes = target.passes(r);
    }
}

fn once(p: &mut Pipeline, target: Target, r: &mut Random) {
    let n = p.passes.len();
    let at = r.below(n);
    let grows = n < LONG || r.chance(1, 8);
    match r.below(8) {
        what @ 0..=2 => {
            if let Some(x) = (0..64).map(|_| any(r)).find(|x| target.takes(x)) {
                match p.passes.get_mut(at) {
                    Some(old) if what == 0 || !grows => *old = x,
                    _ => p.passes.insert(at, x),
                }
            }
        }
        3 if n > 1 => drop(p.passes.remove(at)),
        4 if n > 1 => {
            let x = p.passes.remove(at);
            p.passes.insert(r.below(n), x);
        }
        5 if n > 0 && grows => {
            let x = p.passes[at].clone();
            p.passes.insert(at, x);
        }
        6 => p.seed = r.bits() >> 40,
        _ if n > 0 => options(&mut p.passes[at], r),
        _ => {}
    }
}

/// Other options and budgets for one pass.
fn options(pass: &mut Pass, r: &mut Random) {
    match pass {
        Pass::Exact { .. } => *pass = exact(r),
        Pass::Compress { method, layer, candidate, data } => match r.below(4) {
            0 => *method = r.pick(lossy::METHODS).map_or("int8", |m| m.name()).to_string(),
            1 => *layer = r.below(6),
            2 => *candidate = r.below(40),
            _ => *data = !*data,
        },
        Pass::Search { percent, methods } => {
            *percent = 1 + r.below(100) as u32;
            *methods =
                (0..r.below(3)).filter_map(|_| r.pick(lossy::METHODS)).map(|m| m.name().into()).collect();
        }
        Pass::Run { tier } => *tier = r.one(TIERS, Tier::Best),
        Pass::Fold | Pass::Widen | Pass::File | Pass::Text => *pass = any(r),
    }
}
