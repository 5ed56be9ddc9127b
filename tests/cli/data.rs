//! Data as users have it: folders of images and arrays.

use crate::harness::{Dir, arg, arrays, compress, model};
use std::path::Path;

/// The first `n` calibration digits as images, in folders named after their labels.
fn digits(dir: &Dir, n: usize) {
    let all = arrays(Path::new("tests/models/mnist-calib.npz"));
    let (pixels, labels) = (all["image"].to_f32s().unwrap(), all["labels"].to_i64s().unwrap());
    let (low, high) = pixels.iter().fold((f32::MAX, f32::MIN), |(l, h), &x| (l.min(x), h.max(x)));
    for (i, (digit, label)) in pixels.chunks_exact(28 * 28).zip(labels).take(n).enumerate() {
        let gray = digit.iter().map(|x| ((x - low) / (high - low) * 255.0).round() as u8).collect();
        let folder = dir.path("digits").join(label.to_string());
        std::fs::create_dir_all(&folder).unwrap();
        image::GrayImage::from_raw(28, 28, gray).unwrap().save(folder.join(format!("{i}.png"))).unwrap();
    }
}

#[test]
fn a_folder_of_images_is_data() {
    let d = Dir::new("digits");
    digits(&d, 48);
    let folder = d.path("digits");
    std::fs::write(folder.join("3").join("broken.png"), b"\x89PNG\r\n\x1a\n and no more").unwrap();
    let r = compress(&["diff", arg(model()), arg(model()), "--data", arg(&folder), "--json"]).ok();
    assert_eq!(r.json()["samples"], 16);
    for part in ["labels are", "broken.png", "1 of 49 files are skipped", "scale 1/255", "28x28"] {
        assert!(r.err.contains(part), "{part} in {}", r.err);
    }
    let out = d.path("out.onnx");
    let args = [arg(model()), "-o", arg(&out), "--data", arg(&folder), "--max-drop", "3%", "--json"];
    let r = compress(&args).ok();
    assert!(r.json().to_string().to_lowercase().contains("top-1"), "{}", r.out);
}

#[test]
fn data_that_is_all_bad_ends_with_one_line() {
    let d = Dir::new("all-bad");
    let folder = d.path("x");
    std::fs::create_dir_all(&folder).unwrap();
    let run = |extra: &[&str]| {
        compress(&[&["diff", arg(model()), arg(model()), "--data", arg(&folder)], extra].concat())
    };
    run(&[]).refused(1, &["holds no file"]);
    std::fs::write(folder.join("a.png"), b"no image").unwrap();
    std::fs::write(folder.join("b.jpg"), b"\xff\xd8\xff no image").unwrap();
    run(&[]).refused(1, &["none of 2 files", "a.png"]);
    run(&["--image-size", "32"]).refused(1, &["28"]);
    run(&["--std", "0"]).refused(1, &["std"]);
    let r = run(&["--image-size", "twelve"]);
    assert_eq!(r.code, 2, "{}", r.err);
    let r = compress(&["diff", arg(model()), arg(model()), "--mean", "0.5"]);
    r.refused(2, &["--data"]);
}

#[test]
fn a_run_that_takes_too_long_is_ended() {
    let d = Dir::new("timeout");
    let samples = crate::harness::samples(&d, 64);
    let out = d.path("out.onnx");
    let args = [arg(model()), "-o", arg(&out), "--data", arg(&samples), "--timeout", "0.2"];
    compress(&args).refused(1, &["0.2 s"]);
    assert_eq!(d.files(), ["samples.npz"]);
}
