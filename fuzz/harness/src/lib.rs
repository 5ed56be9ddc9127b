//! compress-harness
