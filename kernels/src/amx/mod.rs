//! Products of 8-bit integers on AMX: a processor's unit for matrices, whose registers are tiles of up to sixteen lines of 64
//! bytes.
//!
//! A group of weights lies as such a tile already: sixteen lines, with four values of k for each of sixteen outputs. So do the
//! activations of sixteen rows, 64 bytes each. One instruction multiplies the two and leaves sixteen sums for each row, as exact
//! integers: bits do not depend on who summed. What follows, scales and totals, is done as everywhere else.

mod multiply;
mod unit;

pub(crate) use multiply::{FROM_ROWS, MOST_ROWS, PAIR, Session};
pub(crate) use unit::Amx;
