# The images that the cluster itself needs, and every image's way onto a node. Sourced after lib.sh.
# shellcheck shell=bash

build_cluster_images() {
  local pause=$ROOT/target/cluster-tools/bin/pause
  if [ ! -x "$pause" ] || [ "$HERE/pause.c" -nt "$pause" ]; then gcc -static -Os -Wall -Werror -o "$pause" "$HERE/pause.c"; fi
  "$ROOT/deploy/image.sh" pause "$pause"
  "$ROOT/deploy/image.sh" coredns "$BIN/coredns"
}

# load_images NODE [NAME...]: those tars of target/images, or all of them, into the node's containerd.
load_images() {
  local i=$1 tars=() name tar; shift
  for name in "$@"; do tars+=("$IMAGES/$name.tar"); done
  [ $# -gt 0 ] || tars=("$IMAGES"/*.tar)
  for tar in "${tars[@]}"; do
    [ -f "$tar" ] || die "$tar is not there: make images"
    ctr -a "$(node_sock "$i")" -n k8s.io images import "$tar" >>"$LOG/images.log" 2>&1 || die "$tar could not be imported: see $LOG/images.log"
  done
}
