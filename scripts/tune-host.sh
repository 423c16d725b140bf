#!/usr/bin/env bash
# Shows what a host needs for a million clients, and with --apply sets it.
#
# Each row has the value now, the value wanted, and the reason. What is already enough is left as it is, so a second
# run changes nothing. --apply needs root; it sets the kernel's values at once and writes two files that set them
# again at boot and at login:
#   /etc/sysctl.d/90-quickio.conf
#   /etc/security/limits.d/90-quickio.conf
set -euo pipefail

# Everything read and written lies under this directory: for the tests.
root=${TUNE_HOST_ROOT:-}

readonly sysctl_file=$root/etc/sysctl.d/90-quickio.conf
readonly limits_file=$root/etc/security/limits.d/90-quickio.conf

apply=no
applied_sysctls=()
missing=0
failed=0

usage() {
  cat <<USAGE
Usage: tune-host.sh [--apply]

Prints the kernel settings and limits that a host with a million clients needs,
each with its value now, the value wanted, and the reason.

  --apply    sets them (as root), now and for the next boot
  --help     prints this
USAGE
}

main() {
  parse_flags "$@"
  echo "Kernel settings"
  echo
  wanted_sysctls
  echo "Limits of this shell, and of what it starts"
  echo
  wanted_limits
  if [[ $apply == yes ]]; then
    write_files
  fi
  conclude
}

parse_flags() {
  while (($# > 0)); do
    case $1 in
      --apply) apply=yes ;;
      --help | -h)
        usage
        exit 0
        ;;
      *)
        echo "tune-host.sh: unknown flag $1" >&2
        usage >&2
        exit 2
        ;;
    esac
    shift
  done
}

# want_sysctl NAME "BOUND..." REASON. There is a bound for each word of the value: >=N, <=N or =N.
wanted_sysctls() {
  local pages=$(($(memory_kib) / 4))

  want_sysctl fs.file-max ">=2200000" \
    "Every socket is an open file of the kernel, in whatever table it is: a million clients, as many again where a load generator runs on the same host, and everybody else."
  want_sysctl fs.nr_open ">=1048576" \
    "The most that nofile, below, may be set to."
  want_sysctl kernel.io_uring_disabled "=0" \
    "QuickIO is built on io_uring; 1 and 2 forbid it to some or all processes."
  want_sysctl net.core.somaxconn ">=65535" \
    "Connections that wait to be accepted: bounds the setting listen-backlog. When a server restarts, all its clients come at once."
  want_sysctl net.ipv4.tcp_max_syn_backlog ">=65535" \
    "The same for handshakes that are not complete yet."
  want_sysctl net.core.netdev_max_backlog ">=16384" \
    "Packets that wait for a core, on their way in; over loopback everything passes here."
  want_sysctl net.ipv4.tcp_mem ">=$((pages / 8)) >=$((pages / 4)) >=$((pages / 2))" \
    "Pages that all TCP sockets together may hold: comfortable, under pressure, at most. Over the last, connections are dropped: half of this host's memory, since little else runs on it."
  want_sysctl net.ipv4.tcp_rmem "<=4096 <=16384 >=4194304" \
    "Bytes that one socket may receive unread: under pressure, at first, at most. Small at first, so that a million peers cannot fill the memory; it grows where a peer is fast."
  want_sysctl net.ipv4.tcp_wmem "<=4096 <=16384 >=4194304" \
    "The same for what is sent and not yet acknowledged."
  want_sysctl net.ipv4.tcp_max_orphans ">=262144" \
    "Closed connections whose last bytes are still on their way; over this they are reset, and clients miss their close code."
  want_sysctl net.ipv4.ip_local_port_range "<=10240 >=65535" \
    "Ports of outgoing connections: for load generators, 55,000 from each source address. The server's own ports stay below."
  want_sysctl net.ipv4.tcp_tw_reuse ">=1" \
    "Lets a load generator use its ports again while their last connections linger."
  want_sysctl net.netfilter.nf_conntrack_max ">=2200000" \
    "Where the firewall tracks connections, its table must hold them all, or new ones are dropped. Better: do not track the server's ports."
}

# want_limit FLAG NAME WANTED REASON
wanted_limits() {
  want_limit -Hn nofile 1048576 \
    "Descriptors of a process. Sockets are not among them, but io_uring lets no shard have a table of sockets larger than this; a load generator needs them too."
  want_limit -Hl memlock unlimited \
    "KiB that a process may lock: each shard registers buffers with its ring."
}

