//! A few numbers spread over the elements of a tensor by strides: scales and zero points.

/// Numbers of which each element of a tensor has one.
#[derive(Debug, Clone, PartialEq)]
pub struct Field {
    /// (extent, stride in `data`) from the slowest to the fastest; extents multiply to the tensor's elements.
    dims: Vec<(usize, usize)>,
    pub data: Vec<f32>,
}

impl Field {
    /// `data` of shape `from`, broadcast to `shape`.
    pub fn broadcast(from: &[usize], shape: &[usize], data: Vec<f32>) -> Option<Field> {
        let lead = shape.len().checked_sub(from.len())?;
        let mut stride = 1;
        let mut dims = vec![(1, 0); shape.len()];
        for (i, &d) in shape.iter().enumerate().rev() {
            let own = if i < lead { 1 } else { from[i - lead] };
            if own != d && own != 1 {
                return None;
            }
            dims[i] = (d, if own == 1 { 0 } else { stride });
            stride *= own;
        }
        (stride == data.len()).then_some(Field { dims, data })
    }

    /// Scales of a DequantizeLinear over `shape`: one, one for each index of `axis`, or one for each `block` of them.
    pub fn blocked(
        shape: &[usize],
        axis: usize,
        block: usize,
        from: &[usize],
        data: Vec<f32>,
    ) -> Option<Field> {
        if data.len() == 1 && block == 0 {
            return Field::broadcast(&[], shape, data);
        }
        let size = *shape.get(axis)?;
        if block == 0 {
            let mut full = vec![1; shape.len()];
            full[axis] = size;
            return Field::broadcast(&full, shape, data);
        }
        // The last block may be cut short, which strides cannot say.
        let groups = size.div_ceil(block);
        if !size.is_multiple_of(block) || from.len() != shape.len() || from[axis] != groups {
            return None;
        }
        let mut split = shape.to_vec();
        split[axis] = groups;
        let mut f = Field::broadcast(from, &split, data)?;
        f.dims.insert(axis + 1, (block, 0));
        Some(f)
    }

    /// Its dims, cut so that they fill `shape` axis by axis.
    fn split(&self, shape: &[usize]) -> Option<Vec<Vec<(usize, usize)>>> {
        let mut dims = self.dims.iter().copied().filter(|d| d.0 != 1);
        let mut rest = (1, 0);
        let axes = shape
            .iter()
            .map(|&size| {
                let (mut need, mut axis) = (size, Vec::new());
                while need > 1 {
                    if rest.0 == 1 {
                        rest = dims.next()?;
                    }
                    let (extent, stride) = rest;
                    if need.is_multiple_of(extent) {
                        axis.push(rest);
                        need /= extent;
                        rest = (1, 0);
                    } else if extent.is_multiple_of(need) {
                        axis.push((need, stride * (extent / need)));
                        rest = (extent / need, stride);
                        need = 1;
                    } else {
                        return None;
                    }
                }
                Some(axis)
            })
            .collect::<Option<Vec<_>>>()?;
        (rest.0 == 1 && dims.next().is_none()).then_some(axes)
    }

    /// Of the tensor of `shape` with its axes permuted.
    pub fn transposed(&self, shape: &[usize], perm: &[usize]) -> Option<Field> {
        let axes = self.split(shape)?;
        let dims = perm.iter().map(|&p| axes.get(p).cloned()).collect::<Option<Vec<_>>>()?.concat();
        Some(Field { dims, data: self.data.clone() })
    }

    /// Of the tensor as a matrix: where in `data` the number of (i, j) is, as the sum of one of each.
    pub fn matrix(&self, rows: usize, cols: usize) -> Option<[Vec<usize>; 2]> {
        let axes = self.split(&[rows, cols])?;
        let offsets = |dims: &[(usize, usize)]| {
            dims.iter().fold(vec![0], |all: Vec<usize>, &(n, stride)| {
                all.iter().flat_map(|&o| (0..n).map(move |i| o + i * stride)).collect()
            })
        };
        Some([offsets(&axes[0]), offsets(&axes[1])])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(f: &Field, rows: usize, cols: usize) -> Vec<f32> {
        let [r, c] = f.matrix(rows, cols).unwrap();
        r.iter().flat_map(|&r| c.iter().map(move |&c| r + c)).map(|i| f.data[i]).collect()
    }

    #[test]
    fn fields_follow_their_tensor() {
        let rows = Field::broadcast(&[2, 1], &[2, 3], vec![1.0, 2.0]).unwrap();
        assert_eq!(at(&rows, 2, 3), [1.0, 1.0, 1.0, 2.0, 2.0, 2.0]);
        assert_eq!(at(&rows.transposed(&[2, 3], &[1, 0]).unwrap(), 3, 2), [1.0, 2.0, 1.0, 2.0, 1.0, 2.0]);
        let blocks = Field::blocked(&[2, 4], 1, 2, &[2, 2], vec![1.0, 2.0, 3.0, 4.0]).unwrap();
        assert_eq!(at(&blocks, 2, 4), [1.0, 1.0, 2.0, 2.0, 3.0, 3.0, 4.0, 4.0]);
        // As a tensor of three axes, [2, 2, 2].
        let turned = blocks.transposed(&[2, 2, 2], &[2, 0, 1]).unwrap();
        assert_eq!(at(&turned, 2, 4), [1.0, 2.0, 3.0, 4.0, 1.0, 2.0, 3.0, 4.0]);
        assert!(Field::broadcast(&[3], &[2, 3], vec![0.0; 3]).unwrap().matrix(3, 2).is_none());
    }
}
