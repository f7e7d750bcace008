//! Watch, index, compile, publish, push, status.
