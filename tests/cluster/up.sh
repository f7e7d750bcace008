#!/usr/bin/env bash
# A throwaway Kubernetes cluster on this machine: up.sh [NODES=2] [KUBE_PROXY=nftables|iptables] [CNI=ptp|bridge]
# The same names are read from the environment. Ends what is left of an earlier one first; kubeconfig at
# target/cluster/kubeconfig. Several minutes the first time (it builds Kubernetes), half a minute after that.
set -euo pipefail
for setting in "$@"; do export "${setting?}"; done
here=$(dirname "${BASH_SOURCE[0]}")
source "$here/lib.sh"
source "$here/teardown.sh"
source "$here/pki.sh"
source "$here/control-plane.sh"
source "$here/images.sh"
source "$here/node.sh"

NODES=${NODES:-2} KUBE_PROXY=${KUBE_PROXY:-nftables} CNI=${CNI:-ptp}
[[ $NODES =~ ^[1-9]$ ]] || die "NODES=$NODES: 1 to 9"
[[ $KUBE_PROXY =~ ^(nftables|iptables)$ ]] || die "KUBE_PROXY=$KUBE_PROXY: nftables or iptables"
[[ $CNI =~ ^(ptp|bridge)$ ]] || die "CNI=$CNI: ptp or bridge"

lock
"$here/packages.sh"
"$here/tools.sh"

step "taking away what is left of an earlier cluster"
teardown
mkdir -p "$STATE" "$LOG" "$PIDS" "$RUN" "$IMAGES"
echo "$STATE" > "$RUN/owner"

step "images of the cluster itself"
build_cluster_images
step "certificates"
make_pki "$NODES"
step "control plane"
make_bridge
make_cgroups "$NODES"
start_control_plane
for ((i = 1; i <= NODES; i++)); do
  step "node $i of $NODES ($KUBE_PROXY, $CNI)"
  start_node "$i" "$NODES"
done
step "CoreDNS"
kubectl apply -f "$here/coredns.yaml" >/dev/null

step "waiting for the nodes and CoreDNS"
wait_for 120 "$NODES nodes are Ready" "$LOG/kubelet1.log" kubectl wait --for=condition=Ready nodes --all --timeout=0
wait_for 120 "CoreDNS is available" "$LOG/kubelet1.log" kubectl -n kube-system wait --for=condition=Available deployment/coredns --timeout=0
step "up: export KUBECONFIG=$KUBECONFIG_OUT PATH=$BIN:\$PATH"
