//! Scripts without comments and superfluous white space, and with short names where that is safe.

use std::collections::{BTreeMap, BTreeSet};

/// A part of a script.
#[derive(Clone, Copy)]
struct Token<'a> {
    kind: Kind,
    text: &'a str,
}

#[derive(Clone, Copy, PartialEq)]
enum Kind {
    /// A name, a keyword or a number. The name of a private member begins with `#`.
    Word,
    /// A string, a regular expression, or a template up to its next expression or from there on.
    Literal,
    /// Another character.
    Mark,
    /// White space or a comment.
    Space,
}

/// A script without comments, with white space only where it has a meaning, and with short names for its
/// private members and for those of `names` that aren't also used as the name of a property. Line breaks
/// stay where a semicolon might have to be inserted.
///
/// A name is replaced everywhere, also where it belongs to a local variable, so scopes don't matter.
pub(crate) fn minify_script(source: &str, names: &BTreeSet<&str>) -> String {
    let tokens = tokens(source);
    let short = short_names(&tokens, names);
    let mut output = String::with_capacity(source.len() / 2);
    let (mut has_space, mut has_line_break) = (false, false);
    for token in tokens {
        if token.kind == Kind::Space {
            has_space = true;
            has_line_break |= token.text.contains('\n');
            continue;
        }
        let text = short.get(token.text).filter(|_| token.kind == Kind::Word);
        let text = text.map_or(token.text, String::as_str);
        if has_line_break && needs_line_break(&output, text) {
            output.push('\n');
        } else if has_space && needs_space(&output, text) {
            output.push(' ');
        }
        output.push_str(text);
        (has_space, has_line_break) = (false, false);
    }
    output
}

/// Whether a semicolon could be inserted between two parts of a script.
fn needs_line_break(before: &str, after: &str) -> bool {
    let ends =
        before.is_empty() || before.ends_with([';', '{', ',', '(', '[', '=', '?', ':', '&', '|']);
    let continues = after.starts_with(['}', ')', ']', '.', ',', '?', ':', '&', '|', '=']);
    !ends && !continues
}

/// Whether two parts of a script would become one without a space between them.
fn needs_space(before: &str, after: &str) -> bool {
    let joins = before.ends_with(is_word) && after.starts_with(|c| is_word(c) || c == '#');
    joins
        || ['+', '-']
            .iter()
            .any(|sign| before.ends_with(*sign) && after.starts_with(*sign))
}

/// Short names, the shortest ones for the names that occur most often.
fn short_names<'a>(tokens: &[Token<'a>], names: &BTreeSet<&str>) -> BTreeMap<&'a str, String> {
    let tokens: Vec<_> = tokens.iter().filter(|it| it.kind != Kind::Space).collect();
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    let mut properties = BTreeSet::new();
    for (index, token) in tokens.iter().enumerate() {
        if token.kind != Kind::Word {
            continue;
        }
        *counts.entry(token.text).or_default() += 1;
        let text = |index: usize| tokens.get(index).map_or("", |it| it.text);
        let (before, after) = (text(index.wrapping_sub(1)), text(index + 1));
        let is_member = before == "." && text(index.wrapping_sub(2)) != ".";
        // Also an argument between two others, which doesn't matter.
        let is_shorthand = matches!(before, "{" | ",") && matches!(after, "}" | ",");
        if is_member || is_shorthand || after == ":" {
            properties.insert(token.text);
        }
    }
    let mut renamed: Vec<_> = counts.iter().collect();
    renamed.retain(|(name, _)| {
        name.starts_with('#') || (names.contains(**name) && !properties.contains(**name))
    });
    renamed.sort_by_key(|(_, count)| std::cmp::Reverse(**count));
    let free = (0..)
        .map(short_name)
        .filter(|name| !counts.contains_key(name.as_str()));
    let pairs = renamed.into_iter().zip(free);
    let pairs = pairs.map(|((name, _), short)| match name.strip_prefix('#') {
        Some(_) => (*name, format!("#{short}")),
        None => (*name, short),
    });
    pairs.collect()
}

/// `a` to `z`, then `a0`, `b0` and so on.
fn short_name(number: u32) -> String {
    let letter = char::from_digit(number % 26 + 10, 36).unwrap_or('a');
    match number / 26 {
        0 => letter.to_string(),
        more => format!("{letter}{}", more - 1),
    }
}