want_sysctl() {
  local name=$1 bounds=$2 reason=$3
  local file=$root/proc/sys/${name//./\/}
  if [[ ! -r $file ]]; then
    row "absent" "$name" "this kernel has none"
    explain "$reason"
    return
  fi
  local now wanted
  now=$(tr -s '\t ' ' ' <"$file")
  wanted=$(satisfy "$now" "$bounds")
  applied_sysctls+=("$(boot_line "$name" "$wanted")")
  if [[ $now == "$wanted" ]]; then
    row "ok" "$name" "$now"
  elif [[ $apply == yes ]]; then
    set_sysctl "$file" "$name" "$now" "$wanted"
  else
    row "WANTED" "$name" "$now -> $wanted"
    missing=$((missing + 1))
  fi
  explain "$reason"
}

# A line of sysctl.d(5); the minus lets it pass where a module is not loaded yet.
boot_line() {
  case $1 in
    net.netfilter.*) echo "-$1 = $2" ;;
    *) echo "$1 = $2" ;;
  esac
}

set_sysctl() {
  local file=$1 name=$2 now=$3 wanted=$4
  if { echo "$wanted" >"$file"; } 2>/dev/null; then
    row "set" "$name" "$now -> $wanted"
  else
    row "FAILED" "$name" "$now -> $wanted (not permitted?)"
    failed=$((failed + 1))
  fi
}

# The value nearest to NOW that meets the bounds, word by word.
satisfy() {
  local now=$1 bounds=$2
  local -a values words=()
  read -r -a values <<<"$now"
  local bound index=0
  for bound in $bounds; do
    words+=("$(satisfy_one "${values[index]:-0}" "$bound")")
    index=$((index + 1))
  done
  echo "${words[*]}"
}

satisfy_one() {
  local value=$1 bound=$2
  case $bound in
    ">="*) ((value >= ${bound:2})) && echo "$value" || echo "${bound:2}" ;;
    "<="*) ((value <= ${bound:2})) && echo "$value" || echo "${bound:2}" ;;
    "="*) echo "${bound:1}" ;;
  esac
}

want_limit() {
  local flag=$1 name=$2 wanted=$3 reason=$4
  local now
  now=$(ulimit "$flag")
  if [[ $now == unlimited || $now == "$wanted" ]]; then
    row "ok" "$name" "$now"
  elif [[ $wanted != unlimited ]] && ((now >= wanted)); then
    row "ok" "$name" "$now"
  elif [[ $apply == yes ]]; then
    row "at login" "$name" "$now -> $wanted"
  else
    row "WANTED" "$name" "$now -> $wanted"
    missing=$((missing + 1))
  fi
  explain "$reason"
}

write_files() {
  local note="# Written by QuickIO's scripts/tune-host.sh, which has the reasons."
  write_file "$sysctl_file" "$note" "${applied_sysctls[@]}"
  write_file "$limits_file" "$note" \
    "* - nofile 1048576" "root - nofile 1048576" "* - memlock unlimited" "root - memlock unlimited"
}

# write_file FILE LINE...: says nothing where the file has these lines already.
write_file() {
  local file=$1 text
  shift
  text=$(printf '%s\n' "$@")
  if [[ -f $file && $(<"$file") == "$text" ]]; then
    return
  fi
  if mkdir -p "${file%/*}" 2>/dev/null && { echo "$text" >"$file"; } 2>/dev/null; then
    echo "wrote $file"
  else
    echo "FAILED to write $file" >&2
    failed=$((failed + 1))
  fi
}

conclude() {
  if ((failed > 0)); then
    echo "$failed could not be set: run this as root, and on the host, not in a container." >&2
    exit 1
  fi
  if ((missing > 0)); then
    echo "$missing wanted; --apply sets them."
  else
    echo "Nothing is wanted."
  fi
}

memory_kib() {
  awk '$1 == "MemTotal:" { print $2 }' "$root/proc/meminfo"
}

row() {
  printf '  %-8s  %-34s %s\n' "$1" "$2" "$3"
}

explain() {
  fold -s -w 66 <<<"$1" | sed 's/ *$//; s/^/            /'
  echo
}

main "$@"
