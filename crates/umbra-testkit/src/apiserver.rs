//! etcd and the API server alone, on loopback: for what needs a real API and no node.
//!
//! Gives: a kubeconfig, in about 5 s. Never: a controller or scheduler, so Pods and EndpointSlices are written by
//! hand, and nobody collects them.

use std::io::Read as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use crate::loopback::claim_address;
use crate::{Kubectl, Process, kubernetes_program, wait_for};

/// Ready in 5 s on two idle cores; the ceiling is for busy ones.
const READY: Duration = Duration::from_secs(120);

/// A running API server. Dropping it ends it and removes its data.
#[derive(Debug)]
pub struct ApiServer {
    // In the order in which they are dropped: the API server before its storage, the data last.
    apiserver: Process,
    _etcd: Process,
    kubectl: Kubectl,
    url: String,
    token: String,
    dir: Data,
}

impl ApiServer {
    /// Starts one and waits until it is ready.
    ///
    /// # Errors
    /// When the programs are not built, or do not start: with their last lines.
    pub fn start() -> Result<Self> {
        let dir = Data::new()?;
        let token = write_credentials(&dir.0)?;
        let etcd_address = claim_address()?;
        let etcd = start_etcd(&dir.0, etcd_address)?;
        let address = claim_address()?;
        let apiserver = start_apiserver(&dir.0, etcd_address, address)?;
        let url = format!("https://{address}");
        let kubeconfig = write_kubeconfig(&dir.0, &url, &token)?;
        let kubectl = Kubectl::new(&kubeconfig)?;
        let mut server = Self { apiserver, _etcd: etcd, kubectl, url, token, dir };
        server.wait_ready()?;
        Ok(server)
    }

    /// kubectl as an administrator.
    pub fn kubectl(&self) -> &Kubectl {
        &self.kubectl
    }

    /// The kubeconfig of an administrator.
    pub fn kubeconfig(&self) -> &Path {
        self.kubectl.kubeconfig()
    }

    /// `https://127.0.0.1:PORT`.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The administrator's bearer token.
    pub fn token(&self) -> &str {
        &self.token
    }

    /// A folder of its own, removed with it.
    pub fn dir(&self) -> &Path {
        &self.dir.0
    }

    /// Applies this repository's CRDs and waits until they are served.
    ///
    /// # Errors
    /// When the API server refuses them.
    pub fn apply_crds(&self) -> Result<()> {
        let crds = crate::repository().join("crds");
        self.kubectl.run(&["apply", "--server-side", "-k", &crds.to_string_lossy()])?;
        let names = ["crd/virtualservices.networking.istio.io", "crd/destinationrules.networking.istio.io"];
        self.kubectl.wait("condition=Established", &names, READY)
    }

    fn wait_ready(&mut self) -> Result<()> {
        let Self { apiserver, kubectl, .. } = self;
        wait_for("the API server is ready", READY, || {
            // A dead one would never be ready: its own words say more than a refused connection.
            if let Err(dead) = apiserver.alive() {
                return Ok(Err(dead));
            }
            kubectl.run(&["get", "--raw", "/readyz"])?;
            // Made by the API server itself a little later than it is ready, and everything lives in it.
            kubectl.run(&["get", "namespace", "default"]).map(|_| Ok(()))
        })?
    }
}

fn start_etcd(dir: &Path, address: SocketAddr) -> Result<Process> {
    let (client, peer) = (format!("http://{address}"), format!("http://{}", claim_address()?));
    let mut command = Command::new(kubernetes_program("etcd")?);
    command
        .args(["--unsafe-no-fsync", "--log-level", "warn", "--data-dir"])
        .arg(dir.join("etcd"))
        .args(["--listen-client-urls", &client, "--advertise-client-urls", &client])
        .args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer])
        .args(["--initial-cluster", &format!("default={peer}")]);
    Process::start("etcd", &command, &dir.join("etcd.log"))
}

