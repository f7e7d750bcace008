//! The command line; each flag is an environment variable, too: `--some-flag` is `UMBRA_SOME_FLAG`.

mod limits;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use clap::{Parser, ValueEnum};

pub use limits::LimitArgs;

use crate::intercept::Adopt;
use crate::intercept::cni::Cni;
use crate::options::{Intercept, LogFilter, Options};

const TRAFFIC_PORT: u16 = 15001;
const PUSH_PORT: u16 = 15002;
const METRICS_PORT: u16 = 15020;

/// Takes over connections of this node's pods to governed services, routes each request, and shadows it.
#[derive(Debug, Parser)]
#[command(name = "umbra-proxy", version)]
pub struct Args {
    /// Name of this node.
    #[arg(long, env = "UMBRA_NODE", required_unless_present = "cleanup")]
    pub node: Option<String>,
    /// Delete umbra's nft tables on this node and exit: for uninstalling.
    #[arg(long, env = "UMBRA_CLEANUP")]
    pub cleanup: bool,
    /// After --cleanup wait for SIGTERM, as a DaemonSet's container has to.
    #[arg(long, env = "UMBRA_THEN_WAIT", requires = "cleanup")]
    pub then_wait: bool,
    /// How long the kernel leads users to the primary when no proxy runs; renewed while one does.
    #[arg(long, env = "UMBRA_FALLBACK_TIMEOUT", value_parser = duration, default_value = "300s")]
    pub fallback_timeout: Duration,
    /// Address of this node that its pods reach; on a dual-stack node one of each family, separated by a comma.
    #[arg(long, env = "UMBRA_NODE_ADDRESS", value_delimiter = ',')]
    pub node_address: Vec<IpAddr>,
    /// Whether the kernel gives us connections of local pods.
    #[arg(long, env = "UMBRA_INTERCEPT", value_enum, default_value_t = Switch::On)]
    pub intercept: Switch,
    /// What becomes of connections opened before their service was armed: `leave` counts them, `reset` resets them, too,
    /// so that clients connect anew and are seen.
    #[arg(long, env = "UMBRA_ADOPT", value_enum, default_value_t = Adopt::Leave)]
    pub adopt: Adopt,
    /// `check` takes over nothing beside pod networks that are known to translate ClusterIPs before this node's netfilter
    /// (Cilium, Antrea, OVN-Kubernetes, Calico eBPF); `trust` does not look.
    #[arg(long, env = "UMBRA_CNI", value_enum, default_value_t = Cni::Check)]
    pub cni: Cni,
    /// With --cni=check: a connection to this ClusterIP and port is begun each minute, and closed at once, to see whether
    /// the CNI translates it inside connect(2) [default: the API server's, of the environment].
    #[arg(long, env = "UMBRA_CANARY")]
    pub canary: Option<SocketAddr>,
    /// Set by the kubelet. May be a name; then there is no canary.
    #[arg(long, env = "KUBERNETES_SERVICE_HOST", hide = true)]
    pub kubernetes_service_host: Option<String>,
    /// Set by the kubelet.
    #[arg(long, env = "KUBERNETES_SERVICE_PORT", hide = true)]
    pub kubernetes_service_port: Option<u16>,
    /// Where connections arrive. With --intercept=on only its port counts [default: port 15001].
    #[arg(long, env = "UMBRA_LISTEN")]
    pub listen: Option<SocketAddr>,
    /// Where the controller pushes [default: NODE_ADDRESS:15002].
    #[arg(long, env = "UMBRA_PUSH_LISTEN")]
    pub push_listen: Option<SocketAddr>,
    /// Where /metrics, /livez and /readyz are [default: NODE_ADDRESS:15020].
    #[arg(long, env = "UMBRA_METRICS_LISTEN")]
    pub metrics_listen: Option<SocketAddr>,
    /// Where configuration, state and log level are; on loopback.
    #[arg(long, env = "UMBRA_ADMIN_LISTEN", default_value = "127.0.0.1:15000")]
    pub admin_listen: SocketAddr,
    /// Directory of ca.crt, proxy.crt and proxy.key; waited for. Without it pushes come over plain HTTP, on loopback.
    #[arg(long, env = "UMBRA_TLS_DIR")]
    pub tls_dir: Option<PathBuf>,
    /// Worker threads [default: one per core].
    #[arg(long, env = "UMBRA_WORKERS")]
    pub workers: Option<std::num::NonZeroUsize>,
    /// Bounds of the data path.
    #[command(flatten)]
    pub limits: LimitArgs,
    /// How logs are written.
    #[arg(long, env = "UMBRA_LOG_FORMAT", value_enum, default_value_t = LogFormat::Text)]
    pub log_format: LogFormat,
    /// What is logged: a level, or `module=level` pairs; an optimised build has nothing below debug.
    #[arg(long, env = "UMBRA_LOG", default_value = "info")]
    pub log: String,
}

/// On or off.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Switch {
    /// On.
    On,
    /// Off.
    Off,
}

/// How logs are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One object a line.
    Json,
}

