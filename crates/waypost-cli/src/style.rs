//! Lines with colours and tables that fit the terminal. Colours are used on a terminal only.

use std::fmt;
use std::io::{self, IsTerminal};
use std::sync::OnceLock;

use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};
use waypost::Health;

use crate::error::CommandError;
use crate::terminal::{escaped, print_verbatim};

/// The meaning of a text, which determines its colour.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Tone {
    #[default]
    Plain,
    /// Less important than the rest.
    Faint,
    /// A heading.
    Heading,
    Good,
    Caution,
    Bad,
}

impl Tone {
    /// The parameters of the escape sequence (ECMA-48, "Select Graphic Rendition").
    fn parameters(self) -> &'static str {
        match self {
            Self::Plain => "",
            Self::Faint => "2",
            Self::Heading => "1",
            Self::Good => "32",
            Self::Caution => "33",
            Self::Bad => "31",
        }
    }
}

impl From<Health> for Tone {
    fn from(health: Health) -> Self {
        match health {
            Health::Passing => Self::Good,
            Health::Unchecked => Self::Plain,
            Health::Warning | Health::Draining => Self::Caution,
            Health::Critical => Self::Bad,
        }
    }
}

/// Whether to print colours: stdout is a terminal that supports them, and `NO_COLOR` (no-color.org) is
/// not set or is empty.
pub(crate) fn has_colours() -> bool {
    static HAS_COLOURS: OnceLock<bool> = OnceLock::new();
    *HAS_COLOURS.get_or_init(|| io::stdout().is_terminal() && allows_colours())
}

/// Whether the environment allows colours on a terminal.
pub(crate) fn allows_colours() -> bool {
    let is_set = |name| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    !is_set("NO_COLOR") && std::env::var_os("TERM").is_none_or(|term| term != "dumb")
}

/// The columns and rows of the terminal; 80 and 24 if they are unknown.
pub(crate) fn terminal_size() -> (usize, usize) {
    let or = |value: u16, default| match value {
        0 => default,
        value => usize::from(value),
    };
    match rustix::termios::tcgetwinsize(io::stdout()) {
        Ok(size) => (or(size.ws_col, 80), or(size.ws_row, 24)),
        Err(_) => (80, 24),
    }
}

/// The number of columns of the terminal; `None` if stdout is not one.
fn terminal_width() -> Option<usize> {
    let size = rustix::termios::tcgetwinsize(io::stdout()).ok()?;
    (size.ws_col != 0).then_some(usize::from(size.ws_col))
}

/// A text with a tone. Characters that could control the terminal are escaped.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Text {
    escaped: String,
    tone: Tone,
}

impl Text {
    pub(crate) fn new(text: impl fmt::Display) -> Self {
        Self::toned(Tone::Plain, text)
    }

    pub(crate) fn toned(tone: Tone, text: impl fmt::Display) -> Self {
        Self {
            escaped: escaped(&text.to_string()).into_owned(),
            tone,
        }
    }

    /// A `-`, for a missing value.
    pub(crate) fn none() -> Self {
        Self::toned(Tone::Faint, "-")
    }

    /// The text, or a `-` if there is none.
    pub(crate) fn or_none(text: Option<impl fmt::Display>) -> Self {
        let text = text
            .map(|text| text.to_string())
            .filter(|it| !it.is_empty());
        text.map_or_else(Self::none, Self::new)
    }

    fn width(&self) -> usize {
        self.escaped.width()
    }

    /// The text, shortened to this number of columns.
    fn shortened(&self, limit: usize) -> String {
        if self.width() <= limit {
            return self.escaped.clone();
        }
        let mut short = String::new();
        let mut width = 0;
        for c in self.escaped.chars() {
            width += c.width().unwrap_or(0);
            if width >= limit {
                break;
            }
            short.push(c);
        }
        short.push('…');
        short
    }
}

/// Adds the escape sequences for a tone to a text, if it is printed in colour.
fn painted(text: &str, tone: Tone, in_colour: bool) -> String {
    match tone.parameters() {
        parameters if !parameters.is_empty() && in_colour => {
            format!("\x1b[{parameters}m{text}\x1b[0m")
        }
        _ => text.to_owned(),
    }
}

/// Prints texts side by side on one line.
///
/// # Errors
/// The same as for [`print_verbatim`].
pub(crate) fn print_texts(texts: &[Text]) -> Result<(), CommandError> {
    let in_colour = has_colours();
    let painted = texts
        .iter()
        .map(|text| painted(&text.escaped, text.tone, in_colour));
    print_verbatim(&format!("{}\n", painted.collect::<String>()))
}

