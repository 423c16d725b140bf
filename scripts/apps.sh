#!/usr/bin/env bash
# Compares the cost of one event in each language in which applications can be written: with a handler that does nothing,
# and with one that broadcasts. The server has one shard; the load generator runs on another core, and a worker on any.
# The languages run alternately, because the speed of the machine changes over time; compare the medians. The row for Rust
# uses the server's own applications (/qio/ping and relay).
#
#     scripts/apps.sh [--rounds 3] [--seconds 3] [--out target/apps] [--skip-build]
#
# Writes OUT/apps.md and OUT/runs/*.json (the load generator's report of every run).
set -euo pipefail
cd "$(dirname "$0")/.."
source scripts/lib/server.sh

rounds=3 seconds=3 out=target/apps build=yes
while [[ $# -gt 0 ]]; do
    case $1 in
    --rounds) rounds=$2 && shift 2 ;;
    --seconds) seconds=$2 && shift 2 ;;
    --out) out=$2 && shift 2 ;;
    --skip-build) build=no && shift ;;
    -h | --help) sed -n '2,/^[^#]/s/^# \{0,1\}//p' "$0" && exit 0 ;;
    *) echo "apps.sh: unknown argument: $1 (see --help)" >&2 && exit 2 ;;
    esac
done

if [[ $build == yes ]]; then cargo build --release --bins; fi
bin=${CARGO_TARGET_DIR:-target}/release
rm -rf "$out/runs"
mkdir -p "$out/runs"
cc -std=c99 -O2 -shared -fPIC -I src/app/c -o "$out/bench.so" benches/apps/bench.c

# Every run uses a port of its own, because the kernel frees the ports of a ring only some time after it has ended.
port=22000

# serve LANGUAGE
serve() {
    local app
    case $1 in
    rust) app=relay ;;
    c) app=$out/bench.so ;;
    python*) app=benches/apps/bench.py ;;
    node) app=benches/apps/bench.mjs ;;
    esac
    port=$((port + 1))
    start_server "$out/server.out" "$out/server.log" \
        "$bin/quickio" --app "$app" --shards 1 --listen "127.0.0.1:$port" --admin off --log-level warn
    if ! wait_for_server grep -qx ready "$out/server.out"; then
        cat "$out/server.log" >&2
        exit 1
    fi
    # The server's only child is the worker.
    worker=$(cat "/proc/$server_pid/task/"*/children 2>/dev/null | tr ' ' '\n' | grep -m1 . || true)
}

# measure NAME LANGUAGE ROUND -- flags of the load generator
measure() {
    local name=$1 language=$2 round=$3
    shift 4
    serve "$language"
    "$bin/quickio-load" "$@" --server "127.0.0.1:$port" --server-pid "$server_pid" ${worker:+--worker-pid "$worker"} \
        --cpu 1 --seconds "$seconds" --quiet --json "$out/runs/$name.$language.$round.json" >"$out/load.log" ||
        { cat "$out/load.log" >&2 && exit 1; }
    stop_server
}

# event_without_work LANGUAGE
event_without_work() {
    case $1 in
    rust) echo /qio/ping ;;
    python-plain) echo /bench/plain ;;
    *) echo /bench/nothing ;;
    esac
}

for ((round = 1; round <= rounds; round++)); do
    echo "round $round of $rounds" >&2
    for language in rust c python python-plain node; do
        event=$(event_without_work "$language")
        measure idle "$language" "$round" -- ping --connections 1 --event "$event"
        measure busy "$language" "$round" -- ping --connections 100 --depth 32 --event "$event"
    done
    for language in rust c python node; do
        measure broadcast-idle "$language" "$round" -- fanout --subscribers 1
        measure broadcast-busy "$language" "$round" -- fanout --subscribers 8 --publishers 8 --burst 50
    done
done

scripts/apps_table.py "$out" | tee "$out/apps.md"
