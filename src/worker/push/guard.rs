//! Which addresses a request may go to: those of the public internet, and what the one who starts divvy has allowed.
//!
//! A name is looked up once for each connection, every address it leads to is checked, and the checked addresses are the ones that
//! are dialled: a name that leads elsewhere a moment later gains nothing.

use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use std::fmt;
use std::future::Future;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::pin::Pin;
use std::str::FromStr;
use std::sync::Arc;

/// What is not of the public internet, by the registries of IANA for special purposes.
const NOT_PUBLIC_V4: [(Ipv4Addr, u8); 15] = [
    (Ipv4Addr::new(0, 0, 0, 0), 8),       // this network
    (Ipv4Addr::new(10, 0, 0, 0), 8),      // private
    (Ipv4Addr::new(100, 64, 0, 0), 10),   // shared, behind a carrier's NAT
    (Ipv4Addr::new(127, 0, 0, 0), 8),     // loopback
    (Ipv4Addr::new(169, 254, 0, 0), 16),  // link-local, and the metadata of clouds
    (Ipv4Addr::new(172, 16, 0, 0), 12),   // private
    (Ipv4Addr::new(192, 0, 0, 0), 24),    // protocols
    (Ipv4Addr::new(192, 0, 2, 0), 24),    // documentation
    (Ipv4Addr::new(192, 88, 99, 0), 24),  // relays of 6to4
    (Ipv4Addr::new(192, 168, 0, 0), 16),  // private
    (Ipv4Addr::new(198, 18, 0, 0), 15),   // benchmarks
    (Ipv4Addr::new(198, 51, 100, 0), 24), // documentation
    (Ipv4Addr::new(203, 0, 113, 0), 24),  // documentation
    (Ipv4Addr::new(224, 0, 0, 0), 4),     // multicast
    (Ipv4Addr::new(240, 0, 0, 0), 4),     // reserved, and broadcast
];
/// All of IPv6 that is given to the public,
const PUBLIC_V6: (Ipv6Addr, u8) = (Ipv6Addr::new(0x2000, 0, 0, 0, 0, 0, 0, 0), 3);
/// and what in it is not.
const NOT_PUBLIC_V6: [(Ipv6Addr, u8); 4] = [
    (Ipv6Addr::new(0x2001, 0, 0, 0, 0, 0, 0, 0), 23), // protocols: Teredo, ORCHID, benchmarks
    (Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0), 32), // documentation
    (Ipv6Addr::new(0x2002, 0, 0, 0, 0, 0, 0, 0), 16), // 6to4, which leads to any IPv4 address
    (Ipv6Addr::new(0x3fff, 0, 0, 0, 0, 0, 0, 0), 20), // documentation
];
/// IPv4 addresses as a network without IPv4 reaches them: they are judged as what they stand for.
const NAT64: (Ipv6Addr, u8) = (Ipv6Addr::new(0x64, 0xff9b, 0, 0, 0, 0, 0, 0), 96);

/// An address and how many bits of it count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Network {
    address: IpAddr,
    bits: u8,
}

impl Network {
    fn has(self, address: IpAddr) -> bool {
        match (self.address, address) {
            (IpAddr::V4(network), IpAddr::V4(address)) => has_v4((network, self.bits), address),
            (IpAddr::V6(network), IpAddr::V6(address)) => has_v6((network, self.bits), address),
            _ => false,
        }
    }
}

impl FromStr for Network {
    type Err = String;

    /// `10.0.0.0/8`, or one address.
    fn from_str(text: &str) -> Result<Self, String> {
        let fault =
            || format!("{text:?} is no network: an address, or an address and bits such as 10.0.0.0/8");
        let (address, bits) = match text.split_once('/') {
            Some((address, bits)) => (address, Some(bits.parse::<u8>().map_err(|_| fault())?)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(|_| fault())?;
        let most = if address.is_ipv4() { 32 } else { 128 };
        let bits = bits.unwrap_or(most);
        match bits <= most {
            true => Ok(Self { address, bits }),
            false => Err(fault()),
        }
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.bits)
    }
}

fn has_v4((network, bits): (Ipv4Addr, u8), address: Ipv4Addr) -> bool {
    let mask = u32::MAX.checked_shl(32 - u32::from(bits)).unwrap_or(0);
    (network.to_bits() ^ address.to_bits()) & mask == 0
}

fn has_v6((network, bits): (Ipv6Addr, u8), address: Ipv6Addr) -> bool {
    let mask = u128::MAX.checked_shl(128 - u32::from(bits)).unwrap_or(0);
    (network.to_bits() ^ address.to_bits()) & mask == 0
}

/// The IPv4 address that an IPv6 address stands for, if it does.
fn plain(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) if has_v6(NAT64, v6) => {
            let [.., a, b, c, d] = v6.octets();
            IpAddr::V4(Ipv4Addr::new(a, b, c, d))
        }
        canonical => canonical,
    }
}

fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => !NOT_PUBLIC_V4.iter().any(|network| has_v4(*network, v4)),
        IpAddr::V6(v6) => has_v6(PUBLIC_V6, v6) && !NOT_PUBLIC_V6.iter().any(|network| has_v6(*network, v6)),
    }
}

/// An address that no request goes to.
#[derive(Debug)]
pub(super) struct Refused(String);

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Refused {}

/// Looks names up and lets through what may be dialled.
#[derive(Clone)]
pub(super) struct Guard {
    allowed: Arc<[Network]>,
    lookup: Lookup,
}

type Found = Pin<Box<dyn Future<Output = io::Result<Vec<IpAddr>>> + Send>>;
type Lookup = Arc<dyn Fn(String) -> Found + Send + Sync>;

impl Guard {
    /// As the system looks names up.
    pub(super) fn new(allowed: &[Network]) -> Self {
        let lookup: Lookup = Arc::new(|name| {
            Box::pin(async move {
                let found = tokio::net::lookup_host((name, 0)).await?;
                Ok(found.map(|address| address.ip()).collect())
            })
        });
        Self { allowed: allowed.into(), lookup }
    }

    /// Whether a request may go to `address`.
    pub(super) fn admits(&self, address: IpAddr) -> bool {
        let address = plain(address);
        is_public(address) || self.allowed.iter().any(|network| network.has(address))
    }

    /// The same of the host of a URL, where it is an address; a name is looked at when it is dialled.
    pub(super) fn check(&self, url: &reqwest::Url) -> Result<(), Refused> {
        let host = url.host_str().unwrap_or_default();
        match host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>() {
            Ok(address) if !self.admits(address) => Err(refused(host, &[address])),
            _ => Ok(()),
        }
    }

    async fn resolve_name(self, name: String) -> Result<Addrs, Box<dyn std::error::Error + Send + Sync>> {
        let found = (self.lookup)(name.clone()).await?;
        let (good, bad): (Vec<IpAddr>, Vec<IpAddr>) =
            found.into_iter().partition(|address| self.admits(*address));
        match (good.is_empty(), bad.is_empty()) {
            (false, _) => Ok(Box::new(good.into_iter().map(|address| SocketAddr::new(address, 0)))),
            (true, false) => Err(refused(&name, &bad).into()),
            (true, true) => Err(format!("{name} has no address").into()),
        }
    }
}

impl Resolve for Guard {
    fn resolve(&self, name: Name) -> Resolving {
        Box::pin(self.clone().resolve_name(name.as_str().to_owned()))
    }
}

