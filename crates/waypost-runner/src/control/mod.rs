//! Watches and controls a running stack: an HTTP API with JSON and server-sent events, served on a Unix
//! socket for the command line and to browsers for a dashboard.
//!
//! | request | response |
//! |---|---|
//! | `GET /api/stack` | the stack and all its services ([`StackView`]) |
//! | `GET /api/events` | server-sent events: `snapshot`, then a `service` for each change |
//! | `GET /api/logs` | lines ([`LineView`]), one JSON object on a line; with `follow=true` as events |
//! | `POST /api/services/NAME/start`, `stop`, `restart`, `scale` | 202 with the [`ServiceView`] |
//! | `GET /api/services/NAME/environment` | the variables that it is started with ([`VariableView`]) |
//! | `POST /api/down` | 202; the whole stack is stopped |
//! | `GET /api/services/NAME/launch` | on the socket only: its folder and variables ([`LaunchView`]) |
//! | `GET /api/dashboard-link` | on the socket only: the link with the token |
//!
//! With `?wait=true`, the response to an action on a service is sent when the action is done: 200, or an
//! error if a service did not become ready.
//!
//! If a client sends `Last-Event-ID`, `/api/events` and `/api/logs?follow=true` continue after that event.
//! `/api/logs` takes `service` (names, separated by commas), `level`, `q` (a text), `since` (`10m` or a
//! time), `n` (the number of lines, 200 by default) and `follow`. Errors are
//! `application/problem+json`.

mod access;
mod changes;
mod client;
mod error;
mod handle;
mod logs;
mod routes;
mod socket;
mod view;

pub use access::{BrowserAccess, TOKEN_HEADER};
pub use client::{Client, ClientError, Event, EventStream};
pub use handle::{About, Control};
pub use routes::{browser_router, router};
pub use socket::{Socket, SocketError, running_stacks, socket_of_file, socket_of_sample};
pub use view::{
    ExitView, InstanceView, LaunchView, LineStream, LineView, SCHEMA, ServiceKind, ServiceState,
    ServiceView, StackView, VariableView,
};
