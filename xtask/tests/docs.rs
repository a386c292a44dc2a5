//! The documentation agrees with the code, and its links are valid.

#![allow(clippy::unwrap_used)] // a panic fails the test

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

fn workspace() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap()
}

/// All files below a directory with this extension.
fn files(directory: &Path, extension: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() && !path.ends_with("target") {
            found.extend(files(&path, extension));
        } else if path.extension().is_some_and(|it| it == extension) {
            found.push(path);
        }
    }
    found.sort();
    found
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn page(name: &str) -> String {
    read(&workspace().join("docs").join(name))
}

/// The code of the published crates, without comments and unit tests.
fn code() -> String {
    let mut code = String::new();
    for members in ["crates", "samples"] {
        for member in fs::read_dir(workspace().join(members)).unwrap() {
            for file in files(&member.unwrap().path().join("src"), "rs") {
                let text = read(&file);
                // Some tests also need a feature: `#[cfg(all(test, …))]`.
                let text = text.split("\nmod tests {").next().unwrap();
                let lines = text.lines().map(str::trim_start);
                for line in lines.filter(|line| !line.starts_with("//")) {
                    code.push_str(line);
                    code.push('\n');
                }
            }
        }
    }
    code
}

fn is_upper_case(text: &str) -> bool {
    let mut bytes = text.bytes();
    bytes.all(|c| c.is_ascii_uppercase() || c.is_ascii_digit() || c == b'_')
}

/// Whether a string in the code has the form of a variable's name.
fn is_variable(text: &str) -> bool {
    const SINGLE_WORDS: [&str; 4] = ["ENVIRONMENT", "HOME", "KUBECONFIG", "PORT"];
    let has_parts = text.contains('_') && text.split('_').all(|part| !part.is_empty());
    (has_parts && is_upper_case(text)) || SINGLE_WORDS.contains(&text)
}

#[test]
fn the_reference_has_every_environment_variable_and_no_other() {
    /// Read by the compiler, set for other programs, or only reserved.
    const NOT_READ: [&str; 5] = [
        "CARGO_MANIFEST_DIR",
        "CARGO_PKG_VERSION",
        "KUBERNETES_EXEC_INFO",
        "OUT_DIR",
        "SERVICE_REGISTRY_URL",
    ];
    /// Read by a library, or too short to be distinguished from other strings.
    const OTHERS: [&str; 4] = ["PATH", "RUST_LOG", "SSL_CERT_FILE", "TERM"];

    let code = code();
    let mut expected: BTreeSet<&str> = code
        .split('"')
        .filter(|text| is_variable(text) && !NOT_READ.contains(text))
        .collect();
    expected.extend(OTHERS);

    let page = page("environment.md");
    let rows = page.lines().filter(|line| line.starts_with("| `"));
    let names = rows.filter_map(|row| row.trim_start_matches("| ").split(" | ").next());
    let documented: BTreeSet<&str> = names
        .flat_map(|cell| cell.split('`'))
        .filter(|name| name.len() > 3 && is_upper_case(name))
        .collect();

    let missing: Vec<_> = expected.difference(&documented).collect();
    let unknown: Vec<_> = documented.difference(&expected).collect();
    assert!(
        missing.is_empty(),
        "not in docs/environment.md: {missing:?}"
    );
    assert!(
        unknown.is_empty(),
        "only in docs/environment.md: {unknown:?}"
    );
}

/// The names of the variants of a public enum in a source file.
fn variants(source: &str, name: &str) -> BTreeSet<String> {
    let (_, body) = source.split_once(&format!("pub enum {name} {{\n")).unwrap();
    let (body, _) = body.split_once("\n}").unwrap();
    let lines = body.lines().filter_map(|line| line.strip_prefix("    "));
    let names = lines.filter(|line| line.starts_with(|c: char| c.is_ascii_uppercase()));
    let is_part = |c: char| c.is_ascii_alphanumeric();
    names
        .map(|line| line.chars().take_while(|c| is_part(*c)).collect())
        .collect()
}

