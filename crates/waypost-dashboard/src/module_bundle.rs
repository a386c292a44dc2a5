//! Joins the modules of the page into one script, so that a first visit needs one request instead
//! of twenty. Checkers and editors see the modules as they are.
//!
//! Each module becomes a function that returns its exports. Modules have to be written like those of
//! the page: with `import { a, b } from "./name.js";` or `import * as a from "./name.js";` on one line,
//! named exports at the beginning of a line, and without import cycles.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use crate::minify::minify_script;

struct Module {
    imports: Vec<String>,
    script: String,
}

/// A script that consists of the module `first` and all modules that it imports.
///
/// # Panics
/// If an imported module is missing, which a test would find.
pub(crate) fn bundle(modules: &[(&str, &str)], first: &str) -> String {
    let modules: BTreeMap<&str, Module> = modules
        .iter()
        .map(|(name, source)| (*name, Module::new(name, source)))
        .collect();
    let mut order = Vec::new();
    visit(first, &modules, &mut order);
    let scripts = order.iter().map(|name| modules[name].script.as_str());
    scripts.collect()
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
    fn new(name: &str, source: &str) -> Self {
        let mut imports = Vec::new();
        let mut exports = Vec::new();
        let mut script = String::new();
        for line in minify_script(source).lines() {
            if let Some((names, module)) = parse_import(line) {
                let names = names.strip_prefix("*as ").unwrap_or(names);
                let _ = writeln!(script, "const {names}=${module};");
                imports.push(module.to_owned());
            } else if let Some(rest) = line.strip_prefix("export ") {
                exports.extend(declared_name(rest).map(str::to_owned));
                script.push_str(rest);
                script.push('\n');
            } else {
                script.push_str(line);
                script.push('\n');
            }
        }
        let exports = exports.join(",");
        Self {
            imports,
            script: format!("const ${name}=(()=>{{\n{script}return{{{exports}}}}})();\n"),
        }
    }
}

/// The names and the module of an import.
fn parse_import(line: &str) -> Option<(&str, &str)> {
    let (names, from) = line.strip_prefix("import")?.split_once("from\"./")?;
    Some((names.trim(), from.strip_suffix(".js\";")?))
}

/// The name that a declaration such as `const a = 1` declares.
fn declared_name(declaration: &str) -> Option<&str> {
    let words = declaration.split(|c: char| !c.is_alphanumeric() && c != '_');
    const KEYWORDS: [&str; 5] = ["async", "function", "const", "class", ""];
    words.into_iter().find(|word| !KEYWORDS.contains(word))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modules_become_one_script_in_the_order_of_their_imports() {
        let modules = [
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
                "import { one } from \"./numbers.js\";\nexport const join = (a, b) => `${a} - ${b} ${one}`;\n",
            ),
            ("unused", "export const three = 3;\n"),
        ];
        let expected = "const $numbers=(()=>{\nconst one=1;\nasync function two(){\nreturn 2;\n}\nreturn{one,two}})();\n\
            const $texts=(()=>{\nconst{one}=$numbers;\nconst join=(a,b)=>`${a} - ${b} ${one}`;\nreturn{join}})();\n\
            const $app=(()=>{\nconst{one,two}=$numbers;\nconst texts=$texts;\nshow(texts.join(one,two));\nreturn{}})();\n";
        let joined = bundle(&modules, "app").replace("const {", "const{");
        assert_eq!(joined, expected);
    }
}
