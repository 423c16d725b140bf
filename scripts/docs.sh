#!/usr/bin/env bash
# Replaces the generated tables in the docs, between the two markers of each file: the output of
# `quickio --generate-docs` in docs/operations.md, and that of `quickio clienttest --generate-docs` in
# docs/client-tests.md.
set -euo pipefail
cd "$(dirname "$0")/.."

# put GUIDE COMMAND...: replaces the tables of GUIDE with the output of COMMAND.
put() {
  local guide=$1 tables written
  shift
  tables=$("$@")
  written=$(
    sed '/^<!-- begin generated -->$/q' "$guide"
    printf '%s\n' "$tables"
    sed -n '/^<!-- end generated -->$/,$p' "$guide"
  )
  printf '%s\n' "$written" >"$guide"
}

quickio=(cargo run --quiet --bin quickio --)
put docs/operations.md "${quickio[@]}" --generate-docs
put docs/client-tests.md "${quickio[@]}" clienttest --generate-docs
