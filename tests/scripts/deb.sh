#!/usr/bin/env bash
# Builds the Debian package, and installs, starts, upgrades and removes it under a systemd of its own: in namespaces, on a
# copy of this system whose changes are in memory. Needs root, systemd, cgroup2 and overlayfs. Exits with 77 if that is not
# possible here.
#
#   tests/scripts/deb.sh QUICKIO PORT
set -euo pipefail
cd "$(dirname "$0")/../.."

quickio=$(realpath "$1")
port=$2
folder=$(mktemp -d)
log=$folder/log
# shellcheck source=tests/scripts/namespace.sh
source tests/scripts/namespace.sh

trap 'stop_systemd; rm -rf "$folder"' EXIT

# The first process of the namespace: makes the copy of the system, and becomes its systemd.
become_systemd() {
  mount --make-rprivate /
  mount -t tmpfs tmpfs "$folder/memory"
  mkdir "$folder"/memory/{upper,work,root}
  local root=$folder/memory/root
  mount -t overlay overlay -o "lowerdir=/,upperdir=$folder/memory/upper,workdir=$folder/memory/work" "$root"
  mount -t proc proc "$root/proc"
  mount --rbind /sys "$root/sys"
  mount_cgroups "$root"
  mount --rbind /dev "$root/dev"
  mount -t tmpfs tmpfs "$root/run"
  mkdir -p "$root/run/systemd/system" "$root/run/packages"
  cp "$folder"/*.deb "$root/run/packages/"
  # The units of this system have nothing to do here. Those of the package stay as they are.
  rm -rf "$root/etc/systemd/system"
  mkdir -p "$root/etc/systemd/system"
  write_targets "$root/run/systemd/system" quickio-test sysinit basic network network-online
  # A system may forbid packages to start services; this copy does not.
  rm -f "$root/usr/sbin/policy-rc.d"
  exec env -i container=quickio-test PATH="$PATH" chroot "$root" /usr/lib/systemd/systemd --system \
    --unit=quickio-test.target --log-target=console --show-status=no
}

inside() { timeout 300 nsenter -t "$init" -p -m -C -r -w env -i PATH="$PATH" DEBIAN_FRONTEND=noninteractive "$@"; }

require_systemd
scripts/package.sh --binary "$quickio" --deb-version 1.0-1 deb >>"$log" 2>&1 || { cat "$log"; exit 1; }
mkdir "$folder/memory" "$folder/newer"
mv target/package/quickio_1.0-1_*.deb "$folder/1.0-1.deb"
# A newer package with other settings: an upgrade must not replace those that an operator has edited.
dpkg-deb -R "$folder/1.0-1.deb" "$folder/newer"
sed -i 's/^Version: .*/Version: 1.0-2/' "$folder/newer/DEBIAN/control"
echo '# A new comment.' >>"$folder/newer/etc/quickio/quickio.toml"
rm -f "$folder/newer/DEBIAN/md5sums"
dpkg-deb --root-owner-group -Zgzip -z1 -b "$folder/newer" "$folder/1.0-2.deb" >>"$log"
rm -r "$folder/newer"

export folder
start_systemd

# The port of the packaged settings may be in use on this host.
inside sh -c "mkdir -p /etc/default && printf 'QUICKIO_LISTEN=127.0.0.1:%s\nQUICKIO_ADMIN=off\n' $port >/etc/default/quickio"
expect "the package can be installed" "$(result dpkg --force-unsafe-io -i /run/packages/1.0-1.deb)" 0
expect "the server runs" "$(property ActiveState) $(property StatusText)" "active listening on 127.0.0.1:$port"
expect "it starts with the system" "$(inside systemctl is-enabled quickio)" enabled
expect "its user exists only while it runs" "$(property DynamicUser) $(inside grep -c ^quickio /etc/passwd || true)" "yes 0"
expect "it checks its settings before the start" "$(property ExecStartPre | grep -c 'quickio check --config')" 1
expect "the manual page is found" "$(inside sh -c 'man -w quickio | wc -l')" 1
expect "bash finds the completions" \
  "$(inside bash -c '. /usr/share/bash-completion/completions/quickio && complete -p quickio')" "complete -F _quickio quickio"
expect "the completions of zsh and fish are installed" \
  "$(result test -s /usr/share/zsh/vendor-completions/_quickio -a -s /usr/share/fish/vendor_completions.d/quickio.fish)" 0
expect "the packaged settings are valid" \
  "$(result quickio check --config /etc/quickio/quickio.toml --listen "127.0.0.1:$port" --admin off)" 0

first=$(property MainPID)
inside sh -c 'echo "timeout = \"11s\"" >>/etc/quickio/quickio.toml'
expect "the package can be upgraded" "$(result dpkg --force-unsafe-io --force-confold -i /run/packages/1.0-2.deb)" 0
expect "the edited settings are kept" "$(inside grep -c 'timeout = "11s"' /etc/quickio/quickio.toml)" 1
expect "the new settings are beside them" "$(inside grep -c 'A new comment' /etc/quickio/quickio.toml.dpkg-dist)" 1
expect "the server runs after the upgrade" "$(property ActiveState)" active
expect "it was restarted" "$([[ $(property MainPID) != "$first" ]] && echo yes)" yes

expect "the package can be removed" "$(result dpkg -r quickio)" 0
expect "the server has ended in order" "$(property ActiveState) $(property Result)" "inactive success"
expect "the settings are kept" "$(result test -f /etc/quickio/quickio.toml)" 0
expect "the package can be purged" "$(result dpkg -P quickio)" 0
expect "nothing is left" "$(inside sh -c 'ls -d /etc/quickio /usr/bin/quickio 2>/dev/null | wc -l')" 0
