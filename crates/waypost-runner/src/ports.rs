//! The ports of one instance: fixed ones, and free ones that the runner chooses.

use std::collections::{BTreeMap, HashSet};
use std::io;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};

use crate::port;
use crate::port::{TakenPort, Transport};

/// A port in the description of a service. The main port has no name. The number 0 means any free
/// port.
#[derive(Clone, Debug)]
pub(crate) struct PortSpec {
    pub(crate) name: Option<String>,
    pub(crate) number: u16,
    pub(crate) transport: Transport,
}

/// The ports of an instance.
#[derive(Clone, Debug)]
pub(crate) struct Ports(Vec<Entry>);

#[derive(Clone, Debug)]
struct Entry {
    /// Fixed unless its number is 0.
    spec: PortSpec,
    /// 0 until the runner has chosen one.
    number: u16,
}

impl Ports {
    /// The first replica gets the ports of the description, the others get free ones.
    pub(crate) fn new(specs: &[PortSpec], replica: u32) -> Self {
        let entry = |spec: &PortSpec| {
            let number = if replica == 1 { spec.number } else { 0 };
            let spec = PortSpec {
                number,
                ..spec.clone()
            };
            Entry { spec, number }
        };
        Self(specs.iter().map(entry).collect())
    }

    /// Checks that the fixed ports are free, and chooses the others at the first start. A chosen
    /// port is kept for later starts unless another process has taken it since.
    ///
    /// # Errors
    /// A fixed port is in use, or no free port was found.
    pub(crate) fn allocate(
        &mut self,
        instance: &str,
        host: IpAddr,
        allocator: &PortAllocator,
    ) -> Result<(), String> {
        for Entry { spec, number } in &mut self.0 {
            if *number != 0 {
                match port::check(instance, host, *number, spec.transport) {
                    Ok(()) => continue,
                    Err(taken) if spec.number != 0 => return Err(taken.to_string()),
                    Err(_) => {}
                }
            }
            *number = allocator
                .allocate(host)
                .map_err(|error| format!("cannot find a free port on {host}: {error}"))?;
        }
        Ok(())
    }

    /// The fixed ports that are in use.
    pub(crate) fn taken(&self, service: &str, host: IpAddr) -> Vec<TakenPort> {
        let fixed = self.0.iter().filter(|entry| entry.spec.number != 0);
        fixed
            .filter_map(|entry| {
                port::check(service, host, entry.number, entry.spec.transport).err()
            })
            .collect()
    }

    pub(crate) fn main(&self) -> Option<u16> {
        self.0
            .iter()
            .find(|entry| entry.spec.name.is_none())
            .map(|entry| entry.number)
    }

    pub(crate) fn named(&self) -> BTreeMap<String, u16> {
        self.0
            .iter()
            .filter_map(|entry| Some((entry.spec.name.clone()?, entry.number)))
            .collect()
    }
}

/// Chooses free ports. It never returns a fixed port of the stack, nor the same port twice, so that
/// two replicas that start at the same moment get different ones.
#[derive(Debug)]
pub(crate) struct PortAllocator {
    used: Mutex<HashSet<u16>>,
}

impl PortAllocator {
    pub(crate) fn new(fixed: impl IntoIterator<Item = u16>) -> Self {
        Self {
            used: Mutex::new(fixed.into_iter().collect()),
        }
    }

    fn allocate(&self, host: IpAddr) -> io::Result<u16> {
        let mut used = self.used.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            let port = port::free_port(host)?;
            if used.insert(port) {
                return Ok(port);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, TcpListener};

    use super::*;

    const HOST: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

    fn spec(number: u16) -> Vec<PortSpec> {
        vec![PortSpec {
            name: None,
            number,
            transport: Transport::Tcp,
        }]
    }

    #[test]
    fn the_first_replica_gets_the_fixed_port_and_the_others_get_free_ones() {
        let fixed = port::free_port(HOST).unwrap();
        let allocator = PortAllocator::new([fixed]);
        let mut numbers = HashSet::new();
        for replica in 1..=5 {
            let mut ports = Ports::new(&spec(fixed), replica);
            ports.allocate("a", HOST, &allocator).unwrap();
            assert_eq!(replica == 1, ports.main() == Some(fixed));
            assert!(numbers.insert(ports.main()));
        }
    }

    #[test]
    fn a_fixed_port_that_is_taken_is_an_error_with_its_holder() {
        let listener = TcpListener::bind((HOST, 0)).unwrap();
        let taken = listener.local_addr().unwrap().port();
        let allocator = PortAllocator::new([taken]);
        let mut ports = Ports::new(&spec(taken), 1);
        let error = ports.allocate("web", HOST, &allocator).unwrap_err();
        let expected = format!(
            "port {taken} of `web` is in use by pid {} (",
            std::process::id()
        );
        assert!(error.starts_with(&expected), "{error}");
        assert_eq!(ports.taken("web", HOST).len(), 1);
        // The second replica and a port that is yet to be chosen are no problem.
        assert!(Ports::new(&spec(taken), 2).taken("web", HOST).is_empty());
        assert!(Ports::new(&spec(0), 1).taken("web", HOST).is_empty());
        drop(listener);
        assert!(ports.taken("web", HOST).is_empty());
    }

    #[test]
    fn the_main_port_has_no_name() {
        let named = PortSpec {
            name: Some("dns".to_owned()),
            number: 53,
            transport: Transport::Udp,
        };
        let ports = Ports::new(&[vec![named.clone()], spec(80)].concat(), 1);
        assert_eq!(ports.main(), Some(80));
        assert_eq!(ports.named(), BTreeMap::from([("dns".to_owned(), 53)]));
        assert_eq!(Ports::new(&[named], 1).main(), None);
    }

    #[test]
    fn a_chosen_port_is_kept_until_another_process_takes_it() {
        let allocator = PortAllocator::new([]);
        let mut ports = Ports::new(&spec(0), 1);
        ports.allocate("a", HOST, &allocator).unwrap();
        let first = ports.main().unwrap();
        ports.allocate("a", HOST, &allocator).unwrap();
        assert_eq!(ports.main(), Some(first));
        let _other = TcpListener::bind((HOST, first)).unwrap();
        ports.allocate("a", HOST, &allocator).unwrap();
        assert_ne!(ports.main(), Some(first));
    }
}
