//! A NetworkPolicy that admits some pods to sa-logic is enforced exactly as without umbra.
//!
//! The reference CNI plugins enforce no policies, so the test does what engines such as Calico's or kube-router's do:
//! on every node, in the forward chain, packets to the selected pods are dropped unless they come from an admitted
//! pod's address. The node itself may reach its pods, as everywhere. A proxy on the host's network would get who is on
//! the endpoint's node in, and keep who is on another out.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use umbra_testkit::{CEILING, wait_for};

use crate::cluster_firewall::Rules;
use crate::cluster_proxies::not_armed_because;
use crate::cluster_status::wait_condition;
use crate::cluster_system::{Example, ExamplePod, Second, with_example};
use crate::cluster_users::{Client, Connections};

/// Who admits pods with the label `admitted=yes` to sa-logic, both versions.
const POLICY: &str = "{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {name: admitted-only}, spec: \
    {podSelector: {matchLabels: {app: sa-logic}}, policyTypes: [Ingress], \
    ingress: [{from: [{podSelector: {matchLabels: {admitted: \"yes\"}}}]}]}}";

#[test]
fn a_policy_is_enforced_as_without_umbra() {
    with_example("policy", Second::Right, |example| {
        let engine = Engine::start(example)?;
        let without = engine.try_all()?;
        println!("measured: policy without umbra: {without:?}");
        ensure!(without.iter().all(|((_, admitted), answered)| admitted == answered), "{without:?}");

        example.apply(&crate::cluster_system::manifest("sa-logic-subsets-destinationrule.yaml")?)?;
        example.apply(&crate::cluster_system::manifest("sa-logic-subsets-shadowing-vs.yaml")?)?;
        let (word, message) = wait_condition(example, "vs/sa-logic", "Programmed", "False")?;
        println!("measured: policy with umbra: Programmed=False {word}: {message}");
        ensure!(message.contains("admitted-only"), "{message}");
        for node in example.cluster().nodes() {
            wait_for("the node says why it leaves sa-logic alone", CEILING, || {
                let reason = not_armed_because(example, &node.name)?;
                ensure!(reason.contains("admitted-only"), "{reason:?}");
                Ok(())
            })?;
        }
        let with = engine.try_all()?;
        println!("measured: policy with umbra: {with:?}");
        ensure!(with == without, "{with:?}, without umbra {without:?}");
        engine.only_v1()?;

        // The policy goes, its engine with it: umbra takes over.
        example.kubectl(&["delete", "networkpolicy/admitted-only"])?;
        drop(engine);
        example.wait_programmed()
    });
}

/// The policy, what enforces it, and a client of each kind on each side of sa-logic's only v1 pod.
struct Engine<'a> {
    example: &'a Example,
    /// By (same node as v1, admitted).
    clients: BTreeMap<(bool, bool), ExamplePod>,
    _rules: Vec<Rules<'a>>,
}

