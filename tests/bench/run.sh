#!/usr/bin/env bash
# `make bench` and `make bench-quick`: fetches the peers, builds release programs, measures. See README.md here.
#   run.sh quick|full [FLAGS OF umbra-bench]
set -euo pipefail
cd "$(dirname "$0")/../.."
mode=${1:-quick}
[ $# -eq 0 ] || shift

[ "$(uname -s)" = Linux ] || { echo "the bench reads /proc and uses epoll: Linux only" >&2; exit 1; }
tests/bench/packages.sh
# The program of its image. By itself: built with another package, its dependencies would have that one's features, too.
deployed=$(deploy/static.sh --profile release --package umbra-proxy --bin umbra-proxy)
# And one whose allocations can be counted.
cargo build --release --locked --package umbra-proxy
cargo build --release --locked --package umbra-bench
exec "${CARGO_TARGET_DIR:-target}/release/umbra-bench" "$mode" --release "$deployed/umbra-proxy" "$@"
