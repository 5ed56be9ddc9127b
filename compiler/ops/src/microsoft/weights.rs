//! Weights stored in blocks of few bits: MatMulNBits and GatherBlockQuantized.

use crate::function::{Body, Outputs, plain};
use ir::{DType, Error, Result, Tensor, ValueId};

fn size_attr(b: &Body, name: &str) -> Result<usize> {
    let n = b.attrs.require_int(name)?;
    usize::try_from(n).map_err(|_| Error::model(format!("attribute '{name}' is {n}")))
}

/// How many bits a code takes, of those that pack evenly into bytes.
fn width(b: &Body) -> Result<usize> {
    match b.attrs.int_or("bits", 4)? {
        bits @ (2 | 4 | 8) => Ok(bits as usize),
        bits => Err(Error::unsupported(format!("weights of {bits} bits"))),
    }
}

fn dtype_of(bits: usize) -> DType {
    match bits {
        2 => DType::U2,
        4 => DType::U4,
        _ => DType::U8,
    }
}

/// Bytes (…, n) as codes (…, n·8/bits), lowest bits first.
fn unpack(b: &mut Body, bytes: ValueId, bits: usize) -> Result<ValueId> {
    if bits == 8 {
        return Ok(bytes);
    }
    let rank = b.rank(bytes)? as i64;
    if rank == 0 {
        return Err(Error::model("packed codes must have an axis"));
    }
    let mask = b.constant(Tensor::scalar(((1u16 << bits) - 1) as u8));
    let mut parts = Vec::new();
    for shift in (0..8).step_by(bits) {
        let by = b.constant(Tensor::scalar(shift as u8));
        let moved = b.op_with("BitShift", plain().with("direction", "RIGHT"), &[bytes, by])?;
        let code = b.op("BitwiseAnd", &[moved, mask])?;
        parts.push(b.unsqueeze(code, &[rank])?);
    }
    let all = b.concat(rank, &parts)?;
    let shape: Vec<i64> = vec![0; rank as usize - 1].into_iter().chain([-1]).collect();
    b.reshape(all, &shape)
}

/// The columns of packed rows (rows, columns rounded up to bytes) as an unsigned (columns, rows).
fn transposed(bytes: &Tensor, bits: usize, rows: usize, columns: usize) -> Result<Tensor> {
    let (per, data) = (8 / bits, bytes.bytes());
    let stride = data.len() / rows.max(1);
    if stride * per < columns || stride * rows != data.len() {
        return Err(Error::model(format!("{} bytes for {rows} rows of {columns} codes", data.len())));
    }
    let mask = ((1u16 << bits) - 1) as u8;
    let mut codes = ir::budget::vec(ir::budget::elements(&[columns, rows])?)?;
    for c in 0..columns {
        codes.extend((0..rows).map(|r| data[r * stride + c / per] >> (bits * (c % per)) & mask));
    }
    Tensor::from_unpacked(dtype_of(bits), &[columns, rows], &codes)
}

/// `A · Bᵀ + bias`, where row n of B is K codes in blocks, each with a scale and a zero point.
pub fn matmul(b: &mut Body) -> Result<Outputs> {
    let (n, k, block, bits) =
        (size_attr(b, "N")?, size_attr(b, "K")?, size_attr(b, "block_size")?, width(b)?);
    if n == 0 || k == 0 || block < 8 {
        return Err(Error::model(format!("N {n}, K {k} and block_size {block} do not fit")));
    }
    if b.get(4).is_some() {
        return Err(Error::unsupported("MatMulNBits with g_idx"));
    }
    if b.attrs.int_or("weight_prepacked", 0)? != 0 {
        return Err(Error::unsupported("MatMulNBits with weights packed for one device"));
    }
    let blocks = k.div_ceil(block);
    ir::budget::elements(&[n, blocks, block])?;
    let a = b.need(0)?;
    let float = b.dtype(a)?;
    let weight = match stored(b, [n, k, block, bits])? {
        Some(w) => w,
        None => computed(b, [n, k, block, bits], float)?,
    };
    let y = b.op("MatMul", &[a, weight])?;
    Ok(vec![Some(b.plus(y, b.get(5))?)])
}

/// Constant weights as a blocked DequantizeLinear of (K, N), which is what compilers recognise.
fn stored(b: &mut Body, [n, k, block, bits]: [usize; 4]) -> Result<Option<ValueId>> {
    let blocks = k.div_ceil(block);
    let tensor = |i: usize| b.get(i).and_then(|v| b.g.constant(v)).cloned();
    let (Some(codes), Some(scales)) = (tensor(1), tensor(2)) else { return Ok(None) };
    let zeros = tensor(3);
    // The standard wants whole blocks but for the last, and sizes of blocks that divide what they quantize.
    if k % block != 0 || b.get(3).is_some() != zeros.is_some() {
        return Ok(None);
    }
    let zero = match zeros {
        Some(z) if z.dtype() == DType::U8 => transposed(&z, bits, n, blocks)?,
        Some(_) => return Ok(None),
        None => {
            let middle = vec![1u8 << (bits - 1); ir::budget::elements(&[blocks, n])?];
            Tensor::from_unpacked(dtype_of(bits), &[blocks, n], &middle)?
        }
    };
    let codes = transposed(&codes, bits, n, k)?;
    if scales.len() != n * blocks {
        return Err(Error::model(format!("{} scales for {n} rows of {blocks} blocks", scales.len())));
    }
    let scales = crate::transpose::transpose(&scales.reshaped(&[n, blocks])?, &[1, 0])?;
    let inputs = [b.constant(codes), b.constant(scales), b.constant(zero)];
    let attrs = plain().with("axis", 0).with("block_size", block as i64);
    Ok(Some(b.op_with("DequantizeLinear", attrs, &inputs)?))
}

