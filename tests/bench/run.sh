#!/usr/bin/env bash
# `make bench` and `make bench-quick`: fetches the peers, builds release programs, measures. See README.md here.
#   run.sh quick|full [FLAGS OF umbra-bench]
set -euo pipefail
cd "$(dirname "$0")/../.."
mode=${1:-quick}
[ $# -eq 0 ] || shift

[ "$(uname -s)" = Linux ] || { echo "the bench reads /proc and uses epoll: Linux only" >&2; exit 1; }
tests/bench/packages.sh
# By itself, as for its image: built with another package, its dependencies would have that one's features, too.
cargo build --release --locked --package umbra-proxy
cargo build --release --locked --package umbra-bench
exec "${CARGO_TARGET_DIR:-target}/release/umbra-bench" "$mode" "$@"
