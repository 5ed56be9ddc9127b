//! compress-runtime
