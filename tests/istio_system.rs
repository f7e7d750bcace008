//! The recorded cluster, with umbra in place of Istio.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use umbra_testkit::{ApiServer, Node, Pod, Process, objects, wait_for};

use crate::istio_backends::{self, Records};
use crate::istio_cases::{self, Case, Request, name_of};
use crate::istio_client::{self, Outcome};
use crate::istio_compare::group_of;
use crate::node_programs;

/// For what takes milliseconds to seconds on an idle machine.
const CEILING: Duration = Duration::from_secs(30);
/// Objects whose order of age matters are made so far apart: the API server's clock has seconds.
const APART: Duration = Duration::from_millis(1_050);
/// The name of rules that only take a service over.
const FIRST: &str = "armed-first";
/// As `base.yaml` has them: ClusterIP, ports, and the pods behind them.
const SERVICES: [(&str, [u8; 4], &[u16], &str); 3] = [
    ("sa-logic", [10, 96, 50, 1], &[80], "sa-logic-"),
    ("reviews", [10, 96, 50, 2], &[9080, 9081], "reviews-"),
    ("ratings", [10, 96, 50, 3], &[9080], "ratings-"),
];

/// All of it. What is dropped ends.
pub(crate) struct System {
    // In the order in which they are dropped: programs, pods, node, API server.
    proxy: Process,
    controller: Process,
    pods: BTreeMap<String, Pod>,
    node: Node,
    server: ApiServer,
    records: Records,
    asked: u64,
}

/// Runs a test on it, or says why it cannot; a failed test is told with the programs' last lines.
pub(crate) fn with_system(test: impl FnOnce(&mut System) -> Result<()>) -> Result<()> {
    if !node_programs::available() {
        return Ok(());
    }
    let mut system = System::new()?;
    let result = test(&mut system);
    if result.is_err() {
        eprintln!(
            "--- controller\n{}\n--- proxy\n{}",
            system.controller.last_lines(),
            system.proxy.last_lines()
        );
    }
    result
}

impl System {
    fn new() -> Result<Self> {
        let (server, node) = node_programs::api_server_and_node()?;
        let mut base = istio_cases::base()?;
        let records = Records::default();
        let pods = make_pods(&node, &mut base, &records)?;
        apply_base(&server, &node, &base)?;
        for (_, ip, ports, prefix) in SERVICES {
            for port in ports {
                let behind = pods.iter().filter(|(name, _)| name.starts_with(prefix));
                let endpoints: Vec<SocketAddr> = behind.map(|(_, pod)| (pod.ipv4, 5000).into()).collect();
                node.kube_proxy((Ipv4Addr::from(ip), *port).into(), &endpoints)?;
            }
        }
        // As the cases are meant.
        let foreign = ["--foreign-virtualservices=istio"];
        let controller = node_programs::start_controller(&server, &node, &foreign)?;
        let proxy = node_programs::start_proxy(&server, &node, &[])?;
        let system = Self { proxy, controller, pods, node, server, records, asked: 0 };
        wait_for("the node knows its clients", CEILING, || {
            let config = system.admin("/config")?;
            let clients = config
                .as_object()
                .map_or(0, |all| all.keys().filter(|key| key.starts_with("client/")).count());
            ensure!(clients >= 2, "{clients} clients");
            Ok(())
        })?;
        Ok(system)
    }

    /// Makes the objects of a case, in order, and waits until umbra serves them; gives those that the API server refused.
    pub(crate) fn apply(&mut self, case: &Case) -> Result<Vec<String>> {
        let refused = self.create(case)?;
        let unarmed = self.unarmed()?;
        if unarmed.is_empty() {
            return Ok(refused);
        }
        // A service with a destination that nothing defines is not taken over for the first time (design.md); what it
        // answers once it is is what the cases are about.
        self.remove(case)?;
        let first: Vec<Value> = unarmed.iter().map(|(namespace, name)| plain(namespace, name)).collect();
        for object in &first {
            self.server.kubectl().create(&object.to_string())?;
        }
        for (namespace, name) in &unarmed {
            self.wait_armed(namespace, name)?;
        }
        let refused = self.create(case)?;
        self.server.kubectl().delete(&list(&first))?;
        self.wait_without_the_first()?;
        Ok(refused)
    }

