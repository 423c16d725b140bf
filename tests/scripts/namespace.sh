# A systemd of a test, in namespaces of its own, and checks of the unit quickio there. deb.sh and systemd.sh source this file.
#
# They define `become_systemd`, which is the first process of the namespaces and becomes systemd, and `inside COMMAND...`,
# which runs a command there, with `$init`, the process id of systemd. `$log` is the file with the output of both.
# shellcheck shell=bash disable=SC2154

unshare_pid=

skip() {
  echo "skipped: $1"
  exit 77
}

require_systemd() {
  [[ $EUID == 0 && -x /usr/lib/systemd/systemd ]] || skip "this needs root and systemd"
  unshare -pmC true 2>/dev/null || skip "namespaces cannot be created here"
}

# mount_cgroups ROOT: gives the system at this path the control groups of the namespace.
mount_cgroups() {
  mount -t tmpfs tmpfs "$1/sys/fs/cgroup" && umount "$1/sys/fs/cgroup"
  mount -t cgroup2 cgroup2 "$1/sys/fs/cgroup"
}

# write_targets FOLDER NAME...: writes targets that need nothing.
write_targets() {
  local folder=$1 name
  shift
  for name; do
    printf '[Unit]\nDescription=test\nDefaultDependencies=no\n' >"$folder/$name.target"
  done
}

# Starts the namespaces, and waits for their systemd.
start_systemd() {
  export -f become_systemd mount_cgroups write_targets
  unshare -pfmiuC --mount-proc bash -ec become_systemd >>"$log" 2>&1 &
  unshare_pid=$!
  for _ in $(seq 100); do
    init=$(pgrep -P "$unshare_pid" || true)
    [[ -n $init ]] && inside systemctl show-environment >/dev/null 2>&1 && break
    kill -0 "$unshare_pid" 2>/dev/null || { cat "$log"; skip "systemd cannot run here"; }
    sleep 0.1
  done
  inside systemctl show-environment >/dev/null 2>&1 || { cat "$log"; skip "systemd does not start here"; }
}

# The end of the first process of the namespaces ends all others in them.
stop_systemd() {
  if [[ -n ${init:-} ]]; then kill -KILL "$init" 2>/dev/null || true; fi
  if [[ -n $unshare_pid ]]; then wait "$unshare_pid" 2>/dev/null || true; fi
}

property() { inside systemctl show quickio --value -p "$1"; }

# expect WHAT ACTUAL EXPECTED
expect() {
  if [[ $2 != "$3" ]]; then
    echo "FAILED $1: $2 instead of $3"
    inside systemctl status quickio --no-pager || true
    cat "$log"
    exit 1
  fi
  echo "ok $1"
}

# result COMMAND...: prints 0 if the command succeeds, and 1 if it fails.
result() { inside "$@" >>"$log" 2>&1 && echo 0 || echo 1; }
