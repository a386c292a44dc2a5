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

#[cfg(test)]
mod tests {
    use waypost_core::ServiceName;

    use super::*;

    #[test]
    fn an_address_is_shared_while_several_candidates_have_it() {
        let instance = |host: &str, port: u16| {
            let service = ServiceName::new("web").unwrap();
            Instance::builder(service, host.parse().unwrap(), port)
                .build()
                .unwrap()
        };
        let (one, other) = (instance("10.0.0.1", 80), instance("10.0.0.1", 81));
        let mut addresses = Addresses::default();
        addresses.add(&one);
        addresses.add(&other);
        assert!(!addresses.are_shared());
        for _ in 0..2 {
            addresses.add(&one);
        }
        assert!(addresses.are_shared());
        addresses.remove(&one);
        assert!(addresses.are_shared(), "two are left");
        addresses.remove(&one);
        assert!(!addresses.are_shared());
        addresses.remove(&one);
        // One that is not there.
        addresses.remove(&one);
        addresses.add(&one);
        assert!(!addresses.are_shared());
    }
}
