//! The workspace keeps its shape.
