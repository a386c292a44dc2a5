//! One look-up of a service: its queries and their responses.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::try_join_all;
use hickory_resolver::TokioResolver;
use hickory_resolver::net::{DnsError, NetError};
use hickory_resolver::proto::op::ResponseCode;
use hickory_resolver::proto::rr::rdata::SRV;
use hickory_resolver::proto::rr::{Name, RData, Record, RecordType};
use tokio::sync::Semaphore;
use waypost_core::provider::ServiceAnswer;
use waypost_core::{ProviderError, ProviderErrorKind, ServiceName};

use crate::mapping::{Srv, Target, instances, targets_at_port};

/// The maximum number of concurrent queries, regardless of the number of services.
const MAX_QUERIES: usize = 32;

/// The time limit of one attempt at one server, and the number of attempts.
pub(super) const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(2);
pub(super) const ATTEMPTS: usize = 2;

/// Queries the servers for services.
pub(super) struct Queries {
    pub(super) resolver: TokioResolver,
    pub(super) description: Arc<str>,
    /// The name to query, with `{service}` in place of the service.
    pub(super) name: String,
    /// The port of A and AAAA records; without it, SRV records are used.
    pub(super) port: Option<u16>,
    pub(super) scheme: String,
    permits: Semaphore,
}

/// An answer, and for how long it is valid according to the server.
pub(super) struct Answer {
    pub(super) answer: ServiceAnswer,
    pub(super) ttl: Duration,
}

/// The records of a name.
enum Found<T> {
    Records(Vec<T>, Duration),
    /// There are none. `exists` is true if the name has records of another type.
    Nothing {
        exists: bool,
        ttl: Duration,
    },
}

impl Queries {
    pub(super) fn new(
        resolver: TokioResolver,
        description: Arc<str>,
        name: String,
        port: Option<u16>,
        scheme: String,
    ) -> Self {
        Self {
            resolver,
            description,
            name,
            port,
            scheme,
            permits: Semaphore::new(MAX_QUERIES),
        }
    }

    /// Looks a service up. A negative response (the name doesn't exist, or has no records) is an answer, not
    /// an error.
    pub(super) async fn look_up(&self, service: &ServiceName) -> Result<Answer, ProviderError> {
        let name = self.name.replace("{service}", service.as_str());
        let name = Name::from_ascii(&name).map_err(|cause| {
            let message = format!("{name:?} is not a DNS name");
            self.error(ProviderErrorKind::Rejected, message)
                .with_source(cause)
        })?;
        let found = match self.port {
            Some(port) => match self.addresses(&name).await? {
                Found::Records(addresses, ttl) => {
                    Found::Records(targets_at_port(addresses, port), ttl)
                }
                Found::Nothing { exists, ttl } => Found::Nothing { exists, ttl },
            },
            None => self.srv_targets(&name).await?,
        };
        Ok(match found {
            Found::Records(targets, ttl) => {
                let instances = instances(service, &self.scheme, targets);
                let answer = ServiceAnswer::Instances(instances);
                Answer { answer, ttl }
            }
            Found::Nothing { exists: true, ttl } => {
                let answer = ServiceAnswer::Instances(Vec::new());
                Answer { answer, ttl }
            }
            Found::Nothing { exists: false, ttl } => {
                let answer = ServiceAnswer::Unknown;
                Answer { answer, ttl }
            }
        })
    }

    /// The addresses of a name: IPv4 if it has any, else IPv6, since both usually lead to the same
    /// machines.
    async fn addresses(&self, name: &Name) -> Result<Found<IpAddr>, ProviderError> {
        let address = |record: &Record| match &record.data {
            RData::A(address) => Some(IpAddr::V4(address.0)),
            RData::AAAA(address) => Some(IpAddr::V6(address.0)),
            _ => None,
        };
        let (found, _) = self.query(name, RecordType::A, address).await?;
        match found {
            Found::Nothing { exists: true, .. } => {
                Ok(self.query(name, RecordType::AAAA, address).await?.0)
            }
            found => Ok(found),
        }
    }