impl<'a> Engine<'a> {
    fn start(example: &'a Example) -> Result<Self> {
        example.kubectl(&["scale", "deployment/sa-logic", "--replicas=1"])?;
        let two_on_each = 2 * example.cluster().nodes().len();
        let replicas = format!("--replicas={two_on_each}");
        example.kubectl(&["scale", "deployment/sa-web-app", &replicas])?;
        let (v1, pods) = wait_for("one v1, and two clients on each node", CEILING, || {
            let (v1, pods) = (example.v1()?, example.clients()?);
            // Those that end serve for a while, past the rules below.
            let all = example.cluster().pods(example.name(), "app=sa-logic,version=v1")?.len();
            ensure!(all == 1 && v1.len() == 1 && pods.len() == two_on_each, "{all} {v1:?} {pods:?}");
            let here = pods.iter().filter(|pod| pod.node == v1[0].node).count();
            ensure!(here == 2, "{here} clients are on v1's node");
            Ok((v1[0].clone(), pods))
        })?;
        let mut clients = BTreeMap::new();
        for pod in pods {
            let same = pod.node == v1.node;
            let admitted = !clients.contains_key(&(same, true));
            if admitted {
                example.kubectl(&["label", "pod", &pod.name, "admitted=yes"])?;
            }
            clients.insert((same, admitted), pod);
        }
        example.apply(POLICY)?;
        let admitted: Vec<_> = clients
            .iter()
            .filter(|((_, admitted), _)| *admitted)
            .map(|(_, pod)| pod.address.to_string())
            .collect();
        let selected: Vec<_> =
            example.pods("app=sa-logic")?.iter().map(|pod| pod.address.to_string()).collect();
        let chain = format!(
            "chain forward {{ type filter hook forward priority 0; ct state established,related accept; \
             ip daddr {{ {} }} ip saddr != {{ {} }} drop; }}",
            selected.join(", "),
            admitted.join(", ")
        );
        let nodes = example.cluster().nodes().iter();
        let rules = nodes.map(|node| Rules::new(example, &node.name, &chain)).collect::<Result<_>>()?;
        Ok(Self { example, clients, _rules: rules })
    }

    /// Who is answered, by (same node, admitted): three of three tries, or none.
    fn try_all(&self) -> Result<BTreeMap<(bool, bool), bool>> {
        let ask = |pod: &ExamplePod| -> Result<bool> {
            let mut answered = 0;
            for number in 0..3 {
                let client = Client::new(self.example, pod)?;
                let mut client = client.with_patience(Duration::from_secs(2));
                answered += u32::from(client.ask(&format!("policy-{number}"), Connections::Fresh).is_ok());
            }
            ensure!(answered == 0 || answered == 3, "{answered} of 3 tries from {pod:?} were answered");
            Ok(answered == 3)
        };
        self.clients.iter().map(|(kind, pod)| Ok((*kind, ask(pod)?))).collect()
    }

    /// Who is admitted is answered by v1: the fallback leads there, pod to pod.
    fn only_v1(&self) -> Result<()> {
        for ((same, _), pod) in self.clients.iter().filter(|((_, admitted), _)| *admitted) {
            for number in 0..20 {
                let answer =
                    Client::new(self.example, pod)?.ask(&format!("v1-{number}"), Connections::Fresh)?;
                ensure!(answer.version == "v1", "same node {same}: {answer:?}");
            }
        }
        Ok(())
    }
}

#[test]
fn a_client_under_an_egress_policy_is_not_taken_over() {
    with_example("egress", Second::Right, |example| {
        let clients = example.clients()?;
        let (policed, free) = (clients.first().context("a client")?, clients.last().context("two clients")?);
        example.kubectl(&["label", "pod", &policed.name, "policed=yes"])?;
        example.apply(
            "{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {name: out}, spec: {podSelector: \
             {matchLabels: {policed: \"yes\"}}, policyTypes: [Egress], egress: [{to: [{podSelector: {matchLabels: {app: sa-logic}}}]}]}}",
        )?;
        example.route()?;
        let ask = |pod: &ExamplePod| -> Result<()> {
            for number in 0..20 {
                let answer =
                    Client::new(example, pod)?.ask(&format!("egress-{number}"), Connections::Fresh)?;
                ensure!(answer.version == "v1", "{answer:?}");
            }
            Ok(())
        };
        wait_for("the free client's requests are copied", CEILING, || {
            let before = example.shadows()?.eligible;
            ask(free)?;
            let now = example.shadows()?.eligible;
            ensure!(now == before + 20, "{now}, {before} before");
            Ok(())
        })?;
        wait_for("the policed client's are not, and v1 answers", CEILING, || {
            let before = example.shadows()?.eligible;
            ask(policed)?;
            let now = example.shadows()?.eligible;
            ensure!(now == before, "{now}, {before} before");
            Ok(())
        })
    });
}
