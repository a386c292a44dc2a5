//! The grammar of filter expressions.
//!
//! ```text
//! or       = and ( "or" and )*
//! and      = not ( "and" not )*
//! not      = "not" not | "(" or ")" | test
//! test     = selector ( "==" | "!=" | "contains" | "not contains" | "matches" | "not matches" ) value
//!          | selector ( "is empty" | "is not empty" )
//!          | value ( "in" | "not in" ) selector
//! selector = name ( "." name | "[" string "]" )*
//! value    = selector | number | string
//! ```
//!
//! White space separates words; around `==`, `!=` and parentheses it is optional. A selector as a
//! value stands for its own text. Strings are in double quotes, with the escapes of Go, or in
//! backquotes, without escapes.

use winnow::ascii::{digit0, digit1, multispace0, multispace1};
use winnow::combinator::{
    alt, cut_err, delimited, eof, fail, opt, peek, preceded, repeat, terminated,
};
use winnow::error::{ContextError, ErrMode, FromExternalError, StrContext, StrContextValue};
use winnow::prelude::*;
use winnow::stream::{AsChar, Stateful};
use winnow::token::{any, none_of, one_of, take_while};

use super::condition::{Condition, Invalid, Test};
use super::pattern::PatternCompiler;
use super::schema::{Operator, Shape};

/// How many parentheses and `not`s may be nested.
const MAX_DEPTH: usize = 64;

/// Parses an expression for records of a shape. The error says what is wrong, and where.
pub(super) fn parse(text: &str, shape: &'static Shape) -> Result<Condition, String> {
    let input = Stateful {
        input: text,
        state: Scope {
            shape,
            depth: 0,
            patterns: PatternCompiler::default(),
        },
    };
    let mut expression = delimited(multispace0, or, multispace0);
    expression.parse(input).map_err(|error| {
        let at = text[..error.offset()].chars().count() + 1;
        let (cause, context) = (error.inner().cause(), error.inner().context().next());
        let what = cause.map(ToString::to_string);
        let what = what.or_else(|| context.map(ToString::to_string));
        let what = what.unwrap_or_else(|| "expected `and`, `or` or the end".to_owned());
        format!("character {at}: {what}")
    })
}

type Input<'a> = Stateful<&'a str, Scope>;

#[derive(Debug)]
struct Scope {
    shape: &'static Shape,
    /// How many parentheses and `not`s are open.
    depth: usize,
    patterns: PatternCompiler,
}

enum Operand {
    Selector(Vec<String>),
    Literal(String),
}

impl Operand {
    fn into_text(self) -> String {
        match self {
            Self::Selector(names) => names.join("."),
            Self::Literal(text) => text,
        }
    }
}

fn or(input: &mut Input<'_>) -> ModalResult<Condition> {
    joined(input, "or", and, Condition::Or)
}

fn and(input: &mut Input<'_>) -> ModalResult<Condition> {
    joined(input, "and", not, Condition::And)
}

