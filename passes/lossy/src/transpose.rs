//! Transposition of large matrices in blocks that stay in the first-level cache: read by columns, a matrix of 4,096 rows
//! would miss it with every number.

/// Side of a block.
const SIDE: usize = 16;

/// The transpose of a row-major matrix of `rows` × `cols`, row-major.
///
/// # Panics
/// When `a` does not hold `rows · cols` numbers.
pub fn transposed<T: Copy + Default>(a: &[T], rows: usize, cols: usize) -> Vec<T> {
    assert_eq!(a.len(), rows * cols, "a matrix of {rows} × {cols}");
    let mut out = vec![T::default(); a.len()];
    if rows < 2 || cols < 2 {
        out.copy_from_slice(a);
        return out;
    }
    let mut block = [T::default(); SIDE * SIDE];
    for (i, strip) in out.chunks_mut(SIDE * rows).enumerate() {
        let col = i * SIDE;
        let wide = strip.len() / rows;
        for row in (0..rows).step_by(SIDE) {
            let high = SIDE.min(rows - row);
            for r in 0..high {
                let from = (row + r) * cols + col;
                for (c, &x) in a[from..from + wide].iter().enumerate() {
                    block[c * SIDE + r] = x;
                }
            }
            for (c, to) in strip.chunks_mut(rows).enumerate() {
                to[row..row + high].copy_from_slice(&block[c * SIDE..][..high]);
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn entries_change_places(rows in 0usize..70, cols in 0usize..70) {
            let a: Vec<u16> = (0..rows * cols).map(|i| i as u16).collect();
            let t = transposed(&a, rows, cols);
            for r in 0..rows {
                for c in 0..cols {
                    prop_assert_eq!(t[c * rows + r], a[r * cols + c]);
                }
            }
        }
    }
}
