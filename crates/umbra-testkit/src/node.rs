//! A node and its pods out of network namespaces, wired as the `ptp` CNI plugin does it: IPv4 and IPv6.
//!
//! Addresses: nodes 172.31.78.K and fd00:31:78::K (K from 11) on a bridge that this process reaches too; pods
//! 10.245.K.P and fd00:245:K::P. They do not meet those of the cluster of `tests/cluster`.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result};

use crate::netns::ip;
use crate::{Netns, Process, http, program, wait_for};

const BRIDGE: &str = "umbra-test";
/// First and last K: what fits the third byte of a pod's address, above the bridge's own address.
const NODES: std::ops::RangeInclusive<u8> = 11..=250;

/// A node. Dropping it takes its links away; its pods should be dropped before.
#[derive(Debug)]
pub struct Node {
    netns: Netns,
    number: u8,
    pods: AtomicU8,
}

/// A pod on a node.
#[derive(Debug)]
pub struct Pod {
    netns: Netns,
    /// Its IPv4 address.
    pub ipv4: Ipv4Addr,
    /// Its IPv6 address.
    pub ipv6: Ipv6Addr,
}

impl Node {
    /// Makes a node that this process and every other node can reach.
    ///
    /// # Errors
    /// Without root, or when 240 nodes are there already.
    pub fn new() -> Result<Self> {
        let netns = Netns::new()?;
        make_bridge()?;
        let mut numbers = NODES;
        let number = numbers
            // Making the link claims the number: the kernel refuses a second one of that name.
            .find(|k| {
                ip(&format!("link add umbra-test{k} type veth peer name eth0 netns {}", netns.name())).is_ok()
            })
            .with_context(|| format!("no number in {NODES:?} is free for a node (ip link show type veth)"))?;
        let node = Self { netns, number, pods: AtomicU8::new(10) };
        node.wire()?;
        Ok(node)
    }

    /// The namespace it is.
    pub fn netns(&self) -> &Netns {
        &self.netns
    }

    /// Its IPv4 address.
    pub fn ipv4(&self) -> Ipv4Addr {
        Ipv4Addr::new(172, 31, 78, self.number)
    }

    /// Its IPv6 address.
    pub fn ipv6(&self) -> Ipv6Addr {
        Ipv6Addr::new(0xfd00, 0x31, 0x78, 0, 0, 0, 0, u16::from(self.number))
    }

    /// The addresses that its pods get, as in `spec.podCIDRs`.
    pub fn pod_cidrs(&self) -> [String; 2] {
        [format!("10.245.{}.0/24", self.number), format!("fd00:245:{:x}::/64", self.number)]
    }

    /// Starts a pod: a namespace, a link, an address of each family, and the routes.
    ///
    /// # Errors
    /// When a command fails: its words.
    pub fn pod(&self) -> Result<Pod> {
        let p = self.pods.fetch_add(1, Ordering::Relaxed);
        let netns = Netns::new()?;
        let (k, node) = (self.number, self.netns.name());
        let ipv4 = Ipv4Addr::new(10, 245, k, p);
        let ipv6 = Ipv6Addr::new(0xfd00, 0x245, u16::from(k), 0, 0, 0, 0, u16::from(p));
        let gateway4 = Ipv4Addr::new(10, 245, k, 1);
        let gateway6 = Ipv6Addr::new(0xfd00, 0x245, u16::from(k), 0, 0, 0, 0, 1);
        ip(&format!("link add pod{p} netns {node} type veth peer name eth0 netns {}", netns.name()))?;
        for line in [
            format!("link set pod{p} up"),
            format!("address add {gateway4}/32 dev pod{p}"),
            format!("address add {gateway6}/128 dev pod{p} nodad"),
            format!("route add {ipv4}/32 dev pod{p}"),
            format!("route add {ipv6}/128 dev pod{p}"),
        ] {
            self.netns.ip(&line)?;
        }
        for line in [
            "link set eth0 up".to_owned(),
            format!("address add {ipv4}/32 dev eth0"),
            format!("address add {ipv6}/128 dev eth0 nodad"),
            format!("route add {gateway4} dev eth0"),
            format!("route add {gateway6} dev eth0"),
            format!("route add default via {gateway4}"),
            format!("route add default via {gateway6} dev eth0"),
        ] {
            netns.ip(&line)?;
        }
        Ok(Pod { netns, ipv4, ipv6 })
    }

