#!/usr/bin/env bash
# Runs scripts/quickio.service under a systemd of its own, in namespaces of its own: start, reload, wrong settings, a
# server that hangs, stop. Needs root, systemd and cgroup2. Exits with 77 if that is not possible here.
#
#   tests/scripts/systemd.sh QUICKIO PORT
set -euo pipefail

quickio=$(realpath "$1")
port=$2
unit=$(realpath "$(dirname "$0")/../../scripts/quickio.service")
log=$(mktemp)
# shellcheck source=tests/scripts/namespace.sh
source "$(dirname "$0")/namespace.sh"

trap 'stop_systemd; rm -f "$log"' EXIT

# The first process of the namespace: mounts what systemd needs, writes the unit with other paths, and becomes systemd.
become_systemd() {
  mount --make-rprivate /
  mount -t tmpfs tmpfs /run
  mount_cgroups ""
  mkdir -p /run/systemd/system /run/q
  install -m 755 "$quickio" /run/q/quickio
  sed -e 's#/usr/local/bin/quickio#/run/q/quickio#; s#/etc/quickio/quickio.toml#/run/q/quickio.toml#' \
    -e 's/WatchdogSec=30s/WatchdogSec=4s/; s/TimeoutAbortSec=10s/TimeoutAbortSec=2s/' \
    -e '/network-online/d; s/^\[Unit\]/[Unit]\nDefaultDependencies=no/' "$unit" >/run/systemd/system/quickio.service
  write_settings ""
  write_targets /run/systemd/system quickio-test
  exec env -i container=quickio-test PATH="$PATH" /usr/lib/systemd/systemd --system --unit=quickio-test.target \
    --log-target=console --show-status=no
}

write_settings() {
  cat >/run/q/quickio.toml <<SETTINGS
listen = ["127.0.0.1:$port", "unix:/run/quickio/socket"]
admin = "off"
app = ["relay"]
$1
SETTINGS
}

inside() { timeout 60 nsenter -t "$init" -p -m -C "$@"; }

require_systemd
export -f write_settings
export quickio port unit
start_systemd

expect "a start waits until clients can connect" "$(result systemctl start quickio)" 0
expect "the status has the addresses" "$(property StatusText)" "listening on 127.0.0.1:$port, unix:/run/quickio/socket"
expect "every user may connect to the socket" "$(inside stat -c %a /run/quickio/socket)" 666
expect "a reload succeeds" "$(result systemctl reload quickio)" 0
expect "it serves after the reload" "$(property ActiveState)" active

main=$(pgrep -P "$init" -x quickio)
kill -STOP "$main"
for _ in $(seq 150); do
  [[ $(property NRestarts) == 1 && $(property ActiveState) == active ]] && break
  sleep 0.2
done
expect "the watchdog restarts a server that hangs" "$(property NRestarts) $(property ActiveState)" "1 active"

inside bash -c 'echo "timeout = \"soon\"" >>/run/q/quickio.toml'
expect "a reload with a wrong setting fails" "$(result systemctl reload quickio)" 1
expect "the server keeps running" "$(property ActiveState)" active
expect "a restart with a wrong setting fails" "$(result systemctl restart quickio)" 1
inside sed -i /soon/d /run/q/quickio.toml
inside systemctl reset-failed quickio
expect "a start with the right settings succeeds" "$(result systemctl start quickio)" 0
expect "a stop succeeds" "$(result systemctl stop quickio)" 0
expect "the server ended in order" "$(property Result)" success
