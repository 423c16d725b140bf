"""Measures the server, the load and the kernel for scripts/million.sh.

    million_measure.py snapshot SERVER_PID LOAD_PID ADMIN_URL FILE
    million_measure.py sample SCRIPT_PID PID_FILE LOAD_PID RESERVE_MIB FILE

The first form writes one measurement as JSON, and resets the server's peak of resident memory. The second one appends a line of
JSON to FILE twice a second, until it is killed: what must be known between the measurements, or cannot be read once the server
has ended. It ends SCRIPT_PID with SIGTERM if less memory than RESERVE_MIB is available.
"""

import json
import os
import re
import signal
import sys
import time
import urllib.error
import urllib.request

TICKS = os.sysconf("SC_CLK_TCK")
PAGE = os.sysconf("SC_PAGE_SIZE")
SAMPLE_SECONDS = 0.5
STATS_TRIES = 60
MEMINFO = (
    "MemTotal", "MemFree", "MemAvailable", "Buffers", "Cached", "AnonPages", "Slab", "SReclaimable", "SUnreclaim",
    "KernelStack", "PageTables", "Percpu", "VmallocUsed",
)

# The kernel's caches, by what they hold. The kernel may merge caches of one size: then the merged one has one of the names.
SLABS = {
    "tcp": ("TCP", "TCPv6"),
    "inodes": ("sock_inode_cache",),
    "files": ("filp",),
    "dentries": ("dentry",),
    "io_uring": ("io_kiocb",),
    "receives": ("kmalloc-512", "kmalloc-96"),
    "ports": ("tcp_bind_bucket", "tcp_bind2_bucket"),
    "opening": ("request_sock_TCP", "request_sock_TCPv6"),
    "time_wait": ("tw_sock_TCP", "tw_sock_TCPv6"),
}


def read(path):
    try:
        with open(path, encoding="utf-8") as file:
            return file.read()
    except OSError:
        return ""  # the process has ended


def meminfo():
    found = dict(re.findall(r"^([^:]+):\s+(\d+) kB$", read("/proc/meminfo"), re.M))
    return {name: int(found.get(name, 0)) * 1024 for name in MEMINFO}


def sockstat():
    tcp = re.search(r"^TCP: inuse (\d+) orphan (\d+) tw (\d+) alloc (\d+) mem (\d+)", read("/proc/net/sockstat"), re.M)
    names = ("inuse", "orphan", "tw", "alloc", "pages")
    return dict(zip(names, map(int, tcp.groups()))) if tcp else dict.fromkeys(names, 0)


def cache_of(name):
    """Returns the identity of the kernel's cache with this name, which merged caches share."""
    try:
        return os.path.realpath(f"/sys/kernel/slab/{name}", strict=True)
    except OSError:
        return name


def is_reclaimable(name):
    """Returns `True` for caches that the kernel frees if it needs memory, which grow with the files that anybody reads."""
    return read(f"/sys/kernel/slab/{name}/reclaim_account").strip() == "1"


def slabs():
    """Returns the bytes of the kernel's slabs by what they hold, and the number of objects. It is `None` without root.

    The caches of files that have nothing to do with sockets are not among them.
    """
    lines = re.findall(r"^(\S+) +(\d+) +\d+ +\d+ +\d+ +(\d+) :.*: slabdata +\d+ +(\d+)", read("/proc/slabinfo"), re.M)
    if not lines:
        return None
    kinds = {cache_of(name): kind for kind, names in SLABS.items() for name in names}
    held = {kind: {"bytes": 0, "objects": 0} for kind in (*SLABS, "other")}
    for name, objects, pages, count in lines:
        kind = kinds.get(cache_of(name), "other")
        if kind == "other" and is_reclaimable(name):
            continue
        kind = held[kind]
        kind["bytes"] += int(pages) * int(count) * PAGE
        kind["objects"] += int(objects)
    return held


def usage(pid):
    """Returns the CPU time, in seconds, and the resident memory of a process. They are 0 if it has ended."""
    stat = read(f"/proc/{pid}/stat").rpartition(")")[2].split()
    user, system, pages = (int(stat[field]) for field in (11, 12, 21)) if stat else (0, 0, 0)
    return {"user_s": user / TICKS, "system_s": system / TICKS, "resident": pages * PAGE}


def machine():
    """Returns the time of all cores in seconds."""
    names = ("user", "nice", "system", "idle", "iowait", "irq", "softirq", "steal")
    ticks = read("/proc/stat").split("\n", 1)[0].split()[1:9]
    return {name: int(count) / TICKS for name, count in zip(names, ticks)}


def peak(pid):
    """Returns the peak of the resident memory since the last measurement."""
    found = re.search(r"^VmHWM:\s+(\d+) kB$", read(f"/proc/{pid}/status"), re.M)
    try:
        with open(f"/proc/{pid}/clear_refs", "w", encoding="utf-8") as file:
            file.write("5")
    except OSError:
        pass  # the process has ended, or the peak since its start is reported
    return int(found[1]) * 1024 if found else 0


def page(url):
    """Returns a page of the admin endpoint. A shard that is busy may not answer at once."""
    for attempt in range(STATS_TRIES):
        try:
            with urllib.request.urlopen(url, timeout=30) as response:
                return json.load(response)
        except (urllib.error.URLError, OSError):
            if attempt == STATS_TRIES - 1:
                raise
            time.sleep(0.5)


def statistics(admin):
    """Returns what the report needs of the server's statistics."""
    stats = page(f"{admin}/stats")
    return {
        "counters": stats["counters"],
        "gauges": stats["gauges"],
        "intervals": page(f"{admin}/histograms")["intervals"],
        "shards": [shard["gauges"]["connections"] for shard in stats["shards"]],
    }


def snapshot(server, load, admin):
    now = time.time()
    return {
        "time": now,
        "server": {**usage(server), "peak": peak(server), "threads": len(os.listdir(f"/proc/{server}/task"))},
        "load": usage(load),
        "machine": machine(),
        "memory": meminfo(),
        "tcp": sockstat(),
        "slabs": slabs(),
        "stats": statistics(admin),
    }


def sample(script, pid_file, load, reserve_mib, out):
    while True:
        server = read(pid_file).strip()
        memory = meminfo()
        line = {
            "time": time.time(),
            "server": usage(server) if server else None,
            "load_resident": usage(load)["resident"],
            "available": memory["MemAvailable"],
            "slab": memory["Slab"],
            "tcp": sockstat(),
        }
        out.write(json.dumps(line) + "\n")
        out.flush()
        if memory["MemAvailable"] < reserve_mib << 20:
            available = memory["MemAvailable"] >> 20
            print(f"million.sh: only {available} MiB of memory are available: the run ends", file=sys.stderr)
            os.kill(script, signal.SIGTERM)
            return
        if not os.path.exists(f"/proc/{script}"):
            return
        time.sleep(SAMPLE_SECONDS)


if __name__ == "__main__":
    if sys.argv[1] == "snapshot":
        measured = snapshot(int(sys.argv[2]), int(sys.argv[3]), sys.argv[4])
        with open(sys.argv[5], "w", encoding="utf-8") as file:
            json.dump(measured, file)
    else:
        with open(sys.argv[6], "a", encoding="utf-8") as file:
            sample(int(sys.argv[2]), sys.argv[3], int(sys.argv[4]), int(sys.argv[5]), file)
