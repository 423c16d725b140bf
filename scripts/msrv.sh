#!/usr/bin/env bash
# Checks that the oldest supported Rust (rust-version in Cargo.toml) builds the library and the programs.
#
#   scripts/msrv.sh [CARGO ARGUMENT...]      default: build --locked --lib --bins
#
# If rustup has that toolchain, the script uses it. Otherwise it downloads Debian 12's packages of it (rustc-web,
# cargo-web) and unpacks them under target/msrv. Nothing is installed on the system.
set -euo pipefail
cd "$(dirname "$0")/.."

readonly folder=$PWD/target/msrv
readonly debian_version=1.85.0+dfsg3-1~deb12u3

# The compiler with its library, cargo, and those of their shared libraries that may be missing on a host.
readonly debian_packages=(
  rustc-web="$debian_version" libstd-rust-web-dev="$debian_version" libstd-rust-web-1.85="$debian_version"
  cargo-web="$debian_version" libhttp-parser2.9 libpcre3
  libllvm19 libedit2 libz3-4 libxml2
)

main() {
  local wanted
  wanted=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' Cargo.toml)
  if (($# == 0)); then set -- build --locked --lib --bins; fi
  mkdir -p "$folder"
  if rustup run "$wanted" rustc --version >/dev/null 2>&1; then
    run_cargo rustup run "$wanted" cargo "$@"
  else
    unpack_debian "$wanted"
    local libraries
    libraries=$(dirname "$(find "$folder/debian/usr/lib" -name 'librustc_driver-*.so' -print -quit)")
    export LD_LIBRARY_PATH=$libraries:$folder/debian/lib/${libraries##*/}
    # Paths instead of names, because another toolchain's programs could be found first.
    export RUSTC=$folder/debian/usr/bin/rustc RUSTDOC=$folder/debian/usr/bin/rustdoc
    local version
    version=$("$RUSTC" --version)
    case $version in
      "rustc $wanted"*) ;;
      *)
        echo "msrv.sh: Cargo.toml states Rust $wanted, but Debian's packages have $version" >&2
        exit 1
        ;;
    esac
    run_cargo "$folder/debian/usr/bin/cargo" "$@"
  fi
  echo "Rust $wanted: ok"
}

# Uses a separate target folder, because two compilers that share one rebuild everything in turn.
run_cargo() {
  env -u RUSTUP_TOOLCHAIN -u CARGO CARGO_TARGET_DIR="$folder/target" "$@"
}

unpack_debian() {
  if [[ -f $folder/unpacked ]] && [[ $(<"$folder/unpacked") == "${debian_packages[*]}" ]]; then return; fi
  if [[ -z $(command -v apt-get) || -z $(command -v dpkg) ]]; then
    echo "msrv.sh: Rust $1 is not installed. Run: rustup toolchain install $1 --profile minimal" >&2
    exit 3
  fi
  rm -rf "$folder/packages" "$folder/debian"
  mkdir -p "$folder/packages" "$folder/debian"
  (cd "$folder/packages" && apt-get -q download "${debian_packages[@]}")
  local package
  for package in "$folder"/packages/*.deb; do dpkg -x "$package" "$folder/debian"; done
  rm -rf "$folder/packages"
  echo "${debian_packages[*]}" >"$folder/unpacked"
}

main "$@"
