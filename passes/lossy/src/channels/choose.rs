//! Which channels go: backward elimination by the exact rise of the consumers' output error.
//!
//! With H the Gram matrix of a consumer's input and P = (H + λI)⁻¹ over the columns still there, taking out the columns
//! S at best raises the error by `tr(W_S·P_SS⁻¹·W_Sᵀ)`, the survivors changing by `−W_S·P_SS⁻¹·P_S`: Optimal Brain
//! Surgeon (Hassibi & Stork 1993) on blocks of columns, one block per channel. P of the survivors is the Schur complement.

use crate::factor;
use crate::method::Refusal;
use crate::product::dot;
use crate::stats::Stats;
use faer::{Par, linalg::triangular_inverse::invert_lower_triangular};
use ndarray::{Array2, ArrayView2, Axis, s};

/// λ as a share of the mean diagonal of H: only against singular matrices, for [`Stats::finish`] has already forgotten
/// what the samples do not support.
const DAMPING: f64 = 1e-6;
/// Numbers in the inverses or the weights of one group.
const ENTRIES: usize = 11 << 20;
/// Of the channels left, one in this many goes before all are priced again.
const ROUND: usize = 24;
/// Relative error of a removal that is as good as exact.
const FREE: f64 = 1e-6;

/// One consumer: its matrix (columns of a channel are consecutive), the statistics that errors are measured by, and what
/// a unit of its error costs.
pub struct Side<'a> {
    pub matrix: Array2<f32>,
    pub stats: &'a Stats,
    pub price: f64,
}

/// Channels that stay, ascending, and the error of each side.
#[derive(Debug, Clone, PartialEq)]
pub struct Cut {
    pub keep: Vec<usize>,
    /// E‖(W − Ŵ)x‖² of each side, refitted.
    pub errors: Vec<f64>,
}

/// Columns of one diagonal block of H that are still there.
struct Block {
    cols: Vec<usize>,
    /// Inverse of the damped H over `cols`.
    inverse: Array2<f64>,
    /// rows × cols, refitted.
    weight: Array2<f64>,
}

/// A side being cut.
struct Surgery {
    blocks: Vec<Block>,
    /// Columns per channel.
    width: usize,
    price: f64,
}

/// Cuts down to each of `targets` channels (descending), and the largest cut that is as good as exact. Ends at the first
/// target whose error costs more than `worth` says so few channels may: each channel costs more than the one before.
pub fn cuts(
    count: usize,
    sides: &[Side],
    targets: &[usize],
    worth: &dyn Fn(usize) -> f64,
) -> Result<Vec<Cut>, Refusal> {
    let mut work = sides.iter().map(|s| Surgery::new(s, count)).collect::<Result<Vec<_>, _>>()?;
    let free: f64 = sides.iter().map(|s| FREE * s.price * s.stats.error(&s.matrix)).sum();
    let mut alive: Vec<usize> = (0..count).collect();
    let (mut spent, mut exact, mut found) = (0.0, true, Vec::new());
    for &target in targets.iter().filter(|&&t| t < count) {
        while alive.len() > target.max(1) {
            let most = (alive.len() / ROUND).clamp(1, alive.len() - target.max(1));
            let picked = pick(&work, &alive, most);
            let price: f64 = picked.iter().map(|p| p.1).sum();
            if exact && spent + price > free {
                exact = false;
                // The round ends where exactness does.
                let mut sum = spent;
                let within = picked.iter().take_while(|p| {
                    sum += p.1;
                    sum <= free
                });
                let part: Vec<usize> = within.map(|p| p.0).collect();
                eliminate(&mut work, &mut alive, &part);
                if alive.len() < count {
                    found.push(cut(sides, &work, &alive));
                }
                continue;
            }
            spent += price;
            if spent > worth(target) {
                return Ok(found);
            }
            let gone: Vec<usize> = picked.into_iter().map(|p| p.0).collect();
            eliminate(&mut work, &mut alive, &gone);
        }
        found.push(cut(sides, &work, &alive));
    }
    Ok(found)
}

