#!/usr/bin/env bash
# Puts what `quickio --generate-docs` prints into docs/operations.md, and what `quickio clienttest --generate-docs` prints
# into docs/client-tests.md, each between the two markers there.
set -euo pipefail
cd "$(dirname "$0")/.."

# put GUIDE COMMAND...
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
