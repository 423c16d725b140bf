#!/usr/bin/env bash
# Measures the server API: the events a second that one core accepts and broadcasts. The server, with one shard, has one core,
# and the load another one. One client subscribes to one of the paths.
#
#   scripts/api.sh [SECONDS]
#
# The load is examples/api_load.rs: 4 connections, requests of 1,000 events of about 50 bytes to 100 paths. For each form of the
# body it prints a line, and the CPU time of the server for an event. With PROGRAMS=DIR, the programs in that folder are measured
# instead of being built.
set -euo pipefail

cd "$(dirname "$0")/.."
source scripts/lib/server.sh
readonly seconds=${1:-10}
readonly port=18390

main() {
    local programs=${PROGRAMS:-}
    if [[ -z $programs ]]; then
        cargo build --release --bin quickio --example api_load
        programs=target/release
    fi
    local work
    work=$(mktemp -d)
    # shellcheck disable=SC2064
    trap "stop_server; rm -rf '$work'" EXIT
    (umask 077 && head -c 32 /dev/urandom | od -An -tx1 | tr -d ' \n' >"$work/key")
    cat >"$work/quickio.toml" <<SETTINGS
app = ["relay"]
listen = "127.0.0.1:$((port + 1))"
admin = "off"
api = "127.0.0.1:$port"
shards = 1

[[api-keys]]
name = "load"
secret-file = "$work/key"
scopes = ["broadcast"]
SETTINGS
    start_server "$work/out" "$work/log" taskset -c 0 "$programs/quickio" --config "$work/quickio.toml"
    wait_for_server grep -qx ready "$work/out" || {
        cat "$work/log" >&2
        exit 1
    }
    local form before after
    for form in lines json; do
        before=$(cpu_ticks)
        taskset -c 1 "$programs/examples/api_load" "127.0.0.1:$port" "$(cat "$work/key")" "$form" 1000 4 "$seconds" |
            tee "$work/result"
        after=$(cpu_ticks)
        awk -v ticks=$((after - before)) -v hz="$(getconf CLK_TCK)" \
            '{ printf "%s %.2f us of CPU time of the server for an event\n", $1, ticks / hz * 1e6 / ($4 * 1000) }' "$work/result"
    done
}

# The CPU time of the server so far, in ticks.
cpu_ticks() {
    awk '{ print $14 + $15 }' "/proc/$server_pid/stat"
}

main
