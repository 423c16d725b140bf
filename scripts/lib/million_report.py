"""The report of scripts/million.sh: puts what was measured together, step by step, and compares it with the goals."""

import glob
import json
import os
import re

MIB = 1 << 20
GIB = 1 << 30
PAGE = os.sysconf("SC_PAGE_SIZE")

# The server's part of the kernel's memory, of which both ends of all connections are on this host. Both ends of an idle
# connection are equal: a TCP socket with its inode, file and dentry, and a request that waits in io_uring. A bound source port
# exists only at the client's end, and a connection that is being opened only at the server's. TIME-WAIT is at the end that closed
# first. What is left cannot be told apart, and counts half.
#
# A receive takes more memory than the request: a message header and a poll. The clients receive all the time. The server does so
# only while a client speaks: what the clients do not need is its part.
SERVER_SHARES = {
    "tcp": 0.5, "inodes": 0.5, "files": 0.5, "dentries": 0.5, "io_uring": 0.5, "ports": 0, "opening": 1, "time_wait": 0.5,
    "other": 0.5, "outside_slabs": 0.5,
}
# The memory of an armed receive, apart from its request, in bytes.
RECEIVE_BYTES = 512 + 96
SLAB_NAMES = {
    "tcp": "TCP sockets", "inodes": "inodes of sockets", "files": "files", "dentries": "dentries", "io_uring": "io_uring requests",
    "receives": "io_uring receives", "ports": "bound ports", "opening": "connections being opened",
    "time_wait": "TIME-WAIT", "other": "other slabs", "outside_slabs": "outside of slabs",
}
# For each step, the member of the load's result by which the server's CPU time is divided: clients or deliveries.
DIVISORS = {
    "connect": "connected", "hold": "open", "broadcast": "delivered", "rooms": "delivered", "churn": "delivered",
    "return": "back", "stop": "clients",
}
LOG_LINES_MAX = 50

# The part of their cores from which on a program is said to limit a step.
BUSY_PERCENT = 85


def load_json(path, default=None):
    try:
        with open(path, encoding="utf-8") as file:
            return json.load(file)
    except FileNotFoundError:
        return default


def load_samples(out):
    with open(os.path.join(out, "samples.jsonl"), encoding="utf-8") as file:
        # The last line may be incomplete, because the sampler was stopped.
        return [json.loads(line) for line in file if line.endswith("\n")]


def cpu(usage):
    return usage["user_s"] + usage["system_s"]


def minus(after, before):
    return {name: after[name] - before[name] for name in ("user_s", "system_s")}


def cores_of(cores):
    """Returns the number of cores in a list for taskset, such as `0,2-5`."""
    ranges = [part.split("-") for part in cores.split(",")]
    return sum(int(ends[-1]) - int(ends[0]) + 1 for ends in ranges)


def histogram(after, before):
    """Returns the percentiles of the durations that were recorded between two times, from the intervals at both of them."""
    earlier = dict(before)
    counts = [(bound, count - earlier.get(bound, 0)) for bound, count in after]
    counts = [(bound, count) for bound, count in counts if count]
    total = sum(count for _, count in counts)
    found = {"count": total}
    for name, part in (("p50", 0.5), ("p99", 0.99), ("p999", 0.999), ("max", 1)):
        seen = 0
        for bound, count in counts:
            seen += count
            if seen >= part * total:
                found[f"{name}_ms"] = bound / 1000
                break
    return found


def outside_slabs(measured):
    """Returns the kernel's memory outside of slabs: rings and tables of files, stacks, page tables, and data in sockets."""
    kinds = ("VmallocUsed", "KernelStack", "PageTables", "Percpu")
    return sum(measured["memory"][kind] for kind in kinds) + measured["tcp"]["pages"] * PAGE


def limit_to_slab(grown, slab):
    """Scales the growth of the slabs so that its sum is at most that of all slabs, in bytes.

    While its memory is fragmented, the kernel makes smaller slabs, and /proc/slabinfo counts them as if they were large. The
    sum is known, but not what each kind takes.
    """
    slabs = [kind for name, kind in grown.items() if name != "outside_slabs"]
    told = sum(kind["bytes"] for kind in slabs)
    if told > slab > 0:
        for kind in slabs:
            kind["bytes"] = int(kind["bytes"] * slab / told)


