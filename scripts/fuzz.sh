#!/usr/bin/env bash
# Runs the fuzz targets of tests/fuzz, which libFuzzer drives by coverage.
#
#     scripts/fuzz.sh [--seconds 10] [--minimize] [TARGET...]
#
# Each target (by default all of them) runs for the given time, beginning with its corpus in tests/fuzz/corpus. An input
# that fails is written to tests/fuzz/artifacts, and `scripts/fuzz.sh` with that target runs it again if it is moved to the
# corpus. The exit code is 1 if an input has failed.
#
# This needs rustup's nightly toolchain, a C++ compiler and cargo-fuzz, which is installed under target/test-tools if it
# is missing. Without a nightly toolchain nothing is run, and the last line says so.
#
#   --minimize   afterwards replaces the corpus by the smallest inputs that reach the same code
set -euo pipefail
cd "$(dirname "$0")/.."

seconds=10 minimize=no targets=
while [[ $# -gt 0 ]]; do
    case $1 in
    --seconds) seconds=$2 && shift 2 ;;
    --minimize) minimize=yes && shift ;;
    -h | --help) sed -n '2,/^[^#]/s/^# \{0,1\}//p' "$0" && exit 0 ;;
    -*) echo "fuzz.sh: unknown flag: $1 (see --help)" >&2 && exit 2 ;;
    *) targets="$targets $1" && shift ;;
    esac
done

known=$(sed -n 's/^path = "targets\/\(.*\)\.rs"$/\1/p' tests/fuzz/Cargo.toml)
for target in ${targets:=$known}; do
    if ! grep -qx -- "$target" <<<"$known"; then
        echo "fuzz.sh: no such target: $target" >&2
        exit 2
    fi
done

if ! cargo +nightly --version >/dev/null 2>&1; then
    echo "fuzz: SKIPPED: the nightly toolchain is not installed (rustup toolchain install nightly)"
    exit 0
fi
export PATH=$PWD/target/test-tools/bin:$PATH
if ! cargo fuzz --version >/dev/null 2>&1; then
    cargo install --quiet --locked --root target/test-tools cargo-fuzz
fi
# Our code has no `unsafe` in what is fuzzed, so sanitizers would only cost time.
fuzz=(--fuzz-dir tests/fuzz --sanitizer none)
export CARGO_TARGET_DIR=$PWD/target/fuzz
cargo +nightly fuzz build "${fuzz[@]}"

passed=0 failed=0
for target in $targets; do
    echo "== $target" >&2
    # New inputs go to a folder of their own; the corpus in the tree changes only with --minimize.
    mkdir -p "target/fuzz/corpus/$target"
    if cargo +nightly fuzz run "${fuzz[@]}" "$target" "target/fuzz/corpus/$target" "tests/fuzz/corpus/$target" -- \
        -max_total_time="$seconds" -max_len=4096 >"target/fuzz/$target.log" 2>&1; then
        grep '^Done ' "target/fuzz/$target.log"
        passed=$((passed + 1))
    else
        grep -vE '^(INFO|#[0-9])' "target/fuzz/$target.log" | tail -n 60 >&2
        failed=$((failed + 1))
        continue
    fi
    if [[ $minimize == yes ]]; then
        cp -n "target/fuzz/corpus/$target"/* "tests/fuzz/corpus/$target/" 2>/dev/null || true
        cargo +nightly fuzz cmin "${fuzz[@]}" "$target" "tests/fuzz/corpus/$target" -- -max_len=4096
    fi
done
echo "fuzz: $passed passed, $failed failed"
[[ $failed -eq 0 ]]
