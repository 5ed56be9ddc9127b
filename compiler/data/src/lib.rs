//! Samples on disk as named tensors: npz, npy, safetensors, folders of them or of images.
#![forbid(unsafe_code)]

pub mod degrade;
mod folder;
pub mod images;
mod labels;
pub mod npy;
pub mod npz;
pub mod safetensors;
mod samples;

pub use samples::{Options, Samples};

use ir::{DType, Error, Result, Tensor};
use std::collections::BTreeMap;
use std::io::BufReader;
use std::path::Path;

/// All arrays of a file by name: safetensors, npy (its one array takes the only name in `names`), else npz.
pub fn read(path: &Path, names: &[&str]) -> Result<BTreeMap<String, Tensor>> {
    let ending = path.extension().map(|e| e.to_string_lossy().to_lowercase()).unwrap_or_default();
    match ending.as_str() {
        "safetensors" => safetensors::read(path),
        "npy" => {
            let named = |e: Error| Error { message: format!("{}: {}", path.display(), e.message), ..e };
            let [only] = names else {
                return Err(named(Error::data("an npy file fits models with one input only")));
            };
            let array = npy::read(&mut BufReader::new(npz::open(path)?)).map_err(named)?;
            Ok(BTreeMap::from([(only.to_string(), array)]))
        }
        _ => npz::read(path),
    }
}

/// A tensor in a type that npz has: element types numpy lacks travel as bit patterns (bfloat16 → uint16, float 8 and 4 →
/// uint8) and sub-byte integers as one byte each.
pub fn to_array(t: &Tensor) -> Result<Tensor> {
    use DType::*;
    match t.dtype() {
        BF16 => t.bitcast(U16),
        F8E4M3FN | F8E4M3FNUZ | F8E5M2 | F8E5M2FNUZ | F8E8M0 => t.bitcast(U8),
        F4E2M1 | U4 | U2 => Tensor::from_bytes(U8, t.shape(), t.unpacked()?),
        I4 | I2 => Tensor::from_bytes(I8, t.shape(), t.unpacked()?),
        _ => Ok(t.clone()),
    }
}

/// The inverse of [`to_array`], given the type the model wants; plain values convert between widths of one kind.
pub fn from_array(t: &Tensor, want: DType) -> Result<Tensor> {
    use DType::*;
    match (t.dtype(), want) {
        (a, b) if a == b => Ok(t.clone()),
        (U16, BF16) | (U8, F8E4M3FN | F8E4M3FNUZ | F8E5M2 | F8E5M2FNUZ | F8E8M0) => t.bitcast(want),
        (U8, F4E2M1 | U4 | U2) | (I8, I4 | I2) => Tensor::from_unpacked(want, t.shape(), t.bytes()),
        (a, b) if a.is_float() && b.is_float() => round(t, b),
        (a, b) if (a.is_int() || a == Bool) && (b.is_int() || b == Bool) => narrow(t, b),
        (a, b) => Err(Error::data(format!("holds {a} values, the model takes {b}"))),
    }
}

fn round(t: &Tensor, want: DType) -> Result<Tensor> {
    let values = t.to_f64s()?;
    let rounded = Tensor::from_f64s(want, t.shape(), values.clone())?;
    match values.iter().zip(rounded.to_f64s()?).find(|(v, r)| v.is_finite() && !r.is_finite()) {
        Some((v, _)) => Err(Error::data(format!("value {v} does not fit {want}"))),
        None => Ok(rounded),
    }
}

fn narrow(t: &Tensor, want: DType) -> Result<Tensor> {
    let values = t.to_i64s()?;
    let (lo, hi) = want.int_range().unwrap_or((0, 1));
    match values.iter().find(|&&v| i128::from(v) < lo || i128::from(v) > hi) {
        Some(v) => Err(Error::data(format!("value {v} does not fit {want}"))),
        None => Tensor::from_i64s(want, t.shape(), values),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_type_comes_back_through_what_numpy_has() {
        for &d in DType::ALL {
            let t = match d {
                DType::String => Tensor::strings(&[2], vec!["a".into(), "b".into()]).unwrap(),
                d => {
                    let bytes = (0..d.storage_bytes(4)).map(|i| (i & 1) as u8);
                    Tensor::from_bytes(d, &[4], bytes.collect()).unwrap()
                }
            };
            let mut file = Vec::new();
            npy::write(&mut file, &to_array(&t).unwrap()).unwrap();
            assert_eq!(from_array(&npy::parse(&file).unwrap(), d).unwrap(), t, "{d}");
        }
    }

    #[test]
    fn widths_convert_when_values_fit() {
        let t = Tensor::vector(vec![1i64, 0, 255]);
        assert_eq!(from_array(&t, DType::U8).unwrap().to_i64s().unwrap(), [1, 0, 255]);
        assert!(from_array(&t, DType::I8).is_err());
        assert!(from_array(&t, DType::Bool).is_err());
        assert!(from_array(&t, DType::F32).is_err());
        assert!(from_array(&Tensor::vector(vec![1e300f64]), DType::F32).is_err());
        assert_eq!(
            from_array(&Tensor::vector(vec![0.5f64]), DType::F32).unwrap(),
            Tensor::vector(vec![0.5f32])
        );
    }
}
