# The bridge of the nodes, etcd, the API server, the controller manager and the scheduler. Sourced after lib.sh.
# shellcheck shell=bash

make_bridge() {
  ip link add "$BRIDGE" type bridge
  ip address add "$GATEWAY/24" dev "$BRIDGE"
  ip link set "$BRIDGE" up
}

# make_cgroup NAME: usable in every hierarchy.
make_cgroup() {
  local dir
  while read -r dir; do
    mkdir -p "$dir"
    # Version 1: a new cpuset is empty, and nothing can enter it.
    if [ -f "$dir/cpuset.cpus" ] && ! cgroup_v2; then
      cat "${dir%/*}/cpuset.cpus" > "$dir/cpuset.cpus"
      cat "${dir%/*}/cpuset.mems" > "$dir/cpuset.mems"
    fi
  done < <(cgroup_dirs "$1")
}

make_cgroups() {
  local nodes=$1 i controllers
  make_cgroup "$CGROUP"
  if cgroup_v2; then
    # Version 2: children have only the controllers that every level above hands down.
    controllers=$(sed 's/\([a-z]\+\)/+\1/g' /sys/fs/cgroup/cgroup.controllers)
    echo "$controllers" > /sys/fs/cgroup/cgroup.subtree_control
    echo "$controllers" > "/sys/fs/cgroup/$CGROUP/cgroup.subtree_control"
  fi
  make_cgroup "$CGROUP/programs"
  for ((i = 1; i <= nodes; i++)); do make_cgroup "$CGROUP/$(node_name "$i")"; done
}

start_control_plane() {
  start etcd "$BIN/etcd" --data-dir "$STATE/etcd" --unsafe-no-fsync --log-level warn \
    --listen-client-urls "http://127.0.0.1:$ETCD_PORT" --advertise-client-urls "http://127.0.0.1:$ETCD_PORT" \
    --listen-peer-urls "http://127.0.0.1:$((ETCD_PORT + 1))" --initial-advertise-peer-urls "http://127.0.0.1:$((ETCD_PORT + 1))" \
    --initial-cluster "default=http://127.0.0.1:$((ETCD_PORT + 1))"
  # Addresses of kubelets by IP: the API server resolves names through the machine's DNS, which knows no node.
  start kube-apiserver "$BIN/kube-apiserver" --etcd-servers="http://127.0.0.1:$ETCD_PORT" \
    --bind-address="$GATEWAY" --advertise-address="$GATEWAY" --secure-port=6443 --service-cluster-ip-range="$SERVICE_CIDR" \
    --tls-cert-file="$PKI/apiserver.crt" --tls-private-key-file="$PKI/apiserver.key" --client-ca-file="$PKI/ca.crt" \
    --kubelet-client-certificate="$PKI/admin.crt" --kubelet-client-key="$PKI/admin.key" --kubelet-preferred-address-types=InternalIP \
    --service-account-key-file="$PKI/service-account.pub" --service-account-signing-key-file="$PKI/service-account.key" \
    --service-account-issuer=https://kubernetes.default.svc \
    --authorization-mode=Node,RBAC --enable-admission-plugins=NodeRestriction --allow-privileged=true
  wait_for 90 "the API server is ready" "$LOG/kube-apiserver.log" kubectl get --raw /readyz
  # Pod CIDRs are set on the Node objects by us, because the CNI configurations must have the same ones.
  start kube-controller-manager "$BIN/kube-controller-manager" --kubeconfig="$PKI/controller-manager.conf" --bind-address=127.0.0.1 \
    --authentication-kubeconfig="$PKI/controller-manager.conf" --authorization-kubeconfig="$PKI/controller-manager.conf" \
    --service-account-private-key-file="$PKI/service-account.key" --root-ca-file="$PKI/ca.crt" --use-service-account-credentials \
    --cluster-signing-cert-file="$PKI/ca.crt" --cluster-signing-key-file="$PKI/ca.key" \
    --allocate-node-cidrs=false --leader-elect=false
  start kube-scheduler "$BIN/kube-scheduler" --kubeconfig="$PKI/scheduler.conf" --bind-address=127.0.0.1 \
    --authentication-kubeconfig="$PKI/scheduler.conf" --authorization-kubeconfig="$PKI/scheduler.conf" --leader-elect=false
}