/// The matrix of a side refitted to the channels of `keep`; columns of the others are zero.
pub fn refit(side: &Side, count: usize, keep: &[usize]) -> Result<Array2<f32>, Refusal> {
    let mut work = [Surgery::new(side, count)?];
    let gone: Vec<usize> = (0..count).filter(|c| keep.binary_search(c).is_err()).collect();
    eliminate(&mut work, &mut (0..count).collect(), &gone);
    Ok(work[0].decoded(&side.matrix))
}

fn cut(sides: &[Side], work: &[Surgery], alive: &[usize]) -> Cut {
    let error = |(s, w): (&Side, &Surgery)| s.stats.error(&(&s.matrix - &w.decoded(&s.matrix)));
    Cut { keep: alive.to_vec(), errors: sides.iter().zip(work).map(error).collect() }
}

fn eliminate(work: &mut [Surgery], alive: &mut Vec<usize>, gone: &[usize]) {
    if gone.is_empty() {
        return;
    }
    alive.retain(|c| !gone.contains(c));
    work.iter_mut().for_each(|s| s.eliminate(gone));
}

/// The next `n` channels to go with their prices, each priced after the ones before it are gone. Twice as many of the
/// cheapest compete: what happens among them depends on their own rows and columns of the matrices alone.
fn pick(work: &[Surgery], alive: &[usize], n: usize) -> Vec<(usize, f64)> {
    let mut panel = cheapest(work, alive, 2 * n);
    if n == 1 {
        panel.truncate(1);
        return panel;
    }
    let mut left: Vec<usize> = panel.iter().map(|p| p.0).collect();
    left.sort_unstable();
    let mut small: Vec<Surgery> = work.iter().map(|s| s.restricted(&left)).collect();
    let mut picked = Vec::new();
    while picked.len() < n {
        let Some(&next) = cheapest(&small, &left, 1).first() else { break };
        picked.push(next);
        eliminate(&mut small, &mut left, &[next.0]);
    }
    picked
}

/// The `n` cheapest channels with their prices, cheapest first.
fn cheapest(work: &[Surgery], alive: &[usize], n: usize) -> Vec<(usize, f64)> {
    let mut prices = vec![0.0; alive.len()];
    for s in work {
        s.price_into(alive, &mut prices);
    }
    let mut all: Vec<(usize, f64)> = alive.iter().copied().zip(prices).collect();
    all.sort_by(|a, b| a.1.total_cmp(&b.1).then(a.0.cmp(&b.0)));
    all.truncate(n);
    all
}

impl Surgery {
    fn new(side: &Side, count: usize) -> Result<Surgery, Refusal> {
        let (rows, cols) = side.matrix.dim();
        let [gram] = &side.stats.grams[..] else {
            return Err(Refusal::new("a consumer's inputs are grouped"));
        };
        if count == 0 || cols % count != 0 || gram.dim() != cols {
            return Err(Refusal::new("a consumer's inputs were not seen"));
        }
        let sizes = gram.sizes();
        let entries = sizes.iter().fold(0usize, |n, &b| n.saturating_add(b.saturating_mul(b)));
        if entries > ENTRIES || rows.saturating_mul(cols) > ENTRIES {
            return Err(Refusal::new("a consumer is too wide"));
        }
        let blocks = gram.blocks().map(|(start, h)| {
            let cols: Vec<usize> = (start..start + h.nrows()).collect();
            let weight = side.matrix.slice(s![.., start..start + h.nrows()]).mapv(f64::from);
            Block { cols, inverse: inverse(&h), weight }
        });
        Ok(Surgery { blocks: blocks.collect(), width: cols / count, price: side.price })
    }

    /// Adds to `prices` what each channel of `alive` (ascending) costs.
    fn price_into(&self, alive: &[usize], prices: &mut [f64]) {
        for b in &self.blocks {
            let mut from = 0;
            while from < b.cols.len() {
                let channel = b.cols[from] / self.width;
                let n = b.cols[from..].iter().take_while(|&&c| c / self.width == channel).count();
                if let Ok(i) = alive.binary_search(&channel) {
                    prices[i] += self.price * b.cost(from, n);
                }
                from += n;
            }
        }
    }

    fn eliminate(&mut self, gone: &[usize]) {
        let width = self.width;
        self.blocks.iter_mut().for_each(|b| b.eliminate(&|col| gone.contains(&(col / width))));
    }

