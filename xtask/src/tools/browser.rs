//! Chromium and chromedriver, for the tests of the pages.

use std::path::PathBuf;

use super::debian;
use crate::shell::{Result, find_on_path};

/// A browser and its driver.
pub(crate) struct Browser {
    pub(crate) chromium: PathBuf,
    pub(crate) driver: PathBuf,
}

/// Finds the browser. On Debian, a missing one is installed if this runs as root.
pub(crate) fn find_or_install() -> Result<Browser> {
    if let Some(browser) = find()? {
        return Ok(browser);
    }
    if !(debian::is_debian() && debian::is_root()) {
        return Err(advice());
    }
    debian::install(&["chromium", "chromium-driver"])?;
    find()?.ok_or_else(advice)
}

fn find() -> Result<Option<Browser>> {
    let chromium = named_or_on_path(
        "WAYPOST_CHROMIUM",
        &[
            "chromium",
            "chromium-browser",
            "google-chrome",
            "google-chrome-stable",
        ],
    )?;
    let driver = named_or_on_path("WAYPOST_CHROMEDRIVER", &["chromedriver"])?;
    Ok(chromium
        .zip(driver)
        .map(|(chromium, driver)| Browser { chromium, driver }))
}

fn named_or_on_path(variable: &str, names: &[&str]) -> Result<Option<PathBuf>> {
    match std::env::var_os(variable).map(PathBuf::from) {
        Some(path) if path.is_file() => Ok(Some(path)),
        Some(path) => Err(format!("{variable}: no such file: {}", path.display())),
        None => Ok(find_on_path(names)),
    }
}

fn advice() -> String {
    let how = if debian::is_debian() {
        "run: sudo apt-get update && sudo apt-get install chromium chromium-driver"
    } else {
        "install Chromium or Chrome and the chromedriver of the same version"
    };
    format!(
        "the tests need Chromium and chromedriver: {how}\n\
         (or set WAYPOST_CHROMIUM and WAYPOST_CHROMEDRIVER to their paths)"
    )
}
