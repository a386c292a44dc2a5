//! The output of the programs: split into lines, the last of which are kept, and all written to one
//! [`LogSink`].
//!
//! A task reads each stream of each program and sends every read as one batch of lines to the
//! sink's thread. The channel between them holds a single batch, and the senders queue for it in
//! order of arrival. So a program that never stops writing can't delay the others, and a slow sink
//! slows down only the program that writes, because its pipe fills up.

mod console;
mod files;
mod level;
mod line;
mod reader;
mod recent;
mod sanitize;
mod splitter;
mod store;
mod writer;

pub use console::Console;
pub use files::{KeptLine, LogFiles};
pub use level::Level;
pub use line::{Line, LogSink, Stream};
pub(crate) use reader::OutputStream;
pub use sanitize::printable;
pub(crate) use sanitize::sanitize;
#[cfg(test)]
pub(crate) use store::tests as store_tests;
pub(crate) use store::{LogFilter, LogStore};
pub(crate) use writer::LogWriter;
