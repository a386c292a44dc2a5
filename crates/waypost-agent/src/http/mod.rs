//! The HTTP API: one room per area of Consul's, over one way of reading requests ([`call`]) and
//! one way of answering them ([`reply`]).

mod absent;
mod acl;
mod agent;
mod answer;
mod blocking;
mod call;
mod catalog;
mod coordinate;
mod door;
mod event;
mod health;
mod internal;
mod json;
mod kv;
mod operator;
mod path;
mod patience;
mod refused;
mod reply;
mod request_line;
mod route;
mod router;
mod select;
mod server;
mod session;
mod status;
mod txn;
mod ui;

#[cfg(any(test, feature = "fuzz"))]
pub(crate) use answer::answer;
pub(crate) use door::Door;
pub(crate) use server::serve;

use route::Route;

/// Every area's routes.
const ROOMS: &[&[Route]] = &[
    absent::ROUTES,
    acl::ROUTES,
    agent::ROUTES,
    agent::check::ROUTES,
    agent::health::ROUTES,
    agent::metrics::ROUTES,
    agent::service::ROUTES,
    catalog::ROUTES,
    coordinate::ROUTES,
    event::ROUTES,
    health::ROUTES,
    internal::ROUTES,
    kv::ROUTES,
    operator::ROUTES,
    refused::ROUTES,
    session::ROUTES,
    status::ROUTES,
    txn::ROUTES,
    ui::ROUTES,
];
