#!/bin/sh
# Starts a release server, puts every scenario of the load generator on it, and writes a report.
#
#     scripts/loadtest.sh [--seconds 5] [--shards N] [--load-threads N] [--connections 10000]
#                         [--server-cores LIST] [--load-cores LIST] [--protocol websocket[,NAME...]]
#                         [--rounds 1] [--out target/loadtest] [--skip-build] [SCENARIO...]
#
# Scenarios: hold ping ping-rate fanout bursts churn slow mixed (all of them unless named), and bare: hold without
# subscriptions. Protocols: websocket raw long-polling event-stream; several take turns, and are compared with the
# first; over the last two there is no churn and no slow. Writes OUT/report.md, OUT/table.md with the medians of all
# rounds, and OUT/SCENARIO.PROTOCOL.ROUND.json for programs. Every run has a server of its own, so that each begins
# with a fresh one. Exit code 1 where connections failed or messages were lost. For very many connections see
# scripts/tune-host.sh.
set -eu
cd "$(dirname "$0")/.."

seconds=5 shards= threads= connections=10000 server_cores= load_cores= protocols=websocket rounds=1
out=target/loadtest build=yes scenarios=
while [ $# -gt 0 ]; do
    case "$1" in
    --seconds) seconds=$2; shift 2 ;;
    --shards) shards=$2; shift 2 ;;
    --load-threads) threads=$2; shift 2 ;;
    --connections) connections=$2; shift 2 ;;
    --server-cores) server_cores=$2; shift 2 ;;
    --load-cores) load_cores=$2; shift 2 ;;
    --protocol) protocols=$(echo "$2" | tr , ' '); shift 2 ;;
    --rounds) rounds=$2; shift 2 ;;
    --out) out=$2; shift 2 ;;
    --skip-build) build=no; shift ;;
    -h | --help) sed -n '2,15s/^# \{0,1\}//p' "$0"; exit 0 ;;
    -*) echo "loadtest.sh: unknown flag: $1 (see --help)" >&2; exit 2 ;;
    *) scenarios="$scenarios $1"; shift ;;
    esac
done
for protocol in $protocols; do
    case "$protocol" in
    websocket | raw | long-polling | event-stream) ;;
    *) echo "loadtest.sh: no such protocol: $protocol (see --help)" >&2; exit 2 ;;
    esac
done
# Over HTTP clients have up to two sockets, and are neither slow nor churning.
lines=1
case "$protocols" in *long-polling* | *event-stream*) lines=2 ;; esac
if [ -z "$scenarios" ]; then
    scenarios="hold ping ping-rate fanout bursts churn slow mixed"
    [ "$lines" -eq 1 ] || scenarios="hold bare ping ping-rate fanout bursts mixed"
fi
# The most sockets at once: those that are held, or some thousand.
sockets=5000
case "$scenarios" in *hold* | *bare*) sockets=$((connections * lines)) ;; esac

# Half of the cores each, unless told; a machine with one core shares it.
cores=$(nproc)
half=$(((cores + 1) / 2))
[ -n "$server_cores" ] || server_cores=0-$((half - 1))
[ -n "$load_cores" ] || load_cores=$((cores > 1 ? half : 0))-$((cores - 1))

# A ring holds as many sockets as `ulimit -n` says, in the server and in the load generator alike.
per_ring=$(ulimit -n)
[ "$per_ring" != unlimited ] || per_ring=1000000
rings=$((sockets / (per_ring - 100) + 1))
[ -n "$shards" ] || shards=$((half > rings ? half : rings))
[ -n "$threads" ] || threads=$rings

if [ "$build" = yes ]; then
    cargo build --release --bins
fi
bin=${CARGO_TARGET_DIR:-target}/release
mkdir -p "$out"
rm -f "$out"/*.json

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

port=22000
failed=0

# run SCENARIO -- flags of the load generator: over every protocol, in every round
run() {
    scenario=$1
    shift 2
    round=1
    while [ "$round" -le "$rounds" ]; do
        for protocol in $protocols; do
            run_once "$@"
        done
        round=$((round + 1))
    done
}

# run_once FLAGS: over $protocol, in round $round
run_once() {
    name=$scenario.$protocol.$round
    port=$((port + 2))
    taskset -c "$server_cores" "$bin/quickio" --app relay --shards "$shards" --listen "127.0.0.1:$port" \
        --admin "127.0.0.1:$((port + 1))" --log-level warn >"$out/$name.server.log" 2>&1 &
    served=$!
    hex=$(printf ':%04X ' "$port")
    tries=0
    until grep -q "$hex.* 0A " /proc/net/tcp; do
        tries=$((tries + 1))
        if [ "$tries" -ge 100 ] || ! kill -0 "$served" 2>/dev/null; then
            echo "loadtest.sh: the server does not listen:" >&2
            cat "$out/$name.server.log" >&2
            exit 1
        fi
        sleep 0.05
    done
    echo "== $name" >&2
    code=0
    taskset -c "$load_cores" "$bin/quickio-load" "$@" --protocol "$protocol" --server "127.0.0.1:$port" \
        --server-pid "$served" --threads "$threads" --seconds "$seconds" \
        --json "$out/$name.json" >"$out/$name.txt" || code=$?
    cat "$out/$name.txt"
    {
        printf '## %s over %s, round %s\n\n`quickio-load %s`\n\n```text\n' "$scenario" "$protocol" "$round" "$*"
        cat "$out/$name.txt"
        printf '```\n\n'
    } >>"$out/report.md"
    [ "$code" -eq 0 ] || failed=1
    stop
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
    case "$scenario" in
    hold) run hold -- hold --connections "$connections" ;;
    bare) run bare -- hold --connections "$connections" --rooms 0 ;;
    ping) run ping -- ping --connections 200 ;;
    ping-rate) run ping-rate -- ping --connections 200 --rate 20000 ;;
    fanout) run fanout -- fanout --subscribers 1000 --rate 50 ;;
    bursts) run bursts -- fanout --subscribers 1000 --rate 20 --burst 20 ;;
    churn) run churn -- churn --connections 50 --rate 2000 ;;
    slow) run slow -- slow ;;
    mixed) run mixed -- mixed ;;
    *) echo "loadtest.sh: no such scenario: $scenario (see --help)" >&2; exit 2 ;;
    esac
done
{
    printf '## Medians\n\n'
    scripts/loadtest_table.py "$out" "$protocols" "$scenarios" | tee "$out/table.md"
} >>"$out/report.md"
cat "$out/table.md"
echo "report: $out/report.md" >&2
exit "$failed"
