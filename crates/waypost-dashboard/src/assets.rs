//! The files of the page, as they are sent: the modules as one script, without comments, and
//! compressed.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::Write;
use std::sync::OnceLock;

use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;

use crate::minify::minify_css;
use crate::module_bundle::bundle;

/// The document. The rest is loaded by it.
pub(crate) const INDEX: &str = include_str!("../page/index.html");

const STYLE: &str = include_str!("../page/style.css");
const ICON: &str = include_str!("../page/icon.svg");

macro_rules! modules {
    ($($name:literal),+ $(,)?) => {
        &[$(($name, include_str!(concat!("../page/", $name, ".js")))),+]
    };
}

/// The modules of the page by name.
const MODULES: &[(&str, &str)] = modules![
    "actions", "add", "address", "app", "charts", "dom", "drawer", "feed", "format", "icons",
    "keys", "lines", "logs", "map", "model", "palette", "registry", "services", "sse", "start",
    "state", "store", "worker",
];

/// The module that runs first; it imports the others.
const FIRST_MODULE: &str = "start";

/// A file as it is sent.
pub(crate) struct Asset {
    pub(crate) name: &'static str,
    pub(crate) media_type: &'static str,
    pub(crate) plain: Bytes,
    pub(crate) gzip: Bytes,
}

/// All files, and a hash of their contents. Their addresses contain it, so that browsers may keep
/// them forever.
pub(crate) struct Assets {
    pub(crate) files: [Asset; 3],
    pub(crate) hash: String,
}

impl Assets {
    /// The files. They are created by the first call.
    pub(crate) fn get() -> &'static Self {
        static ASSETS: OnceLock<Assets> = OnceLock::new();
        ASSETS.get_or_init(|| {
            let files = [
                Asset::new(
                    "app.js",
                    "text/javascript; charset=utf-8",
                    bundle(MODULES, FIRST_MODULE),
                ),
                Asset::new("style.css", "text/css; charset=utf-8", minify_css(STYLE)),
                Asset::new("icon.svg", "image/svg+xml", ICON.to_owned()),
            ];
            let hash = hash(files.iter().map(|file| &file.plain));
            Self { files, hash }
        })
    }
}

impl Asset {
    fn new(name: &'static str, media_type: &'static str, content: String) -> Self {
        let plain = Bytes::from(content);
        Self {
            name,
            media_type,
            gzip: compress(&plain),
            plain,
        }
    }
}

/// A hash of contents, for addresses and entity tags.
pub(crate) fn hash(contents: impl IntoIterator<Item: AsRef<[u8]>>) -> String {
    let mut hasher = DefaultHasher::new();
    for content in contents {
        content.as_ref().hash(&mut hasher);
    }
    format!("{:016x}", hasher.finish())
}

pub(crate) fn compress(content: &[u8]) -> Bytes {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    // Writing to memory doesn't fail.
    let _ = encoder.write_all(content);
    encoder.finish().unwrap_or_default().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The limit for everything that a first visit loads, in bytes.
    const BUDGET: usize = 45_000;

    #[test]
    fn the_whole_page_is_smaller_than_its_budget() {
        let sizes: Vec<_> = Assets::get()
            .files
            .iter()
            .map(|file| (file.name, file.gzip.len()))
            .chain([("index.html", compress(INDEX.as_bytes()).len())])
            .collect();
        let total: usize = sizes.iter().map(|(_, size)| size).sum();
        println!("compressed: {total} bytes, {sizes:?}");
        assert!(total <= BUDGET, "{total} > {BUDGET}: {sizes:?}");
    }

    #[test]
    fn every_file_of_the_directory_is_served() {
        let directory = concat!(env!("CARGO_MANIFEST_DIR"), "/page");
        for file in std::fs::read_dir(directory).unwrap() {
            let name = file.unwrap().file_name().into_string().unwrap();
            let is_served = match name.strip_suffix(".js") {
                Some(module) => MODULES.iter().any(|(known, _)| *known == module),
                // The types are only used by the type checker.
                None => ["index.html", "style.css", "icon.svg", "types.d.ts"].contains(&&*name),
            };
            assert!(is_served, "{name}");
        }
    }

    #[test]
    fn no_file_loads_from_elsewhere_or_inserts_html() {
        let modules = MODULES.iter().copied();
        for (name, content) in modules.chain([("index.html", INDEX), ("style.css", STYLE)]) {
            // The SVG namespace is not a link, and addresses of services are shown.
            let content = content
                .replace("http://www.w3.org/2000/svg", "")
                .replace("`http://${", "");
            for forbidden in [
                "http://",
                "https://",
                "src=\"//",
                "@import",
                "innerHTML",
                "outerHTML",
                "insertAdjacentHTML",
                "document.write",
                "eval(",
                "new Function",
            ] {
                assert!(!content.contains(forbidden), "{name} has {forbidden}");
            }
        }
    }
}
