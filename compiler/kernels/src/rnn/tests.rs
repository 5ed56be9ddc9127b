//! Every kind and option against the equations in `f64`.

use super::*;
use crate::parallel::Serial;

fn values(n: usize, seed: usize) -> Vec<f32> {
    (0..n).map(|i| (((i + seed) * 7919 + seed * 131) % 2003) as f32 / 2000.0 - 0.5).collect()
}

fn gate(g: Gate, x: f64, clip: f32) -> f64 {
    let d = f64::from;
    let x = x.clamp(-d(clip), d(clip));
    match g {
        Gate::Sigmoid => 1.0 / (1.0 + (-x).exp()),
        Gate::Tanh => x.tanh(),
        Gate::Relu => x.max(0.0),
        Gate::Affine { alpha, beta } => d(alpha) * x + d(beta),
        Gate::LeakyRelu { alpha } => {
            if x < 0.0 {
                d(alpha) * x
            } else {
                x
            }
        }
        Gate::ThresholdedRelu { alpha } => {
            if x > d(alpha) {
                x
            } else {
                0.0
            }
        }
        Gate::ScaledTanh { alpha, beta } => d(alpha) * (d(beta) * x).tanh(),
        Gate::HardSigmoid { alpha, beta } => (d(alpha) * x + d(beta)).clamp(0.0, 1.0),
        Gate::Elu { alpha } => {
            if x > 0.0 {
                x
            } else {
                d(alpha) * x.exp_m1()
            }
        }
        Gate::Softsign => x / (1.0 + x.abs()),
        Gate::Softplus => x.exp().ln_1p(),
    }
}

/// One step of one sequence by the ONNX equations.
fn exact(kind: Kind, a: &RecurrenceArgs<'_>, r: &[f32], n: usize, x: &[f32], h: &mut [f64], c: &mut [f64]) {
    let dot =
        |g: usize, u: usize, h: &[f64]| (0..n).map(|k| f64::from(r[(g * n + u) * n + k]) * h[k]).sum::<f64>();
    let pre = |g: usize, u: usize, h: &[f64]| f64::from(x[g * n + u]) + dot(g, u, h);
    let peep = |g: usize, u: usize| a.peephole.map_or(0.0, |p| f64::from(p[g * n + u]));
    let old = h.to_vec();
    let f = |v: f64| gate(a.f, v, a.clip);
    for u in 0..n {
        match kind {
            Kind::Rnn => h[u] = f(pre(0, u, &old)),
            Kind::Lstm => {
                let i = f(pre(0, u, &old) + peep(0, u) * c[u]);
                let forget = if a.input_forget { 1.0 - i } else { f(pre(2, u, &old) + peep(2, u) * c[u]) };
                c[u] = forget * c[u] + i * gate(a.g, pre(3, u, &old), a.clip);
                h[u] = f(pre(1, u, &old) + peep(1, u) * c[u]) * gate(a.h, c[u], a.clip);
            }
            Kind::Gru { linear_before_reset } => {
                let z = f(pre(0, u, &old));
                let g = if linear_before_reset {
                    let bias = a.hidden_bias.map_or(0.0, |b| f64::from(b[u]));
                    f64::from(x[2 * n + u]) + f(pre(1, u, &old)) * (dot(2, u, &old) + bias)
                } else {
                    let reset: Vec<f64> = (0..n).map(|k| f(pre(1, k, &old)) * old[k]).collect();
                    pre(2, u, &reset)
                };
                h[u] = (1.0 - z) * gate(a.g, g, a.clip) + z * old[u];
            }
        }
    }
}

struct Many;
impl Pool for Many {
    fn threads(&self) -> usize {
        3
    }
    fn run(&self, tasks: usize, f: &(dyn Fn(usize) + Sync)) {
        (0..tasks).rev().for_each(f);
    }
}

