//! Talking to the kernel's nf_tables: what umbra's two tables are made with.
//!
//! Takes: tables' objects as data (`table`, `expression`). Gives: batches that the kernel has applied as a whole or not
//! at all (`netlink`, in the words of `message`), and signs of life that change nothing (`beat`). Never runs `nft`, never decides what a table should hold.

pub(crate) mod beat;
pub(crate) mod error;
pub(crate) mod expression;
mod listing;
mod message;
pub(crate) mod netlink;
pub(crate) mod table;
