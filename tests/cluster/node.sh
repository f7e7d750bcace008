# A node: a network namespace with containerd, kubelet and kube-proxy. Sourced after lib.sh.
# shellcheck shell=bash

# nsenter and not `ip netns exec`, which would mount a new /sys and so hide the cgroups.
in_node() { local i=$1; shift; nsenter "--net=/run/netns/$(node_name "$i")" "$@"; }

make_namespace() {
  local i=$1 nodes=$2 name j; name=$(node_name "$i")
  ip netns add "$name"
  ip link add "umbra-veth$i" type veth peer name eth0 netns "$name"
  ip link set "umbra-veth$i" master "$BRIDGE" up
  ip -n "$name" address add "$(node_ip "$i")/24" dev eth0
  ip -n "$name" link set eth0 up
  ip -n "$name" link set lo up
  ip -n "$name" route add default via "$GATEWAY"
  in_node "$i" sysctl -qw net.ipv4.ip_forward=1
  # A bridge's traffic passes kube-proxy's rules only with this; a kernel without br_netfilter has no such switch.
  in_node "$i" sysctl -qw net.bridge.bridge-nf-call-iptables=1 2>/dev/null || [ "$CNI" = ptp ] || die "CNI=bridge needs the kernel module br_netfilter"
  # Pods find the API server's address by its ClusterIP: the answers need a way back from the root namespace.
  ip route replace "$(node_cidr "$i")" via "$(node_ip "$i")"
  for ((j = 1; j <= nodes; j++)); do
    [ "$j" = "$i" ] || ip -n "$name" route add "$(node_cidr "$j")" via "$(node_ip "$j")"
  done
}

write_cni() {
  local i=$1 dir plugin; dir=$(node_dir "$i")
  case $CNI in
    ptp)    plugin='"type": "ptp", "mtu": 1500' ;;
    bridge) plugin='"type": "bridge", "bridge": "cni0", "isGateway": true, "hairpinMode": true' ;;
  esac
  mkdir -p "$dir/cni"
  cat > "$dir/cni/10-umbra-cluster.conflist" <<JSON
{"cniVersion": "0.4.0", "name": "umbra-cluster", "plugins": [
  {$plugin, "ipMasq": false, "ipam": {"type": "host-local", "dataDir": "$dir/ipam",
    "ranges": [[{"subnet": "$(node_cidr "$i")"}]], "routes": [{"dst": "0.0.0.0/0"}]}},
  {"type": "portmap", "capabilities": {"portMappings": true}}]}
JSON
}

write_containerd() {
  local i=$1 dir snapshotter=overlayfs; dir=$(node_dir "$i")
  # overlayfs does not stack on itself: inside a container the root is one already.
  [ "$(stat -f -c %T "$STATE")" != overlayfs ] || snapshotter=native
  # netns_mounts_under_state_dir: else pods' namespaces lie in /run/netns among everybody else's.
  # restrict_oom_score_adj: without CAP_SYS_RESOURCE runc dies when it lowers the score.
  cat > "$dir/containerd.toml" <<TOML
version = 2
root = "$dir/containerd"
state = "$RUN/node$i/containerd"
[grpc]
  address = "$(node_sock "$i")"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "localhost/pause:dev"
  disable_apparmor = true
  restrict_oom_score_adj = true
  netns_mounts_under_state_dir = true
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "$snapshotter"
  [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
    runtime_type = "io.containerd.runc.v2"
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/usr/lib/cni"
    conf_dir = "$dir/cni"
TOML
}

write_kubelet() {
  local i=$1 dir; dir=$(node_dir "$i")
  # AlwaysAllow: whoever holds a certificate of this throwaway CA may read logs. Low eviction thresholds: the disk
  # is the machine's, and how full it is is not this cluster's business.
  cat > "$dir/kubelet.yaml" <<YAML
apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
authentication: {anonymous: {enabled: false}, webhook: {enabled: false}, x509: {clientCAFile: $PKI/ca.crt}}
authorization: {mode: AlwaysAllow}
cgroupDriver: cgroupfs
cgroupRoot: /$CGROUP/$(node_name "$i")
failCgroupV1: false
enforceNodeAllocatable: []
failSwapOn: false
containerRuntimeEndpoint: unix://$(node_sock "$i")
clusterDNS: [$DNS_IP]
clusterDomain: cluster.local
address: $(node_ip "$i")
healthzBindAddress: 127.0.0.1
podLogsDir: $dir/logs
volumePluginDir: $dir/volume-plugins
tlsCertFile: $PKI/node$i.crt
tlsPrivateKeyFile: $PKI/node$i.key
evictionHard: {memory.available: 50Mi, nodefs.available: 1%, imagefs.available: 1%, nodefs.inodesFree: 1%}
imageGCHighThresholdPercent: 100
fileCheckFrequency: 0s
# Tests kill programs again and again; 1 s is the least that the kubelet takes.
crashLoopBackOff: {maxContainerRestartPeriod: 1s}
YAML
}

# The Node object comes first, because it carries the pod CIDR; the kubelet finds and adopts it.
write_node_object() {
  local i=$1
  kubectl create -f - >/dev/null <<YAML
apiVersion: v1
kind: Node
metadata: {name: $(node_name "$i"), labels: {topology.kubernetes.io/zone: zone$i}}
spec: {podCIDR: $(node_cidr "$i"), podCIDRs: [$(node_cidr "$i")]}
YAML
}

containerd_answers() { ctr -a "$(node_sock "$1")" version; }

start_node() {
  local i=$1 nodes=$2 dir name; dir=$(node_dir "$i"); name=$(node_name "$i")
  mkdir -p "$dir" "$RUN/node$i"
  make_namespace "$i" "$nodes"
  write_cni "$i"; write_containerd "$i"; write_kubelet "$i"; write_node_object "$i"
  start "containerd$i" nsenter "--net=/run/netns/$name" containerd --config "$dir/containerd.toml"
  wait_for 60 "containerd of $name answers" "$LOG/containerd$i.log" containerd_answers "$i"
  load_images "$i"
  start "kubelet$i" nsenter "--net=/run/netns/$name" "$BIN/kubelet" --config="$dir/kubelet.yaml" --kubeconfig="$PKI/node$i.conf" \
    --root-dir="$dir/kubelet" --cert-dir="$dir/pki" --hostname-override="$name" --node-ip="$(node_ip "$i")"
  start_kube_proxy "$i" "$KUBE_PROXY"
}

start_kube_proxy() {
  local i=$1 mode=$2 name; name=$(node_name "$i")
  # conntrack-max-per-core 0: that sysctl cannot be written in a network namespace.
  start "kube-proxy$i" nsenter "--net=/run/netns/$name" "$BIN/kube-proxy" --kubeconfig="$PKI/kube-proxy.conf" --hostname-override="$name" \
    --proxy-mode="$mode" --cluster-cidr="$POD_CIDR" --conntrack-max-per-core=0 --nodeport-addresses=primary \
    --healthz-bind-address=127.0.0.1:10256 --metrics-bind-address=127.0.0.1:10249
}
