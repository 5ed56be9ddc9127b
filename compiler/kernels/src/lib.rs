//! compress-kernels
