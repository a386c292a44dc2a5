//! Which addresses several candidates have.

use std::collections::HashMap;

use waypost_core::{Host, Instance};

/// Where an instance is called.
pub(super) fn address(instance: &Instance) -> (&Host, u16) {
    (instance.host(), instance.port())
}

/// How many candidates each address has.
#[derive(Default)]
pub(super) struct Addresses {
    counts: HashMap<(Host, u16), usize>,
    /// The number of addresses with several candidates.
    shared: usize,
}

impl Addresses {
    pub(super) fn are_shared(&self) -> bool {
        self.shared > 0
    }

    pub(super) fn add(&mut self, instance: &Instance) {
        let (host, port) = address(instance);
        let count = self.counts.entry((host.clone(), port)).or_default();
        *count += 1;
        self.shared += usize::from(*count == 2);
    }

    pub(super) fn remove(&mut self, instance: &Instance) {
        let (host, port) = address(instance);
        let key = (host.clone(), port);
        if let Some(count) = self.counts.get_mut(&key) {
            *count -= 1;
            self.shared -= usize::from(*count == 1);
            if *count == 0 {
                self.counts.remove(&key);
            }
        }
    }
}
