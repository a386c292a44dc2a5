//! An append-only file of records, and the buffer of records that have not been written yet. The
//! journal doesn't interpret the records.

mod buffer;
mod file;

pub(crate) use buffer::{JournalBuffer, WriteProgress};
pub(crate) use file::{JournalError, JournalFile};
