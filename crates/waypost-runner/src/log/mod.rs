//! The output of the programs: split into lines, the last of which are kept, and all written to one
//! [`LogSink`].
//!
//! A task reads each stream of each program and sends every read as one batch of lines to the
//! sink's thread. The channel in between holds a single batch, and the senders wait for it in the
//! order in which they came. So a program that never stops writing gets its turn but no more, and
//! a slow sink slows down the program that writes (its pipe fills up), not the others.

mod console;
mod line;
mod reader;
mod recent;
mod sanitize;
mod splitter;
mod writer;

pub use console::Console;
pub use line::{Line, LogSink, Stream};
pub(crate) use reader::read_lines;
pub(crate) use recent::RecentLines;
pub(crate) use sanitize::sanitize;
pub(crate) use writer::LogWriter;
