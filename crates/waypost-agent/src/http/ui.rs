//! `/ui/`: a page that shows the services and their health, live.

use http::Method;

use super::call::Call;
use super::reply::{Refusal, Reply};
use super::route::{Handler, Route};

pub(super) const ROUTES: &[Route] = &[
    Route::new("/ui/", &[(Method::GET, Handler::Plain(page))]).beyond_namespaces(),
    Route::new("/ui/app.js", &[(Method::GET, Handler::Plain(script))]).beyond_namespaces(),
    Route::new("/ui/style.css", &[(Method::GET, Handler::Plain(style))]).beyond_namespaces(),
];

/// The page for every path: the script reads the rest from it.
fn page(_: &Call) -> Result<Reply, Refusal> {
    let page = include_str!("../ui/index.html");
    let reply = Reply::file("text/html; charset=utf-8", page);
    Ok(reply.header(
        "content-security-policy",
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; \
         img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    ))
}

fn script(_: &Call) -> Result<Reply, Refusal> {
    let script = include_str!("../ui/app.js");
    Ok(Reply::file("text/javascript; charset=utf-8", script))
}

fn style(_: &Call) -> Result<Reply, Refusal> {
    let style = include_str!("../ui/style.css");
    Ok(Reply::file("text/css; charset=utf-8", style))
}