def kernel_memory(after, start, connections):
    """Returns the growth of the kernel's memory since before the first client, for each kind, and the server's part of it."""
    grown = {"outside_slabs": {"bytes": outside_slabs(after) - outside_slabs(start), "objects": 0}}
    if after["slabs"] and start["slabs"]:
        for kind, held in after["slabs"].items():
            grown[kind] = {name: held[name] - start["slabs"][kind][name] for name in ("bytes", "objects")}
        limit_to_slab(grown, after["memory"]["Slab"] - start["memory"]["Slab"])
    else:
        # Inodes and dentries of sockets are among the caches that can be reclaimed, as are those of files.
        grown["other"] = {"bytes": after["memory"]["Slab"] - start["memory"]["Slab"], "objects": 0}
    kinds = {
        kind: {
            "bytes": grown[kind]["bytes"],
            "objects_each": grown[kind]["objects"] / max(1, connections),
            "server_bytes": int(grown[kind]["bytes"] * share),
        }
        for kind, share in SERVER_SHARES.items()
        if kind in grown
    }
    if "receives" in grown:
        size, objects = grown["receives"]["bytes"], grown["receives"]["objects"]
        kinds["receives"] = {
            "bytes": size,
            "objects_each": objects / max(1, connections),
            "server_bytes": max(0, size - connections * RECEIVE_BYTES),
        }
    return {
        "kinds": kinds,
        "bytes": sum(kind["bytes"] for kind in kinds.values()),
        "server_bytes": sum(kind["server_bytes"] for kind in kinds.values()),
    }


class Step:
    """A step, as the load, the measurements before and after it, and the samples show it."""

    def __init__(self, out, name, before, start, samples, run):
        self.name, self.before, self.start, self.run = name, before, start, run
        self.load = load_json(os.path.join(out, f"{name}.load.json"))
        self.moments = load_json(os.path.join(out, f"{name}.moments.json"))
        # A stopped server cannot be measured.
        self.after = load_json(os.path.join(out, f"{name}.measure.json"))
        end = self.after["time"] if self.after else self.moments["ended"]
        until_end = [sample for sample in samples if sample["time"] <= end]
        # A step may be shorter than the time between two samples.
        self.samples = [sample for sample in until_end if before["time"] <= sample["time"]] or until_end[-1:]
        self.seconds = end - before["time"]

    def each(self):
        """Returns the number of things by which the server's CPU time is divided."""
        return self.load.get(DIVISORS[self.name], 0)

    def server_usage(self):
        if self.name == "return":
            # The server is a new process.
            return {name: self.after["server"][name] for name in ("user_s", "system_s")}
        if self.name == "stop":
            # The last sample is at most half a second older than the end. Without a process it has no CPU time.
            living = [sample["server"] for sample in self.samples if sample["server"]]
            later = [usage for usage in living if cpu(usage) >= cpu(self.before["server"])]
            return minus(later[-1] if later else self.before["server"], self.before["server"])
        return minus(self.after["server"], self.before["server"])

    def server(self):
        usage = self.server_usage()
        found = {
            **usage,
            "cpu_s": cpu(usage),
            "core_percent": 100 * cpu(usage) / self.seconds,
            "cpu_us_each": 1e6 * cpu(usage) / max(1, self.each()),
            "user_us_each": 1e6 * usage["user_s"] / max(1, self.each()),
        }
        if self.after:
            found.update(resident=self.after["server"]["resident"], peak=self.after["server"]["peak"])
        return found

    def limit(self):
        """Returns what limits the step, as far as the times of both programs show it, or `None` if their cores had time left."""
        usage, machine = self.server(), self.machine()
        load = machine.get("load_core_percent", 0) / cores_of(self.run["load_cores"])
        server = usage["core_percent"] / cores_of(self.run["server_cores"])
        if max(server, load) < BUSY_PERCENT:
            return None
        if load > server:
            return f"the load's cores, busy to {load:.0f} %"
        kernel = 100 * usage["system_s"] / max(0.01, usage["cpu_s"])
        return f"the server's cores, busy to {server:.0f} %, {kernel:.0f} % of it in the kernel"

    def histograms(self):
        if not self.after:
            return {}
        # The server that has returned has no earlier times.
        before = self.before["stats"]["intervals"] if self.name != "return" else {}
        after = self.after["stats"]["intervals"]
        return {name: histogram(after[name], before.get(name, [])) for name in ("turn", "send", "delivery", "mesh_hop")}

    def machine(self):
        found = {
            "available_min": min((sample["available"] for sample in self.samples), default=0),
            "slab_max": max((sample["slab"] for sample in self.samples), default=0),
            "tcp_pages_max": max((sample["tcp"]["pages"] for sample in self.samples), default=0),
            "orphans_max": max((sample["tcp"]["orphan"] for sample in self.samples), default=0),
        }
        if self.after:
            spent = {name: self.after["machine"][name] - self.before["machine"][name] for name in self.after["machine"]}
            total = max(0.01, sum(spent.values()))
            load = minus(self.after["load"], self.before["load"])
            found.update(
                idle_percent=100 * spent["idle"] / total,
                iowait_percent=100 * spent["iowait"] / total,
                load_cpu_s=cpu(load),
                load_core_percent=100 * cpu(load) / self.seconds,
                load_resident=self.after["load"]["resident"],
            )
        return found

    def memory(self):
        if not self.after:
            return {}
        clients = self.after["stats"]["gauges"]["clients"]
        server = self.after["server"]
        kernel = kernel_memory(self.after, self.start, clients)
        resident_before = self.start["server"]["resident"]
        return {
            "clients": clients,
            "resident_each": server["resident"] / max(1, clients),
            "resident_growth_each": (server["resident"] - resident_before) / max(1, clients),
            "resident_before": resident_before,
            "kernel": kernel,
            "server_side": server["resident"] + kernel["server_bytes"],
        }

    def counters(self):
        """Returns the statistics that have grown during the step."""
        if not self.after:
            return {}
        before = self.before["stats"]["counters"] if self.name != "return" else {}
        grown = {name: count - before.get(name, 0) for name, count in self.after["stats"]["counters"].items()}
        return {name: count for name, count in grown.items() if count}

    def report(self):
        found = {
            "load": self.load, "seconds": self.seconds, "server": self.server(), "histograms": self.histograms(),
            "machine": self.machine(), "memory": self.memory(), "counters": self.counters(), "limit": self.limit(),
        }
        if self.after:
            shards = self.after["stats"]["shards"]
            found["connections_of_shards"] = {"fewest": min(shards), "most": max(shards)}
        if self.moments:
            found["moments"] = self.moments
        return found


