//! Images made worse on purpose, to see what a model still makes of them: the strengths are those of severity 1 of
//! ImageNet-C (Hendrycks & Dietterich 2019, arXiv 1903.12261).

use crate::images::{Channels, Layout, Options};
use image::codecs::jpeg::JpegEncoder;
use image::{ExtendedColorType, ImageFormat};
use ir::{DType, Error, Feeds, Graph, Result, Tensor, Value};

/// Standard deviation of the noise, as a share of the range from black to white.
const NOISE: f32 = 0.08;
/// Standard deviation of the blur, pixels.
const BLUR: f32 = 1.0;
/// What is left of the contrast.
const CONTRAST: f32 = 0.4;
/// Quality of the JPEG file.
const JPEG: u8 = 25;
/// Shorter sides are not those of images.
const LEAST: usize = 8;

/// One way to make an image worse.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Degradation {
    /// Normal noise on every value.
    Noise,
    /// A Gaussian filter.
    Blur,
    /// Values drawn towards the mean of the image.
    Contrast,
    /// Stored as JPEG and read back.
    Jpeg,
}

impl Degradation {
    pub const ALL: [Degradation; 4] =
        [Degradation::Noise, Degradation::Blur, Degradation::Contrast, Degradation::Jpeg];

    /// The word on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Degradation::Noise => "noise",
            Degradation::Blur => "blur",
            Degradation::Contrast => "contrast",
            Degradation::Jpeg => "jpeg",
        }
    }

    /// The word with the strength.
    pub fn describe(self) -> String {
        match self {
            Degradation::Noise => format!("noise, σ {NOISE} of the range"),
            Degradation::Blur => format!("blur, σ {BLUR} pixel"),
            Degradation::Contrast => format!("contrast × {CONTRAST}"),
            Degradation::Jpeg => format!("jpeg, quality {JPEG}"),
        }
    }

    /// From a word.
    pub fn parse(word: &str) -> Option<Degradation> {
        Degradation::ALL.into_iter().find(|d| d.name() == word.trim())
    }
}

/// How values of a model's inputs stand for pixels.
#[derive(Debug, Clone)]
pub struct Pixels {
    inputs: Vec<(String, Layout)>,
    bgr: bool,
    /// Mean, standard deviation and scale by channel; `None` takes each sample's own range for black to white.
    known: Option<(Vec<f32>, Vec<f32>, f32)>,
}

impl Pixels {
    /// Finds the images among the inputs of `graph`, as `feeds` of one sample show them. `known` when the options say how
    /// pixels became values.
    pub fn of(graph: &Graph, feeds: &Feeds, options: &Options, known: bool) -> Result<Pixels> {
        let of = |name: &str| {
            let shape = feeds.get(name)?.tensor().ok().filter(|t| is_pixels(t.dtype()))?.shape();
            Some((name.to_string(), layout(shape, options.layout)?))
        };
        let inputs: Vec<(String, Layout)> =
            graph.inputs().iter().filter_map(|&v| of(graph.value_name(v))).collect();
        if inputs.is_empty() {
            return Err(Error::data(format!(
                "only images can be degraded, and no input is one: 1 or 3 channels before or after height and width of at least \
                 {LEAST} pixels; the model takes {}",
                graph.input_summary()
            )));
        }
        let list = |v: &[f32], none: f32| if v.is_empty() { vec![none] } else { v.to_vec() };
        let (mean, std) = (list(&options.mean, 0.0), list(&options.std, 1.0));
        let scale = options.scale.unwrap_or(1.0 / 255.0);
        let usable = |x: &f32| x.is_finite() && *x != 0.0;
        if !(mean.iter().all(|x| x.is_finite()) && std.iter().all(usable) && usable(&scale)) {
            return Err(Error::data("scale, mean and std must be finite, scale and std not 0"));
        }
        Ok(Pixels {
            inputs,
            bgr: options.channels == Some(Channels::Bgr),
            known: known.then_some((mean, std, scale)),
        })
    }

    /// What is taken for black and white.
    pub fn describe(&self) -> String {
        let names: Vec<&str> = self.inputs.iter().map(|(n, _)| n.as_str()).collect();
        let range = if self.known.is_some() { "the pixels' range" } else { "each sample's own range" };
        format!("input {} is degraded within {range}", names.join(", "))
    }