#[test]
fn the_reference_has_every_error_and_no_other() {
    let source = read(&workspace().join("crates/waypost-core/src/error.rs"));
    let page = page("errors.md");
    let (errors, rest) = page.split_once("## Failed attempts").unwrap();
    let (attempts, _) = rest.split_once("\n## ").unwrap();
    for (name, part) in [("Error", errors), ("ProviderErrorKind", attempts)] {
        let rows = part.lines().filter_map(|line| line.strip_prefix("| `"));
        let documented: BTreeSet<String> = rows
            .filter_map(|row| row.split('`').next().map(str::to_owned))
            .collect();
        assert_eq!(documented, variants(&source, name), "{name}");
    }
}

/// The first names in the rows of the section of a page with this heading.
fn documented(page: &str, heading: &str) -> BTreeSet<String> {
    let start = format!("\n## {heading}\n");
    let (_, section) = page
        .split_once(&start)
        .unwrap_or_else(|| panic!("no {heading}"));
    let section = section.split("\n## ").next().unwrap();
    let rows = section.lines().filter_map(|line| line.strip_prefix("| `"));
    let cells = rows.filter_map(|row| row.split('|').next());
    cells
        .flat_map(|cell| cell.split('`').step_by(2))
        .map(str::to_owned)
        .filter(|name| !name.is_empty())
        .collect()
}

#[test]
fn observing_has_every_metric_field_and_counter_and_no_other() {
    let page = page("observing.md");
    let source = |path: &str| {
        let text = read(&workspace().join("crates").join(path));
        let code = text.split("\n#[cfg(test)]\nmod tests").next();
        code.unwrap_or_default().to_owned()
    };

    let metrics = source("waypost-gateway/src/pages/metrics.rs");
    let metrics: BTreeSet<String> = metrics
        .split('"')
        .filter(|text| text.starts_with("waypost_gateway_"))
        .map(str::to_owned)
        .collect();
    assert_eq!(documented(&page, "Metrics of the gateway"), metrics);

    let metrics = source("waypost/src/telemetry/recorded.rs");
    let metrics: BTreeSet<String> = metrics
        .split('"')
        .filter(|text| text.starts_with("waypost_client_"))
        .map(str::to_owned)
        .collect();
    assert_eq!(documented(&page, "Metrics of the library"), metrics);

    let mut fields = BTreeSet::new();
    for file in ["span.rs", "tonic/span.rs"] {
        let span = source(&format!("waypost/src/integration/{file}"));
        let (_, span) = span.split_once("info_span!(").unwrap();
        let (span, _) = span.split_once("\n        ))").unwrap();
        let names = span.lines().filter_map(|line| line.split_once(" = "));
        fields.extend(names.map(|(name, _)| name.trim().trim_matches('"').to_owned()));
    }
    assert_eq!(documented(&page, "Spans"), fields);

    let log = source("waypost-gateway/src/access_log.rs");
    let (_, log) = log.split_once("\nfn write_line(").unwrap();
    let log = log.split("\n}\n").next().unwrap();
    let calls = log.split(" line.").skip(1);
    let fields: BTreeSet<String> = calls
        .filter_map(|call| call.split('"').nth(1))
        .map(str::to_owned)
        .collect();
    assert_eq!(documented(&page, "The gateway's access log"), fields);

    let counters = source("waypost/src/outlier/events.rs");
    let (_, counters) = counters.split_once("pub struct BalanceCounters {").unwrap();
    let counters = counters.split("\n}\n").next().unwrap();
    let counters: BTreeSet<String> = counters
        .lines()
        .filter_map(|line| line.trim().strip_prefix("pub ")?.split(':').next())
        .map(str::to_owned)
        .collect();
    assert_eq!(documented(&page, "Counters in the library"), counters);

    let code = code();
    for line in documented(&page, "Log lines") {
        let text = line.trim_start_matches("… ").split(" for ").next().unwrap();
        assert!(code.contains(text), "no log line {text:?}");
    }
}

