#!/usr/bin/env bash
# Builds Kubernetes, etcd and CoreDNS from the Go modules beside this file into target/cluster-tools/bin.
# A program is built when it is missing, or when the sums of its module have changed. Cold on two cores: 12 min.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

mkdir -p "$BIN"
exec 8>"$TOOLS/lock"
flock 8

# build MODULE PROGRAM PACKAGE [LDFLAGS]
build() {
  local module=$HERE/$1 program=$2 package=$3 ldflags="-s -w ${4:-}" stamp sum began=$SECONDS
  stamp=$TOOLS/$program.sum
  sum=$(cat "$module/go.mod" "$module/go.sum" | sha256sum)
  [ -x "$BIN/$program" ] && [ "$(cat "$stamp" 2>/dev/null)" = "$sum" ] && return 0
  command -v go >/dev/null || die "$program is to be built, and there is no Go here: install Go 1.26 or newer (https://go.dev/dl)"
  step "building $program"
  # Without cgo, or CoreDNS would not start in an image from scratch.
  (cd "$module" && CGO_ENABLED=0 go build -trimpath -ldflags "$ldflags" -o "$BIN/$program" "$package")
  echo "$sum" > "$stamp"
  step "built $program in $((SECONDS - began)) s"
}

version=$(awk '$1 == "k8s.io/kubernetes" || $2 == "k8s.io/kubernetes" { print $NF }' "$HERE/kubernetes/go.mod" | head -n 1)
for program in kube-apiserver kube-controller-manager kube-scheduler kube-proxy kubelet kubectl; do
  # The Go proxy carries no version stamp: without this the API server calls itself v0.0.0-master+$Format.
  build kubernetes "$program" "k8s.io/kubernetes/cmd/$program" "-X k8s.io/component-base/version.gitVersion=$version"
done
build etcd etcd go.etcd.io/etcd/server/v3
build coredns coredns github.com/coredns/coredns