fn tokens(source: &str) -> Vec<Token<'_>> {
    let mut tokens = Vec::new();
    // The number of open braces in each template that is open.
    let mut templates: Vec<usize> = Vec::new();
    let mut rest = source;
    while let Some(first) = rest.chars().next() {
        let next = &rest[first.len_utf8()..];
        let is_resumed = first == '}' && templates.last() == Some(&0);
        let (kind, length) = if rest.starts_with("//") {
            (Kind::Space, length_while(rest, |c| c != '\n'))
        } else if rest.starts_with("/*") {
            (
                Kind::Space,
                rest.find("*/").map_or(rest.len(), |end| end + 2),
            )
        } else if first.is_whitespace() {
            (Kind::Space, length_while(rest, char::is_whitespace))
        } else if first == '"' || first == '\'' {
            (Kind::Literal, quoted(rest, |c| c == first))
        } else if first == '/' && begins_expression(&tokens) {
            (Kind::Literal, regular_expression(rest))
        } else if first == '`' || is_resumed {
            (Kind::Literal, template(rest))
        } else if is_word(first) || (first == '#' && next.starts_with(is_word)) {
            (
                Kind::Word,
                rest.len() - next.len() + length_while(next, is_word),
            )
        } else {
            (Kind::Mark, first.len_utf8())
        };
        let (text, remaining) = rest.split_at(length);
        match (first, kind, templates.last_mut()) {
            ('`', Kind::Literal, _) if !text.ends_with('`') || length == 1 => templates.push(0),
            ('}', Kind::Literal, _) if text.ends_with('`') => drop(templates.pop()),
            ('{', Kind::Mark, Some(depth)) => *depth += 1,
            ('}', Kind::Mark, Some(depth)) => *depth -= 1,
            _ => {}
        }
        tokens.push(Token { kind, text });
        rest = remaining;
    }
    tokens
}

/// Whether a slash begins a regular expression here: not after a value.
fn begins_expression(tokens: &[Token<'_>]) -> bool {
    let last = tokens.iter().rfind(|token| token.kind != Kind::Space);
    last.is_none_or(|last| match last.kind {
        Kind::Word => last.text == "return",
        Kind::Literal => last.text.ends_with("${"),
        Kind::Mark | Kind::Space => !matches!(last.text, ")" | "]" | "}"),
    })
}

/// Whether a character can be in a name.
fn is_word(character: char) -> bool {
    character.is_alphanumeric() || "_$".contains(character)
}

/// The number of bytes at the beginning whose characters are `wanted`.
fn length_while(text: &str, wanted: impl Fn(char) -> bool) -> usize {
    text.find(|character| !wanted(character))
        .unwrap_or(text.len())
}

fn regular_expression(text: &str) -> usize {
    let mut in_class = false;
    quoted(text, |character| {
        match character {
            '[' => in_class = true,
            ']' => in_class = false,
            _ => {}
        }
        character == '/' && !in_class
    })
}

/// The length up to the character that ends the literal. Escaped characters don't end it.
fn quoted(text: &str, mut is_end: impl FnMut(char) -> bool) -> usize {
    let mut characters = text.char_indices().skip(1);
    while let Some((at, character)) = characters.next() {
        if character == '\\' {
            characters.next();
        } else if is_end(character) {
            return at + character.len_utf8();
        }
    }
    text.len()
}

/// The length of a part of a template: from its quote, or the brace that ends an expression, to its
/// end or the next expression.
fn template(text: &str) -> usize {
    let mut is_dollar = false;
    quoted(text, |character| {
        let is_end = character == '`' || (character == '{' && is_dollar);
        is_dollar = character == '$';
        is_end
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_and_spaces_are_removed_but_texts_stay() {
        for (source, expected) in [
            ("// Why.\nconst a = 1; // so\n", "const a=1;"),
            (
                "/** @type {string} */\nlet b = /** @type {any} */ (c);",
                "let b=(c);",
            ),
            (
                "f(\"a  //  b\", 'it\\'s  ', `x  ${ y  +  `${ z }  ` }  /* t */`);",
                "f(\"a  //  b\",'it\\'s  ',`x  ${y+`${z}  `}  /* t */`);",
            ),
            (
                "const r = /[/ \"]+ \\/ `/g.exec(a) / 2;",
                "const r=/[/ \"]+ \\/ `/g.exec(a)/2;",
            ),
            ("return /a b/.test(c);", "return/a b/.test(c);"),
            ("f(`${ /`}/ }`, /b  c/);", "f(`${/`}/}`,/b  c/);"),
            ("a + +b; c - -d;", "a+ +b;c- -d;"),
            (
                "if (a) {\n  b();\n\n}\nc\n  .d()\ne();",
                "if(a){b();}\nc.d()\ne();",
            ),
            (
                "const o = { f: () => ({ g: `${h({ i: 1 })} j` }) };",
                "const o={f:()=>({g:`${h({i:1})} j`})};",
            ),
            ("``; a  =  1", "``;a=1"),
            ("const { x } = y in z;", "const{x}=y in z;"),
        ] {
            assert_eq!(
                minify_script(source, &BTreeSet::new()),
                expected,
                "{source}"
            );
        }
    }

    #[test]
    fn private_members_and_given_names_get_short_ones() {
        let source = "const many = 3;\nclass A {\n  #size = many;\n  get #b() { return this.#size; }\n}\nf(many, '#size many');";
        let names = BTreeSet::from(["many"]);
        let expected = "const a=3;class A{#b=a;get #c(){return this.#b;}}\nf(a,'#size many');";
        assert_eq!(minify_script(source, &names), expected);
    }

    #[test]
    fn a_name_that_is_also_a_property_stays() {
        let names = BTreeSet::from(["size"]);
        for source in [
            "size(a.size);",
            "size({size:1});",
            "size({size});",
            "const{a,size}=b;size(a);",
        ] {
            assert_eq!(minify_script(source, &names), source);
        }
        assert_eq!(minify_script("f(...size);", &names), "f(...a);");
    }
}
