//! The command as a user runs it: real processes, real ports, real kills.

#![allow(clippy::unwrap_used)] // in a test a panic is the report

mod agent;
mod alone;
mod deploy;
mod kubernetes_register;
mod questions;
mod registry;
mod support;
mod up;
