//! The code blocks of a page of Markdown, with what the comments before them say.

/// A fenced block.
#[derive(Debug)]
pub(crate) struct Block {
    /// The page, relative to the root of the repository.
    pub(crate) page: String,
    /// The line of the opening fence, from 1.
    pub(crate) line: usize,
    /// The info string, such as `sh` or `rust,no_run`.
    pub(crate) info: String,
    pub(crate) text: String,
    pub(crate) directives: Vec<Directive>,
}

/// What a comment in front of a block says about it.
#[derive(Debug, PartialEq)]
pub(crate) enum Directive {
    /// `not run: REASON`
    NotRun(String),
    /// `file: PATH`: the block is the content of this file in the page's folder.
    File(String),
    /// `part of: PATH`: the lines of the block are in this file of the repository.
    PartOf(String),
    /// `first: COMMANDS`: what a reader has done before.
    First(String),
    /// `until: COMMAND`: the block runs in the background; the next one waits until this command succeeds.
    Until(String),
    /// `as: KIND`: the block is read as a `stack file`, `routes file`, `services file`,
    /// `cargo manifest` or `yaml`.
    As(String),
    /// `numbers vary`: numbers in the output, such as ports and times, are not compared.
    NumbersVary,
    /// `output varies`: the output is an example.
    OutputVaries,
    /// `needs: PROGRAM`: run only where this program is on `PATH`.
    Needs(String),
    /// `fails`: the last command fails.
    Fails,
}

impl Block {
    pub(crate) fn language(&self) -> &str {
        let mut words = self.info.split([',', ' ']);
        words.next().unwrap_or_default()
    }

    /// Where the block is, for messages.
    pub(crate) fn place(&self) -> String {
        format!("{}:{}", self.page, self.line)
    }

    pub(crate) fn not_run(&self) -> Option<&str> {
        self.directives.iter().find_map(|it| match it {
            Directive::NotRun(reason) => Some(reason.as_str()),
            _ => None,
        })
    }
}

/// The fenced blocks of a page.
///
/// # Panics
/// If a comment is a directive that doesn't exist, or a fence is not closed.
pub(crate) fn blocks(page: &str, text: &str) -> Vec<Block> {
    let mut found = Vec::new();
    let mut directives = Vec::new();
    let mut lines = text.lines().enumerate();
    while let Some((number, line)) = lines.next() {
        let start = line.trim_start();
        if let Some(comment) = start.strip_prefix("<!-- ") {
            let mut comment = comment.to_owned();
            while !comment.contains("-->") {
                let (_, next) = lines.next().unwrap_or_else(|| unclosed(page, number));
                comment.push('\n');
                comment.push_str(next);
            }
            let comment = comment.split("-->").next().unwrap_or_default();
            directives.extend(directive(comment.trim()));
        } else if let Some(info) = start.strip_prefix("```") {
            let indent = line.len() - start.len();
            let mut body = String::new();
            loop {
                let (_, next) = lines.next().unwrap_or_else(|| unclosed(page, number));
                if next.trim() == "```" {
                    break;
                }
                body.push_str(next.get(indent..).unwrap_or_default());
                body.push('\n');
            }
            found.push(Block {
                page: page.to_owned(),
                line: number + 1,
                info: info.trim().to_owned(),
                text: body,
                directives: std::mem::take(&mut directives),
            });
        } else if !start.is_empty() {
            assert!(
                directives.is_empty(),
                "{page}:{}: no block follows {directives:?}",
                number + 1
            );
        }
    }
    found
}

fn unclosed(page: &str, number: usize) -> ! {
    panic!("{page}:{}: not closed", number + 1)
}

/// Other comments mean nothing.
fn directive(comment: &str) -> Option<Directive> {
    let (name, value) = comment.split_once(':').unwrap_or((comment, ""));
    let value = value.trim().to_owned();
    Some(match name {
        "not run" => Directive::NotRun(value),
        "file" => Directive::File(value),
        "part of" => Directive::PartOf(value),
        "first" => Directive::First(value),
        "until" => Directive::Until(value),
        "as" => Directive::As(value),
        "needs" => Directive::Needs(value),
        "numbers vary" => Directive::NumbersVary,
        "output varies" => Directive::OutputVaries,
        "fails" => Directive::Fails,
        _ => return None,
    })
}

#[test]
fn a_block_has_the_directives_in_front_of_it() {
    let page = "Text\n\n<!-- first: mkdir a\nmkdir b -->\n<!-- fails -->\n\n  ```console\n  $ ls\n    a\n  ```\n\n```sh\nx\n```\n";
    let found = blocks("page.md", page);
    assert_eq!(found.len(), 2);
    assert_eq!((found[0].line, found[0].language()), (7, "console"));
    assert_eq!(found[0].text, "$ ls\n  a\n");
    let first = Directive::First("mkdir a\nmkdir b".to_owned());
    assert_eq!(found[0].directives, [first, Directive::Fails]);
    assert_eq!(found[1].directives, []);
}
