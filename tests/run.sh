#!/usr/bin/env bash
# `make test`, `make test-fast` and `make test-matrix`: every stage in order, what was skipped and why, and the counts at the end.
#
# Stages that need root and Debian's packages set up what they need; where they cannot run they are printed as
# skipped, and that is a failure when CI is set.
set -uo pipefail
cd "$(dirname "$0")/.."
mode=${1:-all}
logs=target/test-logs
mkdir -p "$logs"
# Errors say what was awaited and what came; where they were made would push that out of the few lines told at the end.
export RUST_LIB_BACKTRACE=0
began=$SECONDS
passed=0 failed=0 skipped=0
failures=()

say() { printf '\n== %s (%d s)\n' "$1" $((SECONDS - began)); }

# A stage that is one check: passes or fails as a whole.
check() {
  local name=$1
  shift
  say "$name"
  if "$@" >"$logs/$name.log" 2>&1; then
    passed=$((passed + 1))
  else
    tail -n 60 "$logs/$name.log"
    failed=$((failed + 1))
    failures+=("$name: $logs/$name.log")
    return 1
  fi
}

# A stage of cargo tests: its own counts are added up.
tests() {
  local name=$1
  shift
  say "$name"
  "$@" 2>&1 | tee "$logs/$name.log" | grep --line-buffered -E '^(test |test result|skipped:|measured:|error|thread .* panicked)|panicked at'
  local code=${PIPESTATUS[0]}
  local counts
  counts=$(awk '/^test result:/ {for (i = 1; i < NF; i++) {if ($(i+1) ~ /^passed/) p += $i; if ($(i+1) ~ /^failed/) f += $i; if ($(i+1) ~ /^ignored/) s += $i}} END {print p+0, f+0, s+0}' "$logs/$name.log")
  read -r p f s <<<"$counts"
  local silent
  silent=$(grep -c '^skipped:' "$logs/$name.log")
  passed=$((passed + p - silent)) failed=$((failed + f)) skipped=$((skipped + s + silent))
  if [ "$code" -ne 0 ]; then
    [ "$f" -gt 0 ] || failed=$((failed + 1))
    failures+=("$name: $logs/$name.log")
    why "$name" 80
  fi
}

# What a failed stage of tests said: a test that ends with an error says so as `Error: `.
why() {
  grep -nE 'panicked at|^error|^Error' -A 12 "$logs/$1.log" | tail -n "$2"
}

skip() {
  printf '\nskipped: %s\n' "$1"
  skipped=$((skipped + 1))
  if [ -n "${CI:-}" ]; then
    failed=$((failed + 1))
    failures+=("skipped on CI: $1")
  fi
}

finish() {
  printf '\n'
  # Again, and last: who reads the end of a long output sees it.
  for failure in ${failures[@]+"${failures[@]}"}; do
    printf 'failed: %s\n' "$failure"
    [ ! -f "$logs/${failure%%:*}.log" ] || why "${failure%%:*}" 12
  done
  printf 'took %d s\n%d passed, %d failed, %d skipped\n' $((SECONDS - began)) "$passed" "$failed" "$skipped"
  [ "$failed" -eq 0 ]
  exit
}

# Those of tests, and those that people deploy. Two calls: see deploy/images.sh; in this order, so that the program that is
# left on disk, whose instructions are counted, is the one that people deploy.
images() {
  deploy/images.sh umbra-proxy-next-wire && deploy/images.sh
}

# What a command that ran beside others said, and its code.
replay() {
  cat "$2"
  return "$1"
}

# The cluster's tests on the cluster that NODES, KUBE_PROXY and CNI ask for, named after it.
cluster() {
  local shape=$1
  check "cluster-up$shape" make --no-print-directory cluster-up || return
  tests "cluster$shape" cargo test -p umbra-tests --locked --test cluster -- --test-threads=1 --nocapture
}

