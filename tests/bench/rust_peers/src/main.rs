//! `rust_peers ENGINE MODEL.onnx INPUTS.npz THREADS SECONDS`: prints latency, load time and peak memory as JSON, with the keys
//! of `compress bench --json`. ENGINE is `rten` or `tract`.

use anyhow::{Context, Result, anyhow, bail};
use ndarray_npy::NpzReader;
use std::fs::File;
use std::sync::Arc;
use std::time::Instant;

/// An array of the inputs file, of the types these engines take.
enum Array {
    F32(Vec<usize>, Vec<f32>),
    I64(Vec<usize>, Vec<i64>),
    I32(Vec<usize>, Vec<i32>),
}

fn read(path: &str) -> Result<Vec<(String, Array)>> {
    let mut npz = NpzReader::new(File::open(path)?)?;
    let names = npz.names()?;
    let mut arrays = Vec::new();
    for name in names {
        macro_rules! take {
            ($t:ty, $kind:ident) => {
                if let Ok(a) = npz.by_name::<ndarray::OwnedRepr<$t>, ndarray::IxDyn>(&name) {
                    arrays.push((name, Array::$kind(a.shape().to_vec(), a.iter().copied().collect())));
                    continue;
                }
            };
        }
        take!(f32, F32);
        take!(i64, I64);
        take!(i32, I32);
        bail!("array '{name}': neither float32 nor int64 nor int32");
    }
    Ok(arrays)
}

fn find<'a>(arrays: &'a [(String, Array)], name: &str) -> Result<&'a Array> {
    arrays.iter().find(|(n, _)| n == name).map(|(_, a)| a).with_context(|| format!("no array named {name}"))
}

type Run = Box<dyn FnMut() -> Result<()>>;

fn rten(path: &str, arrays: &[(String, Array)], threads: usize) -> Result<Run> {
    let model = rten::ModelOptions::with_all_ops().prepack_weights(true).load_file(path)?;
    let pool = Arc::new(rten::ThreadPool::with_num_threads(threads));
    let mut inputs = Vec::new();
    for &id in model.input_ids() {
        let info = model.node_info(id).context("input without a node")?;
        let value: rten::Value = match find(arrays, info.name().unwrap_or_default())? {
            Array::F32(s, v) => rten::Value::from_shape(s, v.clone()).map_err(|e| anyhow!("{e}"))?,
            Array::I32(s, v) => rten::Value::from_shape(s, v.clone()).map_err(|e| anyhow!("{e}"))?,
            Array::I64(s, v) => {
                let v: Vec<i32> = v.iter().map(|&x| x as i32).collect();
                rten::Value::from_shape(s, v).map_err(|e| anyhow!("{e}"))?
            }
        };
        inputs.push((id, value));
    }
    Ok(Box::new(move || {
        let given = inputs.iter().map(|(id, v)| (*id, v.into())).collect();
        let options = rten::RunOptions::default().with_thread_pool(Some(pool.clone()));
        std::hint::black_box(model.run(given, model.output_ids(), Some(options))?);
        Ok(())
    }))
}

fn tract(path: &str, arrays: &[(String, Array)], threads: usize) -> Result<Run> {
    use tract_onnx::prelude::*;
    if threads > 1 {
        multithread::set_default_executor(multithread::Executor::multithread(threads));
    }
    let mut model = tract_onnx::onnx().model_for_path(path)?;
    let mut inputs = TVec::<TValue>::new();
    let outlets = model.inputs.clone();
    for (i, outlet) in outlets.iter().enumerate() {
        let name = model.node(outlet.node).name.clone();
        let tensor = match find(arrays, &name)? {
            Array::F32(s, v) => Tensor::from_shape(s, v)?,
            Array::I64(s, v) => Tensor::from_shape(s, v)?,
            Array::I32(s, v) => Tensor::from_shape(s, v)?,
        };
        model = model.with_input_fact(i, InferenceFact::dt_shape(tensor.datum_type(), tensor.shape()))?;
        inputs.push(tensor.into_tvalue());
    }
    let model = model.into_optimized()?.into_runnable()?;
    Ok(Box::new(move || {
        std::hint::black_box(model.run(inputs.clone())?);
        Ok(())
    }))
}

fn peak_mb() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|l| l.starts_with("VmHWM:"));
    let kb = line.and_then(|l| l.split_whitespace().nth(1)).and_then(|s| s.parse::<f64>().ok());
    kb.map_or(f64::NAN, |k| k / 1024.0)
}

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [engine, path, npz, threads, seconds] = arguments.as_slice() else {
        bail!("usage: rust_peers rten|tract MODEL.onnx INPUTS.npz THREADS SECONDS");
    };
    let (threads, seconds): (usize, f64) = (threads.parse()?, seconds.parse()?);
    let arrays = read(npz)?;
    let ms = |t: Instant| t.elapsed().as_secs_f64() * 1e3;
    let start = Instant::now();
    let mut run = match engine.as_str() {
        "rten" => rten(path, &arrays, threads)?,
        "tract" => tract(path, &arrays, threads)?,
        other => bail!("unknown engine {other}"),
    };
    let load = ms(start);
    let start = Instant::now();
    run()?;
    let first = ms(start);
    let mut times = Vec::new();
    let start = Instant::now();
    while seconds > 0.0 && (times.len() < 5 || start.elapsed().as_secs_f64() < seconds) {
        let t = Instant::now();
        run()?;
        times.push(ms(t));
    }
    if times.is_empty() {
        times.push(first);
    }
    times.sort_by(f64::total_cmp);
    let at = |p: f64| times[((times.len() - 1) as f64 * p) as usize];
    println!(
        "{}",
        serde_json::json!({
            "median_ms": at(0.5), "p10_ms": at(0.1), "p90_ms": at(0.9),
            "load_ms": load, "first_run_ms": first, "peak_rss_mb": peak_mb(),
        })
    );
    Ok(())
}