/// A column of a [`Table`].
#[derive(Clone, Copy, Debug)]
pub(crate) struct Column {
    header: &'static str,
    is_number: bool,
    is_wide_only: bool,
    can_shrink: bool,
}

impl Column {
    pub(crate) const fn new(header: &'static str) -> Self {
        Self {
            header,
            is_number: false,
            is_wide_only: false,
            can_shrink: false,
        }
    }

    /// A column aligned to the right.
    pub(crate) const fn number(header: &'static str) -> Self {
        Self {
            is_number: true,
            ..Self::new(header)
        }
    }

    /// Shows the column only with `-o wide`.
    pub(crate) const fn wide_only(self) -> Self {
        Self {
            is_wide_only: true,
            ..self
        }
    }

    /// Allows the column to be shortened if the terminal is too narrow.
    pub(crate) const fn can_shrink(self) -> Self {
        Self {
            can_shrink: true,
            ..self
        }
    }
}

/// Rows below a header, with aligned columns.
pub(crate) struct Table {
    columns: Vec<Column>,
    rows: Vec<Vec<Text>>,
    is_wide: bool,
}

/// The minimum width of a shortened column.
const MIN_WIDTH: usize = 12;
/// The space between two columns.
const GAP: &str = "  ";

impl Table {
    /// An empty table. A wide one has all columns, none of them shortened.
    pub(crate) fn new(columns: &[Column], is_wide: bool) -> Self {
        Self {
            columns: columns.to_vec(),
            rows: Vec::new(),
            is_wide,
        }
    }

    /// Adds a row with one text per column.
    pub(crate) fn row<const N: usize>(&mut self, texts: [Text; N]) {
        debug_assert_eq!(N, self.columns.len());
        self.rows.push(texts.into());
    }

    /// Prints the table. On a terminal it is shortened to the terminal's width, unless it is wide.
    ///
    /// # Errors
    /// The same as for [`print_verbatim`].
    pub(crate) fn print(&self) -> Result<(), CommandError> {
        let limit = terminal_width().filter(|_| !self.is_wide);
        for line in self.lines(limit, has_colours()) {
            print_verbatim(&format!("{line}\n"))?;
        }
        Ok(())
    }

    /// The header and the rows, each with at most `limit` columns if its texts can be shortened.
    pub(crate) fn lines(&self, limit: Option<usize>, in_colour: bool) -> Vec<String> {
        let headings = self
            .columns
            .iter()
            .map(|column| Text::toned(Tone::Heading, column.header));
        let headings: Vec<_> = headings.collect();
        let widths = self.widths(limit);
        let rows = [&headings].into_iter().chain(&self.rows);
        rows.map(|row| self.line(row, &widths, in_colour)).collect()
    }

    /// The width of each column; `None` for one that is not shown.
    fn widths(&self, limit: Option<usize>) -> Vec<Option<usize>> {
        let natural = self.columns.iter().enumerate().map(|(index, column)| {
            let cells = self.rows.iter().map(|row| row[index].width());
            let widest = cells.chain([column.header.len()]).max().unwrap_or(0);
            (self.is_wide || !column.is_wide_only).then_some(widest)
        });
        let mut widths: Vec<_> = natural.collect();
        let Some(limit) = limit else {
            return widths;
        };
        loop {
            let shown = widths.iter().flatten();
            let total = shown.clone().sum::<usize>() + GAP.len() * shown.count().saturating_sub(1);
            let shrinkable = widths.iter_mut().zip(&self.columns);
            let widest = shrinkable
                .filter_map(|(width, column)| width.as_mut().filter(|_| column.can_shrink))
                .filter(|width| **width > MIN_WIDTH)
                .max();
            match widest {
                Some(width) if total > limit => *width -= 1,
                _ => return widths,
            }
        }
    }

