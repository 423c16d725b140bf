#!/usr/bin/env bash
# Puts what `quickio --generate-docs` prints into docs/operations.md, between its two markers.
set -euo pipefail
cd "$(dirname "$0")/.."

readonly guide=docs/operations.md
tables=$(cargo run --quiet --bin quickio -- --generate-docs)
written=$(
  sed '/^<!-- begin generated -->$/q' "$guide"
  printf '%s\n' "$tables"
  sed -n '/^<!-- end generated -->$/,$p' "$guide"
)
printf '%s\n' "$written" >"$guide"