def log_lines(out):
    """Returns the warnings and errors of the servers' logs, and the number of shards that were left behind."""
    lines, left = [], 0
    for path in sorted(glob.glob(os.path.join(out, "server.*.log"))):
        with open(path, encoding="utf-8", errors="replace") as file:
            text = file.read()
        lines += [line for line in text.splitlines() if not re.search(r" (INFO|DEBUG|TRACE) ", line)]
        behind = re.search(r"exits while shards are still running.*running=(\d+)", text)
        left += int(behind[1]) if behind else 0
    return {"lines": lines[:LOG_LINES_MAX], "count": len(lines), "shards_left": left}


def failures(steps, log, connections):
    """Yields a text for each thing that clients must never see of a server."""
    def load(name, key):
        return steps.get(name, {}).get("load", {}).get(key, 0)

    for name, key, text in (
        ("connect", "failed", "clients did not get their connection and subscriptions"),
        ("hold", "lost", "idle clients lost their connection"),
        ("connect", "lost", "clients lost their connection"),
        ("broadcast", "lost", "clients lost their connection"),
        ("broadcast", "duplicated", "events arrived twice"),
        ("rooms", "lost", "events did not arrive"),
        ("rooms", "duplicated", "events arrived twice"),
        ("rooms", "lost_clients", "clients lost their connection"),
        ("churn", "lost_clients", "clients lost their connection"),
        ("churn", "lost", "events did not arrive"),
        ("churn", "duplicated", "events arrived twice"),
        ("churn", "failed", "clients could not connect"),
    ):
        if load(name, key):
            yield f"{name}: {load(name, key):,} {text}{reasons(load(name, 'failures'), load(name, 'ends'))}"
    if load("broadcast", "error"):
        yield f"broadcast: nothing was published: {load('broadcast', 'error')}"
    if load("broadcast", "pings_unanswered"):
        yield f"broadcast: {load('broadcast', 'pings_unanswered'):,} pings were not answered"
    for name in ("rooms", "churn"):
        if load(name, "unpublished"):
            yield f"{name}: {load(name, 'unpublished'):,} events were not published, because no member of the room was connected"
    if away := load("churn", "churned") - durations(load("churn", "opened")) - load("churn", "failed"):
        yield f"churn: {away:,} clients that had left did not come back"
    for name, reached, all_of, text in (
        ("broadcast", "delivered", load("broadcast", "expected"), "clients did not receive the event"),
        ("return", "back", connections, "clients did not come back"),
        ("stop", "closed_1001", load("stop", "clients"), "clients were not told that the server stops"),
    ):
        if name in steps and load(name, reached) < all_of:
            missing = all_of - load(name, reached)
            yield f"{name}: {missing:,} {text}{reasons(load(name, 'failures'), load(name, 'closes'))}"
    if log["shards_left"]:
        yield f"stop: {log['shards_left']} shards were left behind"
    code = steps.get("stop", {}).get("moments", {}).get("exit_code", 0)
    if code:
        yield f"stop: the server's exit code was {code}"


