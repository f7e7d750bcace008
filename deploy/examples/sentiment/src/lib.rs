//! The article's programs.
