#!/usr/bin/env bash
# Counts the instructions of whole turns of a shard, with valgrind's callgrind: the same for the same program and input,
# however busy the machine is.
#
#   scripts/instructions.sh [BASE]
#
# Prints the instructions of one turn for each scenario of benches/turns.rs. With a revision BASE the same program is built
# from that revision too, in target/instructions, and its counts and the ratios are printed beside ours.
set -euo pipefail

cd "$(dirname "$0")/.."
readonly few=200 many=1200
readonly scenarios=(fanout fanout-burst fanout-history fanout-history-burst ping ping-burst broadcast broadcast-burst
    broadcast-history recovery)
readonly work=$PWD/target/instructions

main() {
    command -v valgrind >/dev/null || {
        echo "valgrind is missing: apt-get install valgrind" >&2
        exit 1
    }
    mkdir -p "$work"
    local ours base=
    ours=$(build .)
    if [[ $# -gt 0 ]]; then base=$(build_base "$1"); fi
    printf '%-22s %14s' scenario instructions
    if [[ -n $base ]]; then printf ' %14s %7s' "at $1" ratio; fi
    printf '\n'
    local scenario
    for scenario in "${scenarios[@]}"; do
        report "$scenario" "$ours" "$base"
    done
}

report() {
    local count before
    count=$(per_turn "$2" "$1")
    printf '%-22s %14d' "$1" "$count"
    if [[ -n $3 ]]; then
        before=$(per_turn "$3" "$1")
        # The base may not have the scenario.
        if ((before > 0)); then
            printf ' %14d %7s' "$before" "$(awk "BEGIN { printf \"%.3f\", $count / $before }")"
        fi
    fi
    printf '\n'
}

# Builds benches/turns.rs in a tree, and prints the path of the program.
build() {
    (cd "$1" && cargo bench --quiet --bench turns --no-run --message-format=json) |
        sed -nE 's/.*"name":"turns".*"executable":"([^"]+)".*/\1/p' | tail -n 1
}

# Builds it in a work tree of a revision, which may not have the program yet. The work tree is removed again; what was
# built stays for the next time.
build_base() {
    local tree=$work/base
    git worktree remove --force "$tree" 2>/dev/null || true
    git worktree add --quiet --detach "$tree" "$1"
    [[ -f $tree/benches/turns.rs ]] || cp benches/turns.rs "$tree/benches/turns.rs"
    if ! grep -q 'name = "turns"' "$tree/Cargo.toml"; then
        printf '\n[[bench]]\nname = "turns"\nharness = false\n' >>"$tree/Cargo.toml"
    fi
    CARGO_TARGET_DIR=$work/target build "$tree"
    git worktree remove --force "$tree"
}

# The instructions of one turn: two runs differ in nothing but the number of turns.
per_turn() {
    local short long
    short=$(count "$1" "$2" $few)
    long=$(count "$1" "$2" $many)
    echo $(((long - short) / (many - few)))
}

count() {
    valgrind --tool=callgrind --callgrind-out-file=/dev/null "$1" "$2" "$3" 2>&1 |
        sed -nE 's/.*Collected : ([0-9]+).*/\1/p'
}

main "$@"
