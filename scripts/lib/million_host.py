"""The plan of scripts/million.sh for this host, and the checks that it has what the plan needs.

    million_host.py --connections N --shards N|auto --cores N --churn N --reserve-mib N [--json FILE] [--program FILE]
                    [--force]

Prints the plan as assignments for a shell. The checks go to standard error: for each item that is missing, what is there, what
is wanted, and what to do. The exit code is 1 if a required item is missing, unless --force is given.
"""

import argparse
import hashlib
import json
import math
import os
import re
import resource
import subprocess
import sys

MIB = 1 << 20
PAGE = os.sysconf("SC_PAGE_SIZE")

# The directory under which /proc is read. Tests set it.
ROOT = os.environ.get("MILLION_ROOT", "")

# The results of million_namespace.py: the namespace of the run, the cores that process what its loopback interface receives (those
# of the senders, if there are none), and the settings that only the host's namespace shows.
NAMESPACE = os.environ.get("MILLION_NAMESPACE", "host")
NAMESPACE_REASON = os.environ.get("MILLION_NAMESPACE_REASON", "")
STEERED_TO = os.environ.get("MILLION_STEER_TO", "")
HOST_SYSCTLS = json.loads(os.environ.get("MILLION_HOST_SYSCTLS", "{}"))

SHARDS_MAX = 128  # of the server: see its setting shards

# The clients of a ring of the load, whatever the limit on open files is.
LOAD_RING_PLACES_MAX = 32_768

# The places of a ring that hold no client: its doorbell, spare ones, and accepts in flight.
RING_PLACES_SPARE = 100

# The kernel spreads connections over the shards by a hash. The busiest of a hundred shards is about three standard
# deviations above the mean; six are never seen.
DEVIATIONS = 6

# Source ports are several times as many as connections: the kernel finds a free one quickly, and those of closed connections
# rest in TIME-WAIT.
PORTS_PER_CONNECTION = 4
TIME_WAIT_SECONDS = 60
ADDRESSES_MAX = 255 * 254

# The memory of a run, for the check. It was measured with a million clients, with io_uring at both ends. The server and the load
# need the most while events wait because the cores are too slow for them.
KERNEL_BYTES_PER_END = 4800
SERVER_BYTES_PER_CLIENT = 550
LOAD_BYTES_PER_CLIENT = 950
SHARD_BYTES = 3 * MIB
LOAD_RING_BYTES = 2 * MIB

# The files of everything else on the host.
FILES_SPARE = 10_000


def read(path):
    """Returns the text of a file, or `None` if there is none or it may not be read."""
    try:
        with open(ROOT + path, encoding="utf-8") as file:
            return file.read()
    except OSError:
        return None


def sysctl(name):
    """Returns the numbers of a kernel setting, or `None` if this kernel does not have it."""
    text = read("/proc/sys/" + name.replace(".", "/"))
    if text is None:
        text = HOST_SYSCTLS.get(name)
    return None if text is None else [int(word) for word in text.split()]


def meminfo():
    """Returns the fields of /proc/meminfo in bytes."""
    found = re.findall(r"^([^:]+):\s+(\d+) kB$", read("/proc/meminfo") or "", re.M)
    return {name: int(kib) * 1024 for name, kib in found}


def nofile():
    """Returns the limit on open files, which bounds the sockets of each ring."""
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    limit = int(os.environ.get("MILLION_NOFILE", limit))
    return 1 << 20 if limit == resource.RLIM_INFINITY else limit


def busiest(connections, shards):
    """Returns the number of connections that the busiest shard must be able to hold."""
    mean = connections / shards
    return math.ceil(mean + DEVIATIONS * math.sqrt(mean)) if shards > 1 else connections


def shards_for(connections, places, cores):
    """Returns the smallest number of shards, at least one for each core, that hold all connections, or `None`."""
    counts = range(cores, SHARDS_MAX + 1)
    return next((count for count in counts if busiest(connections, count) <= places), None)


class Plan:
    """The numbers of a run."""

    def __init__(self, args):
        self.connections = args.connections
        self.nofile = nofile()
        self.places = self.nofile - RING_PLACES_SPARE
        chosen = shards_for(args.connections, self.places, args.cores) if args.shards == "auto" else int(args.shards)
        self.shards_suffice = chosen is not None and busiest(args.connections, chosen) <= self.places
        self.shards = chosen or SHARDS_MAX
        # The load has one process, and rings of its own.
        self.load_rings = math.ceil(args.connections / max(1, min(self.places, LOAD_RING_PLACES_MAX)))
        low, high = sysctl("net.ipv4.ip_local_port_range") or (32768, 60999)
        self.ports = high - low + 1
        ports_wanted = (args.connections + TIME_WAIT_SECONDS * args.churn) * PORTS_PER_CONNECTION
        self.addresses = math.ceil(ports_wanted / self.ports)
        # Clients that come back, or churn, are accepted before the end of their last connection has been seen.
        self.clients_max = args.connections + args.connections // 20 + 1024
        # Two subscriptions each must stay below clients-subs-pressure, which is 60 percent.
        self.subscriptions = 4 * self.clients_max
        self.reserve = args.reserve_mib * MIB
        self.tcp_mem = sysctl("net.ipv4.tcp_mem")
        # The number is negative if the table is shared with the host's namespace, in another one.
        buckets = sysctl("net.ipv4.tcp_ehash_entries")
        self.tcp_buckets = buckets and abs(buckets[0])

    def memory(self):
        """Returns the memory that the run needs, in bytes, by use."""
        buffers = 2 * self.connections * PAGE
        if self.tcp_mem:
            buffers = min(buffers, self.tcp_mem[2] * PAGE)
        return {
            "sockets in the kernel, both ends": 2 * self.connections * KERNEL_BYTES_PER_END,
            "socket buffers during a broadcast": buffers,
            "server": self.connections * SERVER_BYTES_PER_CLIENT + self.shards * SHARD_BYTES,
            "load": self.connections * LOAD_BYTES_PER_CLIENT + self.load_rings * LOAD_RING_BYTES,
            "reserve": self.reserve,
        }