    /// The sample made worse; equal seeds give equal samples.
    pub fn degraded(&self, feeds: &Feeds, how: Degradation, seed: u64) -> Result<Feeds> {
        let mut out = feeds.clone();
        for (name, layout) in &self.inputs {
            let Some(Value::Tensor(t)) = feeds.get(name) else { continue };
            out.insert(name.clone(), Value::Tensor(self.tensor(t, *layout, how, seed)?));
        }
        Ok(out)
    }

    fn tensor(&self, t: &Tensor, layout: Layout, how: Degradation, seed: u64) -> Result<Tensor> {
        let &[_, a, b, c] = t.shape() else { return Ok(t.clone()) };
        let (channels, height, width) = match layout {
            Layout::Nchw => (a, b, c),
            Layout::Nhwc => (c, a, b),
        };
        let mut values = t.to_f32s()?;
        let per = channels * height * width;
        let at = |c: usize, p: usize| match layout {
            Layout::Nchw => c * height * width + p,
            Layout::Nhwc => p * channels + c,
        };
        for (n, image) in values.chunks_exact_mut(per.max(1)).enumerate() {
            let Some(ranges) = self.ranges(image, channels, t.dtype()) else { continue };
            let mut planes: Vec<Vec<f32>> = (0..channels)
                .map(|c| (0..height * width).map(|p| (image[at(c, p)] - ranges[c].0) / ranges[c].1).collect())
                .collect();
            let mut random = Random(seed ^ (n as u64).wrapping_mul(0xd134_2543_de82_ef95));
            match how {
                Degradation::Noise => {
                    let one = |x: &mut f32| *x = (*x + NOISE * random.normal()).clamp(0.0, 1.0);
                    planes.iter_mut().flatten().for_each(one);
                }
                Degradation::Blur => planes.iter_mut().for_each(|p| blur(p, height, width)),
                Degradation::Contrast => {
                    let n = (channels * height * width).max(1) as f64;
                    let mean = (planes.iter().flatten().map(|&x| f64::from(x)).sum::<f64>() / n) as f32;
                    planes.iter_mut().flatten().for_each(|x| *x = mean + CONTRAST * (*x - mean));
                }
                Degradation::Jpeg => {
                    if self.bgr {
                        planes.reverse();
                    }
                    jpeg(&mut planes, height, width)?;
                    if self.bgr {
                        planes.reverse();
                    }
                }
            }
            for (c, plane) in planes.iter().enumerate() {
                for (p, x) in plane.iter().enumerate() {
                    image[at(c, p)] = ranges[c].0 + x * ranges[c].1;
                }
            }
        }
        if t.dtype() == DType::U8 {
            let bytes = values.iter().map(|x| x.round().clamp(0.0, 255.0) as u8).collect();
            return Tensor::from_bytes(DType::U8, t.shape(), bytes);
        }
        Tensor::from_f32s(t.dtype(), t.shape(), values)
    }

    /// Value of black and distance to white for each channel; `None` when the image is of one colour or not finite.
    fn ranges(&self, image: &[f32], channels: usize, dtype: DType) -> Option<Vec<(f32, f32)>> {
        if dtype == DType::U8 {
            return Some(vec![(0.0, 255.0); channels]);
        }
        if image.iter().any(|x| !x.is_finite()) {
            return None;
        }
        if let Some((mean, std, scale)) = &self.known {
            let of = |v: &[f32], c: usize| v.get(c).or(v.first()).copied().unwrap_or(0.0);
            let one = |c: usize| (-of(mean, c) / of(std, c), 255.0 * scale / of(std, c));
            return Some((0..channels).map(one).collect());
        }
        let (lo, hi) = image.iter().fold((f32::MAX, f32::MIN), |(a, b), &x| (a.min(x), b.max(x)));
        (hi - lo > 0.0 && (hi - lo).is_finite()).then(|| vec![(lo, hi - lo); channels])
    }
}

fn is_pixels(d: DType) -> bool {
    d.is_float() || d == DType::U8
}

/// Where the channels are, if this is the shape of images.
fn layout(shape: &[usize], wanted: Option<Layout>) -> Option<Layout> {
    let &[_, a, b, c] = shape else { return None };
    let first = matches!(a, 1 | 3) && b.min(c) >= LEAST;
    let last = matches!(c, 1 | 3) && a.min(b) >= LEAST;
    match wanted {
        Some(Layout::Nchw) => first.then_some(Layout::Nchw),
        Some(Layout::Nhwc) => last.then_some(Layout::Nhwc),
        None if first => Some(Layout::Nchw),
        None => last.then_some(Layout::Nhwc),
    }
}

