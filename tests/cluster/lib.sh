# Shared by the scripts of this folder, which source it: places, addresses, progress, waiting, starting.
# A cluster is made of network namespaces on one machine, so its addresses and names exist once per machine:
# one throwaway cluster at a time, whichever checkout started it.
# shellcheck shell=bash

HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
ROOT=$(cd "$HERE/../.." && pwd)
TOOLS=$ROOT/target/cluster-tools      # the Kubernetes programs, kept between clusters
BIN=$TOOLS/bin
IMAGES=$ROOT/target/images            # image tars, kept between clusters
STATE=$ROOT/target/cluster            # everything else; `up` starts from nothing
PKI=$STATE/pki
LOG=$STATE/log
PIDS=$STATE/pids
RUN=/run/umbra-cluster                # sockets: a path under $STATE may be longer than the 108 bytes of sun_path
KUBECONFIG_OUT=$STATE/kubeconfig

BRIDGE=umbra-cluster                  # the nodes' network; 15 bytes are the most an interface name may have
GATEWAY=172.31.77.1
ETCD_PORT=12379                       # not etcd's own 2379: that may belong to somebody
POD_CIDR=10.244.0.0/16
SERVICE_CIDR=10.96.0.0/16
DNS_IP=10.96.0.10
CGROUP=umbra-cluster                  # one tree for programs and pods, so that whatever is left over is found there

node_name() { echo "umbra-node$1"; }  # of the Node object, the network namespace and the cgroup
node_ip()   { echo "172.31.77.1$1"; }
node_cidr() { echo "10.244.$1.0/24"; }
node_dir()  { echo "$STATE/node$1"; }
node_sock() { echo "$RUN/node$1/containerd.sock"; }

started=$SECONDS
step() { printf '%3ds  %s\n' $((SECONDS - started)) "$*"; }
# A command that fails ends the script (set -e); without this it would do so in silence.
set -E
trap 'printf "error: %s:%s: %s\n" "${BASH_SOURCE[0]}" "$LINENO" "$BASH_COMMAND" >&2' ERR
die()  { printf 'error: %s\n' "$*" >&2; exit 1; }

# wait_for SECONDS WHAT LOGFILE COMMAND...: until COMMAND succeeds; the seconds are a ceiling, never a delay.
wait_for() {
  local limit=$1 what=$2 log=$3 end; shift 3
  end=$((SECONDS + limit))
  until "$@" >/dev/null 2>&1; do
    if ((SECONDS >= end)); then
      [ -f "$log" ] && { echo "--- last lines of $log" >&2; tail -n 15 "$log" >&2; }
      die "$what: not so after $limit s (logs: $LOG)"
    fi
    sleep 0.2
  done
}

kubectl() { KUBECONFIG=$KUBECONFIG_OUT "$BIN/kubectl" "$@"; }

cgroup_v2() { [ -f /sys/fs/cgroup/cgroup.controllers ]; }

# The folders that a cgroup NAME has: one on version 2, one per hierarchy on version 1 (often with a version 2 beside
# them, which runc uses too).
cgroup_dirs() {
  if cgroup_v2; then echo "/sys/fs/cgroup/$1"; return; fi
  local hierarchy
  for hierarchy in $(awk '$(NF-2) ~ /^cgroup2?$/ { print $5 }' /proc/self/mountinfo); do echo "$hierarchy/$1"; done
}

# Start time of a process in ticks: with the pid it names one process for good, also when the number is used again.
start_ticks() { sed 's/.*) //' "/proc/$1/stat" 2>/dev/null | cut -d' ' -f20; }

# start NAME COMMAND...: in the background, in a session and a cgroup of our own, output in $LOG, pid recorded.
start() {
  local name=$1 pid; shift
  (
    while read -r dir; do echo $BASHPID > "$dir/cgroup.procs"; done < <(cgroup_dirs "$CGROUP/programs")
    exec setsid "$@"
  ) </dev/null >"$LOG/$name.log" 2>&1 9>&- &
  pid=$!
  disown "$pid"
  echo "$pid $(start_ticks "$pid")" > "$PIDS/$name"
}

# stop NAME [SIGNAL]: only the very process that `start NAME` started.
stop() {
  local name=$1 signal=${2:-TERM} pid ticks
  [ -f "$PIDS/$name" ] || return 0
  read -r pid ticks < "$PIDS/$name"
  [ "$(start_ticks "$pid")" = "$ticks" ] || return 0
  kill -s "$signal" "$pid" 2>/dev/null || true
}

# One cluster at a time, and one script at a time that makes or ends it. Held on file descriptor 9 until exit.
lock() {
  [ "$(id -u)" = 0 ] || die "a cluster of network namespaces needs root: run this as root"
  mkdir -p "$RUN"
  exec 9>"$RUN.lock"
  flock -n 9 || { step "another cluster script is running: waiting for it"; flock -w 1800 9 || die "$RUN.lock is still held after 30 min"; }
}
