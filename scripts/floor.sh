#!/bin/sh
# Compares the server with the floor: the smallest io_uring program that makes the same receives and sends, with no
# protocol at all (examples/floor.rs). Server CPU time for each message, one shard pinned to one core, the load on
# another. Floor and server take turns, so that both see the same weather; medians are what counts.
#
#     scripts/floor.sh [--rounds 5] [--seconds 3] [--cores 0,1] [--out target/floor] [--skip-build] [--with-ws]
#
# With --with-ws the same runs against `ws` on Node (scripts/baseline_ws.mjs) make a third column. Writes OUT/floor.md
# and OUT/floor.json, and OUT/runs/*.json (the load generator's report of every run).
set -eu
cd "$(dirname "$0")/.."

rounds=5 seconds=3 cores=0,1 out=target/floor build=yes contestants='floor quickio'
while [ $# -gt 0 ]; do
    case "$1" in
    --rounds) rounds=$2; shift 2 ;;
    --seconds) seconds=$2; shift 2 ;;
    --cores) cores=$2; shift 2 ;;
    --out) out=$2; shift 2 ;;
    --skip-build) build=no; shift ;;
    --with-ws) contestants="$contestants ws"; shift ;;
    -h | --help) sed -n '2,12s/^# \{0,1\}//p' "$0"; exit 0 ;;
    *) echo "floor.sh: unknown argument: $1 (see --help)" >&2; exit 2 ;;
    esac
done
server_core=${cores%,*} load_core=${cores#*,}

case "$contestants" in
*ws*) [ -d tests/clients/node/node_modules/ws ] || (cd tests/clients/node && npm ci >&2) ;;
esac
if [ "$build" = yes ]; then
    cargo build --release --bins --example floor
fi
bin=${CARGO_TARGET_DIR:-target}/release
rm -rf "$out/runs"
mkdir -p "$out/runs"

served=
stop() {
    if [ -n "$served" ]; then
        kill "$served" 2>/dev/null || true
        wait "$served" 2>/dev/null || true
        served=
    fi
}
trap stop EXIT
trap 'exit 1' INT TERM

# Every run listens at a port of its own: the kernel takes its time to free those of a ring that has ended.
port=21000

# The floor's own flags come from the load generator, which knows how many bytes its frames have.
bytes() { "$bin/quickio-load" sizes | sed "s/.*\"$1\":\([0-9]*\).*/\1/"; }
answer_bytes=$(bytes answer) frame_bytes=$(bytes delivered)

# measure NAME WHICH ROUND -- flags of the load generator
measure() {
    name=$1 which=$2 round=$3
    shift 4
    port=$((port + 2))
    protocol=websocket
    case "$which" in
    floor)
        protocol=none
        burst=1
        case "$name" in burst*) burst=${name#burst} ;; esac
        taskset -c "$server_core" "$bin/examples/floor" "$1" --listen "127.0.0.1:$port" \
            --answer-bytes "$answer_bytes" --frame-bytes "$frame_bytes" --burst "$burst" &
        ;;
    ws)
        taskset -c "$server_core" node scripts/baseline_ws.mjs "127.0.0.1:$port" &
        ;;
    quickio)
        taskset -c "$server_core" "$bin/quickio" --app relay --shards 1 --listen "127.0.0.1:$port" \
            --admin off --log-level warn >"$out/server.log" 2>&1 &
        ;;
    esac
    served=$!
    # It listens as soon as the port answers; the floor counts connections, so the port is looked up instead.
    hex=$(printf ':%04X ' "$port")
    tries=0
    until grep -q "$hex.* 0A " /proc/net/tcp; do
        tries=$((tries + 1))
        [ "$tries" -lt 100 ] || { echo "floor.sh: $which does not listen" >&2; exit 1; }
        sleep 0.05
    done
    taskset -c "$load_core" "$bin/quickio-load" "$@" --protocol "$protocol" --server "127.0.0.1:$port" \
        --server-pid "$served" --cpu "$load_core" --seconds "$seconds" --quiet \
        --json "$out/runs/$name.$which.$round.json" >"$out/load.log" || { cat "$out/load.log" >&2; exit 1; }
    stop
}

round=1
while [ "$round" -le "$rounds" ]; do
    echo "round $round of $rounds" >&2
    for which in $contestants; do
        measure single "$which" "$round" -- fanout --subscribers 1000
    done
    for which in $contestants; do
        measure burst20 "$which" "$round" -- fanout --subscribers 1000 --burst 20
    done
    for which in $contestants; do
        measure ping "$which" "$round" -- ping --connections 200
    done
    round=$((round + 1))
done

scripts/floor_table.py "$out" | tee "$out/floor.md"
