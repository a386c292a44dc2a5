//! Regular expressions of clients. Their number, length and compiled size are limited, because a
//! short expression such as `\pL{100}` can compile to megabytes.

use regex::{Regex, RegexBuilder};

/// The largest number of expressions in a request.
const MAX_COUNT: usize = 16;

/// The largest length of all expressions of a request together, in bytes. It bounds the time to
/// parse them: a class such as `\pL` stands for hundreds of ranges.
const MAX_LENGTH: usize = 2048;

/// The largest compiled size of all expressions of a request together, in bytes. It also bounds the
/// time to match them. `^web-\d+$` takes 8 kB; `\w` alone takes 64 kB, because it stands for the
/// letters of all scripts.
const MAX_COMPILED_SIZE: usize = 1024 * 1024;

/// An expression is counted as the smallest of these sizes that it fits into.
const SIZES: [usize; 3] = [16 * 1024, 64 * 1024, 256 * 1024];

/// The memory that matching one expression may use, in bytes.
const MAX_CACHE_SIZE: usize = 256 * 1024;

/// Compiles the expressions of one request, and adds up their sizes.
#[derive(Clone, Debug, Default)]
pub(crate) struct PatternCompiler {
    count: usize,
    length: usize,
    compiled_size: usize,
}

impl PatternCompiler {
    /// The error says what is wrong, or which limit is exceeded.
    pub(crate) fn compile(&mut self, text: &str) -> Result<Regex, String> {
        self.count += 1;
        self.length = self.length.saturating_add(text.len());
        if self.count > MAX_COUNT {
            return Err(format!("more than {MAX_COUNT} regular expressions"));
        }
        if self.length > MAX_LENGTH {
            return Err(format!(
                "the regular expressions are longer than {MAX_LENGTH} bytes"
            ));
        }
        let remaining = MAX_COMPILED_SIZE - self.compiled_size;
        for size in SIZES.into_iter().filter(|size| *size <= remaining) {
            let compiled = RegexBuilder::new(text)
                .size_limit(size)
                .dfa_size_limit(MAX_CACHE_SIZE)
                .build();
            match compiled {
                Ok(pattern) => {
                    self.compiled_size += size;
                    return Ok(pattern);
                }
                Err(regex::Error::CompiledTooBig(_)) => {}
                Err(error) => {
                    let error = error.to_string();
                    let what = error.lines().last().unwrap_or_default();
                    return Err(format!("invalid regular expression {text:?}: {what}"));
                }
            }
        }
        Err(format!(
            "the regular expression {text:?} is too large when compiled"
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn usual_expressions_compile() {
        let mut patterns = PatternCompiler::default();
        for text in [
            "^web-[0-9]+$",
            r"^web-\d+$",
            r"^[\w.-]+$",
            "(a|b|c){1,50}",
            ".*(?i)web.*",
        ] {
            assert!(patterns.compile(text).is_ok(), "{text}");
        }
    }

    #[test]
    fn expressions_are_limited_in_number_length_and_compiled_size() {
        for (text, error) in [
            ("a", "more than 16"),
            (&"a".repeat(1500), "longer than 2048 bytes"),
            (r"\pL{100}", "too large"),
            (r"\w+@\w+", "too large"),
            (r"((a{100}){100}){100}", "too large"),
            ("(", "unclosed group"),
        ] {
            let mut patterns = PatternCompiler::default();
            let errors = (0..=MAX_COUNT).find_map(|_| patterns.compile(text).err());
            assert!(
                errors.as_ref().is_some_and(|it| it.contains(error)),
                "{text}: {errors:?}"
            );
        }
    }
}
