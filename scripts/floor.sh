#!/usr/bin/env bash
# Compares the server with the floor: the smallest io_uring program that makes the same receives and sends without any
# protocol (examples/floor.rs). Measures the server's CPU time per message and per connection, with one shard pinned to one
# core and the load on another. Floor and server run alternately, because the speed of the machine changes over time; compare the
# medians.
#
#     scripts/floor.sh [--rounds 5] [--seconds 3] [--cores 0,1] [--out target/floor] [--skip-build] [--with-ws]
#                      [--with-uws] [--cases single,burst20,ping,connect,storm,paced,churn] [--realtime]
#
# With --with-ws the tables have rows for the runs with messages against `ws` on Node (scripts/baseline_ws.mjs), and with
# --with-uws for all runs against uWebSockets (scripts/baseline_uws.cpp, which scripts/baseline_uws.sh builds). The case
# `paced`, 40 publishes a second, is for latencies: QuickIO's own histograms stand beside them. The floor does not take part in
# `churn`, which pings over WebSockets. --realtime runs servers and load with the policy SCHED_FIFO, for a machine that others
# use too; it needs root, and is not for storms of connections, which need threads of the kernel. Writes OUT/floor.md and
# OUT/floor.json, and OUT/runs/*.json (the load generator's report of every run, and QuickIO's statistics after it).
set -euo pipefail
cd "$(dirname "$0")/.."
source scripts/lib/server.sh

rounds=5 seconds=3 cores=0,1 out=target/floor build=yes contestants=(floor quickio)
cases=single,burst20,ping,connect,storm,paced,churn realtime=()
while [[ $# -gt 0 ]]; do
    case $1 in
    --rounds) rounds=$2 && shift 2 ;;
    --seconds) seconds=$2 && shift 2 ;;
    --cores) cores=$2 && shift 2 ;;
    --out) out=$2 && shift 2 ;;
    --skip-build) build=no && shift ;;
    --with-ws) contestants+=(ws) && shift ;;
    --with-uws) contestants+=(uws) && shift ;;
    --cases) cases=$2 && shift 2 ;;
    --realtime) realtime=(chrt --fifo 10) && shift ;;
    -h | --help) sed -n '2,/^[^#]/s/^# \{0,1\}//p' "$0" && exit 0 ;;
    *) echo "floor.sh: unknown argument: $1 (see --help)" >&2 && exit 2 ;;
    esac
done
server_core=${cores%,*} load_core=${cores#*,}

if [[ " ${contestants[*]} " == *" ws "* && ! -d tests/clients/node/node_modules/ws ]]; then
    (cd tests/clients/node && npm ci >&2)
fi
if [[ " ${contestants[*]} " == *" uws "* ]]; then scripts/baseline_uws.sh; fi
if [[ $build == yes ]]; then cargo build --release --bins --example floor; fi
bin=${CARGO_TARGET_DIR:-target}/release
rm -rf "$out/runs"
mkdir -p "$out/runs"

# Every run uses a port of its own, because the kernel frees the ports of a ring only some time after it has ended.
port=21000

# The load generator knows the size of its frames; the floor gets it by flags.
bytes() { "$bin/quickio-load" sizes | sed "s/.*\"$1\":\([0-9]*\).*/\1/"; }
answer_bytes=$(bytes answer) frame_bytes=$(bytes delivered)
connect_answers=$(bytes upgraded),$(bytes greeted),$(bytes closed)

# serve WHICH NAME SCENARIO
serve() {
    local which=$1 name=$2 scenario=$3 burst=1 command
    case $which in
    floor)
        if [[ $name == burst* ]]; then burst=${name#burst}; fi
        if [[ $scenario == churn ]]; then scenario=accept; fi
        command=("$bin/examples/floor" "$scenario" --listen "127.0.0.1:$port" --answers "$connect_answers"
            --answer-bytes "$answer_bytes" --frame-bytes "$frame_bytes" --burst "$burst")
        ;;
    ws) command=(node scripts/baseline_ws.mjs "127.0.0.1:$port") ;;
    uws) command=(target/uws/baseline_uws "127.0.0.1:$port") ;;
    quickio)
        command=("$bin/quickio" --app relay --shards 1 --listen "127.0.0.1:$port"
            --admin "127.0.0.1:$((port + 1))" --log-level warn)
        ;;
    esac
    start_server "$out/server.out" "$out/server.log" "${realtime[@]}" taskset -c "$server_core" "${command[@]}"
    if ! wait_for_server is_listening "$port"; then
        echo "floor.sh: $which does not listen:" >&2
        cat "$out/server.log" >&2
        exit 1
    fi
}

# measure NAME WHICH ROUND -- flags of the load generator
measure() {
    local name=$1 which=$2 round=$3 protocol=websocket
    shift 4
    port=$((port + 2))
    if [[ $which == floor ]]; then protocol=none; fi
    serve "$which" "$name" "$1"
    "${realtime[@]}" taskset -c "$load_core" "$bin/quickio-load" "$@" --protocol "$protocol" --server "127.0.0.1:$port" \
        --server-pid "$server_pid" --cpu "$load_core" --seconds "$seconds" --quiet \
        --json "$out/runs/$name.$which.$round.json" >"$out/load.log" || { cat "$out/load.log" >&2 && exit 1; }
    if [[ $which == quickio ]]; then
        curl --silent --fail "http://127.0.0.1:$((port + 1))/stats" >"$out/runs/$name.stats.$round.json"
    fi
    stop_server
}

# takes_part WHICH NAME: the floor does not speak WebSocket, and `ws` is measured with messages only.
takes_part() {
    case $1.$2 in
    floor.churn | ws.connect | ws.storm | ws.churn) return 1 ;;
    esac
}

# measure_all NAME ROUND -- flags of the load generator: every contestant, one after the other.
measure_all() {
    local name=$1 round=$2 which
    if [[ ,$cases, != *",$name,"* ]]; then return; fi
    shift 2
    for which in "${contestants[@]}"; do
        if takes_part "$which" "$name"; then measure "$name" "$which" "$round" "$@"; fi
    done
}

for ((round = 1; round <= rounds; round++)); do
    echo "round $round of $rounds" >&2
    measure_all single "$round" -- fanout --subscribers 1000
    measure_all burst20 "$round" -- fanout --subscribers 1000 --burst 20
    measure_all ping "$round" -- ping --connections 200
    measure_all connect "$round" -- churn --no-ping --connections 1
    measure_all storm "$round" -- churn --no-ping --connections 1000
    measure_all paced "$round" -- fanout --subscribers 1000 --rate 40
    measure_all churn "$round" -- churn --connections 50
done

scripts/floor_table.py "$out" | tee "$out/floor.md"
