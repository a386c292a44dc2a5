//! Tests of the manifests in `deploy`: that Kubernetes and Consul accept them, that they fit
//! together, and that the programs run as the manifests configure them.

mod consul;
mod example;
mod kubernetes;
mod manifests;
mod stack;
