//! compress-lossy
