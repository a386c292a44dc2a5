//! Writes the output of a stack to the terminal and to files.

use std::fs;
use std::io;
use std::path::Path;

use waypost_runner::{Console, Line, LogFiles, LogSink};

use super::screen::Screen;
use crate::command::stack::{FOLDER, log_folder};

/// The destination of the output.
pub(super) enum Terminal {
    /// A terminal with a footer.
    Screen(Screen),
    /// Plain lines.
    Plain(Console),
}

impl Terminal {
    pub(super) fn new(screen: Option<&Screen>) -> Self {
        match screen {
            Some(screen) => Self::Screen(screen.clone()),
            None => Self::Plain(Console::stdout()),
        }
    }
}

impl LogSink for Terminal {
    fn set_instances(&mut self, names: &[String]) {
        match self {
            Self::Screen(screen) => screen.set_instances(names),
            Self::Plain(console) => console.set_instances(names),
        }
    }

    fn write(&mut self, lines: &[Line]) -> io::Result<()> {
        match self {
            Self::Screen(screen) => screen.write(lines),
            Self::Plain(console) => console.write(lines),
        }
    }
}

/// Passes each line on to the terminal and to a file.
pub(super) struct StackSink {
    /// `None` after a write has failed, for example because the terminal was closed.
    terminal: Option<Terminal>,
    files: LogFiles,
}

impl StackSink {
    /// Creates the folder for the files in the folder of the stack file.
    pub(super) fn new(terminal: Terminal, directory: &Path) -> io::Result<Self> {
        let files = LogFiles::create(&log_folder(directory))?;
        // Keeps the files out of version control.
        let ignore = directory.join(FOLDER).join(".gitignore");
        if !ignore.exists() {
            fs::write(ignore, "*\n")?;
        }
        Ok(Self {
            terminal: Some(terminal),
            files,
        })
    }
}

impl LogSink for StackSink {
    fn set_instances(&mut self, names: &[String]) {
        if let Some(terminal) = &mut self.terminal {
            terminal.set_instances(names);
        }
    }

    fn write(&mut self, lines: &[Line]) -> io::Result<()> {
        if let Some(terminal) = &mut self.terminal
            && terminal.write(lines).is_err()
        {
            self.terminal = None;
        }
        self.files.write(lines)
    }
}
