//! Keys are text on the wire and must come back as they went.

use proptest::prelude::*;
use umbra_routing::{BackendRef, Digest, Key, ServiceName};

fn keys() -> impl Strategy<Value = Key> {
    let label = "[a-z0-9]([a-z0-9-]{0,10}[a-z0-9])?";
    prop_oneof![
        (label, label).prop_map(|(namespace, name)| Key::Service(ServiceName::new(namespace, name))),
        any::<u16>().prop_map(|port| {
            BackendRef::all(ServiceName::new("a", "b"), port).key().expect("a resolved destination has a key")
        }),
        any::<std::net::IpAddr>().prop_map(Key::Client),
        Just(Key::Node),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(500) })]

    #[test]
    fn keys_come_back(key in keys()) {
        prop_assert_eq!(key.to_string().parse::<Key>(), Ok(key.clone()));
        let json = serde_json::to_string(&key).expect("a key is text");
        prop_assert_eq!(serde_json::from_str::<Key>(&json).expect("the same text"), key);
    }

    #[test]
    fn any_text_is_refused_or_a_key(text in "(service|backends|client|node|x)?/?[a-z0-9:/.]{0,40}") {
        if let Ok(key) = text.parse::<Key>() {
            prop_assert_eq!(key.to_string().parse::<Key>(), Ok(key));
        }
    }
}

#[test]
fn what_is_no_key_is_named() {
    let no_keys = [
        "",
        "node/",
        "service",
        "service/a",
        "service//b",
        "service/a/",
        "service/a/b/c",
        "backends/",
        "backends/xyz",
        "client/",
        "client/1.2.3",
        "other/a",
    ];
    for text in no_keys {
        let error = text.parse::<Key>().expect_err(text);
        assert_eq!(
            error.to_string(),
            format!("{text:?} is not service/<namespace>/<name>, backends/<digest>, client/<ip> or node")
        );
    }
}

#[test]
fn a_backend_sets_key_is_what_it_means() {
    let service = || ServiceName::new("a", "b");
    let labelled = |subset: &str, version: &str| BackendRef {
        subset: Some(subset.into()),
        selector: Some([("version".to_owned(), version.to_owned())].into()),
        ..BackendRef::all(service(), 80)
    };
    assert_eq!(labelled("v1", "1").key(), labelled("other-name", "1").key());
    assert_ne!(labelled("v1", "1").key(), labelled("v1", "2").key());
    assert_ne!(BackendRef::all(service(), 80).key(), BackendRef::all(service(), 81).key());
    let unresolved = BackendRef { selector: None, ..labelled("v1", "1") };
    assert!(unresolved.is_unresolved() && unresolved.key().is_none());
}

#[test]
fn digests_are_sums() {
    let digest = |text: &str| text.parse::<Digest>().expect("hexadecimal");
    let (a, b) = (digest("ffffffffffffffffffffffffffffffff"), digest("2"));
    assert_eq!(a.plus(b), digest("1"));
    assert_eq!(a.plus(b).minus(a), b);
    assert_eq!(digest("2").to_string(), "00000000000000000000000000000002");
}