    /// What it would be if there were only these channels (ascending) to take from.
    fn restricted(&self, channels: &[usize]) -> Surgery {
        let of = |b: &Block| {
            let at: Vec<usize> = (0..b.cols.len())
                .filter(|&i| channels.binary_search(&(b.cols[i] / self.width)).is_ok())
                .collect();
            Block {
                cols: at.iter().map(|&i| b.cols[i]).collect(),
                inverse: submatrix(b.inverse.view(), &at, &at),
                weight: b.weight.select(Axis(1), &at),
            }
        };
        Surgery { blocks: self.blocks.iter().map(of).collect(), width: self.width, price: self.price }
    }

    /// The refitted matrix in the shape of `like`, zero where columns are gone.
    fn decoded(&self, like: &Array2<f32>) -> Array2<f32> {
        let mut out = Array2::zeros(like.raw_dim());
        for b in &self.blocks {
            for (i, &col) in b.cols.iter().enumerate() {
                out.column_mut(col).assign(&b.weight.column(i).mapv(|v| v as f32));
            }
        }
        out
    }
}

impl Block {
    /// `tr(W_S·P_SS⁻¹·W_Sᵀ)` of `n` columns from position `from`.
    fn cost(&self, from: usize, n: usize) -> f64 {
        let p = self.inverse.slice(s![from..from + n, from..from + n]);
        let w = self.weight.slice(s![.., from..from + n]);
        if n == 1 {
            return w.iter().map(|x| x * x).sum::<f64>() / p[[0, 0]].max(f64::MIN_POSITIVE);
        }
        w.dot(&inverse_lower(p).t()).iter().map(|x| x * x).sum()
    }

    fn eliminate(&mut self, gone: &dyn Fn(usize) -> bool) {
        let (out, stay): (Vec<usize>, Vec<usize>) = (0..self.cols.len()).partition(|&i| gone(self.cols[i]));
        if out.is_empty() {
            return;
        }
        let half = inverse_lower(submatrix(self.inverse.view(), &out, &out).view());
        let across = dot(half.view(), submatrix(self.inverse.view(), &out, &stay).view());
        let lost = dot(self.weight.select(Axis(1), &out).view(), half.t());
        let weight = self.weight.select(Axis(1), &stay) - dot(lost.view(), across.view());
        let inverse = submatrix(self.inverse.view(), &stay, &stay) - dot(across.t(), across.view());
        self.cols = stay.iter().map(|&i| self.cols[i]).collect();
        (self.weight, self.inverse) = (weight, inverse);
    }
}

fn submatrix(m: ArrayView2<f64>, rows: &[usize], cols: &[usize]) -> Array2<f64> {
    Array2::from_shape_fn((rows.len(), cols.len()), |(i, j)| m[[rows[i], cols[j]]])
}

/// (H + λI)⁻¹.
fn inverse(h: &Array2<f64>) -> Array2<f64> {
    let n = h.nrows();
    let lower = factor::lower(h, DAMPING);
    let mut inv = faer::Mat::<f64>::zeros(n, n);
    invert_lower_triangular(inv.as_mut(), lower.as_ref(), Par::Seq);
    let l = Array2::from_shape_fn((n, n), |(i, j)| if j <= i { inv[(i, j)] } else { 0.0 });
    dot(l.t(), l.view())
}

/// L⁻¹ for the Cholesky factor L of a small matrix.
fn inverse_lower(p: ArrayView2<f64>) -> Array2<f64> {
    let n = p.nrows();
    let mut l = Array2::<f64>::zeros((n, n));
    for i in 0..n {
        for j in 0..=i {
            let dot: f64 = (0..j).map(|k| l[[i, k]] * l[[j, k]]).sum();
            // A pivot lost to rounding counts as its least meaningful share.
            l[[i, j]] = match i == j {
                true => (p[[i, i]] - dot).max(1e-14 * p[[i, i]]).max(f64::MIN_POSITIVE).sqrt(),
                false => (p[[i, j]] - dot) / l[[j, j]],
            };
        }
    }
    let mut inv = Array2::<f64>::zeros((n, n));
    for j in 0..n {
        inv[[j, j]] = 1.0 / l[[j, j]];
        for i in j + 1..n {
            let dot: f64 = (j..i).map(|k| l[[i, k]] * inv[[k, j]]).sum();
            inv[[i, j]] = -dot / l[[i, i]];
        }
    }
    inv
}
