//! Images as a model's input: decoded, brought to the input's size, then `(pixel · scale − mean) / std` per channel.

use crate::npz;
use image::imageops::{self, FilterType};
use image::{ImageReader, Limits, RgbImage};
use ir::{DType, Dim, Error, Result, Tensor, ValueType, budget};
use std::io::BufReader;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

/// File endings that count as images.
pub const ENDINGS: &[&str] = &["png", "jpg", "jpeg", "bmp", "webp"];
/// Most memory that decoding one file may take.
const MAX_DECODED: u64 = 256 << 20;
/// Longest side of an image, pixels.
const MAX_SIDE: u32 = 1 << 16;
/// Most pixels of an image after resizing.
const MAX_RESIZED: u64 = 64 << 20;
/// Share of the resized image that a centre crop keeps, by the convention of ImageNet (224 of 256).
const CROP: f32 = 0.875;

/// Order of the axes of one image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layout {
    /// Channels, height, width.
    Nchw,
    /// Height, width, channels.
    Nhwc,
}

/// What the channels hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Channels {
    Rgb,
    Bgr,
    Gray,
}

/// How an image of other proportions comes to the input's size.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Fit {
    /// Resized until it covers the size (with a margin, see [`Options::crop`]), then its centre is cut out.
    #[default]
    Crop,
    /// Resized to the size, proportions changed.
    Stretch,
}

/// What the user says about images; the model's input says the rest.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Options {
    /// Height and width.
    pub size: Option<[usize; 2]>,
    /// Per channel or one for all, in units of scaled pixels [default: 0].
    pub mean: Vec<f32>,
    /// As `mean` [default: 1].
    pub std: Vec<f32>,
    /// Factor on pixels of 0 to 255 [default: 1/255].
    pub scale: Option<f32>,
    pub layout: Option<Layout>,
    pub channels: Option<Channels>,
    pub fit: Fit,
    /// Share of the resized image's sides that the crop keeps [default: 0.875].
    pub crop: Option<f32>,
}

impl Options {
    pub fn is_default(&self) -> bool {
        *self == Options::default()
    }
}

/// Options and input shape made one.
#[derive(Debug, Clone, PartialEq)]
pub struct Recipe {
    size: [u32; 2],
    layout: Layout,
    channels: Channels,
    fit: Fit,
    crop: f32,
    dtype: DType,
    /// Value of each pixel value, per channel; empty where pixels are taken as they are.
    table: Vec<[f32; 256]>,
}

