//! Style sheets without comments and superfluous white space.

/// A style sheet without comments and superfluous white space.
pub(crate) fn minify_css(source: &str) -> String {
    let mut output = String::with_capacity(source.len());
    let mut rest = source;
    while let Some(start) = rest.find("/*") {
        output.push_str(&rest[..start]);
        rest = rest[start..].split_once("*/").map_or("", |(_, rest)| rest);
    }
    output.push_str(rest);
    let joined = output.split_whitespace().collect::<Vec<_>>().join(" ");
    // Not before a colon or a bracket, where a space is a part of a selector or a query.
    [
        ("; ", ";"),
        ("{ ", "{"),
        (" {", "{"),
        ("} ", "}"),
        (" }", "}"),
        (";}", "}"),
        (": ", ":"),
        (", ", ","),
    ]
    .into_iter()
    .fold(joined, |text, (from, to)| text.replace(from, to))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_and_spaces_are_removed_but_selectors_stay() {
        let source = "/* One. */\n.a .b:hover, .c > .d { color: red; margin: 0 calc(1px + 2px); }\n@media (max-width: 9px) and (x) { .e { top: 0; } }";
        let expected = ".a .b:hover,.c > .d{color:red;margin:0 calc(1px + 2px)}@media (max-width:9px) and (x){.e{top:0}}";
        assert_eq!(minify_css(source), expected);
    }
}