def durations(latency):
    """Returns the number of durations in a latency, or 0 if there is none."""
    return latency["count"] if latency else 0


def reasons(*tables):
    """Returns the reasons that the load has counted."""
    found = [f"{count:,} {reason}" for table in tables if table for reason, count in table.items()]
    return f" ({'; '.join(found)})" if found else ""


def goal(name, wanted, value, text, is_met):
    return {"goal": name, "wanted": wanted, "value": value, "text": text, "met": is_met}


def goals(steps, run, failed):
    """Yields the goals, which are those for a million clients on two cores."""
    count = run["connections"]
    if "connect" in steps:
        connected = steps["connect"]["load"]["connected"]
        yield goal("connected", f"{count:,} of {count:,}", connected, f"{connected:,}", connected == count)
    if "return" in steps:
        back = steps["return"]["load"]["back"]
        yield goal("connected again after the restart", f"{count:,} of {count:,}", back, f"{back:,}", back == count)
    yield goal("clients failed because of the server", "none", len(failed), "; ".join(failed) or "none", not failed)
    held = steps.get("hold") or steps.get("connect")
    if held:
        # With fewer clients both figures would be better, or would say nothing.
        memory = held["memory"]
        each, side, has_all = memory["resident_each"], memory["server_side"], memory["clients"] >= count
        yield goal(
            "resident bytes for each client, all of the server's memory included", "at most 250 (aim: 200)", each, f"{each:,.0f}",
            has_all and each <= 250,
        )
        yield goal(
            "server, and its side of the kernel's memory", "under 4.5 GiB", side, f"{side / GIB:.2f} GiB",
            has_all and side < 4.5 * GIB,
        )
    if "broadcast" in steps:
        load = steps["broadcast"]["load"]
        each, last = steps["broadcast"]["server"]["cpu_us_each"], load.get("last_ms", 0) / 1000
        has_all = load.get("delivered", 0) >= count
        yield goal(
            "server CPU for each delivery of the broadcast", "at most 4.5 us", each, f"{each:.2f} us", has_all and each <= 4.5
        )
        yield goal("last delivery of the broadcast", "within 15 s", last, f"{last:.2f} s", has_all and last <= 15)
    if "stop" in steps:
        moments = steps["stop"]["moments"]
        seconds = moments["ended"] - moments["told"]
        has_all = steps["stop"]["load"]["closed_1001"] >= count
        yield goal("orderly stop", "within 20 s", seconds, f"{seconds:.1f} s", has_all and seconds <= 20)


def build(out):
    """Returns the report of a run whose files are in this directory."""
    run = load_json(os.path.join(out, "run.json"))
    start = load_json(os.path.join(out, "start.measure.json"))
    samples = load_samples(out)
    steps, before = {}, start
    for name in run["steps"].split():
        step = Step(out, name, before, start, samples, run)
        steps[name] = step.report()
        before = step.after or before
    log = log_lines(out)
    failed = list(failures(steps, log, run["connections"]))
    return {
        "run": run,
        "host": load_json(os.path.join(out, "host.json")),
        "steps": steps,
        "goals": list(goals(steps, run, failed)),
        "failures": failed,
        "server_log": log,
    }
