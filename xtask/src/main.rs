//! The project's own chores: test, lint, docs and the tools they need.
fn main() {}
