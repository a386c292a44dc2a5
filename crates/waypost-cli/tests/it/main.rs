//! Tests of the command as a user runs it: real processes, ports and signals.

#![allow(clippy::unwrap_used)] // in a test a panic is the report

mod agent;
mod config;
mod dashboard;
mod deploy;
mod doctor;
mod init;
mod kubernetes_gateway;
mod kubernetes_register;
mod manual_setup;
mod messages;
mod output;
mod queries;
mod register;
mod registry;
mod shutdown;
mod socket_activation;
#[cfg(feature = "otlp")]
mod spans;
mod stack;
mod support;
mod terminal;
mod up;
