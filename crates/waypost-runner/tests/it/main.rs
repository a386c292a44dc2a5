//! Tests that run stacks of real processes.
#![allow(clippy::unwrap_used, reason = "a test may fail")]

mod build;
mod control;
mod crash;
mod logs;
mod orphans;
mod rules;
mod scale;
mod start;
mod stop;
mod support;