    /// Namespace and name of services that the node does not take over because of a destination.
    fn unarmed(&self) -> Result<Vec<(String, String)>> {
        let state = self.admin("/state")?;
        let refused = state["refused"].as_array().cloned().unwrap_or_default();
        let of = |one: &Value| {
            let waits = one["reason"].as_str()?.starts_with("not armed: destination ");
            let (namespace, name) = one["key"].as_str()?.strip_prefix("service/")?.split_once('/')?;
            waits.then(|| (namespace.to_owned(), name.to_owned()))
        };
        Ok(refused.iter().filter_map(of).collect())
    }

    fn wait_armed(&self, namespace: &str, name: &str) -> Result<()> {
        wait_for(&format!("{name} is armed"), CEILING, || {
            let armed = self.admin("/state")?["armed"].clone();
            let key = json!(format!("service/{namespace}/{name}"));
            ensure!(armed.as_array().is_some_and(|armed| armed.contains(&key)), "{armed}");
            Ok(())
        })
    }

    fn wait_without_the_first(&self) -> Result<()> {
        wait_for("the first rules are gone", CEILING, || {
            let config = self.admin("/config")?.to_string();
            ensure!(!config.contains(FIRST), "they are there");
            Ok(())
        })
    }

    fn create(&mut self, case: &Case) -> Result<Vec<String>> {
        let refused = wait_for(&format!("{} is made within a second", case.name), CEILING, || {
            let refused = self.make(case);
            if case.together
                && let Err(apart) = self.are_of_one_age(case)
            {
                self.remove(case)?;
                return Err(apart);
            }
            Ok(refused)
        })?;
        for object in case.objects.iter().filter(|object| !refused.contains(&name_of(object))) {
            self.wait_served(object)?;
        }
        Ok(refused)
    }

    /// Makes them, in order; gives those that the API server refused.
    fn make(&self, case: &Case) -> Vec<String> {
        let mut refused = Vec::new();
        if case.together {
            // By one kubectl: programs that start one after the other may take a second each.
            let made = self.server.kubectl().create(&list(&case.objects));
            refused.extend(made.err().map(|error| format!("{error:#}")));
            return refused;
        }
        for (number, object) in case.objects.iter().enumerate() {
            if number > 0 && case.spread {
                // Ages are what is tested here, and they have no other source than time.
                std::thread::sleep(APART);
            }
            if self.server.kubectl().create(&object.to_string()).is_err() {
                refused.push(name_of(object));
            }
        }
        refused
    }

    /// Those of a kind are of the same second.
    fn are_of_one_age(&self, case: &Case) -> Result<()> {
        let all = list(&case.objects);
        let text = self.server.kubectl().run_with_input(&["get", "-o", "json", "-f", "-"], &all)?;
        let made: Value = serde_json::from_str(&text)?;
        let made = made["items"].as_array().into_iter().flatten();
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let ages: BTreeSet<_> =
            made.map(|one| (text(&one["kind"]), text(&one["metadata"]["creationTimestamp"]))).collect();
        let kinds: BTreeSet<_> = ages.iter().map(|(kind, _)| kind).collect();
        ensure!(ages.len() == kinds.len(), "{ages:?}");
        Ok(())
    }

    fn wait_served(&self, object: &Value) -> Result<()> {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let (kind, meta) = (text(&object["kind"]).to_lowercase(), &object["metadata"]);
        if !["virtualservice", "destinationrule"].contains(&kind.as_str()) {
            return Ok(());
        }
        let (namespace, name) = (text(&meta["namespace"]), text(&meta["name"]));
        wait_for(&format!("{kind} {name} is served"), CEILING, || {
            let now = self.server.kubectl().get(&["-n", &namespace, &kind, &name])?;
            let generation = &now["metadata"]["generation"];
            let conditions = now["status"]["conditions"].as_array().cloned().unwrap_or_default();
            let of = |kind: &str| conditions.iter().find(|condition| condition["type"] == kind);
            let accepted = of("Accepted").context("no Accepted yet")?;
            ensure!(accepted["observedGeneration"] == *generation, "an older Accepted");
            let waits = of("Programmed").is_some_and(|programmed| programmed["reason"] == "NodesPending");
            ensure!(!waits, "the node has not got it yet");
            Ok(())
        })
    }