/// The Markdown files of the repository.
fn markdown() -> Vec<PathBuf> {
    let root = workspace();
    let mut found: Vec<_> = fs::read_dir(root)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|it| it == "md"))
        .collect();
    for directory in [
        "bench",
        "crates",
        "deploy",
        "docs",
        "fuzz",
        "public-api",
        "samples",
        "testing",
    ] {
        found.extend(files(&root.join(directory), "md"));
    }
    found
}

/// The targets of the links in a text, without those in code blocks.
fn links(text: &str) -> Vec<&str> {
    let mut in_code = false;
    let mut found = Vec::new();
    for line in text.lines() {
        if line.trim_start().starts_with("```") {
            in_code = !in_code;
        }
        if !in_code {
            let after = line.split("](").skip(1);
            found.extend(after.filter_map(|rest| rest.split(')').next()));
        }
    }
    found
}

/// The anchors of the headings of a page, as GitHub makes them.
fn anchors(text: &str) -> BTreeSet<String> {
    let headings = text.lines().filter(|line| line.starts_with('#'));
    headings
        .map(|line| {
            let title = line.trim_start_matches('#').trim().to_lowercase();
            let kept = title.chars().filter_map(|c| match c {
                ' ' => Some('-'),
                '-' | '_' => Some(c),
                _ => c.is_alphanumeric().then_some(c),
            });
            kept.collect()
        })
        .collect()
}

#[test]
fn every_relative_link_leads_to_a_file_and_a_heading() {
    let mut broken = Vec::new();
    for file in markdown() {
        let text = read(&file);
        for link in links(&text) {
            // Links of rustdoc name items, which rustdoc checks.
            let is_item = link.contains("::") || !link.contains(['/', '.', '#']);
            if link.contains("://") || is_item {
                continue;
            }
            let (path, anchor) = link.split_once('#').unwrap_or((link, ""));
            let target = match path {
                "" => file.clone(),
                path => file.parent().unwrap().join(path),
            };
            let has_anchor = |anchor: &str| anchors(&read(&target)).contains(anchor);
            let is_page = target.extension().is_some_and(|it| it == "md");
            if !target.exists() || (!anchor.is_empty() && is_page && !has_anchor(anchor)) {
                let shown = file.strip_prefix(workspace()).unwrap().display();
                broken.push(format!("{shown}: {link}"));
            }
        }
    }
    assert!(broken.is_empty(), "broken links:\n{}", broken.join("\n"));
}

/// Whether a text in backticks has the form of a test's name.
fn is_test_name(text: &str) -> bool {
    let is_word = |part: &str| {
        let mut bytes = part.bytes();
        !part.is_empty() && bytes.all(|c| c.is_ascii_lowercase() || c.is_ascii_digit())
    };
    text.split('_').count() > 3 && text.split('_').all(is_word)
}

#[test]
fn every_test_that_a_page_names_exists() {
    let mut sources = String::new();
    for directory in ["crates", "samples", "testing", "xtask"] {
        for file in files(&workspace().join(directory), "rs") {
            sources.push_str(&read(&file));
        }
    }
    let pages = ["failure-cases.md", "requirements.md"].map(page);
    let rows = pages.iter().flat_map(|page| page.lines());
    let rows = rows.filter(|line| line.starts_with('|'));
    let quoted = rows.flat_map(|row| row.split('`').skip(1).step_by(2));
    let names = quoted.filter_map(|text| text.rsplit("::").next());
    let names: BTreeSet<&str> = names.filter(|name| is_test_name(name)).collect();
    assert!(names.len() > 100, "the names of the tests are not found");
    for name in names {
        let function = format!("fn {name}(");
        assert!(sources.contains(&function), "there is no test `{name}`");
    }
}

