//! The manifests of the demo: what `kubectl get -o yaml` would print of a small cluster, and the article's own two.

use std::fmt::Write;
use std::path::Path;

use super::DemoError;
use super::cast::Player;

/// Applied to a cluster as they are, and here.
const ARTICLE: [(&str, &str); 2] = [
    ("sa-logic-subsets-destinationrule.yaml", include_str!("../../sa-logic-subsets-destinationrule.yaml")),
    ("sa-logic-subsets-shadowing-vs.yaml", include_str!("../../sa-logic-subsets-shadowing-vs.yaml")),
];

const SERVICE: &str =
    "# The Service selects both versions; which of them answers is the VirtualService's business.
apiVersion: v1
kind: Service
metadata:
  name: sa-logic
  namespace: default
spec:
  type: ClusterIP
  selector:
    app: sa-logic
  ports:
    - name: http
      port: 80
      protocol: TCP
      targetPort: 5000
";

const CALLER: &str = "apiVersion: v1
kind: Pod
metadata:
  name: sa-web-app
  namespace: default
  uid: sa-web-app
  labels:
    app: sa-web-app
spec:
  nodeName: laptop
status:
  phase: Running
  podIPs:
    - ip: 127.0.0.1
";

/// Makes the folder, without what an earlier demo left.
pub(super) fn empty(folder: &Path) -> Result<(), DemoError> {
    let failed = |error| DemoError::File(folder.to_owned(), error);
    match std::fs::remove_dir_all(folder) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(failed(error)),
        _ => {}
    }
    std::fs::create_dir_all(folder).map_err(failed)
}

/// Writes all manifests.
pub(super) fn write(folder: &Path, v1: &[Player], v2: &[Player]) -> Result<(), DemoError> {
    let pods = v1.iter().map(|pod| ("v1", pod)).chain(v2.iter().map(|pod| ("v2", pod)));
    let pods: Vec<_> = pods.map(|(version, pod)| (version, pod.name.as_str(), pod.address.port())).collect();
    let own = [("service.yaml", SERVICE), ("sa-web-app.yaml", CALLER), ("pods.yaml", &manifests(&pods))];
    for (name, text) in ARTICLE.into_iter().chain(own) {
        let file = folder.join(name);
        std::fs::write(&file, text).map_err(|error| DemoError::File(file, error))?;
    }
    Ok(())
}

/// Pods of one machine share its address and differ in their ports, which one EndpointSlice cannot say: each pod
/// gets its own.
fn manifests(pods: &[(&str, &str, u16)]) -> String {
    let mut text = String::new();
    for (version, name, port) in pods {
        write!(
            text,
            "apiVersion: v1
kind: Pod
metadata:
  name: {name}
  namespace: default
  uid: {name}
  labels:
    app: sa-logic
    version: {version}
spec:
  nodeName: laptop
status:
  phase: Running
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata:
  name: {name}
  namespace: default
  labels:
    kubernetes.io/service-name: sa-logic
addressType: IPv4
endpoints:
  - addresses: [127.0.0.1]
    conditions:
      ready: true
      serving: true
      terminating: false
    nodeName: laptop
    targetRef:
      kind: Pod
      namespace: default
      name: {name}
      uid: {name}
ports:
  - name: http
    port: {port}
    protocol: TCP
---
"
        )
        .expect("a String takes all");
    }
    text
}
