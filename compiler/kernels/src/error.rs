//! What a kernel refuses.

/// A caller's slices and sizes do not fit together. Kernels know no nodes or tensors: the caller adds those.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Error {
    /// A slice has another length than the sizes demand.
    Length { what: &'static str, expected: usize, found: usize },
    /// A size or stride is outside what the kernel takes.
    Shape { what: &'static str },
    /// An index points outside the axis it selects from.
    Index { position: usize, index: i64, bound: usize },
    /// The data demand more than `most` of what they may.
    Limit { what: &'static str, most: usize },
}

impl std::fmt::Display for Error {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Error::Length { what, expected, found } => {
                write!(f, "{what} holds {found} elements; the sizes demand {expected}")
            }
            Error::Shape { what } => f.write_str(what),
            Error::Index { position, index, bound } => {
                write!(f, "index {index} at position {position} is outside an axis of {bound}")
            }
            Error::Limit { what, most } => write!(f, "{what}: at most {most} are taken"),
        }
    }
}

impl std::error::Error for Error {}

/// `found` must be `expected`.
pub(crate) fn same_length(what: &'static str, expected: usize, found: usize) -> Result<(), Error> {
    if expected == found { Ok(()) } else { Err(Error::Length { what, expected, found }) }
}

/// The product of sizes, or the error that it leaves `usize`.
pub(crate) fn product(what: &'static str, sizes: &[usize]) -> Result<usize, Error> {
    sizes.iter().try_fold(1usize, |n, &d| n.checked_mul(d)).ok_or(Error::Shape { what })
}