/// Operands with a word between them.
fn joined(
    input: &mut Input<'_>,
    word: &'static str,
    operand: fn(&mut Input<'_>) -> ModalResult<Condition>,
    join: fn(Vec<Condition>) -> Condition,
) -> ModalResult<Condition> {
    let first = operand(input)?;
    let separator = (multispace1, word, multispace1);
    let mut all: Vec<_> = repeat(0.., preceded(separator, cut_err(operand))).parse_next(input)?;
    if all.is_empty() {
        return Ok(first);
    }
    all.insert(0, first);
    Ok(join(all))
}

fn not(input: &mut Input<'_>) -> ModalResult<Condition> {
    let negated = preceded(("not", multispace1), |input: &mut _| deeper(input, not));
    let group = delimited(
        ('(', multispace0),
        cut_err(|input: &mut _| deeper(input, or)),
        (multispace0, cut_err(')').context(expected("`)`"))),
    );
    // Tried first, because a test can also begin with a value or a field named `not`.
    let negated = negated.map(|condition| Condition::Not(Box::new(condition)));
    alt((negated, group, test)).parse_next(input)
}

fn deeper(
    input: &mut Input<'_>,
    rule: fn(&mut Input<'_>) -> ModalResult<Condition>,
) -> ModalResult<Condition> {
    if input.state.depth == MAX_DEPTH {
        return cut_err(fail.context(expected("less nesting"))).parse_next(input);
    }
    input.state.depth += 1;
    let result = rule(input);
    input.state.depth -= 1;
    result
}

fn test(input: &mut Input<'_>) -> ModalResult<Condition> {
    let start = input.checkpoint();
    let left = operand(input)?;
    let (operator, negated) = operator(input)?;
    let (selector, value) = match operator {
        Operator::IsEmpty => (left, String::new()),
        Operator::In => (cut_err(operand).parse_next(input)?, left.into_text()),
        _ => (left, cut_err(operand).parse_next(input)?.into_text()),
    };
    let test = match selector {
        Operand::Selector(names) => {
            let Scope {
                shape, patterns, ..
            } = &mut input.state;
            Test::new(shape, names, operator, value, negated, patterns)
        }
        Operand::Literal(text) => Err(Invalid(format!("{text:?} is not a selector"))),
    };
    test.map(Condition::Test).map_err(|error| {
        input.reset(&start);
        ErrMode::Cut(ContextError::from_external_error(input, error))
    })
}

/// An operator, and whether it is negated.
fn operator(input: &mut Input<'_>) -> ModalResult<(Operator, bool)> {
    let equal = alt(("==".value(false), "!=".value(true)));
    let word = |word| {
        let not = opt(terminated("not", multispace1)).map(|not| not.is_some());
        delimited(multispace1, terminated(not, word), multispace1)
    };
    let not = opt(terminated("not", multispace1)).map(|not| not.is_some());
    let is_empty = delimited((multispace1, "is", multispace1), not, "empty");
    alt((
        delimited(multispace0, equal, multispace0).map(|negated| (Operator::Equal, negated)),
        word("contains").map(|negated| (Operator::Contains, negated)),
        word("in").map(|negated| (Operator::In, negated)),
        word("matches").map(|negated| (Operator::Matches, negated)),
        is_empty.map(|negated| (Operator::IsEmpty, negated)),
    ))
    .context(expected("an operator such as `==`, `in` or `is empty`"))
    .parse_next(input)
}

fn operand(input: &mut Input<'_>) -> ModalResult<Operand> {
    alt((
        selector.map(Operand::Selector),
        number.map(|text| Operand::Literal(text.to_owned())),
        string.map(Operand::Literal),
    ))
    .context(expected("a selector, a number or a string"))
    .parse_next(input)
}

fn selector(input: &mut Input<'_>) -> ModalResult<Vec<String>> {
    let index = delimited(
        ('[', multispace0),
        cut_err(string.context(expected("a string as index"))),
        (multispace0, cut_err(']').context(expected("`]`"))),
    );
    let first = name(input)?;
    let mut names = repeat(0.., alt((preceded('.', name), index)));
    let mut names: Vec<_> = names.parse_next(input)?;
    names.insert(0, first);
    Ok(names)
}

fn name(input: &mut Input<'_>) -> ModalResult<String> {
    let rest = take_while(0.., |c: char| c.is_ascii_alphanumeric() || c == '_');
    let name = (one_of(AsChar::is_alpha), rest).take();
    name.map(str::to_owned).parse_next(input)
}

fn number<'a>(input: &mut Input<'a>) -> ModalResult<&'a str> {
    let integer = alt(('0'.void(), (one_of('1'..='9'), digit0).void()));
    let number = (opt('-'), integer, opt(('.', digit1))).take();
    let end = peek(alt((multispace1.void(), ')'.void(), eof.void())));
    terminated(
        number,
        cut_err(end).context(expected("the end of the number")),
    )
    .parse_next(input)
}