/// A Gaussian filter in both directions; edges are repeated.
fn blur(plane: &mut Vec<f32>, height: usize, width: usize) {
    let radius = (3.0 * BLUR).ceil() as isize;
    let weight = |d: isize| (-(d as f32).powi(2) / (2.0 * BLUR * BLUR)).exp();
    let total: f32 = (-radius..=radius).map(weight).sum();
    let pass = |from: &[f32], stride: usize, count: usize, of: fn(usize, usize) -> usize| -> Vec<f32> {
        (0..from.len())
            .map(|i| {
                let at = of(i, stride);
                let sum: f32 = (-radius..=radius)
                    .map(|d| {
                        let to = (at as isize + d).clamp(0, count as isize - 1) - at as isize;
                        weight(d) * from[(i as isize + to * stride as isize) as usize]
                    })
                    .sum();
                sum / total
            })
            .collect()
    };
    // Along rows, an index's place is its remainder; `width` is carried by splitting rows.
    let rows: Vec<f32> = plane.chunks(width.max(1)).flat_map(|row| pass(row, 1, width, |i, _| i)).collect();
    *plane = pass(&rows, width.max(1), height, |i, stride| i / stride);
}

/// Through a JPEG file and back.
fn jpeg(planes: &mut [Vec<f32>], height: usize, width: usize) -> Result<()> {
    let bad = |e: &dyn std::fmt::Display| Error::data(format!("the image cannot be stored as JPEG: {e}"));
    let side = |n: usize| u32::try_from(n).map_err(|e| bad(&e));
    let channels = planes.len();
    let pixel = |x: f32| (x * 255.0).round().clamp(0.0, 255.0) as u8;
    let bytes: Vec<u8> =
        (0..height * width).flat_map(|p| planes.iter().map(move |c| c[p])).map(pixel).collect();
    let color = if channels == 1 { ExtendedColorType::L8 } else { ExtendedColorType::Rgb8 };
    let mut file = Vec::new();
    JpegEncoder::new_with_quality(&mut file, JPEG)
        .encode(&bytes, side(width)?, side(height)?, color)
        .map_err(|e| bad(&e))?;
    let back = image::load_from_memory_with_format(&file, ImageFormat::Jpeg).map_err(|e| bad(&e))?;
    let back = if channels == 1 { back.into_luma8().into_raw() } else { back.into_rgb8().into_raw() };
    for (c, plane) in planes.iter_mut().enumerate() {
        for (p, x) in plane.iter_mut().enumerate() {
            *x = f32::from(back.get(p * channels + c).copied().unwrap_or(0)) / 255.0;
        }
    }
    Ok(())
}

/// SplitMix64 as normal values (Box & Muller).
struct Random(u64);

impl Random {
    fn uniform(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (((z ^ (z >> 31)) >> 11) as f64 + 0.5) / (1u64 << 53) as f64
    }

