#!/usr/bin/env bash
# kube-proxy.sh NODE MODE: the kube-proxy of node NODE (1, 2, ...) anew, in the mode nftables or iptables.
set -euo pipefail
here=$(dirname "${BASH_SOURCE[0]}")
source "$here/lib.sh"
source "$here/node.sh"

node=$1 mode=$2
[[ $mode =~ ^(nftables|iptables)$ ]] || die "$mode: nftables or iptables"
lock
read -r pid ticks < "$PIDS/kube-proxy$node"
stop "kube-proxy$node"
gone() { [ "$(start_ticks "$pid")" != "$ticks" ]; }
wait_for 30 "kube-proxy of node $node has ended" "$LOG/kube-proxy$node.log" gone
start_kube_proxy "$node" "$mode"
healthy() { in_node "$node" curl -sf http://127.0.0.1:10256/healthz; }
wait_for 60 "kube-proxy of node $node is healthy" "$LOG/kube-proxy$node.log" healthy
step "kube-proxy of node $node: $mode"