fn refused(host: &str, addresses: &[IpAddr]) -> Refused {
    let addresses: Vec<String> = addresses.iter().map(ToString::to_string).collect();
    let addresses = addresses.join(", ");
    let what = if addresses == host.trim_matches(['[', ']']) {
        format!("{host} is")
    } else {
        format!("{host} leads to {addresses}, which is")
    };
    Refused(format!("{what} not of the public internet, and --allow-http does not name it"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Mutex;

    fn guard(allowed: &[&str]) -> Guard {
        Guard::new(&allowed.iter().map(|text| text.parse().unwrap()).collect::<Vec<_>>())
    }

    #[test]
    fn only_the_public_internet_is_admitted() {
        let guard = guard(&[]);
        let internal = "0.0.0.0 0.1.2.3 10.0.0.1 10.255.255.255 100.64.0.1 100.127.255.255 127.0.0.1 127.9.9.9 169.254.169.254 \
            172.16.0.1 172.31.255.255 192.0.0.1 192.0.0.192 192.0.2.1 192.88.99.1 192.168.0.1 198.18.0.1 198.19.255.255 \
            198.51.100.7 203.0.113.7 224.0.0.1 239.255.255.255 240.0.0.1 255.255.255.255 \
            :: ::1 ::127.0.0.1 ::ffff:127.0.0.1 ::ffff:10.0.0.1 ::ffff:169.254.169.254 64:ff9b::127.0.0.1 64:ff9b::a9fe:a9fe \
            64:ff9b::10.0.0.1 64:ff9b:1::1 100::1 2001::1 2001:0:7f00:1:: 2001:2::1 2001:10::1 2001:20::1 2001:db8::1 2002:7f00:1:: \
            2002:808:808:: 3fff::1 5f00::1 fc00::1 fd00:ec2::254 fe80::1 fec0::1 ff02::1 4000::1";
        for address in internal.split_whitespace() {
            assert!(!guard.admits(address.parse().unwrap()), "{address}");
        }
        let public = "1.1.1.1 8.8.8.8 9.255.255.255 11.0.0.0 100.63.255.255 100.128.0.0 126.255.255.255 128.0.0.1 172.15.255.255 \
            172.32.0.0 192.0.1.1 192.167.255.255 192.169.0.0 198.17.255.255 198.20.0.0 223.255.255.255 \
            2606:4700:4700::1111 2a00:1450:4001::1 2001:4860:4860::8888 ::ffff:8.8.8.8 64:ff9b::808:808";
        for address in public.split_whitespace() {
            assert!(guard.admits(address.parse().unwrap()), "{address}");
        }
    }

    #[test]
    fn what_is_allowed_is_admitted_also_in_disguise_and_nothing_beside_it() {
        let guard = guard(&["10.1.0.0/16", "127.0.0.1", "fd00::/8"]);
        for address in ["10.1.2.3", "127.0.0.1", "::ffff:10.1.0.9", "64:ff9b::a01:9", "fd12::1"] {
            assert!(guard.admits(address.parse().unwrap()), "{address}");
        }
        for address in ["10.2.0.1", "127.0.0.2", "fc00::1", "169.254.169.254", "::1"] {
            assert!(!guard.admits(address.parse().unwrap()), "{address}");
        }
        for wrong in ["", "10.0.0.0/33", "::/129", "localhost", "10.0.0/8", "1.2.3.4/x", "1.2.3.4/-1"] {
            assert!(wrong.parse::<Network>().unwrap_err().contains("is no network"), "{wrong}");
        }
        assert!(self::guard(&["0.0.0.0/0"]).admits("127.0.0.1".parse().unwrap()));
    }

    #[test]
    fn an_address_in_a_url_is_checked_however_it_is_written() {
        let guard = guard(&[]);
        for url in [
            "http://127.0.0.1/",
            "http://127.1/",
            "http://2130706433/",
            "http://0x7f000001/",
            "http://0177.0.0.1/",
            "http://[::1]/",
            "http://[::ffff:169.254.169.254]/",
            "https://[64:ff9b::a00:1]:8443/",
        ] {
            let error = guard.check(&url.parse().unwrap()).unwrap_err().to_string();
            assert!(error.contains("not of the public internet"), "{url}: {error}");
        }
        guard.check(&"http://8.8.8.8/".parse().unwrap()).unwrap();
        guard.check(&"http://example.org/".parse().unwrap()).unwrap();
    }

    async fn dialled(guard: &Guard) -> Result<Vec<String>, String> {
        let found = guard.clone().resolve_name("hook.example".to_owned()).await;
        found.map(|all| all.map(|one| one.ip().to_string()).collect()).map_err(|error| error.to_string())
    }

    #[tokio::test]
    async fn a_name_that_leads_elsewhere_the_next_time_is_checked_the_next_time() {
        let answers =
            Mutex::new(vec![vec!["127.0.0.1"], vec!["8.8.8.8", "10.0.0.1", "::1"], vec![], vec!["8.8.8.8"]]);
        let mut guard = guard(&[]);
        guard.lookup = Arc::new(move |_| {
            let next = answers.lock().unwrap().pop().unwrap();
            Box::pin(async move { Ok(next.into_iter().map(|text| text.parse().unwrap()).collect()) })
        });
        assert_eq!(dialled(&guard).await, Ok(vec!["8.8.8.8".to_owned()]));
        assert_eq!(dialled(&guard).await, Err("hook.example has no address".to_owned()));
        assert_eq!(dialled(&guard).await, Ok(vec!["8.8.8.8".to_owned()]));
        let refused = dialled(&guard).await.unwrap_err();
        assert!(
            refused.starts_with("hook.example leads to 127.0.0.1, which is not of the public"),
            "{refused}"
        );
    }
}
