//! The HTTP API: one room per area of Consul's, over one way of reading requests ([`Call`]) and
//! one way of answering them ([`Reply`], [`Refusal`]).

mod agent;
mod call;
mod catalog;
mod health;
mod internal;
mod json;
mod refused;
mod reply;
mod router;
mod select;
mod server;
mod status;
mod ui;

pub(crate) use call::{Call, Consistency};
pub(crate) use reply::{Body, Refusal, Reply};
pub(crate) use server::serve;

use router::Route;

/// Every area's routes.
const ROOMS: &[&[Route]] = &[
    agent::ROUTES,
    agent::check::ROUTES,
    agent::health::ROUTES,
    agent::metrics::ROUTES,
    agent::service::ROUTES,
    catalog::ROUTES,
    health::ROUTES,
    internal::ROUTES,
    refused::ROUTES,
    status::ROUTES,
    ui::ROUTES,
];
