//! An embedded service registry that speaks Consul's HTTP API.
