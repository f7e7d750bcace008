//! Uninstalling leaves nothing of umbra in any node's kernel, and users with kube-proxy as before.

use std::fs;

use anyhow::{Context as _, Result, ensure};
use umbra_testkit::{CEILING, repository, wait_for};

use crate::cluster_proxies::{on_node, wait_rolled_out};
use crate::cluster_system::{Example, Second, with_example};
use crate::cluster_users::{Client, Connections};

#[test]
fn the_uninstall_component_takes_umbras_tables_off_every_node() {
    with_example("uninstall", Second::Right, |example| {
        example.route()?;
        let back = Reinstalled(example);
        // Like overlays/uninstall, over what this cluster runs.
        let overlay = repository().join("target/uninstall");
        fs::create_dir_all(&overlay)?;
        let text = "apiVersion: kustomize.config.k8s.io/v1beta1\nkind: Kustomization\nresources: [../deploy]\n\
                    components: [../../deploy/components/uninstall]\n";
        fs::write(overlay.join("kustomization.yaml"), text)?;
        apply(example, "target/uninstall")?;
        wait_rolled_out(example)?;
        for node in example.cluster().nodes() {
            let tables = on_node(example, &node.name, "nft", &["list", "tables"])?;
            ensure!(!tables.contains("umbra"), "{}: {tables}", node.name);
        }
        let clients = example.clients()?;
        let mut client = Client::new(example, clients.first().context("a client")?)?;
        wait_for("kube-proxy serves both versions", CEILING, || {
            let answer = client.ask("uninstalled", Connections::Fresh)?;
            ensure!(answer.version == "v2", "{answer:?}");
            Ok(())
        })?;
        drop(back);
        example.wait_programmed()
    });
}

fn apply(example: &Example, overlay: &str) -> Result<()> {
    let overlay = repository().join(overlay);
    let overlay = overlay.to_str().context("the repository's path is UTF-8")?;
    example.cluster().kubectl().run(&["apply", "-k", overlay]).map(drop)
}

/// umbra is back when this is dropped, for the tests that follow.
struct Reinstalled<'a>(&'a Example);

impl Drop for Reinstalled<'_> {
    fn drop(&mut self) {
        if let Err(error) = apply(self.0, "target/deploy").and_then(|()| wait_rolled_out(self.0)) {
            eprintln!("umbra stays uninstalled: {error:#}");
        }
    }
}
