#!/usr/bin/env bash
# Takes the throwaway cluster away, running or crashed. The built programs and the image tars stay.
set -euo pipefail
here=$(dirname "${BASH_SOURCE[0]}")
source "$here/lib.sh"
source "$here/teardown.sh"

lock
teardown
step "down"
