//! Prepares the files of the page: the modules as one script, without comments and white space, and
//! everything compressed once, better than a server could while it responds.

#![allow(missing_docs, reason = "a build script has no API")]

mod module_bundle;
mod script;
mod style;

use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};

use zopfli::{Format, Options};

use crate::module_bundle::bundle;
use crate::style::minify_css;

/// The module that runs first; it imports the others.
const FIRST_MODULE: &str = "start";

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=page");
    println!("cargo::rerun-if-changed=build");
    let page = PathBuf::from(variable("CARGO_MANIFEST_DIR")?).join("page");
    let out = PathBuf::from(variable("OUT_DIR")?);
    let script = bundle(&modules(&page)?, FIRST_MODULE);
    write(&out, "app.js", &script)?;
    let style = minify_css(&fs::read_to_string(page.join("style.css"))?);
    write(&out, "style.css", &style)?;
    let icon = fs::read_to_string(page.join("icon.svg"))?;
    write(&out, "icon.svg", &icon)
}

fn variable(name: &str) -> Result<String, Box<dyn Error>> {
    std::env::var(name).map_err(|error| format!("{name}: {error}").into())
}

/// The modules of the page by name.
fn modules(page: &Path) -> Result<Vec<(String, String)>, Box<dyn Error>> {
    let mut modules = Vec::new();
    for file in fs::read_dir(page)? {
        let path = file?.path();
        if path.extension().is_some_and(|it| it == "js")
            && let Some(name) = path.file_stem()
        {
            let name = name.to_string_lossy().into_owned();
            modules.push((name, fs::read_to_string(&path)?));
        }
    }
    Ok(modules)
}

/// Writes a file, and beside it the same compressed.
fn write(out: &Path, name: &str, content: &str) -> Result<(), Box<dyn Error>> {
    fs::write(out.join(name), content)?;
    let compressed = fs::File::create(out.join(format!("{name}.gz")))?;
    zopfli::compress(
        Options::default(),
        Format::Gzip,
        content.as_bytes(),
        compressed,
    )?;
    Ok(())
}
