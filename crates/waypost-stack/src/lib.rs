//! Runs a stack of services on one machine: starts, watches, restarts and ends their processes.