/// The names in backticks in a text.
fn code_spans(text: &str) -> BTreeSet<&str> {
    text.split('`').skip(1).step_by(2).collect()
}

#[test]
fn the_code_map_names_every_module_and_no_other() {
    /// Explained once, or without a meaning of their own.
    const IN_ALL_CRATES: [&str; 5] = ["error", "fuzz", "lib", "main", "text"];
    let text = read(&workspace().join("ARCHITECTURE.md"));
    let (_, map) = text.split_once("## Code map").unwrap();
    let (map, _) = map.split_once("\n## ").unwrap();
    for entry in fs::read_dir(workspace().join("crates")).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap();
        let section = map.split("\n### ").find(|section| {
            let heading = section.lines().next().unwrap_or_default();
            code_spans(heading).contains(name)
        });
        let section = section.unwrap_or_else(|| panic!("no section about {name}"));
        let modules: BTreeSet<_> = fs::read_dir(path.join("src"))
            .unwrap()
            .map(|module| module.unwrap().path())
            .map(|module| module.file_stem().unwrap().to_str().unwrap().to_owned())
            .collect();
        let named = code_spans(section);
        for module in &modules {
            assert!(
                named.contains(&**module) || IN_ALL_CRATES.contains(&&**module),
                "{name} has the module {module}, which ARCHITECTURE.md does not name"
            );
        }
        let rows = section.lines().filter_map(|row| row.strip_prefix("| `"));
        for row in rows {
            let (cell, _) = row.split_once(" | ").unwrap();
            for module in code_spans(&format!("`{cell}")) {
                assert!(
                    modules.contains(module),
                    "{name} has no module {module}, but ARCHITECTURE.md names it"
                );
            }
        }
    }
}

#[test]
fn every_page_is_in_the_contents() {
    let contents = page("README.md");
    let listed: BTreeSet<&str> = links(&contents).into_iter().collect();
    let missing: Vec<String> = files(&workspace().join("docs"), "md")
        .iter()
        .map(|path| path.strip_prefix(workspace().join("docs")).unwrap())
        .map(|path| path.display().to_string())
        .filter(|path| path != "README.md" && !listed.contains(path.as_str()))
        // Each decision is listed on the page of decisions.
        .filter(|path| !path.starts_with("decisions/") || path == "decisions/README.md")
        .collect();
    assert!(missing.is_empty(), "not in docs/README.md: {missing:?}");
}

/// The commands `waypost …` in the code of a page: in blocks and inline.
fn commands(text: &str) -> Vec<Vec<&str>> {
    let mut in_block = false;
    let mut found = Vec::new();
    for line in text.lines() {
        if line.trim_start().starts_with("```") {
            in_block = !in_block;
            continue;
        }
        let code: Vec<&str> = if in_block {
            vec![line.split(" #").next().unwrap()]
        } else {
            line.split('`').skip(1).step_by(2).collect()
        };
        for code in code
            .iter()
            .flat_map(|code| code.split([';', '|', '&', '(', '$']))
        {
            let words: Vec<&str> = code.split_whitespace().collect();
            if words.first() == Some(&"waypost") && words.len() > 1 && words[1] != "help" {
                found.push(words);
            }
        }
    }
    found
}

