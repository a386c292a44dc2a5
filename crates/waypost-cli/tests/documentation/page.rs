//! Runs the blocks of one page, from top to bottom.

use std::fs;

use crate::compare;
use crate::markdown::{Block, Directive};
use crate::session::{Isolation, Session, repository};

/// How often a command that only reads is repeated until it prints what the page shows, with half a second between.
const ATTEMPTS: u32 = 240;

/// Runs the blocks of a page. Returns what is wrong.
pub(crate) async fn run(isolation: Isolation, blocks: Vec<Block>) -> Vec<String> {
    let is_run = |block: &Block| block.not_run().is_none();
    let mut session = None;
    let mut faults = Vec::new();
    for block in blocks.into_iter().filter(is_run) {
        if session.is_none() && needs_session(&block) {
            session = Some(Session::start(isolation).await);
        }
        let outcome = match &mut session {
            Some(session) if needs_session(&block) => run_block(session, &block).await,
            _ => check_text(&block),
        };
        if let Err(reason) = outcome {
            // What follows depends on it.
            faults.push(format!("{}: {reason}", block.place()));
            break;
        }
    }
    if let Some(session) = session {
        session.end(isolation).await;
    }
    faults
}

fn needs_session(block: &Block) -> bool {
    let is_for_shell = |it: &Directive| {
        matches!(
            it,
            Directive::First(_) | Directive::File(_) | Directive::As(_)
        )
    };
    matches!(
        block.language(),
        "sh" | "console" | "yaml" | "toml" | "json"
    ) || (block.directives.iter().any(is_for_shell) && !is_run_elsewhere(block))
}

/// Whether the block is run by the tests of the Python package, with its `first` lines.
fn is_run_elsewhere(block: &Block) -> bool {
    let is_file = |it: &Directive| matches!(it, Directive::File(_));
    block.language() == "python" && !block.directives.iter().any(is_file)
}

/// Blocks that are not for the shell.
fn check_text(block: &Block) -> Result<(), String> {
    for directive in &block.directives {
        if let Directive::PartOf(path) = directive {
            return part_of(block, path);
        }
    }
    match block.language() {
        // Transcripts, and Rust's name for blocks that it compiles without running them.
        "text" | "no_run" | "rust" | "python" => Ok(()),
        other => Err(format!(
            "a block of the kind {other:?} needs `file:`, `part of:` or `not run:`"
        )),
    }
}

fn part_of(block: &Block, path: &str) -> Result<(), String> {
    let file = repository().join(path);
    let whole = fs::read_to_string(file).map_err(|error| format!("{path}: {error}"))?;
    let lines = |text: &str| -> Vec<String> {
        let lines = text.lines().map(|line| line.trim().to_owned());
        lines.filter(|line| !line.is_empty()).collect()
    };
    let (part, whole) = (lines(&block.text), lines(&whole));
    let is_part = whole.windows(part.len()).any(|window| window == part);
    is_part
        .then_some(())
        .ok_or(format!("the block is not a part of {path}"))
}

async fn run_block(session: &mut Session, block: &Block) -> Result<(), String> {
    let mut until = None;
    for directive in &block.directives {
        match directive {
            Directive::First(commands) => succeed(session, commands).await?,
            Directive::Until(command) => until = Some(command),
            Directive::PartOf(path) => part_of(block, path)?,
            Directive::File(path) => {
                let file = session.folder().join(path);
                fs::create_dir_all(file.parent().unwrap_or(&file)).map_err(|it| it.to_string())?;
                fs::write(file, &block.text).map_err(|error| error.to_string())?;
                if !matches!(block.language(), "yaml" | "toml") {
                    return Ok(());
                }
            }
            Directive::Needs(program) => {
                let there = session.try_run(&format!("command -v {program}")).await;
                if !there.is_success {
                    eprintln!("{}: not run, since there is no {program}", block.place());
                    return Ok(());
                }
            }
            Directive::As(kind) if kind == "cargo manifest" => return check_manifest(&block.text),
            Directive::As(kind) => return check_as(session, block, kind).await,
            _ => {}
        }
    }
    let is_file = |it: &Directive| matches!(it, Directive::File(_) | Directive::PartOf(_));
    match block.language() {
        "sh" if block.directives.contains(&Directive::Fails) => {
            let outcome = session.try_run(&block.text).await;
            let fault = || format!("has succeeded:\n{}", outcome.output);
            (!outcome.is_success).then_some(()).ok_or_else(fault)
        }
        "sh" | "console" if until.is_some() => {
            let commands: Vec<String> = steps(block).into_iter().map(|step| step.command).collect();
            let in_background = format!("{{\n{}\n}} &", commands.join("\n"));
            succeed(session, &in_background).await?;
            let condition = until.map_or("true", String::as_str);
            let wait = format!(
                "for attempt in {{1..1800}}; do if {condition}; then break; fi; sleep 0.1; done\n{condition}"
            );
            succeed(session, &wait).await
        }
        "sh" => succeed(session, &block.text).await,
        "console" => {
            for step in steps(block) {
                compared(session, block, &step).await?;
            }
            Ok(())
        }
        "text" => Ok(()),
        _ if block.directives.iter().any(is_file) => Ok(()),
        other => Err(format!(
            "a block of the kind {other:?} needs `as:`, `file:` or `not run:`"
        )),
    }
}

