//! What can be wrong with a container.

use thiserror::Error;

/// Why a container cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Error {
    #[error("not a .cmpx container; `compress pack` makes one")]
    NotAContainer,
    #[error("container version {0} is not known to this program; use the one that wrote it")]
    Version(u8),
    #[error("container codec {0} is not known to this program; use the one that wrote it")]
    Codec(u8),
    #[error("the container is damaged: {0}; pack the model again")]
    Damaged(&'static str),
    #[error("the container stands for a file of {bytes} bytes, more than the {limit} allowed")]
    TooLarge { bytes: u64, limit: u64 },
}
