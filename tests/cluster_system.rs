//! umbra on the throwaway cluster, deployed once per test process, and the article's example in a namespace of its own.

use std::net::{IpAddr, SocketAddr};
use std::ops::Add as _;
use std::process::Command;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use umbra_testkit::{CEILING, Cluster, ClusterNamespace, PodNetwork, Samples, Shadows, repository, wait_for};

use crate::cluster_users::Client;

/// Where umbra lives.
pub(crate) const UMBRA: &str = "umbra-system";
/// Where proxies serve their metrics.
const PROXY_METRICS: u16 = 15020;
/// The program of the first, right version and of the second.
const V1: &str = "version=v1";
const V2: &str = "version=v2";

/// What the second version of sa-logic is like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Second {
    /// The article's: a third fails, a third hangs.
    Buggy,
    /// Always right: for tests that ask who answered.
    Right,
}

/// The example's programs, running, without VirtualService and DestinationRule.
pub(crate) struct Example {
    cluster: &'static Cluster,
    namespace: ClusterNamespace<'static>,
}

/// A pod of the example.
#[derive(Clone, Debug)]
pub(crate) struct ExamplePod {
    pub(crate) name: String,
    pub(crate) node: String,
    pub(crate) address: IpAddr,
}

/// Runs `test` with umbra deployed and the example in a namespace of its own, which is deleted afterwards; when the test
/// fails, pods, logs and the proxies' counters are printed first. Says so and does nothing where there is no cluster.
///
/// # Panics
/// When `test` fails.
pub(crate) fn with_example(name: &str, second: Second, test: impl FnOnce(&Example) -> Result<()>) {
    let Some(cluster) = umbra() else { return };
    let example = Example::start(cluster, name, second).unwrap_or_else(|error| panic!("{error:#}"));
    if let Err(error) = test(&example) {
        let counted = example.counters_text();
        // Inside this function, so that the namespace is described by whoever drops it.
        panic!("{error:#}\n{counted}");
    }
}

/// The cluster, with umbra on it.
///
/// # Panics
/// When umbra cannot be deployed.
pub(crate) fn umbra() -> Option<&'static Cluster> {
    static DEPLOYED: OnceLock<()> = OnceLock::new();
    let cluster = Cluster::get()?;
    DEPLOYED.get_or_init(|| deploy(cluster).unwrap_or_else(|error| panic!("{error:#}")));
    Some(cluster)
}

fn deploy(cluster: &Cluster) -> Result<()> {
    let script = repository().join("deploy/deploy.sh");
    let done = Command::new(script).env("KUBECONFIG", cluster.kubectl().kubeconfig()).output()?;
    ensure!(
        done.status.success(),
        "make deploy (have the images been made? make images): {}\n{}{}\n{}",
        done.status,
        String::from_utf8_lossy(&done.stdout),
        String::from_utf8_lossy(&done.stderr),
        cluster.describe(UMBRA)
    );
    cluster.load_images(&["sentiment-sa-logic", "sentiment-sa-web-app"])
}

impl Example {
    fn start(cluster: &'static Cluster, name: &str, second: Second) -> Result<Self> {
        // With the process id and a number: the namespace of an earlier run or test of that name may still be going.
        static STARTED: AtomicU32 = AtomicU32::new(0);
        let number = STARTED.fetch_add(1, Ordering::Relaxed);
        let namespace = cluster.namespace(&format!("{name}-{}-{number}", std::process::id()))?;
        let example = Self { cluster, namespace };
        // A pod of each on every node: the manifests are for two.
        let replicas = format!("replicas: {}", cluster.nodes().len());
        let everywhere = |name| manifest(name).map(|yaml| yaml.replace("replicas: 2", &replicas));
        let logic = everywhere("sa-logic.yaml")?;
        let logic = match second {
            Second::Buggy => logic,
            Second::Right => logic.replace("value: v2-buggy", "value: v2"),
        };
        example.apply(&logic)?;
        example.apply(&everywhere("sa-web-app.yaml")?)?;
        wait_for("the example is ready", CEILING, || {
            example.kubectl(&["wait", "--for=condition=Available", "deployments", "--all", "--timeout=0s"])
        })
        .inspect_err(|_| eprintln!("{}", cluster.describe(example.name())))?;
        example.wait_served()?;
        Ok(example)
    }

