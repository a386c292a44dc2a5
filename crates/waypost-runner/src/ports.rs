//! The ports of one instance: fixed ones, and those that the runner chooses.

use std::collections::{BTreeMap, HashSet};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

use crate::port::{self, TakenPort, Transport};

/// A port in the description of a process. The main port has no name; number 0 means any.
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
    spec: PortSpec,
    /// 0 until the runner has chosen one.
    number: u16,
    fixed: bool,
}

impl Ports {
    /// The first replica has the ports as described, the others have free ones.
    pub(crate) fn new(specs: &[PortSpec], replica: u32) -> Self {
        let entry = |spec: &PortSpec| {
            let number = if replica == 1 { spec.number } else { 0 };
            Entry {
                spec: spec.clone(),
                number,
                fixed: number != 0,
            }
        };
        Self(specs.iter().map(entry).collect())
    }

    /// Makes sure that every port is free right now, and chooses where the runner may choose:
    /// at the first start, or again if somebody took the number since.
    ///
    /// # Errors
    /// A fixed port is taken, or no port is free.
    pub(crate) fn settle(
        &mut self,
        instance: &str,
        host: IpAddr,
        given: &Given,
    ) -> Result<(), String> {
        for Entry {
            spec,
            number,
            fixed,
        } in &mut self.0
        {
            if *number != 0 {
                match port::check(instance, host, *number, spec.transport) {
                    Ok(()) => continue,
                    Err(taken) if *fixed => return Err(taken.to_string()),
                    Err(_) => {}
                }
            }
            *number = given
                .choose(host)
                .map_err(|error| format!("no free port on {host}: {error}"))?;
        }
        Ok(())
    }

    /// The fixed ports that are taken.
    pub(crate) fn taken(&self, process: &str, host: IpAddr) -> Vec<TakenPort> {
        let fixed = self.0.iter().filter(|entry| entry.fixed);
        fixed
            .filter_map(|entry| {
                port::check(process, host, entry.number, entry.spec.transport).err()
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

/// The port numbers that the stack has fixed or given away. None is given twice, so that two
/// replicas which start at the same moment can't get the same one.
#[derive(Debug)]
pub(crate) struct Given(Mutex<HashSet<u16>>);

impl Given {
    pub(crate) fn new(fixed: impl IntoIterator<Item = u16>) -> Arc<Self> {
        Arc::new(Self(Mutex::new(fixed.into_iter().collect())))
    }

    fn choose(&self, host: IpAddr) -> std::io::Result<u16> {
        let mut given = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            let port = port::free(host)?;
            if given.insert(port) {
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
    fn the_first_replica_has_the_fixed_port_and_the_others_have_free_ones() {
        let fixed = port::free(HOST).unwrap();
        let given = Given::new([fixed]);
        let mut numbers = HashSet::new();
        for replica in 1..=5 {
            let mut ports = Ports::new(&spec(fixed), replica);
            ports.settle("a", HOST, &given).unwrap();
            assert_eq!(replica == 1, ports.main() == Some(fixed));
            assert!(numbers.insert(ports.main()));
        }
    }

    #[test]
    fn a_chosen_port_stays_until_somebody_takes_it() {
        let given = Given::new([]);
        let mut ports = Ports::new(&spec(0), 1);
        ports.settle("a", HOST, &given).unwrap();
        let first = ports.main().unwrap();
        ports.settle("a", HOST, &given).unwrap();
        assert_eq!(ports.main(), Some(first));
        let _intruder = TcpListener::bind((HOST, first)).unwrap();
        ports.settle("a", HOST, &given).unwrap();
        assert_ne!(ports.main(), Some(first));
    }
}