    /// Deletes the objects of a case, and waits until no service is taken over.
    pub(crate) fn remove(&mut self, case: &Case) -> Result<()> {
        self.server.kubectl().delete(&list(&case.objects))?;
        self.records.clear();
        wait_for("nothing is taken over any more", CEILING, || {
            let config = self.admin("/config")?;
            let services: Vec<&String> = config
                .as_object()
                .into_iter()
                .flatten()
                .map(|(key, _)| key)
                .filter(|key| key.starts_with("service/"))
                .collect();
            ensure!(services.is_empty(), "{services:?}");
            Ok(())
        })
    }

    /// Asks so often, one after the other, then waits until every copy has come to its end.
    pub(crate) fn ask(&mut self, request: &Request, times: u64) -> Result<Vec<Outcome>> {
        let (service, port) = request.to()?;
        let (_, ip, ..) =
            SERVICES.iter().find(|(name, ..)| *name == service).context("a recorded service")?;
        let pod = self.pods.get(&format!("client-{}", request.client())).context("a recorded client")?;
        let to = (Ipv4Addr::from(*ip), port).into();
        let mut outcomes = Vec::new();
        for _ in 0..times {
            self.asked += 1;
            let id = format!("case-{}", self.asked);
            outcomes.push((istio_client::send(pod, to, request, &id)?, id));
        }
        self.wait_settled()?;
        let seen = |(mut outcome, id): (Outcome, String)| {
            outcome.seen = self.records.of(&id);
            outcome
        };
        Ok(outcomes.into_iter().map(seen).collect())
    }

    /// Counters at rest: eligible = sent + dropped, sent = answered + timed_out + failed.
    fn wait_settled(&self) -> Result<()> {
        wait_for("copies have ended", CEILING, || node_programs::samples(&self.node)?.no_copy_in_flight())
    }

    fn admin(&self, path: &str) -> Result<Value> {
        node_programs::admin(&self.node, path)
    }
}

/// A List of them, as text.
fn list<'a>(objects: impl IntoIterator<Item = &'a Value>) -> String {
    let items: Vec<&Value> = objects.into_iter().collect();
    json!({"apiVersion": "v1", "kind": "List", "items": items}).to_string()
}

/// Rules that take a service over: everything to all its endpoints.
fn plain(namespace: &str, name: &str) -> Value {
    json!({
        "apiVersion": "networking.istio.io/v1",
        "kind": "VirtualService",
        "metadata": {"name": format!("{FIRST}-{name}"), "namespace": namespace},
        "spec": {"hosts": [name], "http": [{"name": FIRST, "route": [{"destination": {"host": name}}]}]},
    })
}

/// A pod for each of the base's, which get its address in place of the recorded one.
fn make_pods(node: &Node, base: &mut String, records: &Records) -> Result<BTreeMap<String, Pod>> {
    let documents: Vec<Value> = serde_saphyr::from_multiple(base)?;
    let mut pods = BTreeMap::new();
    for document in documents.iter().filter(|document| document["kind"] == "Pod") {
        let name = document["metadata"]["name"].as_str().context("a name")?;
        let recorded = document["status"]["podIP"].as_str().context("an address")?;
        let pod = node.pod()?;
        *base = base.replace(recorded, &pod.ipv4.to_string());
        if !name.starts_with("client-") {
            istio_backends::serve(&pod, name, &group_of(name), records)?;
        }
        pods.insert(name.to_owned(), pod);
    }
    Ok(pods)
}

fn apply_base(server: &ApiServer, node: &Node, base: &str) -> Result<()> {
    let kubectl = server.kubectl();
    kubectl.run(&["create", "namespace", "other"])?;
    kubectl.run(&["create", "namespace", "istio-system"])?;
    kubectl.apply(&objects::node("n1", &node.pod_cidrs()).to_string())?;
    let mut documents: Vec<Value> = serde_saphyr::from_multiple(base)?;
    documents.retain(|document| document["kind"] != "Namespace");
    for document in documents.iter_mut().filter(|document| document["kind"] == "Pod") {
        document["spec"]["nodeName"] = "n1".into();
    }
    kubectl.apply(&list(&documents))?;
    kubectl.apply_status(&list(documents.iter().filter(|document| document["kind"] == "Pod")))
}
