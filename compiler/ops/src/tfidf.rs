//! TfIdfVectorizer: how often each n-gram of a pool occurs in a row, also with gaps between its tokens.

use crate::typing::{one, tensor_type};
use crate::{Op, schema};
use ir::{Attrs, DType, Dim, Error, EvalCx, InferCx, Operator, Result, Tensor, Value, ValueType, budget};
use std::collections::BTreeMap;

pub static OPERATORS: &[&dyn Operator] =
    &[&Op::new("TfIdfVectorizer", &schema::TF_IDF_VECTORIZER, infer, eval)];

/// Length of a result row.
fn width(attrs: &Attrs) -> Result<usize> {
    let most = attrs.require_ints("ngram_indexes")?.iter().copied().max().unwrap_or(-1);
    let n = usize::try_from(most).ok().and_then(|m| m.checked_add(1));
    n.ok_or_else(|| Error::model("ngram_indexes must hold indices"))
}

fn infer(cx: &InferCx) -> Result<Vec<ValueType>> {
    let width = Dim::Known(width(cx.attrs)?);
    let shape = match cx.shape(0) {
        Some([_]) => Some(vec![width]),
        Some([n, _]) => Some(vec![n.clone(), width]),
        Some(s) => return Err(Error::model(format!("X must have rank 1 or 2, not {}", s.len()))),
        None => None,
    };
    Ok(vec![tensor_type(Some(DType::F32), shape)])
}

/// The n-grams of each length and the number each has in the pool.
fn pool(attrs: &Attrs, tokens: &[i64]) -> Result<Vec<BTreeMap<Vec<i64>, usize>>> {
    let starts = attrs.require_ints("ngram_counts")?;
    let bad =
        || Error::model(format!("ngram_counts {starts:?} do not divide a pool of {} tokens", tokens.len()));
    let (mut grams, mut number) = (Vec::new(), 0);
    for (i, &from) in starts.iter().enumerate() {
        let n = i + 1;
        let to = starts.get(n).copied().unwrap_or(tokens.len() as i64);
        let (from, to) = (usize::try_from(from).map_err(|_| bad())?, usize::try_from(to).map_err(|_| bad())?);
        let part = tokens.get(from..to).filter(|p| p.len().is_multiple_of(n)).ok_or_else(bad)?;
        let mut own = BTreeMap::new();
        for gram in part.chunks(n) {
            own.entry(gram.to_vec()).or_insert(number);
            number += 1;
        }
        grams.push(own);
    }
    Ok(grams)
}

/// Tokens as numbers: of the pool, and of the input.
fn tokens(attrs: &Attrs, x: &Tensor) -> Result<(Vec<i64>, Vec<i64>)> {
    let Some(strings) = attrs.strs("pool_strings")? else {
        return Ok((attrs.require_ints("pool_int64s")?.to_vec(), x.to_i64s()?));
    };
    let mut numbers: BTreeMap<&str, i64> = BTreeMap::new();
    for s in strings {
        let next = numbers.len() as i64;
        numbers.entry(s).or_insert(next);
    }
    let number = |s: &String| numbers.get(s.as_str()).copied().unwrap_or(-1);
    Ok((strings.iter().map(number).collect(), x.string_data()?.iter().map(number).collect()))
}

fn eval(cx: &EvalCx) -> Result<Vec<Value>> {
    let (x, attrs, width) = (cx.tensor(0)?, cx.attrs, width(cx.attrs)?);
    let (rows, length, shape) = match *x.shape() {
        [c] => (1, c, vec![width]),
        [n, c] => (n, c, vec![n, width]),
        _ => return Err(Error::model(format!("X {:?} must have rank 1 or 2", x.shape()))),
    };
    let size = |name: &str| -> Result<usize> {
        let n = attrs.require_int(name)?;
        usize::try_from(n).map_err(|_| Error::model(format!("{name} is {n}")))
    };
    let (least, most, skips) = (size("min_gram_length")?, size("max_gram_length")?, size("max_skip_count")?);
    let (pool_tokens, data) = tokens(attrs, x)?;
    let (grams, places) = (pool(attrs, &pool_tokens)?, attrs.require_ints("ngram_indexes")?);
    let weights = attrs.floats("weights")?.unwrap_or(&[]);
    let total: usize = grams.iter().map(BTreeMap::len).sum();
    if places.len() < total || (!weights.is_empty() && weights.len() != places.len()) {
        return Err(Error::model(format!(
            "{total} n-grams, {} places and {} weights",
            places.len(),
            weights.len()
        )));
    }
    let mode = attrs.str_or("mode", "TF")?;
    if !matches!(mode, "TF" | "IDF" | "TFIDF") {
        return Err(Error::model(format!("mode '{}' is not known", mode.escape_debug())));
    }
    let mut y = budget::filled(budget::elements(&[rows, width])?, 0f32)?;
    let mut counts = budget::filled(places.len(), 0u32)?;
    for (row, out) in data.chunks(length.max(1)).zip(y.chunks_mut(width.max(1))) {
        counts.fill(0);
        for n in least.max(1)..=most.min(grams.len()) {
            for stride in 1..=skips.saturating_add(1) {
                let reach = (n - 1).saturating_mul(stride);
                if reach >= row.len() || (n == 1 && stride > 1) {
                    break;
                }
                for start in 0..row.len() - reach {
                    let gram: Vec<i64> = row[start..].iter().step_by(stride).take(n).copied().collect();
                    if let Some(&i) = grams[n - 1].get(&gram) {
                        counts[i] += 1;
                    }
                }
            }
        }
        for (i, &c) in counts.iter().enumerate().filter(|(_, c)| **c > 0) {
            let weight = weights.get(i).copied().unwrap_or(1.0);
            let value = match mode {
                "TF" => c as f32,
                "IDF" => weight,
                _ => c as f32 * weight,
            };
            if let Some(o) = usize::try_from(places[i]).ok().and_then(|p| out.get_mut(p)) {
                *o += value;
            }
        }
    }
    Ok(one(Tensor::new(&shape, y)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn grams(skips: i64, mode: &str, x: &Tensor) -> Result<Vec<f32>> {
        let a = Attrs::new()
            .with("min_gram_length", 1)
            .with("max_gram_length", 2)
            .with("max_skip_count", skips)
            .with("mode", mode)
            .with("ngram_counts", vec![0, 2])
            .with("ngram_indexes", vec![1, 0, 2])
            .with("pool_int64s", vec![7, 9, 7, 9])
            .with("weights", vec![0.5f32, 2.0, 3.0]);
        crate::testing::apply("TfIdfVectorizer", a, std::slice::from_ref(x))?.to_f32s()
    }

    #[test]
    fn n_grams_are_counted_with_gaps_and_weighted() {
        let x = Tensor::new(&[2, 4], vec![7i64, 5, 9, 7, 7, 9, 9, 9]).unwrap();
        // 9, 7, then 7 before 9 at distance 1.
        assert_eq!(grams(0, "TF", &x).unwrap(), [1., 2., 0., 3., 1., 1.]);
        assert_eq!(grams(1, "TF", &x).unwrap(), [1., 2., 1., 3., 1., 2.]);
        assert_eq!(grams(0, "IDF", &x).unwrap(), [2., 0.5, 0., 2., 0.5, 3.]);
        assert_eq!(grams(0, "TFIDF", &x).unwrap(), [2., 1., 0., 6., 0.5, 3.]);
        assert!(grams(0, "other", &x).is_err());
    }
}
