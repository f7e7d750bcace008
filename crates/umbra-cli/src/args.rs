//! The command line; each flag is an environment variable, too: `--some-flag` is `UMBRA_SOME_FLAG`.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{ArgGroup, Parser, Subcommand, ValueEnum};
use umbra_controller::compile_args::CompileArgs;
use umbra_proxy::args::duration;

/// Shadows HTTP traffic between services: users are answered by one version, a copy goes to another.
#[derive(Debug, Parser)]
#[command(name = "umbra", version)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
    /// What is logged: a level, or `module=level` pairs.
    #[arg(long, env = "UMBRA_LOG", default_value = "warn", global = true)]
    pub log: String,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Runs umbra on this machine, from the manifests in files; needs no cluster and no root.
    Up(UpArgs),
    /// Says what happens to one request: which rule, destinations and mirrors, and why not the others.
    Explain(ExplainArgs),
    /// Says what is wrong with the manifests in files, or with a cluster's objects, one line a finding. Ends with 1 when
    /// there is an error, with 2 when something cannot be read.
    Lint(LintArgs),
}

/// Where the objects are: one of the flags of this group, and one only.
const SOURCE: &str = "source";

fn source() -> ArgGroup {
    ArgGroup::new(SOURCE).required(true)
}

/// Which cluster, by kubectl's flags.
#[cfg(feature = "kubernetes")]
#[derive(Clone, Debug, Default, clap::Args)]
pub struct ClusterArgs {
    /// In place of manifests: the cluster of this kubeconfig; without FILE of those that KUBECONFIG names, or of
    /// ~/.kube/config. Only read from.
    #[arg(long, value_name = "FILE", num_args = 0..=1, group = SOURCE)]
    pub kubeconfig: Option<Option<PathBuf>>,
    /// With --kubeconfig: a context of it, in place of its current one.
    #[arg(long, requires = "kubeconfig")]
    pub context: Option<String>,
}

#[cfg(feature = "kubernetes")]
impl ClusterArgs {
    /// The kubeconfig, when one is named.
    pub(crate) fn file(&self) -> Option<&Path> {
        self.kubeconfig.as_ref()?.as_deref().filter(|file| !is_url(file))
    }
}

/// `--kubeconfig http://...` and `-f FILE http://...`: what stands there is the URL to explain, not one more file.
fn is_url(file: &Path) -> bool {
    file.to_str().is_some_and(|text| text.contains("://"))
}

/// Flags of `umbra explain`.
#[derive(Clone, Debug, clap::Args)]
#[command(group = source())]
pub struct ExplainArgs {
    /// Manifests, as of `umbra up`.
    #[arg(short = 'f', long, env = "UMBRA_FILENAME", num_args = 1.., value_delimiter = ',', group = SOURCE)]
    filename: Vec<PathBuf>,
    /// In place of manifests: the admin port of a node's proxy (127.0.0.1:15000 on the node), for what it really has.
    #[arg(long, env = "UMBRA_NODE_ADDRESS", group = SOURCE)]
    pub node: Option<String>,
    /// In place of manifests: a cluster.
    #[cfg(feature = "kubernetes")]
    #[command(flatten)]
    pub cluster: ClusterArgs,
    /// As the controller's.
    #[command(flatten)]
    pub compile: CompileArgs,
    /// The client's pod, NAMESPACE/POD; one that is not known is a client of that namespace without labels.
    #[arg(long, default_value = "default/client")]
    pub from: String,
    /// The method.
    #[arg(short = 'X', long = "method", default_value = "GET")]
    pub method: String,
    /// A header, `name: value`; may be given several times.
    #[arg(short = 'H', long = "header")]
    pub header: Vec<String>,
    /// How to print.
    #[arg(short = 'o', long, value_enum, default_value_t = Output::Text)]
    pub output: Output,
    /// http://SERVICE[:PORT]/PATH: a Service by its name or ClusterIP.
    #[cfg_attr(feature = "kubernetes", arg(required_unless_present_any = ["filename", "kubeconfig"]))]
    #[cfg_attr(not(feature = "kubernetes"), arg(required_unless_present = "filename"))]
    url: Option<String>,
}

impl ExplainArgs {
    /// The manifests.
    pub fn files(&self) -> Vec<PathBuf> {
        self.filename.iter().filter(|file| !is_url(file)).cloned().collect()
    }

    /// The URL to explain, wherever it stands; empty when there is none.
    pub fn url(&self) -> &str {
        let among_files = self.filename.iter().find(|file| is_url(file));
        #[cfg(feature = "kubernetes")]
        let among_files = among_files.or(self
            .cluster
            .kubeconfig
            .as_ref()
            .and_then(Option::as_ref)
            .filter(|file| is_url(file)));
        self.url.as_deref().or(among_files.and_then(|file| file.to_str())).unwrap_or_default()
    }
}

/// Flags of `umbra lint`.
#[derive(Clone, Debug, clap::Args)]
#[command(group = source())]
pub struct LintArgs {
    /// Files, or folders of *.yaml, *.yml and *.json. Services and Pods among them make more checks possible.
    #[arg(short = 'f', long, env = "UMBRA_FILENAME", num_args = 1.., value_delimiter = ',', group = SOURCE)]
    pub filename: Vec<PathBuf>,
    /// In place of manifests: a cluster.
    #[cfg(feature = "kubernetes")]
    #[command(flatten)]
    pub cluster: ClusterArgs,
    /// As the controller's.
    #[command(flatten)]
    pub compile: CompileArgs,
    /// How to print findings.
    #[arg(short = 'o', long, env = "UMBRA_OUTPUT", value_enum, default_value_t = Output::Text)]
    pub output: Output,
}

/// Flags of `umbra up`.
#[derive(Clone, Debug, clap::Args)]
pub struct UpArgs {
    /// Files, or folders of *.yaml, *.yml and *.json, as kubectl prints or applies them: Service, Pod, EndpointSlice,
    /// VirtualService, DestinationRule, Node, NetworkPolicy. Watched for changes.
    #[arg(short = 'f', long, env = "UMBRA_FILENAME", required = true, num_args = 1.., value_delimiter = ',')]
    pub filename: Vec<PathBuf>,
    /// Where clients come; the Host header chooses the service.
    #[arg(long, env = "UMBRA_LISTEN", default_value = "127.0.0.1:15001")]
    pub listen: SocketAddr,
    /// Where /metrics, /livez and /readyz are.
    #[arg(long, env = "UMBRA_METRICS_LISTEN", default_value = "127.0.0.1:15020")]
    pub metrics_listen: SocketAddr,
    /// Where configuration, state and log level are; on loopback.
    #[arg(long, env = "UMBRA_ADMIN_LISTEN", default_value = "127.0.0.1:0")]
    pub admin_listen: SocketAddr,
    /// The node whose proxy this is: pods with this nodeName are its clients.
    #[arg(long, env = "UMBRA_NODE", default_value = "laptop")]
    pub node: String,
    /// How long a copy may take.
    #[arg(long, env = "UMBRA_SHADOW_TIMEOUT", value_parser = duration, default_value = "10s")]
    pub shadow_timeout: Duration,
    /// As the controller's.
    #[command(flatten)]
    pub compile: CompileArgs,
    /// How to print what happens.
    #[arg(short = 'o', long, env = "UMBRA_OUTPUT", value_enum, default_value_t = Output::Text)]
    pub output: Output,
}

/// How to print.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// For people.
    Text,
    /// One JSON object a line; of `up` the first has the bound addresses.
    Json,
}