async fn succeed(session: &mut Session, commands: &str) -> Result<(), String> {
    let outcome = session.run(commands).await;
    let fault = || format!("has failed:\n{commands}\n--- output:\n{}", outcome.output);
    outcome.is_success.then_some(()).ok_or_else(fault)
}

/// Lets the program that reads such a file check it.
async fn check_as(session: &mut Session, block: &Block, kind: &str) -> Result<(), String> {
    let end = block.language();
    let (file, command) = match kind {
        "stack file" => (
            "waypost.toml".to_owned(),
            "waypost check -f $FILE".to_owned(),
        ),
        "routes file" => (
            format!("routes.{end}"),
            "waypost gateway --check $FILE".to_owned(),
        ),
        "services file" => {
            let command = "SERVICE_DISCOVERY_CONFIG_FILE=$FILE waypost services";
            (format!("services.{end}"), command.to_owned())
        }
        "yaml" => {
            let parsed: Result<Vec<serde_json::Value>, _> =
                serde_saphyr::from_multiple(&block.text);
            return parsed.map(drop).map_err(|error| error.to_string());
        }
        other => return Err(format!("as: there is no {other:?}")),
    };
    let path = session.folder().join(file);
    fs::write(&path, &block.text).map_err(|error| error.to_string())?;
    succeed(
        session,
        &format!("FILE={}; {command} >/dev/null", path.display()),
    )
    .await
}

/// Whether the features of `waypost` in a manifest exist.
fn check_manifest(text: &str) -> Result<(), String> {
    let manifest: toml::Table = text.parse().map_err(|error| format!("{error}"))?;
    let own = fs::read_to_string(repository().join("crates/waypost/Cargo.toml")).unwrap();
    let own: toml::Table = own.parse().map_err(|error| format!("{error}"))?;
    let dependencies = manifest
        .get("dependencies")
        .unwrap_or(&toml::Value::Boolean(false));
    let features = dependencies
        .get("waypost")
        .and_then(|it| it.get("features"));
    for feature in features
        .and_then(toml::Value::as_array)
        .into_iter()
        .flatten()
    {
        let name = feature.as_str().unwrap_or_default();
        let exists = own["features"].get(name).is_some();
        exists
            .then_some(())
            .ok_or(format!("waypost has no feature {name:?}"))?;
    }
    Ok(())
}

/// A command of a console, and the output that the page shows.
#[derive(Debug, Default)]
struct Step {
    command: String,
    output: String,
}

/// The commands after `$ `, with further lines after `> `. A block of `sh` is one command.
fn steps(block: &Block) -> Vec<Step> {
    let mut steps: Vec<Step> = Vec::new();
    if block.language() == "sh" {
        let command = block.text.clone();
        return vec![Step {
            command,
            output: String::new(),
        }];
    }
    for line in block.text.lines() {
        match (
            line.strip_prefix("$ "),
            line.strip_prefix("> "),
            steps.last_mut(),
        ) {
            (Some(command), ..) => {
                let command = command.to_owned();
                steps.push(Step {
                    command,
                    output: String::new(),
                });
            }
            (None, Some(more), Some(step)) if step.output.is_empty() => {
                step.command.push('\n');
                step.command.push_str(more);
            }
            (None, _, Some(step)) => {
                step.output.push_str(line);
                step.output.push('\n');
            }
            (None, _, None) => {}
        }
    }
    steps
}

async fn compared(session: &mut Session, block: &Block, step: &Step) -> Result<(), String> {
    let has = |directive: &Directive| block.directives.contains(directive);
    let is_compared = !step.output.trim().is_empty() && !has(&Directive::OutputVaries);
    let numbers_vary = has(&Directive::NumbersVary);
    let attempts = if only_reads(&step.command) {
        ATTEMPTS
    } else {
        1
    };
    let mut outcome = session.try_run(&step.command).await;
    for _ in 1..attempts {
        let is_printed =
            !is_compared || compare::matches(&step.output, &outcome.output, numbers_vary);
        if is_printed && outcome.is_success != has(&Directive::Fails) {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(500)).await;
        outcome = session.try_run(&step.command).await;
    }
    let command = &step.command;
    let output = &outcome.output;
    if outcome.is_success == has(&Directive::Fails) {
        return Err(format!(
            "`{command}` should have had another exit code:\n{output}"
        ));
    }
    if is_compared && !compare::matches(&step.output, output, numbers_vary) {
        let shown = &step.output;
        return Err(format!(
            "`{command}` prints something else:\n{output}--- in the page:\n{shown}"
        ));
    }
    Ok(())
}

/// Whether a command can be repeated without changing anything.
fn only_reads(command: &str) -> bool {
    let words: Vec<&str> = command.split_whitespace().collect();
    match words.as_slice() {
        ["curl", rest @ ..] => !rest.iter().any(|it| ["-X", "-d", "--data"].contains(it)),
        ["waypost", name, ..] => [
            "services",
            "instances",
            "explain",
            "resolve",
            "ps",
            "logs",
            "env",
            "doctor",
        ]
        .contains(name),
        _ => false,
    }
}
