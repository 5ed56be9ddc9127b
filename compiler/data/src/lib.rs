//! compress-data
