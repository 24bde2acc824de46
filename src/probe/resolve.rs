//! Host names to addresses, by the machine's own files and name servers, without a thread that outlives
//! its caller: getaddrinfo(3) cannot be called off, a future can.

use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use hickory_resolver::config::{ResolveHosts, ResolverConfig};
use hickory_resolver::net::NetError;
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::proto::op::Query;
use hickory_resolver::proto::rr::{Name, RData, RecordType};
use hickory_resolver::{Hosts, Resolver, TokioResolver};
use tokio::time::{Instant, timeout_at};

use super::Fault;
use super::text::errno;

/// Name servers, read when a name is first asked for and again when the file changed.
#[derive(Default)]
pub(super) struct Names {
    current: Mutex<Option<Servers>>,
}

/// A resolver, and the age of the file that it was made from.
struct Servers {
    stamp: Option<SystemTime>,
    resolver: Arc<TokioResolver>,
}

impl Names {
    /// Every address of this host, /etc/hosts first. A literal is its own address and reads no file.
    pub(super) async fn addresses(&self, host: &str, deadline: Instant) -> Result<Vec<IpAddr>, Fault> {
        if let Ok(address) = host.parse() {
            return Ok(vec![address]);
        }
        let cannot = |why: &str| format!("lookup {host}: {why}");
        let Ok(name) = Name::from_utf8(host) else {
            return Err(Fault::Service(cannot("no such host")));
        };
        let hosts = match Hosts::from_system() {
            Ok(hosts) => hosts,
            Err(error) => match Fault::from_io(&error, cannot(&errno(&error))) {
                fault @ Fault::Ours(_) => return Err(fault),
                // A machine without the file, or with one that is not for uphold to read.
                Fault::Service(_) | Fault::Late(_) => Hosts::default(),
            },
        };
        if let Some(addresses) = static_addresses(&hosts, &name) {
            return Ok(addresses);
        }
        let resolver = self.resolver().map_err(|error| fault(&error, cannot))?;
        match timeout_at(deadline, resolver.lookup_ip(name)).await {
            Err(_) => Err(Fault::Late(cannot("i/o timeout"))),
            Ok(Err(error)) => Err(fault(&error, cannot)),
            Ok(Ok(found)) => {
                // Most services that are probed by name listen on IPv4 at least.
                let (mut addresses, later): (Vec<IpAddr>, Vec<IpAddr>) =
                    found.iter().partition(IpAddr::is_ipv4);
                addresses.extend(later);
                if addresses.is_empty() { Err(Fault::Service(cannot("no such host"))) } else { Ok(addresses) }
            }
        }
    }

    /// The resolver that /etc/resolv.conf describes now.
    fn resolver(&self) -> Result<Arc<TokioResolver>, NetError> {
        let stamp = fs::metadata("/etc/resolv.conf").and_then(|file| file.modified()).ok();
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(servers) = &*current
            && servers.stamp == stamp
        {
            return Ok(Arc::clone(&servers.resolver));
        }
        let resolver = Arc::new(configured()?);
        *current = Some(Servers { stamp, resolver: Arc::clone(&resolver) });
        Ok(resolver)
    }
}

/// A resolver by /etc/resolv.conf. Without that file there is no server to ask.
fn configured() -> Result<TokioResolver, NetError> {
    let mut builder = match TokioResolver::builder_tokio() {
        Ok(builder) => builder,
        Err(NetError::Io(error)) if error.kind() == io::ErrorKind::NotFound => {
            let nobody = ResolverConfig::from_parts(None, Vec::new(), Vec::new());
            Resolver::builder_with_config(nobody, TokioRuntimeProvider::default())
        }
        Err(error) => return Err(error),
    };
    // The hosts file is read here, each time; the resolver would read it once and ask on for the other
    // family of addresses.
    builder.options_mut().use_hosts_file = ResolveHosts::Never;
    builder.build()
}

/// What needs no server: /etc/hosts, then `localhost` itself (RFC 6761, section 6.3).
fn static_addresses(hosts: &Hosts, name: &Name) -> Option<Vec<IpAddr>> {
    let mut name = name.clone();
    name.set_fqdn(true);
    let mut found = Vec::new();
    for family in [RecordType::A, RecordType::AAAA] {
        let Some(lookup) = hosts.lookup_static_host(&Query::query(name.clone(), family)) else { continue };
        found.extend(lookup.answers().iter().filter_map(|record| address(&record.data)));
    }
    if found.is_empty() && name.is_localhost() {
        found = vec![IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)];
    }
    (!found.is_empty()).then_some(found)
}

/// The address in a record, if it holds one.
fn address(data: &RData) -> Option<IpAddr> {
    match data {
        RData::A(address) => Some(IpAddr::V4(address.0)),
        RData::AAAA(address) => Some(IpAddr::V6(address.0)),
        _ => None,
    }
}

/// What a failed lookup means, as Go words it.
fn fault(error: &NetError, cannot: impl Fn(&str) -> String) -> Fault {
    if let NetError::Io(io) = error {
        return Fault::from_io(io, cannot(&errno(io)));
    }
    if error.is_nx_domain() || error.is_no_records_found() {
        return Fault::Service(cannot("no such host"));
    }
    Fault::Service(cannot(&error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn soon() -> Instant {
        Instant::now() + Duration::from_millis(50)
    }

    #[tokio::test]
    async fn a_literal_is_its_own_address_and_builds_no_resolver() {
        let names = Names::default();
        for literal in ["127.0.0.1", "::1"] {
            assert_eq!(names.addresses(literal, soon()).await.unwrap(), [literal.parse::<IpAddr>().unwrap()]);
        }
        assert!(names.current.lock().unwrap().is_none());
    }

    #[tokio::test]
    async fn localhost_needs_no_name_server() {
        let names = Names::default();
        let found = names.addresses("localhost", soon()).await.unwrap();
        assert!(found.contains(&IpAddr::V4(Ipv4Addr::LOCALHOST)), "{found:?}");
        assert!(names.current.lock().unwrap().is_none());
    }

    #[test]
    fn the_hosts_file_comes_before_any_server() {
        let mut hosts = Hosts::default();
        hosts.read_hosts_conf(&b"192.0.2.7 Web.example\n2001:db8::7 web.example\n"[..]).unwrap();
        let found = static_addresses(&hosts, &Name::from_utf8("web.example").unwrap()).unwrap();
        assert_eq!(found, ["192.0.2.7".parse::<IpAddr>().unwrap(), "2001:db8::7".parse().unwrap()]);
        assert_eq!(static_addresses(&hosts, &Name::from_utf8("other.example").unwrap()), None);
    }

    #[tokio::test]
    async fn a_name_that_cannot_be_one_is_no_host() {
        let error = Names::default().addresses(&"x".repeat(300), soon()).await.unwrap_err();
        assert!(matches!(&error, Fault::Service(text) if text.ends_with(": no such host")), "{error:?}");
    }

    #[tokio::test]
    async fn a_lookup_ends_by_its_deadline() {
        let begun = Instant::now();
        Names::default().addresses("uphold.invalid", soon()).await.unwrap_err();
        assert!(begun.elapsed() < Duration::from_secs(5));
    }
}
