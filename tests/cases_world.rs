//! The objects under every case, and the groups of their pods.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use anyhow::{Context as _, Result};
use serde_json::Value;
use umbra_cli::files::Texts;

use crate::cases_table::text;

/// The objects under every case.
pub(crate) struct CaseWorld {
    /// As JSON, which is YAML.
    world: String,
    subsets: String,
    bystander: String,
    pods: Vec<WrittenPod>,
    services: BTreeMap<String, WrittenService>,
}

/// A pod of the world.
pub(crate) struct WrittenPod {
    pub(crate) name: String,
    pub(crate) namespace: String,
    pub(crate) address: String,
}

/// A Service of the world that has a ClusterIP.
pub(crate) struct WrittenService {
    pub(crate) cluster_ip: String,
    pub(crate) ports: Vec<u16>,
    /// Of its ready pods.
    pub(crate) groups: BTreeSet<String>,
}

impl CaseWorld {
    pub(crate) fn read() -> Result<Self> {
        let world: Value = serde_saphyr::from_str(&text("world")?)?;
        let items = world["items"].as_array().context("items")?;
        let of = |kind: &'static str| items.iter().filter(move |object| object["kind"] == kind);
        let pods = of("Pod").map(WrittenPod::of).collect::<Result<_>>()?;
        let mut services = BTreeMap::new();
        for service in of("Service").filter(|service| is_ip(&service["spec"]["clusterIP"])) {
            let name = service["metadata"]["name"].as_str().context("a name")?;
            let mut slices = of("EndpointSlice");
            let slice =
                slices.find(|slice| slice["metadata"]["labels"]["kubernetes.io/service-name"] == name);
            services.insert(name.to_owned(), WrittenService::of(service, slice)?);
        }
        let (subsets, bystander) = (text("subsets")?, text("bystander")?);
        Ok(Self { world: world.to_string(), subsets, bystander, pods, services })
    }

    pub(crate) fn pods(&self) -> &[WrittenPod] {
        &self.pods
    }

    pub(crate) fn service(&self, name: &str) -> Result<&WrittenService> {
        self.services.get(name).with_context(|| format!("a Service {name}"))
    }

    pub(crate) fn services(&self) -> impl Iterator<Item = &WrittenService> {
        self.services.values()
    }

    pub(crate) fn pod(&self, name: &str) -> Result<&WrittenPod> {
        self.pods.iter().find(|pod| pod.name == name).with_context(|| format!("a pod {name}"))
    }

    /// The group of the pod that has this address.
    pub(crate) fn group_at(&self, address: &str) -> Option<String> {
        self.pods.iter().find(|pod| pod.address == address).map(|pod| group_of(&pod.name))
    }

    /// Gives a pod another address, wherever the written one is.
    pub(crate) fn give(&mut self, written: &str, real: &str) {
        self.world = self.world.replace(&format!("{written:?}"), &format!("{real:?}"));
    }

    /// As files: the world and a case's objects, with the bystander's or without.
    pub(crate) fn with(&self, objects: &[Value], bystander: bool) -> Texts {
        let mut texts = Texts::new();
        let mut add =
            |name: &str, text: String| texts.insert(PathBuf::from(format!("{name}.yaml")), Ok(text));
        add("a-world", self.world.clone());
        if objects.iter().all(|object| object["kind"] != "DestinationRule") {
            add("a-subsets", self.subsets.clone());
        }
        if bystander {
            add("z-bystander", self.bystander.clone());
        }
        let objects: Vec<String> = objects.iter().map(Value::to_string).collect();
        add("case", objects.join("\n---\n"));
        texts
    }
}

impl WrittenPod {
    fn of(pod: &Value) -> Result<Self> {
        let text = |value: &Value| value.as_str().map(str::to_owned);
        Ok(Self {
            name: text(&pod["metadata"]["name"]).context("a name")?,
            namespace: text(&pod["metadata"]["namespace"]).unwrap_or_else(|| "default".to_owned()),
            address: text(&pod["status"]["podIPs"][0]["ip"]).context("an address")?,
        })
    }
}

impl WrittenService {
    fn of(service: &Value, slice: Option<&Value>) -> Result<Self> {
        let ports = service["spec"]["ports"].as_array().context("ports")?.iter();
        let endpoints = slice.and_then(|slice| slice["endpoints"].as_array()).into_iter().flatten();
        let ready = endpoints.filter(|endpoint| endpoint["conditions"]["ready"] != false);
        Ok(Self {
            cluster_ip: service["spec"]["clusterIP"].as_str().unwrap_or_default().to_owned(),
            ports: ports.filter_map(|port| u16::try_from(port["port"].as_u64()?).ok()).collect(),
            groups: ready
                .filter_map(|endpoint| endpoint["targetRef"]["name"].as_str().map(group_of))
                .collect(),
        })
    }
}

fn is_ip(value: &Value) -> bool {
    value.as_str().is_some_and(|text| text.parse::<std::net::IpAddr>().is_ok())
}

/// `v1-a` is of `v1`.
pub(crate) fn group_of(pod: &str) -> String {
    pod.trim_end_matches("-a").trim_end_matches("-b").to_owned()
}
