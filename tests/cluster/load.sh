#!/usr/bin/env bash
# load.sh [NAME...]: image tars of target/images (all of them, or those named) into every node of the running cluster.
set -euo pipefail
here=$(dirname "${BASH_SOURCE[0]}")
source "$here/lib.sh"
source "$here/images.sh"

[ -d "$RUN/node1" ] || die "no cluster is up: make cluster-up"
for dir in "$RUN"/node*; do load_images "${dir#"$RUN/node"}" "$@"; done
step "images loaded"
