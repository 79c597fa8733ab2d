//! Which backend answers a request: by host, then by the beginning of the path; servers of a backend in turn.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use ipnet::IpNet;

use crate::config::HttpConfig;

/// The HTTP settings in use. Immutable; a reload builds a new one.
#[derive(Debug)]
pub(crate) struct Routes {
    /// Sorted so that the first match is the right one.
    routes: Vec<Route>,
    trusted_proxies: Vec<IpNet>,
    /// A response header that came later than this is slow.
    pub(crate) slow_after: Duration,
    pub(crate) trace_one_in: u32,
}

#[derive(Debug)]
struct Route {
    host: Option<String>,
    path: String,
    backend: Arc<Backend>,
}

/// A group of servers.
#[derive(Debug)]
pub(crate) struct Backend {
    /// Its configured name.
    pub(crate) name: String,
    addresses: Vec<SocketAddr>,
    next: AtomicUsize,
    /// Opening a connection.
    pub(crate) connect_timeout: Duration,
    /// Waiting for the next bytes of an answer.
    pub(crate) read_timeout: Duration,
}

impl Backend {
    /// The next server in turn.
    pub(crate) fn pick(&self) -> SocketAddr {
        let turn = self.next.fetch_add(1, Ordering::Relaxed);
        self.addresses[turn % self.addresses.len()]
    }

    /// How many servers there are to try.
    pub(crate) fn servers(&self) -> usize {
        self.addresses.len()
    }
}

impl Routes {
    /// Builds the table; routes to unknown or empty backends are left out (`Config::check` names them).
    pub(crate) fn new(config: &HttpConfig) -> Self {
        let backends: Vec<Arc<Backend>> = config
            .backends
            .iter()
            .filter(|backend| !backend.addresses.is_empty())
            .map(|backend| {
                Arc::new(Backend {
                    name: backend.name.clone(),
                    addresses: backend.addresses.clone(),
                    next: AtomicUsize::new(0),
                    connect_timeout: backend.connect_timeout,
                    read_timeout: backend.read_timeout,
                })
            })
            .collect();
        let find = |name: &str| backends.iter().find(|backend| backend.name == name).map(Arc::clone);
        let mut routes: Vec<Route> = config
            .routes
            .iter()
            .filter_map(|route| {
                let host = route.host.as_ref().map(|host| host.to_ascii_lowercase());
                Some(Route { host, path: route.path.clone(), backend: find(&route.backend)? })
            })
            .collect();
        routes.sort_by_key(|route| (route.host.is_none(), std::cmp::Reverse(route.path.len())));
        Self {
            routes,
            trusted_proxies: config.trusted_proxies.clone(),
            slow_after: config.slow_after,
            trace_one_in: config.trace_one_in,
        }
    }

    /// The backend of a request. `host` may carry a port.
    pub(crate) fn find(&self, host: &str, path: &str) -> Option<&Arc<Backend>> {
        let host = without_port(host).to_ascii_lowercase();
        let matches = |route: &&Route| {
            route.host.as_ref().is_none_or(|wanted| *wanted == host) && is_below(path, &route.path)
        };
        self.routes.iter().find(matches).map(|route| &route.backend)
    }

    /// Whether what this address says about its clients is believed.
    pub(crate) fn trusts(&self, ip: IpAddr) -> bool {
        let ip = ip.to_canonical();
        self.trusted_proxies.iter().any(|network| network.contains(&ip))
    }
}

fn without_port(host: &str) -> &str {
    match host.rfind(':') {
        // An IPv6 literal without a port ends in its bracket.
        Some(colon) if !host.ends_with(']') => &host[..colon],
        _ => host,
    }
}

/// Whether `path` is `prefix` or below it, in whole segments.
fn is_below(path: &str, prefix: &str) -> bool {
    path.strip_prefix(prefix)
        .is_some_and(|rest| rest.is_empty() || prefix.ends_with('/') || rest.starts_with(['/', '?']))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{BackendConfig, RouteConfig};

    fn routes() -> Routes {
        let backend = |name: &str, ports: &[u16]| BackendConfig {
            name: name.to_owned(),
            addresses: ports.iter().map(|port| SocketAddr::from(([127, 0, 0, 1], *port))).collect(),
            connect_timeout: Duration::from_secs(1),
            read_timeout: Duration::from_secs(1),
        };
        let route = |host: Option<&str>, path: &str, backend: &str| RouteConfig {
            host: host.map(str::to_owned),
            path: path.to_owned(),
            backend: backend.to_owned(),
        };
        Routes::new(&HttpConfig {
            slow_after: Duration::from_secs(1),
            trace_one_in: 1,
            trusted_proxies: vec!["10.0.0.0/8".parse().expect("a network")],
            backends: vec![backend("web", &[1, 2, 3]), backend("api", &[4]), backend("shop", &[5])],
            routes: vec![
                route(None, "/", "web"),
                route(None, "/api", "api"),
                route(Some("Shop.Example.org"), "/", "shop"),
            ],
        })
    }

    #[test]
    fn exact_hosts_and_longer_paths_come_first() {
        let routes = routes();
        for (host, path, want) in [
            ("a.example.org", "/", "web"),
            ("a.example.org:8443", "/api", "api"),
            ("a.example.org", "/api/v1?x", "api"),
            ("a.example.org", "/api?x", "api"),
            ("a.example.org", "/apix", "web"),
            ("SHOP.example.org:443", "/api", "shop"),
            ("[::1]:443", "/", "web"),
            ("[::1]", "/", "web"),
        ] {
            assert_eq!(routes.find(host, path).map(|backend| &*backend.name), Some(want), "{host}{path}");
        }
        assert!(routes.find("a", "*").is_none());
        assert!(routes.trusts("::ffff:10.1.2.3".parse().expect("an address")));
        assert!(!routes.trusts("192.0.2.1".parse().expect("an address")));
    }

    #[test]
    fn servers_are_taken_in_turn() {
        let routes = routes();
        let backend = routes.find("a", "/").expect("a route");
        let ports: Vec<u16> = (0..4).map(|_| backend.pick().port()).collect();
        assert_eq!(ports, [1, 2, 3, 1]);
    }
}
