//! From the view to tables and findings.
