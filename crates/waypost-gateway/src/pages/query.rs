//! The parameters of a query.

use http::StatusCode;

use crate::problem::Problem;

/// The value of a parameter in a query.
pub(super) fn parameter<'a>(query: Option<&'a str>, name: &str) -> Option<&'a str> {
    query?
        .split('&')
        .filter_map(|pair| pair.split_once('='))
        .find(|(key, _)| *key == name)
        .map(|(_, value)| value)
}

/// A number in a query.
pub(super) fn number(
    query: Option<&str>,
    name: &'static str,
    default: usize,
    max: usize,
) -> Result<usize, Problem> {
    let Some(text) = parameter(query, name) else {
        return Ok(default);
    };
    match text.parse() {
        Ok(number) if (1..=max).contains(&number) => Ok(number),
        _ => Err(Problem::new(
            StatusCode::BAD_REQUEST,
            "parameter",
            format!("{name}={text:?} is not a number from 1 to {max}"),
        )),
    }
}
