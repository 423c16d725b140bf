#!/usr/bin/env python3
"""Measures a server for scripts/attack.sh, and prints its table.

    scripts/attack_table.py measure PID STATS_URL LOG
    scripts/attack_table.py table PROGRAM OUT BOUNDS ATTACK...

The second form exits with 1 if a bound is exceeded. PROGRAM is the server's, whose default settings are read. BOUNDS is `no` to check only what honest clients have lost.
"""

import json
import os
import re
import subprocess
import sys
import time
import urllib.request

MIB = 1 << 20

# The bounds, with their reasons.
TURN_MS_MAX = 20  # whatever a peer does, others wait no longer than this for their shard
P99_MS_MORE_MAX = 10  # than beside a process that only uses the attacker's CPU time
MEMORY_TIMES_MAX = 4  # the resident memory at the peak, as a multiple of what the limits in force promise
MEMORY_LATER_MAX = 1.2  # the resident memory a minute later, as a multiple of that before the attack
MEMORY_LATER_SLACK = 1 * MIB  # a server without clients takes so little that a few pages are many percent
LOG_LINES_MAX = 100  # a second


# The memory of a connection with its codec and its places in tables, and of a session with its connection.
CONNECTION_BYTES = 1024
SESSION_BYTES = 2048
SESSIONS_OF_A_CONNECTION = 256  # those with one request only, in all shards together
SUBSCRIPTION_BYTES = 1024 + 150 + 32  # with a path of the greatest length


def promise(attack, connections, setting):
    """Returns the memory that the limits in force allow an attack, in bytes, beyond that of the server before it.

    docs/operations.md, "What one peer can do", explains the terms.
    """
    outboxes = connections * setting("outbox-bytes-max")
    messages = connections * 2 * setting("message-bytes-max")
    most = {
        "sessions": lambda: connections * SESSIONS_OF_A_CONNECTION * SESSION_BYTES,
        "subscriptions": lambda: connections * setting("clients-subs-max") * SUBSCRIPTION_BYTES,
        "broadcasts": lambda: setting("mesh-overflow-bytes-max") + messages + outboxes,
        "worker": lambda: os.cpu_count() * setting("worker-outbox-bytes-max") + outboxes,
        "slow-writers": lambda: messages,
        "pings": lambda: outboxes,
        "pings-read-late": lambda: outboxes,
        "slow-readers": lambda: outboxes,
        "never-reads": lambda: outboxes,
    }.get(attack, lambda: 0)()
    heads = connections * setting("http-head-bytes-max")
    return most + heads + connections * CONNECTION_BYTES + fixed(setting)