fn check(
    kind: Kind,
    a: &RecurrenceArgs<'_>,
    n: usize,
    batch: usize,
    steps: usize,
    lengths: Option<&[usize]>,
    reverse: bool,
) {
    let gates = kind.gates();
    let r = values(gates * n * n, 1);
    let packed = PackedRecurrence::pack(kind, &r, n).unwrap();
    let x = values(steps * batch * gates * n, 2);
    let projected = Projected {
        data: &x,
        steps,
        batch,
        step: gates * n,
        row: steps * gates * n,
        lengths,
        reverse,
        by_blocks: false,
    };
    let (h0, c0) = (values(batch * n, 3), values(batch * n, 4));
    for &tier in Tier::available() {
        let mut all = Vec::new();
        for pool in [&Serial as &dyn Pool, &Many] {
            let (mut h, mut c, mut y) = (h0.clone(), c0.clone(), vec![7.0; steps * batch * n]);
            let out = States { data: &mut y, step: batch * n, row: n };
            recur_on(tier, pool, &packed, a, &projected, &mut h, &mut c, Some(out)).unwrap();
            all.push((h, c, y));
        }
        assert_eq!(all[0], all[1]);
        if kind.projects_by_blocks(n) {
            let row = |x: &[f32]| (0..gates * n).map(|i| x[kind.projected_from(n, i)]).collect::<Vec<_>>();
            let data: Vec<f32> = x.chunks_exact(gates * n).flat_map(row).collect();
            let projected = Projected { data: &data, by_blocks: true, ..projected };
            let (mut h, mut c, mut y) = (h0.clone(), c0.clone(), vec![7.0; steps * batch * n]);
            let out = States { data: &mut y, step: batch * n, row: n };
            recur_on(tier, &Many, &packed, a, &projected, &mut h, &mut c, Some(out)).unwrap();
            assert_eq!(all[0], (h, c, y));
        }
        let (h, c, y) = &all[0];
        for b in 0..batch {
            let mut wh: Vec<f64> = h0[b * n..][..n].iter().map(|v| f64::from(*v)).collect();
            let mut wc: Vec<f64> = c0[b * n..][..n].iter().map(|v| f64::from(*v)).collect();
            let len = lengths.map_or(steps, |l| l[b]);
            let near = |got: &[f32], want: &[f64]| {
                for (g, w) in got.iter().zip(want) {
                    assert!((f64::from(*g) - w).abs() < 2e-5, "{kind:?} {a:?} {tier:?} {g} {w}");
                }
            };
            for i in 0..len {
                let t = if reverse { len - 1 - i } else { i };
                exact(kind, a, &r, n, &x[b * projected.row + t * projected.step..], &mut wh, &mut wc);
                near(&y[(t * batch + b) * n..][..n], &wh);
            }
            for t in len..steps {
                assert!(y[(t * batch + b) * n..][..n].iter().all(|y| *y == 0.0));
            }
            near(&h[b * n..][..n], &wh);
            if kind == Kind::Lstm {
                near(&c[b * n..][..n], &wc);
            }
        }
    }
}

const KINDS: [Kind; 4] = [
    Kind::Lstm,
    Kind::Gru { linear_before_reset: false },
    Kind::Gru { linear_before_reset: true },
    Kind::Rnn,
];

#[test]
fn every_kind_matches_the_equations() {
    let sizes: &[usize] = if cfg!(miri) { &[3] } else { &[1, 3, 16, 37, 80, 170] };
    for &n in sizes {
        let (peephole, bias) = (values(3 * n, 5), values(n, 6));
        for kind in KINDS {
            let plain = RecurrenceArgs::default();
            check(kind, &plain, n, 1, 3, None, false);
            check(kind, &plain, n, 6, 3, Some(&[3, 2, 3, 3, 0, 1]), true);
            check(kind, &plain, n, 11, 2, None, false);
            let options = RecurrenceArgs {
                peephole: Some(&peephole),
                hidden_bias: Some(&bias),
                clip: 0.25,
                input_forget: true,
                ..plain
            };
            check(kind, &options, n, 5, 4, Some(&[4, 4, 4, 4, 2]), false);
            check(kind, &RecurrenceArgs { input_forget: false, ..options }, n, 4, 2, None, true);
        }
    }
}

#[test]
fn every_activation_matches_its_formula() {
    for f in [
        Gate::Relu,
        Gate::Affine { alpha: 0.5, beta: 0.1 },
        Gate::LeakyRelu { alpha: 0.1 },
        Gate::ThresholdedRelu { alpha: 0.2 },
        Gate::ScaledTanh { alpha: 0.9, beta: 0.7 },
        Gate::HardSigmoid { alpha: 0.2, beta: 0.5 },
        Gate::Elu { alpha: 0.7 },
        Gate::Softsign,
        Gate::Softplus,
    ] {
        check(Kind::Rnn, &RecurrenceArgs { f, ..RecurrenceArgs::default() }, 5, 2, 2, None, false);
    }
}

#[test]
fn wrong_sizes_are_refused() {
    assert!(PackedRecurrence::pack(Kind::Lstm, &[0.0; 15], 2).is_err());
    assert!(PackedRecurrence::pack(Kind::Lstm, &[], usize::MAX).is_err());
    let w = PackedRecurrence::pack(Kind::Rnn, &[0.0; 4], 2).unwrap();
    let (x, a) = ([0.0; 12], RecurrenceArgs::default());
    let good = Projected {
        data: &x,
        steps: 3,
        batch: 2,
        step: 4,
        row: 2,
        lengths: None,
        reverse: false,
        by_blocks: false,
    };
    let mut y = [0.0; 12];
    let mut go = |x: &Projected<'_>, h: usize, step: usize| {
        let out = States { data: &mut y, step, row: 2 };
        recur(&Serial, &w, &a, x, &mut vec![0.0; h], &mut [], Some(out))
    };
    assert!(go(&good, 4, 4).is_ok());
    assert!(go(&good, 3, 4).is_err());
    assert!(go(&good, 4, 3).is_err());
    assert!(go(&good, 4, 5).is_err());
    assert!(go(&Projected { steps: 4, ..good }, 4, 4).is_err());
    assert!(go(&Projected { step: usize::MAX, ..good }, 4, 4).is_err());
    assert!(go(&Projected { lengths: Some(&[1, 4]), ..good }, 4, 4).is_err());
    assert!(go(&Projected { lengths: Some(&[1]), ..good }, 4, 4).is_err());
}
