//! The configuration as others are shown it.

use std::collections::BTreeMap;

use umbra_routing::{Config, Key, Resource};

/// Of held tables in one answer: the controller takes 16 MiB, of which armed and refused services may need 3 MB. Some
/// thousand tables; more come with the next answers.
pub(super) const HELD_BYTES: usize = 8 << 20;
/// As many held tables as have room in an answer, and one at least.
pub(super) fn held(config: &Config) -> BTreeMap<Key, serde_json::Value> {
    let mut held = BTreeMap::new();
    let mut bytes = 0;
    for (key, table) in config.held() {
        let value = serde_json::to_value(table).expect("tables are plain data with text keys");
        bytes += value.to_string().len();
        if bytes > HELD_BYTES && !held.is_empty() {
            break;
        }
        held.insert(key.clone(), value);
    }
    held
}

/// Two starts never have the same.
pub(super) fn new_boot_id() -> String {
    let mut bytes = [0; 16];
    let random = rustls::crypto::ring::default_provider().secure_random;
    random.fill(&mut bytes).expect("the kernel gives random numbers");
    format!("{:032x}", u128::from_ne_bytes(bytes))
}

/// All resources by key.
pub(super) fn dump(config: &Config) -> serde_json::Value {
    let value = |resource: &Resource| match resource {
        Resource::Service(table) => serde_json::to_value(table),
        Resource::Backends(set) => serde_json::to_value(set),
        Resource::Client(client) => serde_json::to_value(client),
        Resource::Node(settings) => serde_json::to_value(settings),
    };
    let all = config.iter().map(|(key, resource)| {
        (key.to_string(), value(resource).expect("tables are plain data with text keys"))
    });
    serde_json::Value::Object(all.collect())
}