def fixed(setting):
    """Returns the memory that the shards take once they have been busy, and keep: receive buffers and rings."""
    return os.cpu_count() * (setting("receive-buffers") * setting("receive-buffer-bytes") + MIB // 2)


def defaults(program):
    """Returns a function that returns the default of a setting, a number."""
    text = subprocess.run([program, "--generate-config"], check=True, capture_output=True, text=True).stdout
    found = {name: int(value) for name, value in re.findall(r"^#? ?([a-z-]+) = (\d+)$", text, re.M)}
    return lambda name: found[name]


def measure(pid, url, log):
    with open(f"/proc/{pid}/status", encoding="utf-8") as status:
        memory = {name: int(kib) * 1024 for name, kib in re.findall(r"^(VmHWM|VmRSS):\s+(\d+) kB", status.read(), re.M)}
    cpu_ns = 0
    for task in os.listdir(f"/proc/{pid}/task"):
        try:
            with open(f"/proc/{pid}/task/{task}/schedstat", encoding="utf-8") as stat:
                cpu_ns += int(stat.read().split()[0])
        except OSError:
            pass  # the thread has just ended
    with open(log, "rb") as lines:
        text = lines.read()
    with urllib.request.urlopen(url, timeout=30) as response:
        stats = json.load(response)
    json.dump(
        {
            "time": time.monotonic(),
            "resident": memory["VmRSS"],
            "peak": memory["VmHWM"],
            "cpu_seconds": cpu_ns / 1e9,
            "log_bytes": len(text),
            "log_lines": text.count(b"\n"),
            "stats": stats,
        },
        sys.stdout,
    )




class Row:
    """The measurements of an attack."""

    def __init__(self, out, attack, setting):
        def read(kind):
            with open(os.path.join(out, f"{attack}.{kind}.json"), encoding="utf-8") as file:
                return json.load(file)

        self.name = attack
        self.cost, self.honest, self.burn = read("attack"), read("honest"), read("burn")
        self.before, self.after, self.later = read("before"), read("after"), read("later")
        self.promise = self.before["resident"] + promise(attack, self.cost["connections"], setting)
        # The part that is fixed may have been taken during the attack.
        self.at_rest = self.before["resident"] + fixed(setting)
        self.seconds = self.after["time"] - self.before["time"]

    def turn_ms(self):
        """Returns the longest turn of a shard during the attack."""
        return max(shard["timers"]["turn"]["max"] for shard in self.after["stats"]["shards"]) / 1000

    def p99_ms(self, report):
        """Returns the larger of the p99 of pings and of deliveries."""
        return max(report["latency_us"].get(kind, {}).get("p99", 0) for kind in ("ping", "delivery")) / 1000

    def p50_ms(self, report):
        return max(report["latency_us"].get(kind, {}).get("p50", 0) for kind in ("ping", "delivery")) / 1000

    def lost(self):
        """Returns the events and pings that honest clients have lost, and their pings that were refused."""
        run = self.honest["whole_run"]
        return run["deliveries_lost"] + run["pings_lost"] + self.honest["connections"]["refused_answers"]

    def refused(self):
        """Returns the honest connections that failed or that the server ended."""
        return self.honest["connections"]["failed"] + self.honest["connections"]["broken"]

    def log_lines(self):
        return (self.after["log_lines"] - self.before["log_lines"]) / self.seconds

    def broken_promises(self):
        """Yields a text for each thing that honest clients must never see."""
        if self.lost():
            yield f"{self.lost()} events or answers of honest clients were lost"
        if self.refused():
            yield f"{self.refused()} honest connections failed: {self.honest['errors']}"

    def exceeded(self):
        """Yields a text for each bound that is exceeded."""
        yield from self.broken_promises()
        more = self.p99_ms(self.honest) - self.p99_ms(self.burn)
        if more > P99_MS_MORE_MAX:
            yield f"the p99 of honest clients is {more:.1f} ms above that beside a CPU burner"
        if self.turn_ms() > TURN_MS_MAX:
            yield f"a turn took {self.turn_ms():.1f} ms"
        if self.after["peak"] > MEMORY_TIMES_MAX * self.promise:
            yield f"{mib(self.after['peak'])} MiB at the peak, where the limits promise {mib(self.promise)} MiB"
        if self.later["resident"] > MEMORY_LATER_MAX * self.at_rest + MEMORY_LATER_SLACK:
            yield f"{mib(self.later['resident'])} MiB later; at rest, a server that has been busy takes {mib(self.at_rest)}"
        if self.log_lines() > LOG_LINES_MAX:
            yield f"{self.log_lines():.0f} log lines a second"

    def cells(self):
        cost = self.cost
        return [
            self.name,
            f"{cost['connections']} ({cost['opened']:,} opened)",
            f"{mib(cost['bytes_sent'])}",
            f"{cost['cpu_seconds']:.1f}",
            f"{self.after['cpu_seconds'] - self.before['cpu_seconds']:.1f}",
            f"{mib(self.before['resident'])}, {mib(self.after['peak'])}, {mib(self.later['resident'])}",
            f"{mib(self.promise)}",
            f"{self.after['log_lines'] - self.before['log_lines']}",
            f"{(self.after['log_bytes'] - self.before['log_bytes']) / 1024:.1f}",
            f"{self.turn_ms():.1f}",
            f"{self.p50_ms(self.honest):.1f}, {self.p99_ms(self.honest):.1f}",
            f"{self.p50_ms(self.burn):.1f}, {self.p99_ms(self.burn):.1f}",
            f"{self.lost()}",
            f"{self.refused()}",
        ]


HEADS = (
    "attack", "connections", "MiB sent", "its CPU, s", "server CPU, s", "MiB before, peak, later", "MiB promised",
    "log lines", "log KiB", "longest turn, ms", "honest p50, p99, ms", "beside a burner", "honest lost", "honest refused",
)


def mib(count):
    return f"{count / MIB:.1f}"


def table(program, out, bounds, attacks):
    setting = defaults(program)
    rows = [Row(out, attack, setting) for attack in attacks]
    print("| " + " | ".join(HEADS) + " |")
    print("| --- |" + " ---: |" * (len(HEADS) - 1))
    for row in rows:
        print("| " + " | ".join(row.cells()) + " |")
    exceeded = False
    for row in rows:
        for text in row.exceeded() if bounds == "yes" else row.broken_promises():
            exceeded = True
            print(f"attack.sh: {row.name}: {text}", file=sys.stderr)
    return 1 if exceeded else 0


if __name__ == "__main__":
    if sys.argv[1] == "measure":
        measure(*sys.argv[2:])
    else:
        sys.exit(table(sys.argv[2], sys.argv[3], sys.argv[4], sys.argv[5:]))
