//! A sample service: small AI models that run offline.
