#!/usr/bin/env bash
# What a cluster needs from the distribution. Installs what is missing where root and apt are there, without
# starting a single service; anywhere else it says what is missing and fails.
set -euo pipefail

# program:package (Debian's name)
needed="containerd:containerd runc:runc nft:nftables iptables:iptables conntrack:conntrack ip:iproute2 nsenter:util-linux
openssl:openssl curl:curl sysctl:procps setpriv:util-linux gcc:gcc buildah:buildah prometheus:prometheus mount:mount"

missing=""
for pair in $needed; do
  command -v "${pair%%:*}" >/dev/null || missing="$missing ${pair##*:}"
done
[ -x /usr/lib/cni/ptp ] || missing="$missing containernetworking-plugins"
# Docker alone builds images as well as buildah does.
if command -v docker >/dev/null && docker info >/dev/null 2>&1; then missing=${missing/ buildah/}; fi
[ -n "$missing" ] || exit 0

if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
  echo "missing packages (Debian's names):$missing" >&2
  echo "install them, or run this as root on a Debian or Ubuntu machine" >&2
  exit 1
fi

echo "installing:$missing"
# invoke-rc.d asks this script before it starts a service; 101 means: do not.
policy=/usr/sbin/policy-rc.d
if [ ! -e $policy ]; then
  printf '#!/bin/sh\nexit 101\n' > $policy
  chmod 755 $policy
  trap 'rm -f /usr/sbin/policy-rc.d' EXIT
fi
export DEBIAN_FRONTEND=noninteractive
apt-get update -qq
# shellcheck disable=SC2086 # a list of words
apt-get install -y -qq --no-install-recommends $missing >/dev/null
