//! compress-search