class Check:
    """An item that the run needs, or that makes its figures better."""

    def __init__(self, name, there, wanted, advice, is_met, is_required=True):
        self.name, self.there, self.wanted, self.advice = name, there, wanted, advice
        self.is_met, self.is_required = is_met, is_required

    def print(self):
        state = "ok" if self.is_met else "MISSING" if self.is_required else "low"
        print(f"  {state:<8} {self.name:<26} {self.there}; wanted: {self.wanted}", file=sys.stderr)
        if not self.is_met:
            print(f"           {'':<26} {self.advice}", file=sys.stderr)


TUNE = "`scripts/tune-host.sh` shows the values for such a host, and --apply sets them"


def check_memory(plan):
    parts = plan.memory()
    wanted, available = sum(parts.values()), meminfo().get("MemAvailable", 0)
    sums = ", ".join(f"{name} {mib(count)}" for name, count in parts.items())
    yield Check(
        "memory available", f"{mib(available)} MiB", f"{mib(wanted)} MiB ({sums})",
        "stop other programs, or use fewer --connections", available >= wanted,
    )


def check_files(plan):
    allocated, _, most = sysctl("fs.file-nr") or (0, 0, 1 << 63)
    free, wanted = most - allocated, 2 * plan.connections + FILES_SPARE
    yield Check(
        "fs.file-max", "no limit" if most >= 1 << 60 else f"{free:,} files are free of {most:,}", f"{wanted:,}, two for each connection",
        f"`sysctl -w fs.file-max={wanted + allocated}`; {TUNE}", free >= wanted,
    )
    needed = busiest(plan.connections, SHARDS_MAX) + RING_PLACES_SPARE
    yield Check(
        "nofile (ulimit -n)", f"{plan.nofile:,}",
        f"as many sockets as the busiest of {plan.shards} shards may get, {busiest(plan.connections, plan.shards):,}",
        f"raise it to at least {needed:,} (`ulimit -n`; a shard's ring holds no more sockets than that, and a server has at most "
        f"{SHARDS_MAX} shards), give more --shards, or use fewer --connections", plan.shards_suffice,
    )


def check_tcp(plan):
    if plan.tcp_mem:
        wanted = plan.connections
        yield Check(
            "net.ipv4.tcp_mem", f"{plan.tcp_mem[1]:,} pages until pressure, {plan.tcp_mem[2]:,} at most",
            f"{wanted:,} until pressure",
            "idle sockets take none of them; a client that has not yet read or acknowledged a broadcast takes one at each end. Above "
            f"the maximum the kernel drops data and sends it again later. The report has the peak. {TUNE}",
            plan.tcp_mem[1] >= wanted, is_required=False,
        )
    ports = plan.ports * plan.addresses
    yield Check(
        "ports of the load", f"{plan.ports:,} (net.ipv4.ip_local_port_range) on {plan.addresses} addresses of 127.0.0.0/8",
        f"more than {plan.connections:,}", f"widen net.ipv4.ip_local_port_range; {TUNE}",
        plan.addresses <= ADDRESSES_MAX and ports > plan.connections,
    )
    somaxconn = (sysctl("net.core.somaxconn") or [4096])[0]
    yield Check(
        "net.core.somaxconn", f"{somaxconn:,} connections of each shard wait to be accepted, {somaxconn * plan.shards:,} in all",
        "4,096 (the server's listen-backlog)",
        f"beyond it a connect waits for a second or more until its SYN is sent again; {TUNE}", somaxconn >= 4096, is_required=False,
    )
    orphans = (sysctl("net.ipv4.tcp_max_orphans") or [1 << 30])[0]
    wanted = min(262_144, plan.connections)
    yield Check(
        "net.ipv4.tcp_max_orphans", f"{orphans:,}", f"{wanted:,}",
        "if more closed connections than this still have bytes to send, the kernel resets them, and their clients miss the close "
        f"code 1001; {TUNE}", orphans >= wanted, is_required=False,
    )
    tracked = sysctl("net.netfilter.nf_conntrack_count")
    if tracked and tracked[0] > 0:
        most = (sysctl("net.netfilter.nf_conntrack_max") or [0])[0]
        yield Check(
            "nf_conntrack_max", f"{most:,}", f"{plan.connections * 11 // 10:,}",
            f"the firewall tracks connections, and drops those that do not fit into its table; {TUNE}",
            most >= plan.connections * 11 // 10,
        )