    /// Makes the pods of `other` reachable from this node's; call it on both for the way back.
    ///
    /// # Errors
    /// When a command fails: its words.
    pub fn route_to(&self, other: &Self) -> Result<()> {
        let [pods4, pods6] = other.pod_cidrs();
        self.netns.ip(&format!("route replace {pods4} via {}", other.ipv4()))?;
        self.netns.ip(&format!("route replace {pods6} via {}", other.ipv6()))?;
        Ok(())
    }

    /// A stand-in for kube-proxy: connections to `service` go to one of `endpoints`, in turn, as its nftables mode has it
    /// (a nat chain at priority `dstnat`). Without endpoints they are refused. Calling it again replaces them.
    ///
    /// # Errors
    /// When nft refuses.
    pub fn kube_proxy(&self, service: SocketAddr, endpoints: &[SocketAddr]) -> Result<()> {
        let family = if service.is_ipv4() { "ip" } else { "ip6" };
        let table = format!("kube-proxy-{}", service.to_string().replace(['.', ':', '[', ']'], "-"));
        let matched = format!("{family} daddr {} tcp dport {}", service.ip(), service.port());
        let map: Vec<String> = endpoints
            .iter()
            .enumerate()
            .map(|(i, to)| format!("{i} : {} . {}", to.ip(), to.port()))
            .collect();
        let rules = if endpoints.is_empty() {
            let refuse = format!("priority filter; {matched} reject with tcp reset;");
            format!(
                "chain input {{ type filter hook input {refuse} }}\nchain forward {{ type filter hook forward {refuse} }}"
            )
        } else {
            let rule = format!(
                "{matched} dnat {family} addr . port to numgen inc mod {} map {{ {} }};",
                map.len(),
                map.join(", ")
            );
            format!(
                "chain pods {{ type nat hook prerouting priority dstnat; {rule} }}\nchain node {{ type nat hook output priority -100; {rule} }}"
            )
        };
        self.netns.nft(&format!("table {family} {table} {{}}\ndelete table {family} {table}\ntable {family} {table} {{\n{rules}\n}}"))
    }

    fn wire(&self) -> Result<()> {
        let k = self.number;
        ip(&format!("link set umbra-test{k} master {BRIDGE} up"))?;
        for line in [
            "link set eth0 up".to_owned(),
            format!("address add {}/24 dev eth0", self.ipv4()),
            format!("address add {}/64 dev eth0 nodad", self.ipv6()),
            "route add default via 172.31.78.1".to_owned(),
            "route add default via fd00:31:78::1".to_owned(),
        ] {
            self.netns.ip(&line)?;
        }
        self.netns.run("sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1")?;
        let [pods4, pods6] = self.pod_cidrs();
        ip(&format!("route replace {pods4} via {}", self.ipv4()))?;
        ip(&format!("route replace {pods6} via {}", self.ipv6()))?;
        Ok(())
    }
}

impl Pod {
    /// The namespace it is.
    pub fn netns(&self) -> &Netns {
        &self.netns
    }

    /// Its IPv4 address, for where either family does.
    pub fn address(&self) -> IpAddr {
        self.ipv4.into()
    }

