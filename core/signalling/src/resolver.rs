//! DNS for next hops: `hickory-resolver` asks and caches by time to live, [`Locator`] says what to ask and in which order
//! the answers are tried.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use belfry_sip_proto::locate::{Found, Locator, Naptr, Place, Question, Srv, Wanted};
use hickory_resolver::TokioResolver;
use hickory_resolver::config::{ConnectionConfig, NameServerConfig, ResolverConfig, ResolverOpts};
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::proto::rr::{RData, RecordType};

use crate::config::Config;

/// Asks DNS. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Resolver {
    /// `None` when the host's own configuration could not be read and none is set: then only addresses are found.
    dns: Option<TokioResolver>,
    timeout: Duration,
}

impl std::fmt::Debug for Resolver {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Resolver").field("timeout", &self.timeout).finish_non_exhaustive()
    }
}

impl Resolver {
    /// A resolver with the configured servers, or the host's own.
    pub(crate) fn new(config: &Config) -> Self {
        let options = |options: &mut ResolverOpts| {
            options.cache_size = config.dns_cache_max;
            options.timeout = config.dns_timeout / 2;
            options.attempts = 2;
        };
        let builder = if config.dns_servers.is_empty() {
            TokioResolver::builder_tokio().ok()
        } else {
            let servers = config.dns_servers.iter().map(name_server).collect();
            let servers = ResolverConfig::from_parts(None, Vec::new(), servers);
            Some(TokioResolver::builder_with_config(servers, TokioRuntimeProvider::default()))
        };
        let dns = builder.and_then(|mut builder| {
            options(builder.options_mut());
            builder.build().ok()
        });
        Self { dns, timeout: config.dns_timeout }
    }

    /// Where a server is, most wanted first; nowhere when DNS knows nothing, fails, or takes too long.
    pub(crate) async fn locate(&self, wanted: Wanted, dice: u64) -> Vec<Place> {
        let mut locator = Locator::new(wanted, dice);
        let asking = async {
            while let Some(question) = locator.next_question() {
                let found = self.ask(&question).await;
                locator.on_found(found);
            }
        };
        // What was found in time is used.
        let _ = tokio::time::timeout(self.timeout, asking).await;
        locator.places()
    }

    async fn ask(&self, question: &Question) -> Found {
        match question {
            Question::Naptr(name) => Found::Naptr(self.records(name, RecordType::NAPTR, naptr).await),
            Question::Srv(name) => Found::Srv(self.records(name, RecordType::SRV, srv).await),
            Question::Addresses(name) => {
                let ip = |record: &RData| record.ip_addr();
                let (mut found, six) = tokio::join!(
                    self.records(name, RecordType::A, ip),
                    self.records(name, RecordType::AAAA, ip)
                );
                found.extend(six);
                Found::Addresses(found)
            }
        }
    }

    /// Records of a name; none when there are none, or when DNS fails.
    async fn records<T>(&self, name: &str, kind: RecordType, read: fn(&RData) -> Option<T>) -> Vec<T> {
        let Some(dns) = &self.dns else { return Vec::new() };
        // Absolute: the host's own search list means nothing to SIP.
        let found = dns.lookup(format!("{}.", name.trim_end_matches('.')), kind).await;
        let Ok(found) = found else { return Vec::new() };
        found.answers().iter().filter_map(|record| read(&record.data)).collect()
    }
}

fn name_server(address: &SocketAddr) -> NameServerConfig {
    let connections = [ConnectionConfig::udp(), ConnectionConfig::tcp()].map(|mut connection| {
        connection.port = address.port();
        connection
    });
    NameServerConfig::new(address.ip(), true, connections.to_vec())
}

fn naptr(record: &RData) -> Option<Naptr> {
    let RData::NAPTR(record) = record else { return None };
    Some(Naptr {
        order: record.order,
        preference: record.preference,
        flags: String::from_utf8_lossy(&record.flags).into_owned(),
        service: String::from_utf8_lossy(&record.services).into_owned(),
        replacement: record.replacement.to_string(),
    })
}

fn srv(record: &RData) -> Option<Srv> {
    let RData::SRV(record) = record else { return None };
    Some(Srv {
        priority: record.priority,
        weight: record.weight,
        port: record.port,
        target: record.target.to_string(),
    })
}

/// Whether a host needs no DNS.
pub(crate) fn is_literal(host: &str) -> bool {
    host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>().is_ok()
}
