#!/usr/bin/env bash
# Shows the settings that a host needs for a million clients, and with --apply sets them.
#
# Each row has the current value, the wanted value, and the reason. Values that are sufficient are not changed: a second
# run changes nothing. --apply needs root. It changes the kernel's values immediately, and writes two files that set them
# again at boot and at login:
#   /etc/sysctl.d/90-quickio.conf
#   /etc/security/limits.d/90-quickio.conf
set -euo pipefail

# The directory under which all files are read and written. Tests set it.
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
each with its current value, the wanted value, and the reason.

  --apply    sets them (as root), now and for the next boot
  --help     prints this help
USAGE
}

main() {
  parse_flags "$@"
  echo "Kernel settings"
  echo
  wanted_sysctls
  echo "Limits of this shell and of the programs that it starts"
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

# Each call is: want_sysctl NAME "BOUND..." REASON. There is a bound for each word of the value: >=N, <=N or =N.
wanted_sysctls() {
  local pages=$(($(memory_kib) / 4))

  want_sysctl fs.file-max ">=2200000" \
    "Every socket is an open file of the kernel, in any table: a million clients, as many again if a load generator runs on the same host, and all other programs."
  want_sysctl fs.nr_open ">=1048576" \
    "The maximum value of nofile, below."
  want_sysctl kernel.io_uring_disabled "=0" \
    "QuickIO needs io_uring; 1 and 2 forbid it for some or all processes."
  want_sysctl net.core.somaxconn ">=65535" \
    "Connections that wait to be accepted. It limits the setting listen-backlog. When a server restarts, all its clients connect at once."
  want_sysctl net.ipv4.tcp_max_syn_backlog ">=65535" \
    "The same for incomplete TCP handshakes."
  want_sysctl net.core.netdev_max_backlog ">=16384" \
    "Incoming packets that wait for a core. Over loopback, all packets pass this queue."
  want_sysctl net.ipv4.tcp_mem ">=$((pages / 8)) >=$((pages / 4)) >=$((pages / 2))" \
    "Pages that all TCP sockets together may use: normal, under pressure, maximum. Above the maximum, connections are dropped. It is half of this host's memory, because little else runs here."
  want_sysctl net.ipv4.tcp_rmem "<=4096 <=16384 >=4194304" \
    "Receive buffer of one socket in bytes: under pressure, initial, maximum. It starts small, because a million peers must not fill the memory, and grows for fast peers."
  want_sysctl net.ipv4.tcp_wmem "<=4096 <=16384 >=4194304" \
    "The same for the send buffer: bytes that are not acknowledged yet."
  want_sysctl net.ipv4.tcp_max_orphans ">=262144" \
    "Closed connections whose last bytes are still being sent. Above this limit they are reset, and clients do not receive their close code."
  want_sysctl net.ipv4.ip_local_port_range "<=10240 >=65535" \
    "Ports of outgoing connections, for load generators: 55,000 for each source address. The server's own ports are below."
  want_sysctl net.ipv4.tcp_tw_reuse ">=1" \
    "Allows a load generator to reuse ports whose last connections are in TIME-WAIT."
  want_sysctl net.netfilter.nf_conntrack_max ">=2200000" \
    "If the firewall tracks connections, its table must hold all of them; otherwise new ones are dropped. It is better not to track the server's ports."
  want_tcp_buckets
}

# Shows the size of the table of TCP connections, which can only be chosen at boot.
want_tcp_buckets() {
  local wanted=2097152 name=net.ipv4.tcp_ehash_entries
  local file=$root/proc/sys/${name//./\/}
  if [[ ! -r $file ]]; then return; fi
  # The size is negative in a namespace that shares the table of the host.
  local now
  now=$(tr -d '\n-' <"$file")
  if ((now >= wanted)); then
    row "ok" "$name" "$now"
  else
    row "at boot" "$name" "$now -> $wanted: boot parameter thash_entries=$wanted"
  fi
  explain "Buckets of the table in which the kernel finds the socket of each segment. With several sockets in each bucket, everything that is sent and received costs more: a quarter of the time of a broadcast to a million clients. --apply cannot set it."
}

# Each call is: want_limit FLAG NAME WANTED REASON
wanted_limits() {
  want_limit -Hn nofile 1048576 \
    "Open files of a process. The server's sockets are not among them, but io_uring limits the table of sockets of each shard to this number. A load generator needs them too."
  want_limit -Hl memlock unlimited \
    "Memory in KiB that a process may lock: each shard registers buffers with its ring."
}

want_sysctl() {
  local name=$1 bounds=$2 reason=$3
  local file=$root/proc/sys/${name//./\/}
  if [[ ! -r $file ]]; then
    row "absent" "$name" "this kernel does not have it"
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

# Prints a line of sysctl.d(5). With the minus, it is not an error if the module is not loaded yet.
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

# satisfy VALUE "BOUND...": prints the nearest value that meets the bounds, word by word.
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
  local note="# Written by QuickIO's scripts/tune-host.sh, which explains the values."
  write_file "$sysctl_file" "$note" "${applied_sysctls[@]}"
  write_file "$limits_file" "$note" \
    "* - nofile 1048576" "root - nofile 1048576" "* - memlock unlimited" "root - memlock unlimited"
}

# write_file FILE LINE...: writes a file. Prints nothing if the file already has these lines.
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
    echo "$failed settings could not be changed: run this as root, on the host and not in a container." >&2
    exit 1
  fi
  if ((missing > 0)); then
    echo "$missing settings are below the wanted values; --apply sets them."
  else
    echo "All settings are sufficient."
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