    /// Starts one of the example's programs here, on port 5000 as its image does, and waits until it is healthy. `name` is
    /// that of its log in `logs`.
    ///
    /// # Errors
    /// It has not been built, or ends.
    pub fn serve(
        &self,
        name: &str,
        (of, arguments): (&str, &[&str]),
        logs: &Path,
        ceiling: Duration,
    ) -> Result<Process> {
        let mut command = self.netns.command(program(of)?);
        command.args(arguments).args(["--listen", "[::]:5000"]);
        let mut process = Process::start(name, &command, &logs.join(format!("{name}.log")))?;
        wait_for(&format!("{name} answers"), ceiling, || {
            if let Err(dead) = process.alive() {
                return Ok(Err(dead));
            }
            http::get((self.ipv4, 5000).into(), "/healthz").map(|_| Ok(()))
        })??;
        Ok(process)
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        // The link would go with the namespace, but later: this frees the number at once. The bridge stays while
        // another node (of another test process, perhaps) is on it.
        let _ = ip(&format!("link delete umbra-test{}", self.number));
        let ports = std::fs::read_dir(format!("/sys/class/net/{BRIDGE}/brif"));
        if ports.is_ok_and(|mut ports| ports.next().is_none()) {
            let _ = ip(&format!("link delete {BRIDGE}"));
        }
    }
}

/// The bridge may be there already: then everything about it is as it should be.
fn make_bridge() -> Result<()> {
    if ip(&format!("link add {BRIDGE} type bridge")).is_err() {
        return ip(&format!("link show {BRIDGE}")).map(drop);
    }
    ip(&format!("address add 172.31.78.1/24 dev {BRIDGE}"))?;
    ip(&format!("address add fd00:31:78::1/64 dev {BRIDGE} nodad"))?;
    ip(&format!("link set {BRIDGE} up"))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::net::{TcpListener, TcpStream};

    use super::*;

    /// Says its address to whoever connects.
    fn serve(pod: &Pod, address: IpAddr) {
        let listener = pod.netns().within(|| TcpListener::bind((address, 8080)).unwrap()).unwrap();
        std::thread::spawn(move || {
            for connection in listener.incoming() {
                connection.unwrap().write_all(address.to_string().as_bytes()).unwrap();
            }
        });
    }

    fn ask(from: &Netns, to: SocketAddr) -> Result<String> {
        let mut said = String::new();
        let ceiling = Duration::from_secs(5);
        from.within(|| TcpStream::connect_timeout(&to, ceiling))??.read_to_string(&mut said)?;
        Ok(said)
    }

    #[test]
    fn pods_reach_a_service_on_both_nodes_and_this_process_reaches_pods() {
        if !Netns::available() {
            return;
        }
        let (one, two) = (Node::new().unwrap(), Node::new().unwrap());
        one.route_to(&two).unwrap();
        two.route_to(&one).unwrap();
        let (client, near, far) = (one.pod().unwrap(), one.pod().unwrap(), two.pod().unwrap());
        let services: [SocketAddr; 2] =
            ["10.96.200.1:80".parse().unwrap(), "[fd00:96::1]:80".parse().unwrap()];
        for (service, backends) in services.into_iter().zip([
            [IpAddr::from(near.ipv4), IpAddr::from(far.ipv4)],
            [IpAddr::from(near.ipv6), IpAddr::from(far.ipv6)],
        ]) {
            serve(&near, backends[0]);
            serve(&far, backends[1]);
            one.kube_proxy(service, &backends.map(|address| (address, 8080).into())).unwrap();
            // IPv6 routers answer neighbours a moment after their link came up.
            let first =
                wait_for("the service answers", Duration::from_secs(60), || ask(client.netns(), service))
                    .unwrap();
            let mut heard = vec![first, ask(client.netns(), service).unwrap()];
            for _ in 0..8 {
                heard.push(ask(client.netns(), service).unwrap());
            }
            for backend in backends {
                assert!(heard.contains(&backend.to_string()), "{backend} in {heard:?}");
            }
            one.kube_proxy(service, &[]).unwrap();
            assert!(ask(client.netns(), service).is_err());
        }
        let mut said = String::new();
        TcpStream::connect((far.ipv4, 8080)).unwrap().read_to_string(&mut said).unwrap();
        assert_eq!(said, far.ipv4.to_string());
    }
}
