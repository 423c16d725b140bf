#!/usr/bin/env bash
# Checks the dependencies against the rules in deny.toml: security advisories, licences, banned crates and sources.
#
#   scripts/deny.sh
#
# The first run installs cargo-deny under target/test-tools, which takes some minutes. If the database of advisories
# (github.com/rustsec/advisory-db) cannot be reached, the script reports that advisories were not checked, and checks the
# rest. The exit code is 0 if nothing was found.
set -euo pipefail
cd "$(dirname "$0")/.."

readonly version=0.20.2
readonly tools=$PWD/target/test-tools
readonly deny=$tools/cargo-deny-$version/bin/cargo-deny

if [[ ! -x $deny ]]; then
    echo "installing cargo-deny $version" >&2
    # Unoptimized: compiling it takes much longer than running it.
    CARGO_PROFILE_DEV_DEBUG=0 nice cargo install cargo-deny --version "$version" --locked --debug --quiet \
        --root "$tools/cargo-deny-$version" --target-dir "$tools/cargo-deny-build"
    rm -rf "$tools/cargo-deny-build"
fi

checks=(advisories bans licenses sources)
if ! problem=$(timeout 120 "$deny" --locked fetch db 2>&1); then
    printf '%s\n' "$problem" >&2
    echo "**** Advisories were NOT checked: the database cannot be reached (see above). The rest follows. ****" >&2
    checks=(bans licenses sources)
fi
"$deny" --locked check "${checks[@]}"
