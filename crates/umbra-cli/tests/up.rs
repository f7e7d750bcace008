//! `umbra up` as a person uses it: the program, real files, real connections on loopback.

#![allow(clippy::unwrap_used, reason = "a test that cannot set its stage fails")]

mod support;

use support::{Backend, Folder, Port, Up, VIRTUAL_SERVICE, protocols};

#[test]
fn an_edited_file_changes_the_routes_and_nobody_is_refused() {
    let (v1, v2) = (Backend::start("v1"), Backend::start("v2"));
    let folder = Folder::new("edited", &[("v1", v1.port), ("v2", v2.port)]);
    folder.write("vs.yaml", &VIRTUAL_SERVICE.replace("SUBSET", "v1"));
    let up = Up::start(&folder);
    up.wait_for("Programmed", |line| {
        line.is_condition("virtualservice default/sa-logic", "Programmed", "True")
    });
    assert_eq!(up.get("sa-logic", "/"), (200, "v1".to_owned()));

    folder.write("vs.yaml", &VIRTUAL_SERVICE.replace("SUBSET", "v2"));
    up.wait_until("v2 answers", || {
        let (status, body) = up.get("sa-logic", "/");
        assert_eq!(status, 200, "{body}");
        body == "v2"
    });

    // Everything the proxy knows came over its push API: all of it once, and the edit as a delta.
    assert_eq!(up.pushes("put"), 1);
    assert!(up.pushes("patch") >= 1);
}

/// A Service's port, and what its endpoints are asked in by a client of HTTP/1.1 and by one of HTTP/2 (spec/istio.md 2.10).
const SPOKEN: [(Port, [&str; 2]); 7] = [
    (("http", None), ["HTTP/1.1", "HTTP/1.1"]),
    (("http2", None), ["HTTP/2", "HTTP/2"]),
    (("grpc-api", None), ["HTTP/2", "HTTP/2"]),
    (("http", Some("kubernetes.io/h2c")), ["HTTP/2", "HTTP/2"]),
    (("http2", Some("http")), ["HTTP/1.1", "HTTP/1.1"]),
    (("web", Some("grpc")), ["HTTP/2", "HTTP/2"]),
    (("web", None), ["HTTP/1.1", "HTTP/2"]),
];

#[test]
fn endpoints_are_spoken_to_as_their_services_port_says() {
    for (number, (port, spoken)) in SPOKEN.into_iter().enumerate() {
        let backend = protocols::backend();
        let folder = Folder::with_port(&format!("spoken-{number}"), &[("v1", backend)], port);
        folder.write("vs.yaml", &VIRTUAL_SERVICE.replace("SUBSET", "v1"));
        let up = Up::start(&folder);
        up.wait_for("Programmed", |line| {
            line.is_condition("virtualservice default/sa-logic", "Programmed", "True")
        });
        let http1 = up.get("sa-logic", "/");
        assert_eq!(http1, (200, spoken[0].to_owned()), "{port:?}, a client of HTTP/1.1");
        let http2 = protocols::get_http2(up.traffic(), "sa-logic");
        assert_eq!(http2, spoken[1], "{port:?}, a client of HTTP/2");
    }
}

#[test]
fn every_table_comes_over_the_push_api() {
    let v1 = Backend::start("v1");
    let folder = Folder::new("pushed", &[("v1", v1.port)]);
    let up = Up::start(&folder);
    up.wait_for("the DestinationRule", |line| line.0["object"] == "destinationrule default/sa-logic");
    up.wait_until("the first push", || up.pushes("put") == 1);
    let before = up.pushes("patch");
    assert_ne!(up.get("sa-logic", "/").0, 200, "nothing governs it yet");

    folder.write("vs.yaml", &VIRTUAL_SERVICE.replace("SUBSET", "v1"));
    up.wait_until("v1 answers", || up.get("sa-logic", "/") == (200, "v1".to_owned()));
    assert!(up.pushes("patch") > before, "a table that was not pushed");
}

#[test]
fn a_policy_among_the_files_leaves_its_services_alone() {
    let v1 = Backend::start("v1");
    let folder = Folder::new("policy", &[("v1", v1.port)]);
    folder.write("vs.yaml", &VIRTUAL_SERVICE.replace("SUBSET", "v1"));
    let up = Up::start(&folder);
    let vs = "virtualservice default/sa-logic";
    up.wait_for("Programmed", |line| line.is_condition(vs, "Programmed", "True"));
    folder.write(
        "policy.yaml",
        "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: deny}\nspec: {podSelector: {}}\n",
    );
    up.wait_for("left alone", |line| line.is_condition(vs, "Programmed", "False"));
    assert_eq!(up.get("sa-logic", "/"), (200, "v1".to_owned()), "who comes is served all the same");
    folder.remove("policy.yaml");
    up.wait_for("Programmed again", |line| line.is_condition(vs, "Programmed", "True"));
}

#[test]
fn a_bad_file_is_named_and_harms_nothing() {
    let v1 = Backend::start("v1");
    let folder = Folder::new("bad", &[("v1", v1.port)]);
    folder.write("vs.yaml", &VIRTUAL_SERVICE.replace("SUBSET", "v1"));
    let up = Up::start(&folder);
    let vs = "virtualservice default/sa-logic";
    up.wait_for("Programmed", |line| line.is_condition(vs, "Programmed", "True"));

    folder.write("vs.yaml", &VIRTUAL_SERVICE.replace("[sa-logic]", "{a: b}").replace("SUBSET", "v2"));
    up.wait_for("the problem", |line| {
        line.0["object"] == vs
            && line.0["file"].as_str().is_some_and(|file| file.ends_with("vs.yaml"))
            && line.0["problem"].as_str().is_some_and(|problem| problem.starts_with("spec.hosts: "))
    });
    up.wait_for("Accepted", |line| line.is_condition(vs, "Accepted", "False"));
    assert_eq!(up.get("sa-logic", "/"), (200, "v1".to_owned()), "the last readable one stays in force");

    folder.write("vs.yaml", &VIRTUAL_SERVICE.replace("SUBSET", "v1"));
    up.wait_for("Accepted again", |line| line.is_condition(vs, "Accepted", "True"));

    folder.remove("vs.yaml");
    up.wait_for("gone", |line| line.0["object"] == vs && line.0["gone"] == true);
}

#[test]
fn a_path_that_is_not_there_is_an_error_at_once() {
    let out = support::umbra().args(["up", "-f", "/nonexistent/manifests"]).output().unwrap();
    assert!(!out.status.success());
    let said = String::from_utf8_lossy(&out.stderr);
    assert!(said.contains("-f /nonexistent/manifests: no such file or folder"), "{said}");
}

#[test]
fn sigterm_ends_it_well() {
    let v1 = Backend::start("v1");
    let folder = Folder::new("sigterm", &[("v1", v1.port)]);
    let up = Up::start(&folder);
    assert!(up.terminate().success());
}