/// Weights as arithmetic, whatever they are: (K, N).
fn computed(b: &mut Body, [n, k, block, bits]: [usize; 4], float: DType) -> Result<ValueId> {
    let (blocks, rows) = (k.div_ceil(block) as i64, n as i64);
    let bytes = b.need(1)?;
    let bytes = b.reshape(bytes, &[rows * blocks, (block * bits / 8) as i64])?;
    let codes = unpack(b, bytes, bits)?;
    let codes = b.cast(codes, float)?;
    let scales = b.need(2)?;
    let scales = b.reshape(scales, &[rows * blocks, 1])?;
    let zero = match b.get(3) {
        Some(z) if b.dtype(z)? == DType::U8 => {
            let z = b.reshape(z, &[rows, -1])?;
            let z = unpack(b, z, bits)?;
            let (from, to) = (b.ints(&[0]), b.ints(&[blocks]));
            let z = b.slice(z, from, to, 1)?;
            let z = b.cast(z, float)?;
            b.reshape(z, &[rows * blocks, 1])?
        }
        Some(z) => {
            let z = b.cast(z, float)?;
            b.reshape(z, &[rows * blocks, 1])?
        }
        None => b.number(scales, (1u32 << (bits - 1)) as f32)?,
    };
    let shifted = b.op("Sub", &[codes, zero])?;
    let values = b.op("Mul", &[shifted, scales])?;
    let values = b.reshape(values, &[rows, blocks * block as i64])?;
    let (from, to) = (b.ints(&[0]), b.ints(&[k as i64]));
    let values = b.slice(values, from, to, 1)?;
    b.transpose(values, &[1, 0])
}

/// Rows of a table whose last axis is quantized in blocks.
pub fn gather(b: &mut Body) -> Result<Outputs> {
    let (table, indices, scales) = (b.need(0)?, b.need(1)?, b.need(2)?);
    let (rank, dtype) = (b.rank(table)? as i64, b.dtype(table)?);
    let at = |axis: i64| if axis < 0 { axis + rank } else { axis };
    let (gathered, quantized) =
        (at(b.attrs.int_or("gather_axis", 0)?), at(b.attrs.int_or("quantize_axis", 1)?));
    if rank < 2 || gathered != 0 || quantized != rank - 1 {
        return Err(Error::unsupported("GatherBlockQuantized of other axes than first and last"));
    }
    let block = b.attrs.int_or("block_size", 128)?;
    if !(1..=1 << 31).contains(&block) {
        return Err(Error::model(format!("block_size is {block}")));
    }
    let bits = match dtype {
        DType::U8 => width(b)?,
        DType::U4 | DType::I4 => 4,
        d => return Err(Error::unsupported(format!("GatherBlockQuantized of {d}"))),
    };
    let pick = |b: &mut Body, t: ValueId| b.op_with("Gather", plain().with("axis", 0), &[t, indices]);
    let codes = |b: &mut Body, t: ValueId| -> Result<ValueId> {
        if dtype == DType::U8 {
            let rows = pick(b, t)?;
            unpack(b, rows, bits)
        } else {
            let wide = b.cast(t, if dtype == DType::I4 { DType::I8 } else { DType::U8 })?;
            pick(b, wide)
        }
    };
    let float = b.dtype(scales)?;
    let picked = pick(b, scales)?;
    let rank = b.rank(picked)? as i64;
    if rank == 0 {
        return Err(Error::model("scales must have as many axes as the table"));
    }
    let x = codes(b, table)?;
    let x = b.cast(x, float)?;
    let zero = match b.get(3) {
        Some(z) => {
            let z = codes(b, z)?;
            let (from, to) = (b.ints(&[0]), b.dim(picked, -1)?);
            let z = b.slice(z, from, to, -1)?;
            let z = b.cast(z, float)?;
            Some(b.unsqueeze(z, &[rank])?)
        }
        None if dtype == DType::U8 => Some(b.number(picked, (1u32 << (bits - 1)) as f32)?),
        None => None,
    };
    // (…, blocks, block): the last block may be short, so padding goes in and comes out again.
    let blocks = b.dim(picked, -1)?;
    let columns = b.dim(x, -1)?;
    let size = b.ints(&[block]);
    let whole = b.op("Mul", &[blocks, size])?;
    let missing = b.op("Sub", &[whole, columns])?;
    let none = b.ints(&vec![0; 2 * rank as usize - 1]);
    let pads = b.concat(0, &[none, missing])?;
    let x = b.op("Pad", &[x, pads])?;
    let mut shape = vec![0; rank as usize - 1];
    shape.extend([-1, block]);
    let x = b.reshape(x, &shape)?;
    let x = match zero {
        Some(z) => b.op("Sub", &[x, z])?,
        None => x,
    };
    let picked = b.unsqueeze(picked, &[rank])?;
    let x = b.op("Mul", &[x, picked])?;
    shape.truncate(rank as usize);
    let x = b.reshape(x, &shape)?;
    let from = b.ints(&[0]);
    Ok(vec![Some(b.slice(x, from, columns, -1)?)])
}
