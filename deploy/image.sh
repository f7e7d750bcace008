#!/usr/bin/env bash
# image.sh NAME BINARY: the image localhost/NAME:dev and its tar target/images/NAME.tar, with buildah or docker.
# Does nothing when the tar was made from this very binary and Dockerfile.
set -euo pipefail
name=$1 binary=$2
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
images=$root/target/images
tag=localhost/$name:dev
tar=$images/$name.tar
[ -x "$binary" ] || { echo "error: $binary is not there: build it first (make images)" >&2; exit 1; }

mkdir -p "$images"
sum=$(cat "$binary" "$root/deploy/Dockerfile" | sha256sum)
[ -f "$tar" ] && [ "$(cat "$images/$name.sum" 2>/dev/null)" = "$sum" ] && exit 0

# A context of one file: nothing else can slip in, and nothing else is read.
context=$(mktemp -d)
trap 'rm -rf "$context"' EXIT
cp "$binary" "$context/$name"
build=(--file "$root/deploy/Dockerfile" --target "${name%-next-wire}" --build-arg "BINARY=$name" --tag "$tag" "$context")
rm -f "$tar"
if command -v buildah >/dev/null; then
  # chroot: needs neither a daemon nor a container runtime, and nothing is run here anyway.
  buildah build --quiet --isolation chroot "${build[@]}" >/dev/null
  buildah push --quiet "$tag" "docker-archive:$tar:$tag"
elif command -v docker >/dev/null; then
  docker build --quiet "${build[@]}" >/dev/null
  docker save --output "$tar" "$tag"
else
  echo "error: neither buildah nor docker is there: install one (Debian: apt-get install buildah)" >&2
  exit 1
fi
echo "$sum" > "$images/$name.sum"
echo "image $tag: $(du -k "$tar" | cut -f1) KB"
