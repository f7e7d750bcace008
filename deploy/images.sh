#!/usr/bin/env bash
# `make images`: static binaries of the programs, and their images as tars under target/images.
#   images.sh [NAME...]    only those images; umbra-proxy-next-wire, for the test of an upgrade, alone and only when named
#   PROFILE=dev            unoptimised and much quicker to build (default: release)
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cd "$root"
profile=${PROFILE:-release}

# image -> package/binary
declare -A built=(
  [umbra-controller]=umbra-controller/umbra-controller
  [umbra-proxy]=umbra-proxy/umbra-proxy
  [umbra-proxy-next-wire]=umbra-proxy/umbra-proxy
  [sentiment-sa-logic]=sentiment-example/sa-logic
  [sentiment-sa-web-app]=sentiment-example/sa-web-app
)
names=("$@")
[ $# -gt 0 ] || names=(umbra-controller umbra-proxy sentiment-sa-logic sentiment-sa-web-app)
# umbra-proxy by itself: built with others, its dependencies would have the features that those want, which cost a request
# up to 6 % more instructions.
proxy=() others=()
for name in "${names[@]}"; do
  [ -n "${built[$name]:-}" ] || { echo "error: no image is called $name; there are: ${!built[*]}" >&2; exit 1; }
  wanted=(--package "${built[$name]%/*}" --bin "${built[$name]#*/}")
  case $name in
    umbra-proxy*) proxy+=("${wanted[@]}") ;;
    *) others+=("${wanted[@]}") ;;
  esac
done
# As a feature: what does not depend on it is not built a second time.
[[ " ${names[*]} " != *-next-wire* ]] || proxy+=(--features next-wire)

[ ${#proxy[@]} -eq 0 ] || out=$(deploy/static.sh --profile "$profile" "${proxy[@]}")
[ ${#others[@]} -eq 0 ] || out=$(deploy/static.sh --profile "$profile" "${others[@]}")
for name in "${names[@]}"; do deploy/image.sh "$name" "$out/${built[$name]#*/}"; done
