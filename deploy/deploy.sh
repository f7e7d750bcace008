#!/usr/bin/env bash
# `make deploy`: CRDs and umbra onto the cluster of $KUBECONFIG, and waits until both programs serve.
#   OVERLAY=default|test   default: `test` on the throwaway cluster (whose nodes get the images of `make images`)
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cd "$root"
throwaway=$root/target/cluster/kubeconfig
export KUBECONFIG=${KUBECONFIG:-$throwaway}
# Before the system's own kubectl: it is of the throwaway cluster's version.
if [ "$(realpath -m "$KUBECONFIG")" = "$(realpath -m "$throwaway")" ]; then PATH=$root/target/cluster-tools/bin:$PATH; fi
command -v kubectl >/dev/null || { echo "error: kubectl is not on the PATH" >&2; exit 1; }
kubectl version --request-timeout=10s >/dev/null || { echo "error: no cluster answers at $KUBECONFIG: start one (make cluster-up) or set KUBECONFIG" >&2; exit 1; }

overlay=${OVERLAY:-default}
if [ -z "${OVERLAY:-}" ] && [ "$(realpath -m "$KUBECONFIG")" = "$(realpath -m "$throwaway")" ]; then overlay=test; fi

[ "$overlay" != test ] || tests/cluster/load.sh umbra-controller umbra-proxy
kubectl apply --server-side -k crds
# `kubectl wait` fails on a CRD that has no conditions yet ("accessor error: <nil>").
established='{.status.conditions[?(@.type=="Established")].status}'
for crd in virtualservices destinationrules; do
  for ((tries = 0; ; tries++)); do
    [ "$(kubectl get "crd/$crd.networking.istio.io" -o jsonpath="$established")" != True ] || break
    [ $tries -lt 120 ] || { echo "error: crd $crd.networking.istio.io is not established after a minute: kubectl describe it" >&2; exit 1; }
    sleep 0.5
  done
done
rendered=deploy/overlays/$overlay
if [ "$overlay" = test ]; then
  # The tag is always `dev`: this annotation tells a new image from an old one, so that pods are replaced when it
  # changed and only then.
  rendered=target/deploy
  mkdir -p $rendered
  annotation() { printf '{"op": "add", "path": "/spec/template/metadata/annotations/umbra.dev~1image", "value": "%s"}' "$(cut -c1-16 "target/images/$1.sum")"; }
  cat > $rendered/kustomization.yaml <<YAML
apiVersion: kustomize.config.k8s.io/v1beta1
kind: Kustomization
resources: [../../deploy/overlays/test]
patches:
- {target: {kind: Deployment, name: umbra-controller}, patch: '[$(annotation umbra-controller)]'}
- {target: {kind: DaemonSet, name: umbra-proxy}, patch: '[$(annotation umbra-proxy)]'}
YAML
fi
kubectl apply -k "$rendered"
kubectl -n umbra-system rollout status deployment/umbra-controller --timeout=180s
kubectl -n umbra-system rollout status daemonset/umbra-proxy --timeout=180s
