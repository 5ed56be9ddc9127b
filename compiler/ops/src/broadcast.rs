//! Multidirectional broadcasting (ONNX "Broadcasting in ONNX").

use ir::{Dim, Error, Result, Shape, budget};

/// Shape of the result of broadcasting concrete shapes together.
pub fn broadcast_shapes(shapes: &[&[usize]]) -> Result<Shape> {
    let rank = shapes.iter().map(|s| s.len()).max().unwrap_or(0);
    let mut out = Shape::from_elem(1, rank);
    for s in shapes {
        for (o, &d) in out[rank - s.len()..].iter_mut().zip(s.iter()) {
            if *o == 1 {
                *o = d;
            } else if d != 1 && d != *o {
                return Err(Error::model(format!("shapes {shapes:?} do not broadcast together")));
            }
        }
    }
    budget::elements(&out)?;
    Ok(out)
}

/// As [`broadcast_shapes`] for symbolic dims; a dim that may or may not be 1 makes the result unknown.
pub fn broadcast_dims(shapes: &[&[Dim]]) -> Result<Vec<Dim>> {
    let rank = shapes.iter().map(|s| s.len()).max().unwrap_or(0);
    let mut out = vec![Dim::Known(1); rank];
    for s in shapes {
        for (o, d) in out[rank - s.len()..].iter_mut().zip(s.iter()) {
            *o = broadcast_dim(o, d)?;
        }
    }
    Ok(out)
}

fn broadcast_dim(a: &Dim, b: &Dim) -> Result<Dim> {
    Ok(match (a, b) {
        (Dim::Known(1), d) | (d, Dim::Known(1)) => d.clone(),
        (Dim::Known(x), Dim::Known(y)) if x != y => {
            return Err(Error::model(format!("dimensions {x} and {y} do not broadcast together")));
        }
        (Dim::Known(x), _) | (_, Dim::Known(x)) => Dim::Known(*x),
        (a, b) if a == b => a.clone(),
        _ => Dim::Unknown,
    })
}

/// For each element of `out` in row-major order, the element index in a tensor of shape `from` broadcast to it.
pub fn broadcast_strides(from: &[usize], out: &[usize]) -> Vec<usize> {
    let mut strides = vec![0; out.len()];
    let mut step = 1usize;
    let lead = out.len().saturating_sub(from.len());
    for (i, &d) in from.iter().enumerate().rev() {
        strides[lead + i] = if d == 1 { 0 } else { step };
        step = step.saturating_mul(d);
    }
    strides
}

/// A negative axis counted from the end; an error outside `-rank..rank`.
pub fn axis(axis: i64, rank: usize) -> Result<usize> {
    let a = if axis < 0 { axis + rank as i64 } else { axis };
    usize::try_from(a)
        .ok()
        .filter(|&a| a < rank)
        .ok_or_else(|| Error::model(format!("axis {axis} is outside a tensor of rank {rank}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn broadcasts() {
        assert_eq!(&broadcast_shapes(&[&[3, 1], &[2, 1, 4]]).unwrap()[..], [2, 3, 4]);
        assert!(broadcast_shapes(&[&[3], &[2]]).is_err());
        assert_eq!(&broadcast_shapes(&[&[0], &[1]]).unwrap()[..], [0]);
        assert_eq!(broadcast_strides(&[3, 1], &[2, 3, 4]), [0, 1, 0]);
        assert!(axis(-3, 2).is_err());
    }
}
