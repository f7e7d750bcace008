//! Who may push to a node: the controller, and nobody else.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use umbra_testkit::{CEILING, ClusterNode, PodNetwork, Samples, wait_for};

use crate::cluster_system::{Example, Second, UMBRA, proxy_metrics, with_example};

/// The push port.
const PUSH: u16 = 15002;

#[test]
fn a_push_without_the_controllers_certificate_is_refused() {
    with_example("trust", Second::Right, |example| {
        let keys = Keys::of(example)?;
        let client = example.clients()?.pop().context("a client")?;
        let from = example.network(&client)?;
        for node in example.cluster().nodes() {
            let state = "GET /v1/state HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
            // With the right certificate it works from there: what is refused below is not the way.
            let (answer, _) = keys.ask(&from, node, Some("controller"), state)?;
            ensure!(answer.starts_with("HTTP/1.1 200"), "{}: {answer}", node.name);
            let before = version(&answer)?;

            let empty = r#"{"resources":{}}"#;
            let push = format!(
                "PUT /v1/config HTTP/1.1\r\nhost: x\r\numbra-epoch: 18446744073709551615\r\numbra-version: 1\r\n\
                 content-type: application/json\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{empty}",
                empty.len()
            );
            let refused = counted(node, "put", "forbidden")?;
            let (answer, _) = keys.ask(&from, node, Some("stranger"), &push)?;
            ensure!(answer.starts_with("HTTP/1.1 403"), "with another name, {}: {answer}", node.name);
            ensure!(counted(node, "put", "forbidden")? > refused, "{}: not counted", node.name);

            // What every node holds is for serving only.
            for who in [None, Some("proxy")] {
                let refused = counted(node, "connection", "handshake")?;
                let (answer, error) = keys.ask(&from, node, who, &push)?;
                ensure!(answer.is_empty(), "with the certificate of {who:?}, {}: {answer}", node.name);
                println!("with the certificate of {who:?}: {}", error.lines().last().unwrap_or_default());
                // Counted when the proxy has read the client's last message, which may be after we have gone.
                wait_for("the refused handshake is counted", CEILING, || {
                    ensure!(
                        counted(node, "connection", "handshake")? > refused,
                        "{}: not counted",
                        node.name
                    );
                    Ok(())
                })?;
            }

            let (answer, _) = keys.ask(&from, node, Some("controller"), state)?;
            ensure!(version(&answer)? >= before, "{}: {answer}", node.name);
        }
        Ok(())
    });
}

/// The version in `/v1/state`: an older one than before would mean that somebody else's push was taken.
fn version(answer: &str) -> Result<u64> {
    let (_, body) = answer.split_once("\r\n\r\n").with_context(|| answer.to_owned())?;
    let state: serde_json::Value = serde_json::from_str(body).with_context(|| answer.to_owned())?;
    state["version"].as_str().and_then(|text| text.parse().ok()).with_context(|| answer.to_owned())
}

fn counted(node: &ClusterNode, kind: &str, result: &str) -> Result<f64> {
    let samples = Samples::of(proxy_metrics(&node.address)?)?;
    Ok(samples.sum("umbra_pushes_total", &[("kind", kind), ("result", result)]))
}

/// The certificates and keys of umbra's Secrets, as files that go with the test.
struct Keys(PathBuf);

impl Keys {
    fn of(example: &Example) -> Result<Self> {
        let keys = Self(std::env::temp_dir().join(format!("umbra-trust-{}", std::process::id())));
        std::fs::create_dir_all(&keys.0)?;
        std::fs::set_permissions(&keys.0, Permissions::from_mode(0o700))?;
        for (secret, stem) in
            [("umbra-ca", "ca"), ("umbra-controller-tls", "controller"), ("umbra-proxy-tls", "proxy")]
        {
            for file in [format!("{stem}.crt"), format!("{stem}.key")] {
                let template = format!("go-template={{{{index .data \"{file}\" | base64decode}}}}");
                let text = example
                    .cluster()
                    .kubectl()
                    .run(&["get", "secret", secret, "-n", UMBRA, "-o", &template])?;
                std::fs::write(keys.0.join(&file), text)?;
            }
        }
        keys.add_stranger()?;
        Ok(keys)
    }

    /// A client's certificate of umbra's own CA, under a name that is not the controller's.
    fn add_stranger(&self) -> Result<()> {
        let mut command = Command::new("openssl");
        command.current_dir(&self.0).args([
            "req",
            "-x509",
            "-new",
            "-nodes",
            "-days",
            "1",
            "-subj",
            "/CN=stranger",
        ]);
        command.args([
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:P-256",
            "-CA",
            "ca.crt",
            "-CAkey",
            "ca.key",
        ]);
        command.args([
            "-addext",
            "subjectAltName=DNS:stranger.default",
            "-addext",
            "extendedKeyUsage=clientAuth",
        ]);
        command.args(["-addext", "basicConstraints=critical,CA:FALSE"]);
        let done = command.args(["-keyout", "stranger.key", "-out", "stranger.crt"]).output()?;
        ensure!(done.status.success(), "openssl req: {}", String::from_utf8_lossy(&done.stderr));
        Ok(())
    }

    /// What the node's push port says to this over TLS, and what openssl says.
    fn ask(
        &self,
        from: &PodNetwork,
        to: &ClusterNode,
        who: Option<&str>,
        text: &str,
    ) -> Result<(String, String)> {
        let file = |name: &str| self.0.join(name);
        let question = file("question");
        std::fs::write(&question, text)?;
        let mut command = Command::new("openssl");
        command.args(["s_client", "-quiet", "-verify_return_error", "-connect"]);
        command.arg(format!("{}:{PUSH}", to.address)).arg("-CAfile").arg(file("ca.crt"));
        if let Some(who) = who {
            command
                .arg("-cert")
                .arg(file(&format!("{who}.crt")))
                .arg("-key")
                .arg(file(&format!("{who}.key")));
        }
        let input = std::fs::File::open(Path::new(&question))?;
        let done = from.within(|| command.stdin(input).output())??;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Ok((text(&done.stdout), text(&done.stderr)))
    }
}

impl Drop for Keys {
    fn drop(&mut self) {
        // In a directory that only its owner reads; the next test process makes another.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