fn start_apiserver(dir: &Path, etcd: SocketAddr, address: SocketAddr) -> Result<Process> {
    let file = |flag: &str, name: &str| format!("--{flag}={}", dir.join(name).display());
    let mut command = Command::new(kubernetes_program("kube-apiserver")?);
    command.args([
        format!("--etcd-servers=http://{etcd}"),
        format!("--secure-port={}", address.port()),
        format!("--bind-address={}", address.ip()),
        format!("--advertise-address={}", address.ip()),
        // Else it would publish its loopback address as the endpoint of the Service `kubernetes`, which is refused.
        "--endpoint-reconciler-type=none".to_owned(),
        // Both families; a Service is of the first unless it asks.
        "--service-cluster-ip-range=10.96.0.0/16,fd00:96::/112".to_owned(),
        "--authorization-mode=RBAC".to_owned(),
        // The account of a namespace is made by a controller that does not run here; pods would wait for it.
        "--disable-admission-plugins=ServiceAccount".to_owned(),
        "--service-account-issuer=https://kubernetes.default.svc".to_owned(),
        file("service-account-key-file", "service-account.key"),
        file("service-account-signing-key-file", "service-account.key"),
        file("token-auth-file", "tokens.csv"),
        // It writes a certificate of its own here, which the kubeconfig trusts.
        file("cert-dir", "certificates"),
    ]);
    Process::start("kube-apiserver", &command, &dir.join("kube-apiserver.log"))
}

/// The service account key and the administrator's token, which is returned.
fn write_credentials(dir: &Path) -> Result<String> {
    let key = dir.join("service-account.key");
    let openssl = Command::new("openssl")
        .args(["ecparam", "-genkey", "-name", "prime256v1", "-noout", "-out"])
        .arg(&key)
        .output()?;
    ensure!(openssl.status.success(), "openssl: {}", String::from_utf8_lossy(&openssl.stderr));
    let mut random = [0_u8; 16];
    std::fs::File::open("/dev/urandom")?.read_exact(&mut random)?;
    let token = random.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    std::fs::write(dir.join("tokens.csv"), format!("{token},admin,admin,\"system:masters\"\n"))?;
    Ok(token)
}

fn write_kubeconfig(dir: &Path, url: &str, token: &str) -> Result<PathBuf> {
    let path = dir.join("kubeconfig");
    let authority = dir.join("certificates/apiserver.crt");
    let text = format!(
        "apiVersion: v1\nkind: Config\ncurrent-context: test\n\
         clusters: [{{name: test, cluster: {{server: \"{url}\", certificate-authority: \"{}\"}}}}]\n\
         users: [{{name: admin, user: {{token: \"{token}\"}}}}]\n\
         contexts: [{{name: test, context: {{cluster: test, user: admin}}}}]\n",
        authority.display()
    );
    std::fs::write(&path, text)?;
    Ok(path)
}

/// A folder that is removed with its owner.
#[derive(Debug)]
struct Data(PathBuf);

impl Data {
    fn new() -> Result<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("umbra-apiserver-{}-{number}", std::process::id()));
        std::fs::create_dir_all(&path).with_context(|| format!("{}", path.display()))?;
        Ok(Self(path))
    }
}

impl Drop for Data {
    fn drop(&mut self) {
        // What cannot be removed lies in the temporary folder: no reason to fail a test.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn serves_what_is_applied_to_it() {
        if let Err(missing) = kubernetes_program("kube-apiserver") {
            return crate::skip(&missing.to_string());
        }
        let began = std::time::Instant::now();
        let server = ApiServer::start().unwrap();
        eprintln!("measured: API server ready in {} ms", began.elapsed().as_millis());
        let kubectl = server.kubectl();
        kubectl
            .apply("{apiVersion: v1, kind: Service, metadata: {name: a}, spec: {ports: [{port: 80}]}}")
            .unwrap();
        assert_eq!(kubectl.get(&["service", "a"]).unwrap()["spec"]["ports"][0]["port"], 80);
        let refused = kubectl
            .apply("{apiVersion: v1, kind: Service, metadata: {name: a}, spec: {ports: []}}")
            .unwrap_err();
        assert!(refused.to_string().contains("spec.ports"), "{refused}");
    }
}
