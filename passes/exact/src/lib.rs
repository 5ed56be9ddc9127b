//! compress-exact