    fn normal(&mut self) -> f32 {
        let (r, angle) = ((-2.0 * self.uniform().ln()).sqrt(), std::f64::consts::TAU * self.uniform());
        (r * angle.cos()) as f32
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ir::ValueType;

    fn graph(shape: &[usize]) -> Graph {
        let mut g = Graph::new("g");
        g.add_input("x", ValueType::known(DType::F32, shape));
        g
    }

    fn feeds(shape: &[usize], f: impl Fn(usize) -> f32) -> Feeds {
        let n = shape.iter().product();
        let t = Tensor::new(shape, (0..n).map(f).collect::<Vec<f32>>()).unwrap();
        [("x".to_string(), Value::Tensor(t))].into()
    }

    fn values(f: &Feeds) -> Vec<f32> {
        f["x"].tensor().unwrap().to_f32s().unwrap()
    }

    fn spread(v: &[f32]) -> f32 {
        let mean = v.iter().sum::<f32>() / v.len() as f32;
        (v.iter().map(|x| (x - mean).powi(2)).sum::<f32>() / v.len() as f32).sqrt()
    }

    const SHAPE: [usize; 4] = [1, 3, 32, 32];

    /// A ramp from 0 to 1 along the columns, coarse checks on it.
    fn ramp(i: usize) -> f32 {
        let (row, col) = (i / 32 % 32, i % 32);
        0.8 * col as f32 / 31.0 + 0.2 * ((row / 4 + col / 4) % 2) as f32
    }

    #[test]
    fn strengths_are_those_stated() {
        let (g, clean) = (graph(&SHAPE), feeds(&SHAPE, |_| 0.5));
        let known = Pixels::of(&g, &clean, &Options::default(), true).unwrap();
        let noisy = values(&known.degraded(&clean, Degradation::Noise, 1).unwrap());
        assert!((spread(&noisy) / NOISE - 1.0).abs() < 0.05, "{}", spread(&noisy));
        let x = feeds(&SHAPE, ramp);
        let flat = values(&known.degraded(&x, Degradation::Contrast, 1).unwrap());
        assert!((spread(&flat) / spread(&values(&x)) - CONTRAST).abs() < 1e-3);
        // A point becomes a Gaussian whose sum stays.
        let point = feeds(&SHAPE, |i| f32::from(u8::from(i == 16 * 32 + 16)));
        let soft = values(&known.degraded(&point, Degradation::Blur, 1).unwrap());
        assert!((soft.iter().sum::<f32>() - 1.0).abs() < 1e-4 && (soft[16 * 32 + 16] - 0.159).abs() < 2e-3);
        assert!((soft[16 * 32 + 17] / soft[16 * 32 + 16] - (-0.5f32).exp()).abs() < 1e-3);
        assert_eq!(soft[16 * 32 + 17], soft[17 * 32 + 16]);
        let stored = values(&known.degraded(&x, Degradation::Jpeg, 1).unwrap());
        let off: Vec<f32> = stored.iter().zip(values(&x)).map(|(a, b)| a - b).collect();
        assert!(spread(&off) > 1e-3 && spread(&off) < 0.1, "{}", spread(&off));
    }

    #[test]
    fn values_keep_their_scale_and_seeds_repeat() {
        let g = graph(&SHAPE);
        let x = feeds(&SHAPE, |i| (ramp(i) - 0.5) / 0.25);
        let options = Options { mean: vec![0.5], std: vec![0.25], ..Options::default() };
        let known = Pixels::of(&g, &x, &options, true).unwrap();
        let own = Pixels::of(&g, &x, &options, false).unwrap();
        for how in Degradation::ALL {
            let [a, b, c] = [1, 1, 2].map(|seed| values(&known.degraded(&x, how, seed).unwrap()));
            assert_eq!(a, b);
            assert_eq!(a != c, how == Degradation::Noise);
            let d = values(&own.degraded(&x, how, 1).unwrap());
            assert!(a.iter().zip(&d).all(|(p, q)| (p - q).abs() < 1e-4), "{}", how.name());
            assert!(a.iter().all(|v| (-2.01..=2.01).contains(v)));
        }
        assert!(known.describe().contains("pixels") && own.describe().contains("own range"));
    }

    #[test]
    fn channels_may_come_last_and_bytes_stay_bytes() {
        let shape = [1, 16, 16, 3];
        let t = Tensor::from_bytes(DType::U8, &shape, (0..768).map(|i| (i % 251) as u8).collect()).unwrap();
        let mut g = Graph::new("g");
        g.add_input("x", ValueType::known(DType::U8, &shape));
        let x: Feeds = [("x".to_string(), Value::Tensor(t.clone()))].into();
        let p = Pixels::of(&g, &x, &Options::default(), false).unwrap();
        for how in Degradation::ALL {
            let y = p.degraded(&x, how, 3).unwrap();
            assert!(y["x"].tensor().unwrap().dtype() == DType::U8 && y != x, "{}", how.name());
        }
    }

    #[test]
    fn what_is_no_image_is_refused_by_name() {
        let shape = [1, 128];
        let e = Pixels::of(&graph(&shape), &feeds(&shape, |_| 0.0), &Options::default(), false).unwrap_err();
        assert!(e.message.contains("no input is one") && e.message.contains('x'), "{}", e.message);
        // One colour has no range of its own.
        let plain = feeds(&SHAPE, |_| 0.3);
        let p = Pixels::of(&graph(&SHAPE), &plain, &Options::default(), false).unwrap();
        assert_eq!(p.degraded(&plain, Degradation::Noise, 1).unwrap(), plain);
        assert_eq!(Degradation::parse("blur"), Some(Degradation::Blur));
        assert_eq!(Degradation::parse("fog"), None);
    }
}