impl Recipe {
    /// How images become values of `ty`.
    pub fn new(o: &Options, ty: &ValueType) -> Result<Recipe> {
        let bad = |why: String| Err(Error::data(why));
        let (Some(dtype), Some(shape)) = (ty.dtype(), ty.shape()) else {
            return bad(format!("images fit an input of 4 axes, this one is {ty}"));
        };
        let known = |d: &Dim| d.known();
        let dims: Vec<Option<usize>> = match shape {
            [_, rest @ ..] if rest.len() == 3 => rest.iter().map(known).collect(),
            all if all.len() == 3 => all.iter().map(known).collect(),
            _ => return bad(format!("images fit an input of 4 axes, this one is {ty}")),
        };
        let is_channels = |d: Option<usize>| matches!(d, Some(1 | 3));
        let layout = o.layout.unwrap_or(match (is_channels(dims[0]), is_channels(dims[2])) {
            (false, true) => Layout::Nhwc,
            _ => Layout::Nchw,
        });
        let (depth, sides) = match layout {
            Layout::Nchw => (dims[0], [dims[1], dims[2]]),
            Layout::Nhwc => (dims[2], [dims[0], dims[1]]),
        };
        let channels = o.channels.unwrap_or(if depth == Some(1) { Channels::Gray } else { Channels::Rgb });
        let count = if channels == Channels::Gray { 1 } else { 3 };
        if depth.is_some_and(|d| d != count) {
            return bad(format!("images of {count} channels in layout {layout:?} do not fit {ty}"));
        }
        let mut size = [0u32; 2];
        for (k, side) in size.iter_mut().enumerate() {
            let n = match (o.size.map(|s| s[k]), sides[k]) {
                (Some(a), Some(b)) if a != b => {
                    return bad(format!("images of size {:?} do not fit {ty}", o.size.unwrap_or_default()));
                }
                (Some(n), _) | (None, Some(n)) => n,
                (None, None) => {
                    return bad(format!("{ty} leaves the size of images open; give --image-size"));
                }
            };
            *side = u32::try_from(n)
                .ok()
                .filter(|n| (1..=MAX_SIDE).contains(n))
                .ok_or_else(|| Error::data(format!("images of {n} pixels are outside 1 to {MAX_SIDE}")))?;
        }
        budget::bytes(DType::F32, &[count, size[0] as usize, size[1] as usize])?;
        let crop = o.crop.unwrap_or(CROP);
        let table = if dtype.is_float() {
            let [mean, std] =
                [per_channel("mean", &o.mean, 0.0, count)?, per_channel("std", &o.std, 1.0, count)?];
            let scale = o.scale.unwrap_or(1.0 / 255.0);
            let entry = |c: usize, p: usize| (p as f32 * scale - mean[c]) / std[c];
            (0..count).map(|c| std::array::from_fn(|p| entry(c, p))).collect()
        } else if dtype == DType::U8 {
            if o.scale.is_some() || !o.mean.is_empty() || !o.std.is_empty() {
                return bad("the input takes uint8 pixels as they are, without scale, mean and std".into());
            }
            Vec::new()
        } else {
            return bad(format!("images fit inputs of float or uint8 values, this one is {ty}"));
        };
        if table.iter().flatten().any(|x| !x.is_finite()) || !(crop > 0.0 && crop <= 1.0) {
            return bad(
                "scale, mean and std must be finite, std not 0, and the crop above 0 and at most 1".into()
            );
        }
        Ok(Recipe { size, layout, channels, fit: o.fit, crop, dtype, table })
    }

    /// What is done, for the reader.
    pub fn describe(&self, o: &Options) -> String {
        let list = |v: &[f32], none: &str| match v {
            [] => none.to_string(),
            v => v.iter().map(f32::to_string).collect::<Vec<_>>().join(","),
        };
        let fit = match self.fit {
            Fit::Crop => format!("resized to cover {} of it and cut to the centre", 1.0 / self.crop),
            Fit::Stretch => "stretched".to_string(),
        };
        let values = if self.table.is_empty() {
            "pixels as they are".to_string()
        } else {
            let scale = o.scale.map_or("1/255".to_string(), |s| s.to_string());
            format!("scale {scale}, mean {}, std {}", list(&o.mean, "0"), list(&o.std, "1"))
        };
        format!(
            "images are {fit} to {}x{} (unless they have that size), {:?} {:?}, {values}",
            self.size[0], self.size[1], self.channels, self.layout
        )
    }

    /// Bytes of [`Recipe::pixels`].
    pub fn bytes(&self) -> usize {
        let count = if self.channels == Channels::Gray { 1 } else { 3 };
        count * self.size[0] as usize * self.size[1] as usize
    }

