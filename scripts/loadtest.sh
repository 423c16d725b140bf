#!/usr/bin/env bash
# Starts a release server, runs every scenario of the load generator against it, and writes a report.
#
#     scripts/loadtest.sh [--seconds 5] [--shards N] [--load-threads N] [--connections 10000]
#                         [--server-cores LIST] [--load-cores LIST] [--protocol websocket[,NAME...]]
#                         [--rounds 1] [--out target/loadtest] [--skip-build] [SCENARIO...]
#
# Scenarios: hold ping ping-rate fanout bursts churn slow mixed (by default all of them), and bare: hold without
# subscriptions. Protocols: websocket raw long-polling event-stream. Several protocols run alternately, and are compared
# with the first one; the last two do not support churn and slow. Writes OUT/report.md, OUT/table.md with the medians of
# all rounds, and OUT/SCENARIO.PROTOCOL.ROUND.json for programs. Every run starts a new server. The exit code is 1 if
# connections failed or messages were lost. For very many connections see scripts/tune-host.sh.
set -euo pipefail
cd "$(dirname "$0")/.."
source scripts/lib/server.sh

seconds=5 shards= threads= connections=10000 server_cores= load_cores= protocols=websocket rounds=1
out=target/loadtest build=yes scenarios=
while [[ $# -gt 0 ]]; do
    case $1 in
    --seconds) seconds=$2 && shift 2 ;;
    --shards) shards=$2 && shift 2 ;;
    --load-threads) threads=$2 && shift 2 ;;
    --connections) connections=$2 && shift 2 ;;
    --server-cores) server_cores=$2 && shift 2 ;;
    --load-cores) load_cores=$2 && shift 2 ;;
    --protocol) protocols=${2//,/ } && shift 2 ;;
    --rounds) rounds=$2 && shift 2 ;;
    --out) out=$2 && shift 2 ;;
    --skip-build) build=no && shift ;;
    -h | --help) sed -n '2,/^[^#]/s/^# \{0,1\}//p' "$0" && exit 0 ;;
    -*) echo "loadtest.sh: unknown flag: $1 (see --help)" >&2 && exit 2 ;;
    *) scenarios="$scenarios $1" && shift ;;
    esac
done
for protocol in $protocols; do
    case $protocol in
    websocket | raw | long-polling | event-stream) ;;
    *) echo "loadtest.sh: no such protocol: $protocol (see --help)" >&2 && exit 2 ;;
    esac
done
# Over HTTP clients have up to two sockets, and are neither slow nor churning.
sockets_per_client=1
case $protocols in *long-polling* | *event-stream*) sockets_per_client=2 ;; esac
if [[ -z $scenarios ]]; then
    scenarios="hold ping ping-rate fanout bursts churn slow mixed"
    if [[ $sockets_per_client -gt 1 ]]; then scenarios="hold bare ping ping-rate fanout bursts mixed"; fi
fi
# The maximum number of open sockets: those of hold, or some thousand.
sockets=5000
case $scenarios in *hold* | *bare*) sockets=$((connections * sockets_per_client)) ;; esac

# The default is half of the cores for the server and the other half for the load. A single core is shared.
cores=$(nproc)
half=$(((cores + 1) / 2))
if [[ -z $server_cores ]]; then server_cores=0-$((half - 1)); fi
if [[ -z $load_cores ]]; then load_cores=$((cores > 1 ? half : 0))-$((cores - 1)); fi

# A ring of the server or of the load generator holds as many sockets as `ulimit -n` allows.
per_ring=$(ulimit -n)
if [[ $per_ring == unlimited ]]; then per_ring=1000000; fi
rings=$((sockets / (per_ring - 100) + 1))
if [[ -z $shards ]]; then shards=$((half > rings ? half : rings)); fi
if [[ -z $threads ]]; then threads=$rings; fi

if [[ $build == yes ]]; then cargo build --release --bins; fi
bin=${CARGO_TARGET_DIR:-target}/release
mkdir -p "$out"
rm -f "$out"/*.json

port=22000
failed=0

# run SCENARIO -- flags of the load generator: over every protocol, in every round
run() {
    local scenario=$1 round protocol
    shift 2
    for ((round = 1; round <= rounds; round++)); do
        for protocol in $protocols; do
            run_once "$scenario" "$protocol" "$round" "$@"
        done
    done
}

# run_once SCENARIO PROTOCOL ROUND FLAG...
run_once() {
    local scenario=$1 protocol=$2 round=$3 name=$1.$2.$3 code=0
    shift 3
    port=$((port + 2))
    start_server "$out/$name.server.out" "$out/$name.server.log" taskset -c "$server_cores" \
        "$bin/quickio" --app relay --shards "$shards" --listen "127.0.0.1:$port" \
        --admin "127.0.0.1:$((port + 1))" --connections-per-address-max 0 --log-level warn
    if ! wait_for_server is_listening "$port"; then
        echo "loadtest.sh: the server does not listen:" >&2
        cat "$out/$name.server.log" >&2
        exit 1
    fi
    echo "== $name" >&2
    taskset -c "$load_cores" "$bin/quickio-load" "$@" --protocol "$protocol" --server "127.0.0.1:$port" \
        --server-pid "$server_pid" --threads "$threads" --seconds "$seconds" \
        --json "$out/$name.json" >"$out/$name.txt" || code=$?
    cat "$out/$name.txt"
    {
        printf '## %s over %s, round %s\n\n`quickio-load %s`\n\n```text\n' "$scenario" "$protocol" "$round" "$*"
        cat "$out/$name.txt"
        printf '```\n\n'
    } >>"$out/report.md"
    if [[ $code -ne 0 ]]; then failed=1; fi
    stop_server
}

{
    printf '# Load test\n\n'
    printf '%s over %s shards on cores %s, load of %s threads on cores %s. ' \
        "$protocols" "$shards" "$server_cores" "$threads" "$load_cores"
    printf 'Linux %s, %s, %s cores. Commit %s.\n\n' "$(uname -r)" \
        "$(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | head -n 1)" "$cores" \
        "$(git rev-parse --short HEAD 2>/dev/null || echo unknown)"
} >"$out/report.md"

for scenario in $scenarios; do
    case $scenario in
    hold) run hold -- hold --connections "$connections" ;;
    bare) run bare -- hold --connections "$connections" --rooms 0 ;;
    ping) run ping -- ping --connections 200 ;;
    ping-rate) run ping-rate -- ping --connections 200 --rate 20000 ;;
    fanout) run fanout -- fanout --subscribers 1000 --rate 50 ;;
    bursts) run bursts -- fanout --subscribers 1000 --rate 20 --burst 20 ;;
    churn) run churn -- churn --connections 50 --rate 2000 ;;
    slow) run slow -- slow ;;
    mixed) run mixed -- mixed ;;
    *) echo "loadtest.sh: no such scenario: $scenario (see --help)" >&2 && exit 2 ;;
    esac
done
{
    printf '## Medians\n\n'
    scripts/loadtest_table.py "$out" "$protocols" "$scenarios" | tee "$out/table.md"
} >>"$out/report.md"
cat "$out/table.md"
echo "report: $out/report.md" >&2
exit "$failed"