#[test]
fn every_command_in_the_documentation_exists_with_its_options() {
    let reference = page("commands.md");
    let (common, _) = reference.split_once("\n## `").unwrap();
    let section = |name: &str| {
        let start = format!("\n## `{name}`\n");
        let (_, rest) = reference.split_once(&start)?;
        rest.split("\n## `").next()
    };
    let mut unknown = Vec::new();
    for file in markdown() {
        // The history names what no longer exists; the reference lists examples of its own.
        if file.ends_with("CHANGELOG.md") || file.ends_with("docs/commands.md") {
            continue;
        }
        let text = read(&file);
        for words in commands(&text) {
            let mut name = "waypost".to_owned();
            let mut depth = 1;
            while let Some(longer) = words.get(depth).map(|word| format!("{name} {word}"))
                && section(&longer).is_some()
            {
                name = longer;
                depth += 1;
            }
            let text = section(&name).unwrap();
            let known = |option: &str| {
                let mut lines = text.lines().chain(common.lines());
                let is_it = |word: &str| word.trim_end_matches(['.', ',']) == option;
                lines.any(|line| line.trim_start().starts_with('-') && line.split(' ').any(is_it))
            };
            let options = words[depth..].iter().take_while(|word| **word != "--");
            let options = options.filter(|word| word.starts_with('-') && word.len() > 1);
            let options = options.map(|word| word.split('=').next().unwrap());
            let wrong: Vec<_> = options.filter(|it| !known(it) && *it != "--help").collect();
            let is_group = text.contains("\nCommands:\n");
            let next = words.get(depth).copied().unwrap_or("-");
            let lacks_command = is_group && next.starts_with(|c: char| c.is_ascii_lowercase());
            if !wrong.is_empty() || lacks_command {
                let shown = file.strip_prefix(workspace()).unwrap().display();
                unknown.push(format!("{shown}: {}", words.join(" ")));
            }
        }
    }
    assert!(unknown.is_empty(), "{}", unknown.join("\n"));
}

/// The names in a file of the fields of all structs that are deserialized.
fn deserialized_fields(source: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let mut is_deserialized = false;
    let mut in_struct = false;
    let mut renamed = None;
    for line in source.lines() {
        let text = line.trim();
        if text.starts_with("#[derive(") {
            is_deserialized = text.contains("Deserialize");
        } else if line.contains("struct ") && line.ends_with('{') {
            in_struct = is_deserialized;
        } else if line == "}" {
            in_struct = false;
        } else if text.starts_with("#[serde(") {
            let name = text.split("rename = \"").nth(1);
            renamed = name.and_then(|rest| rest.split('"').next());
            // Such a struct is read as another one.
            is_deserialized &= !text.contains("try_from");
            if text.contains("flatten") || text.contains("skip") {
                renamed = Some("");
            }
        } else if in_struct && text.ends_with(',') && !text.starts_with("//") {
            let name = text.split(':').next().unwrap();
            let name = name.split_whitespace().last().unwrap();
            let name = renamed.take().unwrap_or(name);
            if !name.is_empty() {
                found.insert(name.to_owned());
            }
        }
    }
    found
}

/// The words in the inline code of a text.
fn words_of_code(text: &str) -> BTreeSet<&str> {
    let code = text.split('`').skip(1).step_by(2);
    code.flat_map(|code| code.split(|c: char| !c.is_ascii_alphanumeric() && c != '_' && c != '-'))
        .collect()
}

#[test]
fn the_references_of_the_files_have_every_key() {
    for (source, page_name, heading, replaced) in [
        (
            "waypost-gateway/src/routes/file.rs",
            "gateway.md",
            "Routes file",
            "_",
        ),
        (
            "waypost-runner/src/stack_file/format.rs",
            "running-locally.md",
            "The file",
            "-",
        ),
    ] {
        let source = read(&workspace().join("crates").join(source));
        let page = page(page_name);
        let (_, section) = page.split_once(&format!("\n## {heading}\n")).unwrap();
        // The next section has details of some keys.
        let section: Vec<&str> = section.split("\n## ").take(2).collect();
        let section = section.join("\n");
        let documented = words_of_code(&section);
        let missing: Vec<String> = deserialized_fields(&source)
            .into_iter()
            .map(|name| name.replace('_', replaced))
            .filter(|name| {
                !documented.contains(name.as_str()) && !section.contains(&format!("{name}:"))
            })
            .collect();
        assert!(missing.is_empty(), "not in docs/{page_name}: {missing:?}");
    }
}
