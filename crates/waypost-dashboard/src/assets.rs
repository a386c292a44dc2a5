//! The files of the page, as the build script has prepared them: the modules as one script, without
//! comments, and compressed.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::Write;
use std::sync::OnceLock;

use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;

/// The document. The rest is loaded by it.
pub(crate) const INDEX: &str = include_str!("../page/index.html");

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

macro_rules! asset {
    ($name:literal, $media_type:literal) => {
        Asset {
            name: $name,
            media_type: $media_type,
            plain: Bytes::from_static(include_bytes!(concat!(env!("OUT_DIR"), "/", $name))),
            gzip: Bytes::from_static(include_bytes!(concat!(env!("OUT_DIR"), "/", $name, ".gz"))),
        }
    };
}

impl Assets {
    pub(crate) fn get() -> &'static Self {
        static ASSETS: OnceLock<Assets> = OnceLock::new();
        ASSETS.get_or_init(|| {
            let files = [
                asset!("app.js", "text/javascript; charset=utf-8"),
                asset!("style.css", "text/css; charset=utf-8"),
                asset!("icon.svg", "image/svg+xml"),
            ];
            let hash = hash(files.iter().map(|file| &file.plain));
            Self { files, hash }
        })
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
    use std::path::Path;

    #[test]
    fn no_file_loads_from_elsewhere_or_inserts_html() {
        let page = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/page"));
        for file in std::fs::read_dir(page).unwrap() {
            let path = file.unwrap().path();
            let content = std::fs::read_to_string(&path).unwrap();
            // The namespaces are not links, and addresses of services are shown.
            let content = content
                .replace("http://www.w3.org/2000/svg", "")
                .replace("http://www.w3.org/1999/xhtml", "")
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
                assert!(!content.contains(forbidden), "{path:?} has {forbidden}");
            }
        }
    }
}
