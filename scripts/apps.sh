#!/usr/bin/env bash
# Compares what one event costs in each language that applications are written in: through a handler that does nothing,
# and through one that broadcasts. One shard; the load generator on another core; a worker wherever the kernel puts it.
# Languages take turns, so that all see the same weather; medians are what counts. Rust is what the server has itself
# (/qio/ping, and the application relay).
#
#     scripts/apps.sh [--rounds 3] [--seconds 3] [--out target/apps] [--skip-build]
#
# Writes OUT/apps.md and OUT/runs/*.json (the load generator's report of every run).
set -euo pipefail
cd "$(dirname "$0")/.."

rounds=3 seconds=3 out=target/apps build=yes
while [[ $# -gt 0 ]]; do
    case $1 in
    --rounds) rounds=$2 && shift 2 ;;
    --seconds) seconds=$2 && shift 2 ;;
    --out) out=$2 && shift 2 ;;
    --skip-build) build=no && shift ;;
    -h | --help) sed -n '2,9s/^# \{0,1\}//p' "$0" && exit 0 ;;
    *) echo "apps.sh: unknown argument: $1 (see --help)" >&2 && exit 2 ;;
    esac
done

if [[ $build == yes ]]; then cargo build --release --bins; fi
bin=${CARGO_TARGET_DIR:-target}/release
rm -rf "$out/runs"
mkdir -p "$out/runs"
cc -std=c99 -O2 -shared -fPIC -I src/app/c -o "$out/bench.so" benches/apps/bench.c

served=
stop() {
    if [[ -n $served ]]; then
        kill "$served" 2>/dev/null || true
        wait "$served" 2>/dev/null || true
        served=
    fi
}
trap stop EXIT
trap 'exit 1' INT TERM

# Every run listens at a port of its own: the kernel takes its time to free those of a ring that has ended.
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
    : >"$out/server.out"
    "$bin/quickio" --app "$app" --shards 1 --listen "127.0.0.1:$port" --admin off --log-level warn \
        </dev/null >"$out/server.out" 2>"$out/server.log" &
    served=$!
    local tries=0
    until grep -qx ready "$out/server.out"; do
        tries=$((tries + 1))
        if [[ $tries -gt 200 ]] || ! kill -0 "$served" 2>/dev/null; then
            cat "$out/server.log" >&2
            exit 1
        fi
        sleep 0.05
    done
    # What the server started is its worker.
    worker=$(cat "/proc/$served/task/"*/children 2>/dev/null | tr ' ' '\n' | grep -m1 . || true)
}

# measure NAME LANGUAGE ROUND -- flags of the load generator
measure() {
    local name=$1 language=$2 round=$3
    shift 4
    serve "$language"
    "$bin/quickio-load" "$@" --server "127.0.0.1:$port" --server-pid "$served" ${worker:+--worker-pid "$worker"} \
        --cpu 1 --seconds "$seconds" --quiet --json "$out/runs/$name.$language.$round.json" >"$out/load.log" ||
        { cat "$out/load.log" >&2 && exit 1; }
    stop
}

nothing() {
    case $1 in
    rust) echo /qio/ping ;;
    python-plain) echo /bench/plain ;;
    *) echo /bench/nothing ;;
    esac
}

for ((round = 1; round <= rounds; round++)); do
    echo "round $round of $rounds" >&2
    for language in rust c python python-plain node; do
        event=$(nothing "$language")
        measure idle "$language" "$round" -- ping --connections 1 --event "$event"
        measure busy "$language" "$round" -- ping --connections 100 --depth 32 --event "$event"
    done
    for language in rust c python node; do
        measure broadcast-idle "$language" "$round" -- fanout --subscribers 1
        measure broadcast-busy "$language" "$round" -- fanout --subscribers 8 --publishers 8 --burst 50
    done
done

scripts/apps_table.py "$out" | tee "$out/apps.md"