    /// The addresses and ports of the SRV records of a name.
    async fn srv_targets(&self, name: &Name) -> Result<Found<Target>, ProviderError> {
        let srv = |record: &Record| match &record.data {
            RData::SRV(srv) => Some(srv.clone()),
            _ => None,
        };
        let (found, additional) = self.query(name, RecordType::SRV, srv).await?;
        let (records, mut ttl) = match found {
            Found::Records(records, ttl) => (records, ttl),
            Found::Nothing { exists, ttl } => return Ok(Found::Nothing { exists, ttl }),
        };
        // The root as a target means that the service is not available (RFC 2782).
        let records: Vec<SRV> = records
            .into_iter()
            .filter(|srv| !srv.target.is_root())
            .collect();
        let mut hosts: BTreeMap<Name, Vec<IpAddr>> = BTreeMap::new();
        for record in &additional {
            match &record.data {
                RData::A(address) => hosts
                    .entry(record.name.clone())
                    .or_default()
                    .push(IpAddr::V4(address.0)),
                RData::AAAA(address) => hosts
                    .entry(record.name.clone())
                    .or_default()
                    .push(IpAddr::V6(address.0)),
                _ => continue,
            }
            ttl = ttl.min(seconds(record.ttl));
        }
        let mut missing: Vec<&Name> = records.iter().map(|srv| &srv.target).collect();
        missing.retain(|target| !hosts.contains_key(*target));
        missing.sort();
        missing.dedup();
        // An answer must be complete, so one failed query is a failure of the whole look-up.
        let queries = missing
            .iter()
            .map(async |name| Ok::<_, ProviderError>((*name, self.addresses(name).await?)));
        for (name, found) in try_join_all(queries).await? {
            match found {
                Found::Records(addresses, valid) => {
                    hosts.insert(name.clone(), addresses);
                    ttl = ttl.min(valid);
                }
                Found::Nothing { ttl: valid, .. } => {
                    tracing::debug!(target = %name, "an SRV record leads to a name without addresses");
                    ttl = ttl.min(valid);
                }
            }
        }
        let targets = records.iter().flat_map(|srv| {
            let addresses = hosts
                .get(&srv.target)
                .map(Vec::as_slice)
                .unwrap_or_default();
            let v4 = addresses.iter().any(IpAddr::is_ipv4);
            let addresses = addresses
                .iter()
                .filter(move |address| address.is_ipv4() == v4);
            addresses.map(|address| Target {
                address: SocketAddr::new(*address, srv.port),
                srv: Some(Srv {
                    priority: srv.priority,
                    weight: srv.weight,
                    host: srv.target.to_ascii().trim_end_matches('.').to_owned(),
                }),
            })
        });
        Ok(Found::Records(targets.collect(), ttl))
    }

    /// Sends one query. Returns the records that `select` accepts, and the additional records.
    async fn query<T>(
        &self,
        name: &Name,
        record_type: RecordType,
        select: impl Fn(&Record) -> Option<T>,
    ) -> Result<(Found<T>, Vec<Record>), ProviderError> {
        // The semaphore is never closed, so this can't fail.
        let _permit = self.permits.acquire().await;
        let lookup = match self.resolver.lookup(name.clone(), record_type).await {
            Ok(lookup) => lookup,
            Err(NetError::Dns(DnsError::NoRecordsFound(none))) => {
                let exists = match none.response_code {
                    ResponseCode::NXDomain => false,
                    ResponseCode::NoError => true,
                    code => return Err(self.refused(name, code)),
                };
                let ttl = none.negative_ttl.map_or(Duration::ZERO, seconds);
                return Ok((Found::Nothing { exists, ttl }, Vec::new()));
            }
            Err(NetError::Dns(DnsError::ResponseCode(code))) => {
                return Err(self.refused(name, code));
            }
            Err(NetError::Timeout) => {
                let after = ATTEMPT_TIMEOUT * ATTEMPTS as u32;
                let kind = ProviderErrorKind::TimedOut { after };
                return Err(self.error(kind, format!("no response to the query for {name}")));
            }
            Err(cause) => {
                let message = format!("the query for {name} failed");
                let error = self.error(ProviderErrorKind::Unreachable, message);
                return Err(error.with_source(cause));
            }
        };
        let records: Vec<T> = lookup.answers().iter().filter_map(select).collect();
        let ttl = lookup.answers().iter().map(|record| record.ttl).min();
        let ttl = ttl.map_or(Duration::ZERO, seconds);
        let found = if records.is_empty() {
            Found::Nothing { exists: true, ttl }
        } else {
            Found::Records(records, ttl)
        };
        Ok((found, lookup.additionals().to_vec()))
    }

    /// The error for a response code that reports a failure.
    fn refused(&self, name: &Name, code: ResponseCode) -> ProviderError {
        match code {
            ResponseCode::Refused => self.error(
                ProviderErrorKind::Rejected,
                format!("refuses the query for {name}: it doesn't serve that zone (REFUSED)"),
            ),
            code => self.error(
                ProviderErrorKind::Unreachable,
                format!("response to the query for {name}: {code}"),
            ),
        }
    }

    fn error(&self, kind: ProviderErrorKind, message: impl Into<Arc<str>>) -> ProviderError {
        ProviderError::new(Arc::clone(&self.description), kind, message)
    }
}

fn seconds(ttl: u32) -> Duration {
    Duration::from_secs(ttl.into())
}
