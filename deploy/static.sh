#!/usr/bin/env bash
# Static programs, as the images hold them: `cargo build` with these flags. Prints the folder that they are in.
#   static.sh --profile release --package umbra-proxy
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
profile=dev
[ "${1:-}" != --profile ] || profile=$2
# The toolchain's own target, named: else the flags below would reach build scripts and macros, which cannot be static.
target=$(rustc -vV | sed -n 's/^host: //p')
RUSTFLAGS="${RUSTFLAGS:-} -C target-feature=+crt-static" \
  cargo build --locked --target "$target" --target-dir target/static "$@" >&2
echo "target/static/$target/${profile/#dev/debug}"
