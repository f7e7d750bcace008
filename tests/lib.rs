//! Tests only; see the files named by layer.