# `make test-matrix`: 5,000 services on the shape that `make test` has, and its cluster tests on three others, which
# together have every pair of kube-proxy, CNI and number of nodes that matters.
matrix() {
  check packages tests/cluster/packages.sh || finish
  check tools tests/cluster/tools.sh || finish
  check build cargo build -p umbra-tests --all-targets --locked || finish
  check images images || finish
  check cluster-up make --no-print-directory cluster-up || finish
  tests scale cargo test -p umbra-tests --locked --test cluster -- --ignored --test-threads=1 --nocapture
  check cluster-down make --no-print-directory cluster-down
  local shape
  for shape in "2 iptables ptp" "2 iptables bridge" "3 nftables bridge"; do
    read -r NODES KUBE_PROXY CNI <<<"$shape"
    export NODES KUBE_PROXY CNI
    cluster "-$NODES-$KUBE_PROXY-$CNI"
    check cluster-down make --no-print-directory cluster-down
  done
  finish
}
[ "$mode" != matrix ] || matrix

check format cargo fmt --all --check
whole=no
[ "$mode" != all ] || [ "$(id -u)" -ne 0 ] || [ "$(uname -s)" != Linux ] || whole=yes
if [ "$whole" = yes ]; then
  # First: the crates' own tests use nft and the API server where they are.
  check packages tests/cluster/packages.sh || finish
  check tools tests/cluster/tools.sh || finish
  # What is missing then is said by the stage that needs it.
  check bench-tools tests/bench/packages.sh tools
fi
# Before the build: it makes `umbra` without Kubernetes, and tests want it whole.
check demo make --no-print-directory demo
check build cargo build --workspace --all-targets --locked || finish
if [ "$mode" = all ]; then
  # Of the build that is there: allocations and system calls. Instructions want an optimised one: below.
  tests gates "${CARGO_TARGET_DIR:-target}/debug/umbra-bench" gates
fi
if [ "$whole" = yes ]; then
  # Beside the next stages, at the lowest priority: a long build, wanted by the last of them. Who interrupts ends it, too.
  (renice -n 19 "$BASHPID"; images) >"$logs/images.out" 2>&1 &
  images=$!
  trap 'kill 0' INT
fi
check lint cargo clippy --workspace --all-targets --locked -- -D warnings
tests unit cargo test --workspace --exclude umbra-tests --locked -- --nocapture
tests workspace cargo test -p umbra-tests --locked --test workspace
tests cases cargo test -p umbra-tests --locked --test cases -- --nocapture --skip served
[ "$mode" = all ] || finish
if [ "$whole" = no ]; then
  skip "push, proxy, node and cluster tests need root on Linux"
  finish
fi
# --nocapture: measurements and skips must be seen. One at a time: they share the machine's network.
tests apiserver cargo test -p umbra-tests --locked --test cluster_crds -- --nocapture
tests push cargo test -p umbra-tests --locked --test push -- --test-threads=1 --nocapture
tests proxy cargo test -p umbra-tests --locked --test proxy -- --test-threads=1 --nocapture
tests node cargo test -p umbra-tests --locked --test node -- --test-threads=1 --nocapture
wait "$images"
check images replay $? "$logs/images.out" || finish
if [ "${PROFILE:-release}" = release ]; then
  host=$(rustc -vV | sed -n 's/^host: //p')
  tests gates-release "${CARGO_TARGET_DIR:-target}/debug/umbra-bench" gates --only instructions \
    --release "target/static/$host/release/umbra-proxy"
else
  skip "instructions of a request want images of a release build"
fi
# Beside the cluster's tests, which wait more than they work, and told after them: what Istio answered, and then what a node
# does with the cases, in network namespaces of their own.
beside() {
  local stage=$1
  shift
  cargo test -p umbra-tests --locked "$@" >"$logs/$stage.out" 2>&1
  echo $? >"$logs/$stage.code"
}
rm -f "$logs"/{istio,served}.code
{ beside istio --test istio -- --nocapture; beside served --test cases -- --nocapture served; } &
others=$!
cluster ""
up=$?
wait "$others"
for stage in istio served; do
  tests "$stage" replay "$(cat "$logs/$stage.code")" "$logs/$stage.out"
done
[ "$up" -eq 0 ] || finish
check cluster-down make --no-print-directory cluster-down
finish
