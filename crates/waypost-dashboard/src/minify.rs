//! Removes comments and white space from scripts and styles, which halves what is sent. Names stay
//! as they are, so that errors in the browser's console can be read.

/// A script without comments, and with white space only where it has a meaning. Line breaks stay,
/// so that no semicolon has to be inserted.
pub(crate) fn minify_script(source: &str) -> String {
    let mut output = Script::default();
    let characters: Vec<char> = source.chars().collect();
    let mut at = 0;
    // The number of open braces in each template that is open.
    let mut templates: Vec<usize> = Vec::new();
    while at < characters.len() {
        let rest = &characters[at..];
        at += match rest {
            ['/', '/', ..] => length_until(rest, &['\n']),
            ['/', '*', ..] => block_comment(rest),
            ['/', ..] if output.allows_regular_expression() => {
                output.copy(rest, regular_expression(rest))
            }
            ['"' | '\'', ..] => output.copy(rest, string(rest)),
            ['`', ..] => {
                templates.push(0);
                output.copy(rest, template(rest))
            }
            ['}', ..] if templates.last() == Some(&0) => output.copy(rest, template(rest)),
            [character, ..] => {
                if let Some(depth) = templates.last_mut() {
                    match character {
                        '{' => *depth += 1,
                        '}' => *depth -= 1,
                        _ => {}
                    }
                }
                output.push(*character);
                1
            }
            [] => break,
        };
        if output.text.ends_with('`') && output.ended_template {
            templates.pop();
        }
        output.ended_template = false;
    }
    output.text
}

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

#[derive(Default)]
struct Script {
    text: String,
    /// Whether white space was left out before the next character.
    has_space: bool,
    has_line_break: bool,
    ended_template: bool,
}

impl Script {
    fn push(&mut self, character: char) {
        match character {
            '\n' => self.has_line_break = true,
            character if character.is_whitespace() => self.has_space = true,
            character => {
                self.separate(character);
                self.text.push(character);
            }
        }
    }

    /// Copies characters as they are, and returns their number.
    fn copy(&mut self, characters: &[char], length: usize) -> usize {
        self.separate(characters[0]);
        self.text.extend(&characters[..length]);
        self.ended_template =
            characters[..length].last() == Some(&'`') && (length > 1 || characters[0] != '`');
        length
    }

    /// Adds the white space that is needed before `next`.
    fn separate(&mut self, next: char) {
        let last = self.text.chars().next_back();
        let is_word = |character: char| character.is_alphanumeric() || "_$#".contains(character);
        if self.has_line_break {
            if last.is_some_and(|last| last != '\n') {
                self.text.push('\n');
            }
        } else if self.has_space
            && let Some(last) = last
        {
            // Without the space, "+ +" and "- -" would be different operators.
            let joins = is_word(last) && is_word(next) || (last == next && "+-".contains(last));
            if joins {
                self.text.push(' ');
            }
        }
        self.has_line_break = false;
        self.has_space = false;
    }

    /// Whether a slash begins a regular expression here: not after a value.
    fn allows_regular_expression(&self) -> bool {
        let last = self.text.chars().next_back();
        last.is_none_or(|last| "(,=:[!&|?{};\n".contains(last)) || self.text.ends_with("return")
    }
}

/// The number of characters before one of `ends`.
fn length_until(text: &[char], ends: &[char]) -> usize {
    let end = text.iter().position(|character| ends.contains(character));
    end.unwrap_or(text.len())
}

fn block_comment(text: &[char]) -> usize {
    let end = text.windows(2).skip(2).position(|pair| pair == ['*', '/']);
    end.map_or(text.len(), |end| end + 4)
}

/// The length of a string with its quotes.
fn string(text: &[char]) -> usize {
    quoted(text, |character| character == text[0])
}

fn regular_expression(text: &[char]) -> usize {
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
fn quoted(text: &[char], mut is_end: impl FnMut(char) -> bool) -> usize {
    let mut at = 1;
    while at < text.len() {
        if text[at] == '\\' {
            at += 2;
            continue;
        }
        at += 1;
        if is_end(text[at - 1]) {
            break;
        }
    }
    at.min(text.len())
}

/// The length of a part of a template: from its quote, or the brace that ends an expression, to its
/// end or the next expression.
fn template(text: &[char]) -> usize {
    let mut at = 1;
    while at < text.len() {
        match text[at] {
            '\\' => at += 2,
            '`' => return at + 1,
            '$' if text.get(at + 1) == Some(&'{') => return at + 2,
            _ => at += 1,
        }
    }
    text.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_and_spaces_of_a_script_are_removed_but_texts_stay() {
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
            ("a + +b; c - -d;", "a+ +b;c- -d;"),
            ("if (a) {\n  b();\n\n}\n", "if(a){\nb();\n}"),
            (
                "const o = { f: () => ({ g: `${h({ i: 1 })} j` }) };",
                "const o={f:()=>({g:`${h({i:1})} j`})};",
            ),
            ("``; a  =  1", "``;a=1"),
            ("const { x } = y in z;", "const{x}=y in z;"),
        ] {
            assert_eq!(minify_script(source), expected, "{source}");
        }
    }

    #[test]
    fn comments_and_spaces_of_a_style_sheet_are_removed_but_selectors_stay() {
        let source = "/* One. */\n.a .b:hover, .c > .d { color: red; margin: 0 calc(1px + 2px); }\n@media (max-width: 9px) and (x) { .e { top: 0; } }";
        let expected = ".a .b:hover,.c > .d{color:red;margin:0 calc(1px + 2px)}@media (max-width:9px) and (x){.e{top:0}}";
        assert_eq!(minify_css(source), expected);
    }
}
