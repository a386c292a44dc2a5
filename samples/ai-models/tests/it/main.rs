//! Tests of the service over HTTP.

#![allow(clippy::unwrap_used)] // in a test a panic is the report

mod docs;
mod errors;
mod local_models;
mod overload;
mod run;
mod support;
mod upstream;
