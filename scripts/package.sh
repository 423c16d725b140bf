#!/usr/bin/env bash
# Builds the packages of a release under target/package:
#
#   deb      quickio_VERSION_ARCH.deb: the server, its systemd unit, settings, manual page and completions
#   npm      quickio-client-VERSION.tgz: the client library for JavaScript
#   python   quickio_workers-VERSION.whl and .tar.gz: the library of Python applications, for editors and type checkers
#
#   scripts/package.sh [--binary FILE] [--deb-version VERSION] [deb] [npm] [python]
#
# Without a name, all three are built. The server is built with --release, unless --binary names one. Needs cargo (the first
# run installs cargo-deb under target/test-tools), node and npm, and python3 with venv.
set -euo pipefail
cd "$(dirname "$0")/.."

readonly out=$PWD/target/package
readonly tools=$PWD/target/test-tools
readonly cargo_deb_version=3.8.0
readonly cargo_deb=$tools/cargo-deb-$cargo_deb_version/bin/cargo-deb

binary= deb_version= packages=()

main() {
    while [[ $# -gt 0 ]]; do
        case $1 in
        --binary) binary=$2 && shift 2 ;;
        --deb-version) deb_version=$2 && shift 2 ;;
        deb | npm | python) packages+=("$1") && shift ;;
        *)
            echo "package.sh: unknown argument: $1 (see the first lines of $0)" >&2
            exit 2
            ;;
        esac
    done
    mkdir -p "$out"
    if [[ ${#packages[@]} -eq 0 ]]; then packages=(deb npm python); fi
    local package
    for package in "${packages[@]}"; do "package_$package"; done
}

package_deb() {
    install_cargo_deb
    if [[ -z $binary ]]; then
        cargo build --release --locked --bin quickio
        binary=target/release/quickio
    fi
    local files=$out/deb
    rm -rf "$files" && mkdir -p "$files"
    install -m 755 "$binary" "$files/quickio"
    "$files/quickio" man >"$files/quickio.1"
    "$files/quickio" completions bash >"$files/quickio.bash"
    "$files/quickio" completions zsh >"$files/_quickio"
    "$files/quickio" completions fish >"$files/quickio.fish"
    # The unit of the package differs only in the program's folder, and has no instructions for an installation by hand.
    sed -e 's#/usr/local/bin/quickio#/usr/bin/quickio#' -e '/^# The systemd unit/,/^$/d' scripts/quickio.service \
        >"$files/quickio.service"
    # A server that has just been installed serves this host only.
    sed -e 's#^listen = .*#listen = ["127.0.0.1:8080"]#' scripts/quickio.toml >"$files/quickio.toml"
    "$cargo_deb" deb --no-build --fast --locked ${deb_version:+--deb-version "$deb_version"} --output "$out" --quiet
}

# cargo-deb is compiled without optimization: compiling it takes much longer than running it.
install_cargo_deb() {
    if [[ -x $cargo_deb ]]; then return; fi
    echo "installing cargo-deb $cargo_deb_version" >&2
    CARGO_PROFILE_DEV_DEBUG=0 nice cargo install cargo-deb --version "$cargo_deb_version" --locked --debug --quiet \
        --no-default-features --root "$tools/cargo-deb-$cargo_deb_version" --target-dir "$tools/cargo-deb-build"
    rm -rf "$tools/cargo-deb-build"
}

package_npm() {
    scripts/package.mjs "$out/npm" >/dev/null
    (cd "$out/npm" && npm pack --silent --pack-destination "$out" >/dev/null)
}

package_python() {
    local files=$out/python version
    version=$(sed -n 's/^version = "\(.*\)"$/\1/p' Cargo.toml | head -n 1)
    rm -rf "$files" && mkdir -p "$files"
    cp -r src/app/worker/python/quickio LICENSE "$files/"
    find "$files" -name __pycache__ -prune -exec rm -rf {} +
    sed "s/^version = .*/version = \"$version\"/" scripts/python/pyproject.toml >"$files/pyproject.toml"
    cp scripts/python/README.md "$files/"
    if [[ ! -x $tools/build/bin/python ]]; then
        python3 -m venv "$tools/build"
        "$tools/build/bin/pip" -q install build==1.6.1 hatchling==1.33.0
    fi
    # The build backend is installed already: nothing is downloaded.
    "$tools/build/bin/python" -m build --no-isolation --outdir "$out" "$files" >/dev/null
}

main "$@"
