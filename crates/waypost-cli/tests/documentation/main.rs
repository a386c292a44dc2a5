//! Runs the blocks of the pages as they are printed: commands in a shell, files through the parsers that read
//! them. Blocks in Rust are documentation tests of `waypost`; those in Python are run by `python/tests`.
//!
//! `CONTRIBUTING.md` says what the comments in front of a block mean. `PAGE=docs/finding.md` runs one page alone.

#![allow(clippy::unwrap_used)] // in a test a panic is the report

mod compare;
mod markdown;
mod openapi;
mod page;
mod session;

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use futures_util::{StreamExt, stream};
use markdown::{Block, Directive};
use session::{Isolation, repository};

/// Written by `cargo xtask commands`, or about versions that are no longer there.
const NO_PAGES: [&str; 2] = ["docs/commands.md", "CHANGELOG.md"];

/// The pages of the repository with their blocks.
fn pages() -> Vec<(String, Vec<Block>)> {
    let root = repository();
    let mut pages = Vec::new();
    for folder in [
        "", "bench", "crates", "deploy", "docs", "examples", "fuzz", "python", "samples", "testing",
    ] {
        let is_root = folder.is_empty();
        collect(&root, &root.join(folder), !is_root, &mut pages);
    }
    pages.sort();
    let read = |page: String| {
        let text = fs::read_to_string(root.join(&page)).unwrap();
        let blocks = markdown::blocks(&page, &text);
        (page, blocks)
    };
    pages.into_iter().map(read).collect()
}

fn collect(root: &Path, folder: &Path, is_deep: bool, pages: &mut Vec<String>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() && is_deep && !path.ends_with("target") {
            collect(root, &path, true, pages);
        } else if path.extension().is_some_and(|it| it == "md") {
            let page = path.strip_prefix(root).unwrap();
            let page = page.to_str().unwrap().to_owned();
            if !NO_PAGES.contains(&page.as_str()) {
                pages.push(page);
            }
        }
    }
}

#[tokio::test]
async fn the_blocks_of_every_page_run_as_printed() {
    let isolation = Isolation::strongest().await;
    let at_once = if isolation == Isolation::None {
        eprintln!("namespaces are not permitted here: the pages use this machine's ports");
        1
    } else {
        3
    };
    let only = std::env::var("PAGE").ok();
    let pages = pages().into_iter();
    let pages = pages.filter(|(page, _)| only.as_ref().is_none_or(|it| it == page));
    let runs = pages.map(|(_, blocks)| page::run(isolation, blocks));
    let runs: Vec<Vec<String>> = stream::iter(runs).buffer_unordered(at_once).collect().await;
    let faults: Vec<String> = runs.into_iter().flatten().collect();
    assert!(faults.is_empty(), "\n{}", faults.join("\n\n"));
}

/// Writes the list of the blocks that aren't run, if `UPDATE` is set, or compares it with the one in the page.
#[test]
fn the_list_of_blocks_that_are_not_run_is_up_to_date() {
    const HEADING: &str = "| block | begins with | reason |\n|---|---|---|\n";
    let mut list = String::from(HEADING);
    for block in pages().iter().flat_map(|(_, blocks)| blocks) {
        if let Some(reason) = block.not_run() {
            assert!(
                !reason.is_empty(),
                "{}: not run, without a reason",
                block.place()
            );
            let first = block
                .text
                .lines()
                .next()
                .unwrap_or_default()
                .replace('|', "\\|");
            let page = &block.page;
            writeln!(list, "| [{page}](../{page}) | `` {first} `` | {reason} |").unwrap();
        }
    }
    println!("{list}");
    let page = repository().join("docs/not-run.md");
    let text = fs::read_to_string(&page).unwrap();
    let (head, _) = text.split_once(HEADING).unwrap();
    let wanted = format!("{head}{list}");
    if std::env::var_os("UPDATE").is_some() {
        fs::write(page, wanted).unwrap();
    } else {
        assert_eq!(
            text, wanted,
            "UPDATE=1 cargo test -p waypost-cli --test documentation writes it"
        );
    }
}

#[test]
fn every_block_in_rust_is_a_documentation_test() {
    let root = repository();
    let mut sources = String::new();
    for name in fs::read_dir(root.join("crates")).unwrap() {
        let lib = name.unwrap().path().join("src/lib.rs");
        sources.push_str(&fs::read_to_string(lib).unwrap_or_default());
    }
    for block in pages().iter().flat_map(|(_, blocks)| blocks) {
        let is_rust = block.language() == "rust" || block.info == "no_run";
        if is_rust && block.not_run().is_none() {
            // Parts of programs that the compiler sees as a whole.
            let is_part = |it: &Directive| matches!(it, Directive::PartOf(_));
            if block.directives.iter().any(is_part) {
                continue;
            }
            let is_own_readme = block.page.starts_with("crates/");
            let included = format!("include_str!(\"../../../{}\")", block.page);
            assert!(
                is_own_readme || sources.contains(&included),
                "{}: include the page in crates/waypost/src/lib.rs",
                block.place()
            );
            assert!(!block.info.contains("ignore"), "{}: ignored", block.place());
        }
    }
}