    /// Until every node's kube-proxy has the Service: it learns of ready endpoints after the Deployment says so, and refuses
    /// until then.
    fn wait_served(&self) -> Result<()> {
        for pod in self.clients()? {
            let mut client = Client::new(self, &pod)?;
            wait_for(&format!("kube-proxy of {} serves sa-logic", pod.node), CEILING, || client.connect())?;
        }
        Ok(())
    }

    /// Applies the example's DestinationRule and VirtualService, and waits until every node serves them.
    pub(crate) fn route(&self) -> Result<()> {
        self.apply(&manifest("sa-logic-subsets-destinationrule.yaml")?)?;
        self.apply(&manifest("sa-logic-subsets-shadowing-vs.yaml")?)?;
        self.wait_programmed()
    }

    /// `kubectl wait --for=condition=Programmed vs/sa-logic`.
    pub(crate) fn wait_programmed(&self) -> Result<()> {
        let ceiling = format!("--timeout={}s", CEILING.as_secs());
        self.kubectl(&["wait", "--for=condition=Programmed", &ceiling, "vs/sa-logic"]).map(drop)
    }

    pub(crate) fn cluster(&self) -> &'static Cluster {
        self.cluster
    }

    /// The namespace's name.
    pub(crate) fn name(&self) -> &str {
        self.namespace.name()
    }

    /// kubectl in the namespace.
    pub(crate) fn kubectl(&self, arguments: &[&str]) -> Result<String> {
        self.namespace.kubectl(arguments)
    }

    /// `kubectl apply -f -` in the namespace.
    pub(crate) fn apply(&self, yaml: &str) -> Result<()> {
        self.namespace.apply(yaml).map(drop)
    }

    /// An object of the namespace, as JSON.
    pub(crate) fn get(&self, kind_and_name: &str) -> Result<Value> {
        Ok(serde_json::from_str(&self.kubectl(&["get", "-o", "json", kind_and_name])?)?)
    }

    /// ClusterIP and port of sa-logic.
    pub(crate) fn sa_logic(&self) -> Result<SocketAddr> {
        let address = self.kubectl(&["get", "service", "sa-logic", "-o", "jsonpath={.spec.clusterIP}"])?;
        Ok(SocketAddr::new(address.parse()?, 80))
    }

    /// The pods of sa-web-app, by node: the clients of sa-logic.
    pub(crate) fn clients(&self) -> Result<Vec<ExamplePod>> {
        self.pods("app=sa-web-app")
    }

    /// The pods of sa-logic's first version, by node.
    pub(crate) fn v1(&self) -> Result<Vec<ExamplePod>> {
        self.pods(&format!("app=sa-logic,{V1}"))
    }

    /// Leaves one pod of the first version.
    pub(crate) fn one_v1(&self) -> Result<ExamplePod> {
        self.kubectl(&["scale", "deployment/sa-logic", "--replicas=1"])?;
        wait_for("one pod is v1", CEILING, || {
            let mut pods = self.v1()?;
            ensure!(pods.len() == 1, "{pods:?}");
            Ok(pods.remove(0))
        })
    }

    /// How many pods the controller has, by this field of its Deployment.
    pub(crate) fn controllers(&self, field: &str) -> Result<String> {
        let path = format!("jsonpath={{.{field}}}");
        self.cluster().kubectl().run(&["-n", UMBRA, "get", "deploy/umbra-controller", "-o", &path])
    }

    /// The pods of sa-logic's second version, by node.
    pub(crate) fn v2(&self) -> Result<Vec<ExamplePod>> {
        self.pods(&format!("app=sa-logic,{V2}"))
    }

    /// Running pods that a selector finds, by node.
    pub(crate) fn pods(&self, selector: &str) -> Result<Vec<ExamplePod>> {
        let pods = self.cluster.pods(self.name(), selector)?;
        let mut pods = pods
            .iter()
            .filter(|pod| {
                pod["metadata"]["deletionTimestamp"].is_null() && pod["status"]["phase"] == "Running"
            })
            .map(ExamplePod::of)
            .collect::<Result<Vec<_>>>()?;
        pods.sort_by(|a, b| a.node.cmp(&b.node));
        Ok(pods)
    }

    /// The network of a pod, to connect from there.
    pub(crate) fn network(&self, pod: &ExamplePod) -> Result<PodNetwork> {
        self.cluster.pod_network(self.name(), &pod.name)
    }

    /// `GET /stats` of a pod of sa-logic: what it saw.
    pub(crate) fn stats(&self, pod: &ExamplePod) -> Result<Value> {
        let text = self.cluster.get_from_pod(self.name(), &pod.name, 5000, "/stats")?;
        Ok(serde_json::from_str(&text)?)
    }

    /// The host that umbra's counters name.
    pub(crate) fn host(&self) -> String {
        format!("sa-logic.{}.svc.cluster.local", self.name())
    }

    /// Every proxy's metrics, in the order of the cluster's nodes.
    pub(crate) fn samples(&self) -> Result<Vec<Samples>> {
        self.cluster.nodes().iter().map(|node| Samples::of(proxy_metrics(&node.address)?)).collect()
    }

    /// What all proxies together count of the shadows of sa-logic.
    pub(crate) fn shadows(&self) -> Result<Shadows> {
        let host = self.host();
        let of_host = |samples: &Samples| Shadows::of(samples, &[("service", &host)]);
        Ok(self.samples()?.iter().map(of_host).fold(Shadows::default(), Shadows::add))
    }

    /// Waits until no shadow is in flight: then the sums must add up.
    pub(crate) fn settled_shadows(&self) -> Result<Shadows> {
        wait_for("eligible = sent + dropped, sent = answered + timed_out + failed", CEILING, || {
            let shadows = self.shadows()?;
            shadows.settled()?;
            Ok(shadows)
        })
    }

    /// The proxies' counters of this example that are not 0, for whoever reads a failed test.
    pub(crate) fn counters_text(&self) -> String {
        let samples = match self.samples() {
            Ok(samples) => samples,
            Err(error) => return format!("the proxies' metrics: {error:#}"),
        };
        let mut text = String::new();
        for (node, samples) in self.cluster.nodes().iter().zip(samples) {
            text += &format!("--- counters of {}\n", node.name);
            let ours = samples.text().lines().filter(|line| {
                let family = line.starts_with("umbra_") || line.starts_with("istio_requests_total");
                let elsewhere = line.contains("svc.cluster.local") && !line.contains(self.name());
                family && !elsewhere && !line.ends_with(" 0")
            });
            text.extend(ours.flat_map(|line| [line, "\n"]));
        }
        text
    }
}

impl ExamplePod {
    fn of(object: &Value) -> Result<Self> {
        let text = |value: &Value| value.as_str().map(str::to_owned);
        Ok(Self {
            name: text(&object["metadata"]["name"]).context("a pod has a name")?,
            node: text(&object["spec"]["nodeName"]).context("a running pod has a node")?,
            address: object["status"]["podIP"].as_str().context("a running pod has an address")?.parse()?,
        })
    }
}

/// Where the proxy of a node serves its metrics.
pub(crate) fn proxy_metrics(node_address: &str) -> Result<SocketAddr> {
    Ok(SocketAddr::new(node_address.parse()?, PROXY_METRICS))
}

/// A file of the example.
pub(crate) fn manifest(name: &str) -> Result<String> {
    let path = repository().join("deploy/examples/sentiment").join(name);
    std::fs::read_to_string(&path).with_context(|| path.display().to_string())
}
