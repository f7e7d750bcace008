#!/bin/sh
# The article on this machine: cargo alone, no root, no cluster. Builds umbra without kube, and plays it.
set -eu
cd "$(dirname "$0")/../../.."
began=$(date +%s)

packages="-p umbra-cli -p sentiment-example"
# shellcheck disable=SC2086 # two words each
crates=$(cargo tree --locked $packages --no-default-features -e normal --prefix none | sed 's/ (\*)$//' | sort -u | grep -c ' v')
echo "Building umbra and the example: $crates crates"
# shellcheck disable=SC2086
cargo build --locked $packages --no-default-features
built=$(date +%s)

programs=${CARGO_TARGET_DIR:-target}/debug
mkdir -p target # for demo.json
code=0
"$programs/sentiment-demo" --programs "$programs" "$@" || code=$?
ended=$(date +%s)
echo "Took $((ended - began)) s: $((built - began)) s to build, $((ended - built)) s to play."
exit "$code"
