//! `compress bench`: that it measures, not how fast it is.

use crate::harness::{arg, compress, model};

#[test]
fn measures_what_it_promises() {
    let j = compress(&["bench", arg(model()), "--json"]).ok().json();
    for k in ["median_ms", "p10_ms", "p90_ms", "load_ms", "first_run_ms", "peak_rss_mb"] {
        assert!(j[k].as_f64().is_some_and(|v| v > 0.0), "{k}: {j}");
    }
    let j =
        compress(&["bench", arg(model()), "--json", "--profile", "--shape", "image=2x1x28x28"]).ok().json();
    let steps = j["profile"].as_array().unwrap();
    let total: f64 = steps.iter().map(|s| s["share"].as_f64().unwrap()).sum();
    assert!(!steps.is_empty() && (total - 1.0).abs() < 1e-6);
    assert!(
        steps.iter().all(|s| s["bound"].is_string() && s["roof"].as_f64().is_some_and(|r| r > 0.0)),
        "{j}"
    );
    let lost = |name: &serde_json::Value| {
        steps
            .iter()
            .filter(|s| s["name"] == *name)
            .map(|s| s["lost_us"].as_f64().unwrap())
            .fold(0.0, f64::max)
    };
    let farthest: Vec<f64> = j["farthest"].as_array().unwrap().iter().map(lost).collect();
    let most = steps.iter().map(|s| s["lost_us"].as_f64().unwrap()).fold(0.0, f64::max);
    assert!(
        farthest.len() == 5.min(steps.len()) && farthest[0] == most && farthest.is_sorted_by(|a, b| a >= b)
    );
    compress(&["bench", arg(model()), "--shape", "picture=1"]).refused(2, &["picture", "image"]);
    compress(&["bench", arg(model()), "--shape", "image"]).refused(2, &["NAME=DIMS"]);
}
