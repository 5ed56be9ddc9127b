use super::*;
use image::{ImageFormat, Rgb, RgbImage};
use std::path::PathBuf;

fn ty(dtype: DType, dims: &[usize]) -> ValueType {
    ValueType::known(dtype, dims)
}

/// A file in a folder of its own, removed by the caller.
fn saved(name: &str, image: &RgbImage, format: ImageFormat) -> PathBuf {
    let path = std::env::temp_dir().join(format!("compress-image-{}-{name}", std::process::id()));
    image.save_with_format(&path, format).unwrap();
    path
}

fn gradient(w: u32, h: u32) -> RgbImage {
    RgbImage::from_fn(w, h, |x, y| Rgb([(x * 10) as u8, (y * 10) as u8, 200]))
}

#[test]
fn an_image_of_the_right_size_keeps_its_pixels_in_every_order() {
    let path = saved("exact.png", &gradient(4, 2), ImageFormat::Png);
    let read = |o: &Options, dims: &[usize]| {
        let r = Recipe::new(o, &ty(DType::F32, dims)).unwrap();
        let t = r.tensor(&r.pixels(&path).unwrap()).unwrap();
        (t.shape().to_vec(), t.to_f32s().unwrap())
    };
    let plain = Options { scale: Some(1.0), ..Options::default() };
    let (shape, nchw) = read(&plain, &[1, 3, 2, 4]);
    assert_eq!(shape, [3, 2, 4]);
    assert_eq!(nchw[..8], [0., 10., 20., 30., 0., 10., 20., 30.]);
    assert_eq!(nchw[8..16], [0., 0., 0., 0., 10., 10., 10., 10.]);
    let (shape, nhwc) = read(&plain, &[1, 2, 4, 3]);
    assert_eq!(shape, [2, 4, 3]);
    assert_eq!(nhwc[3..6], [10., 0., 200.]);
    let bgr = Options { channels: Some(Channels::Bgr), ..plain.clone() };
    assert_eq!(read(&bgr, &[1, 2, 4, 3]).1[3..6], [200., 0., 10.]);
    let normal = Options { mean: vec![0.5, 0.0, 1.0], std: vec![0.5, 1.0, 2.0], ..Options::default() };
    let (_, v) = read(&normal, &[1, 3, 2, 4]);
    let expect = [(0.0 - 0.5) / 0.5, 0.0, (200.0 / 255.0 - 1.0) / 2.0];
    for (got, want) in [v[0], v[8], v[16]].into_iter().zip(expect) {
        assert!((got - want).abs() < 1e-6, "{got} {want}");
    }
    std::fs::remove_file(path).unwrap();
}

#[test]
fn every_format_reads() {
    let flat = RgbImage::from_pixel(9, 6, Rgb([120, 60, 200]));
    for (name, format) in [
        ("a.png", ImageFormat::Png),
        ("a.jpg", ImageFormat::Jpeg),
        ("a.bmp", ImageFormat::Bmp),
        ("a.webp", ImageFormat::WebP),
    ] {
        let path = saved(name, &flat, format);
        let r = Recipe::new(&Options::default(), &ty(DType::U8, &[1, 4, 4, 3])).unwrap();
        let p = r.pixels(&path).unwrap();
        assert_eq!(p.len(), 48, "{name}");
        for (i, v) in p.iter().enumerate() {
            assert!(v.abs_diff([120, 60, 200][i % 3]) < 4, "{name}: {p:?}");
        }
        std::fs::remove_file(path).unwrap();
    }
}

#[test]
fn crops_keep_the_centre_and_stretching_keeps_all() {
    // Left third black, middle white, right third black.
    let image = RgbImage::from_fn(30, 10, |x, _| Rgb([if (10..20).contains(&x) { 255 } else { 0 }; 3]));
    let path = saved("stripes.png", &image, ImageFormat::Png);
    let one = |fit: Fit, crop: Option<f32>| {
        let o = Options { fit, crop, ..Options::default() };
        let r = Recipe::new(&o, &ty(DType::F32, &[1, 1, 6, 6])).unwrap();
        r.tensor(&r.pixels(&path).unwrap()).unwrap().to_f32s().unwrap()
    };
    let crop = one(Fit::Crop, None);
    assert!(crop.iter().all(|&v| v > 0.5), "{crop:?}");
    let stretched = one(Fit::Stretch, None);
    assert!(stretched[0] < 0.1 && stretched[2] > 0.8 && stretched[5] < 0.1, "{stretched:?}");
    std::fs::remove_file(path).unwrap();
}

#[test]
fn what_does_not_fit_is_refused() {
    let o = Options::default();
    let open = ValueType::tensor(DType::F32, vec![Dim::Unknown, Dim::Known(3), Dim::Unknown, Dim::Unknown]);
    assert!(Recipe::new(&o, &open).unwrap_err().message.contains("--image-size"));
    assert!(Recipe::new(&Options { size: Some([8, 8]), ..o.clone() }, &open).is_ok());
    for (o, t) in [
        (o.clone(), ty(DType::F32, &[1, 784])),
        (o.clone(), ty(DType::I64, &[1, 3, 8, 8])),
        (o.clone(), ty(DType::F32, &[1, 4, 8, 8])),
        (o.clone(), ty(DType::F32, &[1, 3, 0, 8])),
        (o.clone(), ty(DType::F32, &[1, 3, usize::MAX, usize::MAX])),
        (Options { size: Some([9, 8]), ..o.clone() }, ty(DType::F32, &[1, 3, 8, 8])),
        (Options { std: vec![0.0], ..o.clone() }, ty(DType::F32, &[1, 3, 8, 8])),
        (Options { mean: vec![0.0; 2], ..o.clone() }, ty(DType::F32, &[1, 3, 8, 8])),
        (Options { mean: vec![0.5], ..o.clone() }, ty(DType::U8, &[1, 3, 8, 8])),
        (Options { crop: Some(0.0), ..o.clone() }, ty(DType::F32, &[1, 3, 8, 8])),
        (Options { channels: Some(Channels::Gray), ..o.clone() }, ty(DType::F32, &[1, 3, 8, 8])),
    ] {
        assert!(Recipe::new(&o, &t).is_err(), "{o:?} {t}");
    }
}

#[test]
fn hostile_images_are_errors() {
    let path = saved("damaged.png", &gradient(16, 16), ImageFormat::Png);
    let whole = std::fs::read(&path).unwrap();
    let r = Recipe::new(&Options::default(), &ty(DType::F32, &[1, 3, 8, 8])).unwrap();
    for n in (0..whole.len()).step_by(3) {
        std::fs::write(&path, &whole[..n]).unwrap();
        assert!(n + 12 >= whole.len() || r.pixels(&path).is_err(), "{n}");
        let mut b = whole.clone();
        b[n] ^= 0x55;
        std::fs::write(&path, &b).unwrap();
        drop(r.pixels(&path));
    }
    // A header that promises 65,535 × 65,535 pixels.
    let mut bomb = whole.clone();
    bomb[16..24].copy_from_slice(&[0, 0, 255, 255, 0, 0, 255, 255]);
    std::fs::write(&path, &bomb).unwrap();
    assert!(r.pixels(&path).is_err());
    // One pixel high: covering the input would take a row of half a million pixels.
    RgbImage::new(65_535, 1).save_with_format(&path, ImageFormat::Png).unwrap();
    let large = Recipe::new(&Options::default(), &ty(DType::F32, &[1, 3, 512, 512])).unwrap();
    assert_eq!(large.pixels(&path).unwrap_err().blame, ir::Blame::Limit);
    std::fs::remove_file(path).unwrap();
}