def check_namespace(plan):
    """Checks the table in which the kernel finds the socket of each segment: both ends of all connections are in it."""
    if not plan.tcp_buckets:
        return
    where = "a network namespace of its own" if NAMESPACE == "own" else "the network namespace of the host"
    reason = f" ({NAMESPACE_REASON})" if NAMESPACE_REASON else ""
    yield Check(
        "table of TCP connections", f"{plan.tcp_buckets:,} buckets, in {where}{reason}",
        f"{2 * plan.connections:,}, one for each end",
        "the kernel searches longer for the socket of each segment. As root, the script makes a network namespace with a larger table; "
        "the host's own has the size that the boot parameter thash_entries tells", plan.tcp_buckets >= 2 * plan.connections,
        is_required=False,
    )


def check_rights(plan):
    locked = resource.getrlimit(resource.RLIMIT_MEMLOCK)[1]
    wanted = (plan.shards + plan.load_rings) * MIB
    yield Check(
        "memlock (ulimit -l)", "unlimited" if locked == resource.RLIM_INFINITY else f"{mib(locked)} MiB", f"{mib(wanted)} MiB",
        "raise it (`ulimit -l`), or run as root: each shard of the server locks memory for its ring, and the load has as many rings",
        os.geteuid() == 0 or locked == resource.RLIM_INFINITY or locked >= wanted,
    )
    yield Check(
        "/proc/slabinfo", "readable" if read("/proc/slabinfo") else "not readable", "readable",
        "run as root; otherwise the report has only the sum of the kernel's memory", read("/proc/slabinfo") is not None,
        is_required=False,
    )


def mib(count):
    return f"{count / MIB:,.0f}"


def commit():
    """Returns the revision of the working copy, with `-dirty` if files differ from it."""
    try:
        git = subprocess.run(["git", "describe", "--always", "--dirty"], capture_output=True, text=True, check=False)
        return git.stdout.strip() or "unknown"
    except OSError:  # git is not installed
        return "unknown"


def program(path):
    """Returns what tells the server's program from others: it may have been built from another revision."""
    try:
        with open(path, "rb") as file:
            digest = hashlib.sha256(file.read()).hexdigest()
        version = subprocess.run([path, "--version"], capture_output=True, text=True, check=False).stdout.strip()
        return {"version": version, "sha256": digest}
    except OSError:
        return {"version": "unknown", "sha256": ""}


def describe(plan, checks, program_path):
    """Returns what the report says of the host and the program."""
    cpu = re.search(r"^model name\s*: (.*)$", read("/proc/cpuinfo") or "", re.M)
    return {
        "kernel": os.uname().release,
        "cpu": cpu[1] if cpu else "unknown",
        "cores": os.cpu_count(),
        "memory_bytes": meminfo().get("MemTotal", 0),
        "commit": commit(),
        "program": program(program_path),
        "nofile": plan.nofile,
        "tcp_mem": plan.tcp_mem,
        "congestion_control": (read("/proc/sys/net/ipv4/tcp_congestion_control") or "").strip(),
        "network_namespace": NAMESPACE,
        "network_namespace_reason": NAMESPACE_REASON,
        "packets_steered_to": STEERED_TO,
        "tcp_buckets": plan.tcp_buckets,
        "checks": [{"name": check.name, "there": check.there, "wanted": check.wanted, "met": check.is_met} for check in checks],
    }


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--connections", type=int, required=True)
    parser.add_argument("--shards", default="auto")
    parser.add_argument("--cores", type=int, default=1)
    parser.add_argument("--churn", type=int, default=0)
    parser.add_argument("--reserve-mib", type=int, default=1024)
    parser.add_argument("--json")
    parser.add_argument("--program", default="")
    parser.add_argument("--force", action="store_true")
    args = parser.parse_args()
    plan = Plan(args)
    checks = [check for part in (check_memory, check_files, check_tcp, check_namespace, check_rights) for check in part(plan)]
    print(f"A run with {plan.connections:,} connections needs:", file=sys.stderr)
    for check in checks:
        check.print()
    missing = [check.name for check in checks if check.is_required and not check.is_met]
    if args.json:
        with open(args.json, "w", encoding="utf-8") as file:
            json.dump(describe(plan, checks, args.program), file, indent=1)
    for name in ("shards", "addresses", "clients_max", "subscriptions"):
        print(f"{name}={getattr(plan, name)}")
    if missing:
        end = "going on because of --force" if args.force else "nothing was started; --force tries nevertheless"
        print(f"million.sh: missing: {', '.join(missing)}: {end}", file=sys.stderr)
    return 1 if missing and not args.force else 0


if __name__ == "__main__":
    sys.exit(main())
