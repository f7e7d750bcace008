# Takes a cluster away, running, crashed or half made. Finds everything by name (cgroup, namespaces, bridge, mounts),
# so that it needs no record of a start that may never have finished. Sourced after lib.sh.
# shellcheck shell=bash

cgroup_processes() {
  local dir
  while read -r dir; do
    # A cgroup may go between being found and being read: not a failure, or the caller would think that none is left.
    [ ! -d "$dir" ] || find "$dir" -name cgroup.procs -exec cat {} + 2>/dev/null || true
  done < <(cgroup_dirs "$CGROUP") | sort -un
}

# The cgroup is ours alone, so whatever runs in it was started by this cluster: programs, shims, pods.
# SIGKILL, since nothing of it is to be kept; again until none is left, since a shim may just have started one.
kill_cgroup() {
  local end=$((SECONDS + 30)) pids
  while pids=$(cgroup_processes) && [ -n "$pids" ]; do
    ((SECONDS < end)) || die "processes that do not end: ${pids//$'\n'/ }"
    # shellcheck disable=SC2086 # a list of numbers; one that has just ended is no error
    kill -s KILL $pids 2>/dev/null || true
    sleep 0.1
  done
}

# unmount_below DIR: everything mounted there, the deepest first.
unmount_below() {
  local point
  awk -v dir="$1/" 'index($5, dir) == 1 { print $5 }' /proc/self/mountinfo | sort -r | while read -r point; do
    umount "$point" 2>/dev/null || umount -l "$point"
  done
}

remove_cgroups() {
  local dir
  while read -r dir; do
    [ ! -d "$dir" ] || find "$dir" -depth -type d -exec rmdir {} +
  done < <(cgroup_dirs "$CGROUP")
}

teardown() {
  local owner=$STATE name namespace
  [ -f "$RUN/owner" ] && owner=$(cat "$RUN/owner")
  [ "$owner" = "$STATE" ] || step "a cluster of $owner is here: one fits on a machine, taking that one away"

  kill_cgroup
  if [ -d "$PIDS" ]; then
    for name in $(ls "$PIDS"); do stop "$name" KILL; done
  fi
  unmount_below "$owner"
  unmount_below "$RUN"
  for namespace in $(ip netns list | awk '$1 ~ /^umbra-node[0-9]+$/ { print $1 }'); do ip netns delete "$namespace"; done
  if ip link show "$BRIDGE" >/dev/null 2>&1; then ip link delete "$BRIDGE"; fi
  remove_cgroups
  # What kubelet and the CNI library write outside the folders they are given.
  [ ! -d /var/log/containers ] || find /var/log/containers -lname "$owner/*" -delete
  [ ! -d /var/lib/cni/results ] || { grep -rlsF "$RUN/" /var/lib/cni/results || true; } | xargs -r rm -f
  rm -rf --one-file-system "$owner" "$RUN"
}
