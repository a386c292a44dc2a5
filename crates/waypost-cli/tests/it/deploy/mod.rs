//! The manifests in `deploy`: that they say what Kubernetes and Consul understand, that their parts
//! fit together, and that the programs do what is said of them.

mod consul;
mod documents;
mod kubernetes;
mod pods;
