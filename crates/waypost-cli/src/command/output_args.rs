//! The options of every command that prints a result.

use clap::{Args, ValueEnum};

/// How to print the result.
#[derive(Args, Clone, Copy, Debug)]
pub(crate) struct OutputArgs {
    /// Format of the output
    #[arg(
        short,
        long,
        value_name = "FORMAT",
        value_enum,
        default_value_t,
        help_heading = "Output"
    )]
    output: Format,

    /// Print JSON; the same as -o json
    #[arg(long, conflicts_with = "output", help_heading = "Output")]
    json: bool,
}

/// A format of the output.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// Aligned columns that fit the terminal
    #[default]
    Table,
    /// Like table, with more columns and nothing shortened
    Wide,
    /// One JSON object on one line; see docs/command-line.md
    Json,
    /// Only names or ids, one per line
    Name,
}

impl OutputArgs {
    pub(crate) fn format(self) -> Format {
        if self.json { Format::Json } else { self.output }
    }
}