    fn line(&self, row: &[Text], widths: &[Option<usize>], in_colour: bool) -> String {
        let cells = row.iter().zip(widths).zip(&self.columns);
        let mut line = String::new();
        let mut is_first = true;
        for ((text, width), column) in cells {
            let Some(width) = *width else {
                continue;
            };
            if !is_first {
                line.push_str(GAP);
            }
            is_first = false;
            let text_shown = text.shortened(width);
            let padding = " ".repeat(width.saturating_sub(text_shown.width()));
            let shown = painted(&text_shown, text.tone, in_colour);
            if column.is_number {
                line.push_str(&padding);
                line.push_str(&shown);
            } else {
                line.push_str(&shown);
                line.push_str(&padding);
            }
        }
        line.truncate(line.trim_end().len());
        line
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const COLUMNS: [Column; 4] = [
        Column::new("ID"),
        Column::number("WEIGHT"),
        Column::new("ZONE").wide_only(),
        Column::new("TAGS").can_shrink(),
    ];

    fn table(is_wide: bool) -> Table {
        let mut table = Table::new(&COLUMNS, is_wide);
        table.row(["web-1", "1", "eu", "a,long,list,of,tags,東京"].map(Text::new));
        table.row([
            Text::new("café-22"),
            Text::new(100),
            Text::none(),
            Text::none(),
        ]);
        table
    }

    fn lines(is_wide: bool, limit: Option<usize>) -> Vec<String> {
        table(is_wide).lines(limit, false)
    }

    #[test]
    fn columns_are_aligned_by_their_visible_width() {
        assert_eq!(
            lines(false, None),
            [
                "ID       WEIGHT  TAGS",
                "web-1         1  a,long,list,of,tags,東京",
                "café-22     100  -",
            ]
        );
    }

    #[test]
    fn a_table_is_cut_to_the_terminal_and_a_wide_one_is_not() {
        for line in lines(false, Some(32)) {
            assert!(line.width() <= 32, "{line}");
        }
        assert!(lines(false, Some(32))[1].ends_with("a,long,list,of…"));
        // It fits exactly.
        let whole = "web-1         1  a,long,list,of,tags,東京";
        assert_eq!(lines(false, Some(whole.width()))[1], whole);
        let cut = &lines(false, Some(whole.width() - 1))[1];
        assert!(cut.ends_with("tags,東…"), "{cut}");
        assert_eq!(
            lines(true, None)[..2],
            [
                "ID       WEIGHT  ZONE  TAGS",
                "web-1         1  eu    a,long,list,of,tags,東京"
            ]
        );
        // Columns that can't shrink are never shortened, and others to 12 columns at least.
        let narrow = &lines(false, Some(5))[1];
        assert_eq!(narrow, "web-1         1  a,long,list…");
    }

    #[test]
    fn the_widest_column_is_shortened_first() {
        let columns = [Column::new("A").can_shrink(), Column::new("B").can_shrink()];
        let mut table = Table::new(&columns, false);
        table.row([Text::new("a".repeat(20)), Text::new("b".repeat(30))]);
        let widths = |limit| table.widths(Some(limit));
        assert_eq!(widths(52), [Some(20), Some(30)]);
        assert_eq!(widths(45), [Some(20), Some(23)]);
        assert_eq!(widths(40), [Some(19), Some(19)]);
        assert_eq!(widths(1), [Some(12), Some(12)]);
    }

    #[test]
    fn colours_show_the_meaning_of_a_text_and_take_up_no_columns() {
        let columns = [Column::number("N"), Column::new("STATE")];
        let mut table = Table::new(&columns, false);
        table.row([Text::toned(Tone::Bad, 5), Text::toned(Tone::Good, "up")]);
        table.row([Text::new(10), Text::none()]);
        assert_eq!(
            table.lines(None, true),
            [
                " \x1b[1mN\x1b[0m  \x1b[1mSTATE\x1b[0m",
                " \x1b[31m5\x1b[0m  \x1b[32mup\x1b[0m",
                "10  \x1b[2m-\x1b[0m",
            ]
        );
        assert_eq!(table.lines(None, false), [" N  STATE", " 5  up", "10  -"]);
        for (health, tone) in [
            (Health::Passing, Tone::Good),
            (Health::Unchecked, Tone::Plain),
            (Health::Warning, Tone::Caution),
            (Health::Draining, Tone::Caution),
            (Health::Critical, Tone::Bad),
        ] {
            assert_eq!(Tone::from(health), tone);
        }
        let parameters = [Tone::Plain, Tone::Faint, Tone::Caution].map(Tone::parameters);
        assert_eq!(parameters, ["", "2", "33"]);
    }

    #[test]
    fn a_missing_text_is_a_dash_and_control_characters_are_escaped() {
        assert_eq!(Text::or_none(Some("")), Text::none());
        assert_eq!(Text::or_none(None::<u16>), Text::none());
        assert_eq!(Text::or_none(Some(80)), Text::new("80"));
        let text = Text::new("a\x1b[31mb");
        assert!(!text.escaped.contains('\x1b'), "{text:?}");
    }
}
