//! An API gateway whose routes come from service discovery.