impl Args {
    fn canary(&self) -> Option<SocketAddr> {
        let api_server = || {
            let host = self.kubernetes_service_host.as_ref()?.parse().ok()?;
            Some(SocketAddr::new(host, self.kubernetes_service_port?))
        };
        self.canary.or_else(api_server).filter(|_| self.cni == Cni::Check)
    }

    /// What the proxy is told.
    ///
    /// # Errors
    /// Flags that do not go together, with the flag to mend.
    pub fn options(self, log_filter: Option<LogFilter>) -> Result<Options, String> {
        let own = self.node_address.first().copied();
        // Without interception everything stays on loopback, unless told.
        let address = match (self.intercept, own) {
            (_, Some(own)) => own,
            (Switch::Off, None) => IpAddr::V4(Ipv4Addr::LOCALHOST),
            (Switch::On, None) => return Err("--node-address is needed with --intercept=on".into()),
        };
        let canary = self.canary();
        let intercept = match self.intercept {
            Switch::On => Intercept::On {
                node_addresses: self.node_address,
                port: self.listen.map_or(TRAFFIC_PORT, |listen| listen.port()),
                fallback_timeout: self.fallback_timeout,
                adopt: self.adopt,
                cni: self.cni,
                canary,
            },
            Switch::Off => Intercept::Off {
                listen: self.listen.unwrap_or_else(|| SocketAddr::new(address, TRAFFIC_PORT)),
            },
        };
        let at = |port| SocketAddr::new(address, port);
        let cores = || std::thread::available_parallelism().map_or(1, std::num::NonZeroUsize::get);
        Ok(Options {
            node: self.node.unwrap_or_default(),
            intercept,
            push_listen: self.push_listen.unwrap_or_else(|| at(PUSH_PORT)),
            metrics_listen: self.metrics_listen.unwrap_or_else(|| at(METRICS_PORT)),
            admin_listen: self.admin_listen,
            tls_dir: self.tls_dir,
            workers: self.workers.map_or_else(cores, std::num::NonZeroUsize::get),
            limits: self.limits.limits(),
            shadow_mark: self.limits.shadow_mark,
            log_filter,
        })
    }
}

/// `300ms`, `1.5s`, `2m`.
///
/// # Errors
/// What is wrong with the text.
pub fn duration(text: &str) -> Result<Duration, String> {
    let split = text.find(|c: char| c.is_ascii_alphabetic()).unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let seconds = match unit {
        "ms" => 0.001,
        "s" => 1.0,
        "m" => 60.0,
        _ => return Err(format!("{text:?} needs a unit: 300ms, 1.5s or 2m")),
    };
    let number: f64 =
        number.parse().map_err(|_| format!("{text:?} is not a duration such as 300ms, 1.5s or 2m"))?;
    Duration::try_from_secs_f64(number * seconds).map_err(|error| format!("{text:?}: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(arguments: &[&str]) -> Result<Options, String> {
        let all = ["umbra-proxy", "--node", "n1"].iter().chain(arguments);
        Args::try_parse_from(all).map_err(|error| error.to_string())?.options(None)
    }

    #[test]
    fn ports_are_those_of_the_contract_on_the_node_s_address() {
        let options = options(&["--node-address", "192.0.2.7,2001:db8::7", "--tls-dir", "/t"]).unwrap();
        assert_eq!(options.push_listen.to_string(), "192.0.2.7:15002");
        assert_eq!(options.metrics_listen.to_string(), "192.0.2.7:15020");
        assert_eq!(options.admin_listen.to_string(), "127.0.0.1:15000");
        let Intercept::On { node_addresses, port, adopt, cni, .. } = options.intercept else {
            panic!("intercepts by default")
        };
        assert_eq!((node_addresses.len(), port, adopt, cni), (2, 15001, Adopt::Leave, Cni::Check));
    }

    #[test]
    fn without_interception_all_is_on_loopback() {
        let options = options(&["--intercept=off", "--listen", "127.0.0.1:8080"]).unwrap();
        assert_eq!(options.push_listen.to_string(), "127.0.0.1:15002");
        assert!(matches!(options.intercept, Intercept::Off { listen } if listen.port() == 8080));
    }

    #[test]
    fn interception_needs_the_node_s_address() {
        assert!(options(&[]).err().unwrap().contains("--node-address"));
    }

    #[test]
    fn cleaning_needs_no_other_flag() {
        let parse = |arguments: &[&str]| Args::try_parse_from([&["umbra-proxy"], arguments].concat());
        assert!(parse(&["--cleanup"]).is_ok_and(|args| args.cleanup && !args.then_wait));
        assert!(parse(&["--cleanup", "--then-wait"]).is_ok_and(|args| args.then_wait));
        assert!(parse(&["--then-wait", "--node=n1"]).is_err(), "there is nothing to wait after");
        assert!(parse(&[]).is_err(), "a proxy needs its node's name");
    }

    #[test]
    fn durations_have_units() {
        assert_eq!(duration("300ms"), Ok(Duration::from_millis(300)));
        assert_eq!(duration("1.5s"), Ok(Duration::from_millis(1500)));
        for wrong in ["10", "s", "-1s", "1h", "NaNs"] {
            duration(wrong).unwrap_err();
        }
    }
}