fn string(input: &mut Input<'_>) -> ModalResult<String> {
    let raw = take_while(0.., |c| c != '`').map(|text: &str| text.replace('\r', ""));
    let plain = none_of(['"', '\\', '\n']).map(|c: char| c.to_string().into_bytes());
    let quoted = repeat(0.., alt((plain, preceded('\\', cut_err(escape)))));
    let quoted = quoted.fold(Vec::new, |mut all, bytes| {
        all.extend(bytes);
        all
    });
    // Escapes stand for bytes, which need not be UTF-8.
    let quoted = quoted.map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    let close = |quote: char| cut_err(quote).context(expected("a closing quote"));
    alt((
        delimited('`', raw, close('`')),
        delimited('"', quoted, close('"')),
    ))
    .parse_next(input)
}

/// What follows a backslash. Returns the bytes that it stands for.
fn escape(input: &mut Input<'_>) -> ModalResult<Vec<u8>> {
    fn digits<'a>(count: usize, radix: u32) -> impl Parser<Input<'a>, u32, ErrMode<ContextError>> {
        take_while(count, move |c: char| c.is_digit(radix))
            .try_map(move |text| u32::from_str_radix(text, radix))
    }
    let character = |code| {
        let character = match code {
            // Surrogates are not characters.
            0xd800..0xe000 => Some(char::REPLACEMENT_CHARACTER),
            code => char::from_u32(code),
        };
        character.map(|c| c.to_string().into_bytes())
    };
    let byte = |code| u8::try_from(code).ok().map(|byte| vec![byte]);
    let single = |c| {
        Some(match c {
            'a' => b"\x07",
            'b' => b"\x08",
            'f' => b"\x0c",
            'n' => b"\n",
            'r' => b"\r",
            't' => b"\t",
            'v' => b"\x0b",
            '\\' => b"\\",
            _ => return None,
        })
    };
    alt((
        preceded('u', digits(4, 16)).verify_map(character),
        preceded('U', digits(8, 16)).verify_map(character),
        preceded('x', digits(2, 16)).verify_map(byte),
        digits(3, 8).verify_map(byte),
        any.verify_map(single).map(|byte: &[u8; 1]| byte.to_vec()),
    ))
    .context(expected("an escape sequence of Go"))
    .parse_next(input)
}

fn expected(what: &'static str) -> StrContext {
    StrContext::Expected(StrContextValue::Description(what))
}

#[cfg(test)]
mod tests {
    use super::super::HEALTH;
    use super::*;

    #[test]
    fn errors_say_what_is_wrong_and_where() {
        for (text, error) in [
            ("", "character 1: expected a selector, a number or a string"),
            (
                "foo bar",
                "character 5: expected an operator such as `==`, `in` or `is empty`",
            ),
            (
                "Service.ID == a)",
                "character 16: expected `and`, `or` or the end",
            ),
            (
                "Service.ID == a and",
                "character 17: expected `and`, `or` or the end",
            ),
            (
                "Service.ID == a and ",
                "character 21: expected a selector, a number or a string",
            ),
            ("(Service.ID == a", "character 17: expected `)`"),
            (
                "Service.Port == 8x",
                "character 18: expected the end of the number",
            ),
            (
                "Service.ID == \"b",
                "character 17: expected a closing quote",
            ),
            (
                "Service.ID == \"\\q\"",
                "character 17: expected an escape sequence of Go",
            ),
            (
                "Service.Meta[0] == 1",
                "character 14: expected a string as index",
            ),
            ("a in 80", "character 1: \"80\" is not a selector"),
            (
                "not é",
                "character 5: expected an operator such as `==`, `in` or `is empty`",
            ),
            (
                "Service.Nope == 1",
                "character 1: no such field: `Service.Nope`",
            ),
            (
                "not Service is empty",
                "character 5: the operator does not apply to `Service`, an object",
            ),
            (
                "Service.Port == a",
                "character 1: \"a\" cannot be compared with `Service.Port`, a number",
            ),
        ] {
            let result = parse(text, &HEALTH).map(|_| ());
            assert_eq!(result, Err(error.to_owned()), "{text}");
        }
    }
}
