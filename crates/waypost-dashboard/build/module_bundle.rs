//! Joins the modules of the page into one script, so that a first visit needs one request instead
//! of twenty. Checkers and editors see the modules as they are.
//!
//! The modules share one scope. They have to be written like those of the page: with
//! `import { a, b } from "./name.js";` or `import * as a from "./name.js";` on one line, declarations at
//! the beginning of a line, no name that two modules declare, and no import cycle.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use crate::script::minify_script;

struct Module {
    imports: Vec<String>,
    /// Names by which this module knows all exports of another one.
    namespaces: Vec<(String, String)>,
    /// What it declares, and whether that is exported.
    declared: Vec<(String, bool)>,
    script: String,
}

/// A script that consists of the module `first` and all modules that it imports.
///
/// # Panics
/// If an imported module is missing, or two modules declare the same name. This fails the build.
pub(crate) fn bundle(modules: &[(String, String)], first: &str) -> String {
    let modules: BTreeMap<&str, Module> = modules
        .iter()
        .map(|(name, source)| (name.as_str(), Module::new(source)))
        .collect();
    let mut order = Vec::new();
    visit(first, &modules, &mut order);
    let mut script = String::new();
    let mut declared: BTreeSet<&str> = BTreeSet::new();
    let mut namespaces = BTreeSet::new();
    for module in order.iter().map(|name| &modules[name]) {
        for (name, _) in &module.declared {
            assert!(declared.insert(name), "{name} is declared by two modules");
        }
        for (name, of) in &module.namespaces {
            if namespaces.insert(name) {
                let exports = modules[of.as_str()].declared.iter();
                let exports: Vec<_> = exports
                    .filter(|(_, is_exported)| *is_exported)
                    .map(|(name, _)| name.as_str())
                    .collect();
                let _ = writeln!(script, "const {name}={{{}}};", exports.join(","));
            }
        }
        script.push_str(&module.script);
    }
    for name in namespaces {
        assert!(
            !declared.contains(name.as_str()),
            "{name} is declared by a module too"
        );
    }
    minify_script(&script, &declared)
}

/// Adds a module to `order`, after those that it imports.
fn visit<'a>(name: &'a str, modules: &'a BTreeMap<&str, Module>, order: &mut Vec<&'a str>) {
    if order.contains(&name) {
        return;
    }
    assert!(modules.contains_key(name), "no module {name}");
    for import in &modules[name].imports {
        visit(import, modules, order);
    }
    order.push(name);
}

impl Module {
    fn new(source: &str) -> Self {
        let mut module = Self {
            imports: Vec::new(),
            namespaces: Vec::new(),
            declared: Vec::new(),
            script: String::new(),
        };
        let mut lines = String::new();
        for line in source.lines() {
            if let Some((names, from)) = parse_import(line) {
                if let Some(name) = names.strip_prefix("* as ") {
                    module.namespaces.push((name.to_owned(), from.to_owned()));
                }
                module.imports.push(from.to_owned());
                continue;
            }
            let declaration = line.strip_prefix("export ").unwrap_or(line);
            if let Some(name) = declared_name(declaration) {
                let is_exported = declaration != line;
                module.declared.push((name.to_owned(), is_exported));
            }
            lines.push_str(declaration);
            lines.push('\n');
        }
        module.script = lines;
        module
    }
}

/// The names and the module of an import.
fn parse_import(line: &str) -> Option<(&str, &str)> {
    let (names, from) = line.strip_prefix("import ")?.split_once(" from \"./")?;
    Some((names, from.strip_suffix(".js\";")?))
}

/// The name that a line such as `const a = 1` declares at the top level.
fn declared_name(line: &str) -> Option<&str> {
    let line = line.strip_prefix("async ").unwrap_or(line);
    let kinds = ["function ", "const ", "let ", "class "];
    let rest = kinds.iter().find_map(|kind| line.strip_prefix(kind))?;
    let end = rest.find(|c: char| !c.is_alphanumeric() && c != '_')?;
    Some(&rest[..end]).filter(|name| !name.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn modules(sources: &[(&str, &str)]) -> Vec<(String, String)> {
        let owned = sources.iter();
        owned
            .map(|(name, source)| ((*name).to_owned(), (*source).to_owned()))
            .collect()
    }

    #[test]
    fn modules_become_one_script_in_the_order_of_their_imports() {
        let modules = modules(&[
            (
                "app",
                "// Comment.\nimport { one, two } from \"./numbers.js\";\nimport * as texts from \"./texts.js\";\nshow(texts.join(one, two));\n",
            ),
            (
                "numbers",
                "export const one = 1;\nexport async function two() {\n  return 2;\n}\n",
            ),
            (
                "texts",
                "import { one } from \"./numbers.js\";\nconst dash = \" - \";\nexport const join = (a, b) => `${a}${dash}${b} ${one}`;\n",
            ),
            ("unused", "export const three = 3;\n"),
        ]);
        // Without `one`, `two` and `dash`, which get short names.
        let expected = "const c=1;async function e(){return 2;}\n\
            const d=\" - \";const join=(a,b)=>`${a}${d}${b} ${c}`;\
            const texts={join};show(texts.join(c,e));";
        assert_eq!(bundle(&modules, "app"), expected);
    }

    #[test]
    #[should_panic(expected = "one is declared by two modules")]
    fn a_name_belongs_to_one_module() {
        let modules = modules(&[
            ("a", "import { two } from \"./b.js\";\nconst one = 1;\n"),
            ("b", "const one = 2;\nexport const two = one;\n"),
        ]);
        bundle(&modules, "a");
    }
}
