//! Find, call and be found: service discovery for microservices, with the same code on a laptop and in a cluster.