    /// The file's pixels at the input's size, in the input's order of axes.
    pub fn pixels(&self, path: &Path) -> Result<Vec<u8>> {
        // A decoder that panics on a damaged file is that file's fault, not the run's.
        let decoded = catch_unwind(AssertUnwindSafe(|| decode(path)));
        let image = decoded.unwrap_or_else(|_| Err(Error::data("the image cannot be decoded")))?;
        let (h, w) = (self.size[0], self.size[1]);
        let (rows, cols) = (image.height(), image.width());
        if rows == 0 || cols == 0 {
            return Err(Error::data("the image has no pixels"));
        }
        let resized = |h: u64, w: u64| -> Result<RgbImage> {
            if h * w > MAX_RESIZED {
                return Err(Error::limit(format!("an image of {rows}x{cols} would be resized to {h}x{w}")));
            }
            // Filtered over the area of a target pixel, as PIL's bilinear filter is.
            Ok(imageops::resize(&image, w as u32, h as u32, FilterType::Triangle))
        };
        let rgb = if (rows, cols) == (h, w) {
            image
        } else if self.fit == Fit::Stretch {
            resized(u64::from(h), u64::from(w))?
        } else {
            let cover = |target: u32, side: u32| f64::from(target) / f64::from(self.crop) / f64::from(side);
            let factor = f64::max(cover(h, rows), cover(w, cols));
            let side = |n: u32, least: u32| ((f64::from(n) * factor).round() as u64).max(u64::from(least));
            let (tall, wide) = (side(rows, h), side(cols, w));
            let whole = resized(tall, wide)?;
            let middle = |n: u64, m: u32| ((n - u64::from(m)) / 2) as u32;
            imageops::crop_imm(&whole, middle(wide, w), middle(tall, h), w, h).to_image()
        };
        Ok(self.ordered(&rgb))
    }

    fn ordered(&self, rgb: &RgbImage) -> Vec<u8> {
        if self.channels == Channels::Gray {
            // The weights of ITU-R BT.601, rounded as PIL and OpenCV do.
            let luma = |p: &image::Rgb<u8>| {
                let [r, g, b] = p.0.map(u32::from);
                ((19595 * r + 38470 * g + 7471 * b + 0x8000) >> 16) as u8
            };
            return rgb.pixels().map(luma).collect();
        }
        let order = if self.channels == Channels::Bgr { [2, 1, 0] } else { [0, 1, 2] };
        match self.layout {
            Layout::Nhwc => rgb.pixels().flat_map(|p| order.map(|c| p.0[c])).collect(),
            Layout::Nchw => order.iter().flat_map(|&c| rgb.pixels().map(move |p| p.0[c])).collect(),
        }
    }

    /// [`Recipe::pixels`] as the input's values, without a batch axis.
    pub fn tensor(&self, pixels: &[u8]) -> Result<Tensor> {
        let (h, w) = (self.size[0] as usize, self.size[1] as usize);
        let count = if self.channels == Channels::Gray { 1 } else { 3 };
        let shape = match self.layout {
            Layout::Nchw => [count, h, w],
            Layout::Nhwc => [h, w, count],
        };
        if self.table.is_empty() {
            return Tensor::from_bytes(DType::U8, &shape, pixels.to_vec());
        }
        let value = |(i, &p): (usize, &u8)| {
            let c = if self.layout == Layout::Nchw { i / (h * w) } else { i % count };
            self.table[c][usize::from(p)]
        };
        Tensor::from_f32s(self.dtype, &shape, pixels.iter().enumerate().map(value).collect())
    }
}

fn per_channel(what: &str, given: &[f32], otherwise: f32, count: usize) -> Result<Vec<f32>> {
    match given {
        [] => Ok(vec![otherwise; count]),
        [x] => Ok(vec![*x; count]),
        v if v.len() == count => Ok(v.to_vec()),
        v => Err(Error::data(format!("{} values of {what} for {count} channels", v.len()))),
    }
}

fn decode(path: &Path) -> Result<RgbImage> {
    let bad = |e: &dyn std::fmt::Display| Error::data(format!("not a readable image: {e}"));
    let reader = ImageReader::new(BufReader::new(npz::open(path)?));
    let mut reader = reader.with_guessed_format().map_err(|e| bad(&e))?;
    let mut limits = Limits::default();
    limits.max_image_width = Some(MAX_SIDE);
    limits.max_image_height = Some(MAX_SIDE);
    limits.max_alloc = Some(MAX_DECODED);
    reader.limits(limits);
    Ok(reader.decode().map_err(|e| bad(&e))?.into_rgb8())
}

#[cfg(test)]
mod tests;
