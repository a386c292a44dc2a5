//! HTTP over TLS: connections, requests as they are read, and answers as they are written.

mod body;
mod gate;
mod protobuf;
mod reply;
mod request;
mod server;
mod status;

pub(crate) use reply::Reply;
pub(crate) use request::{Call, Form, Scope, Target};
pub(crate) use server::{Endings, serve};
pub(crate) use status::{Cause, Status};
