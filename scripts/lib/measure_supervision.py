"""Crash detection latency and idle cost of supervising; see scripts/measure-supervision."""

import glob
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time

SWEEP = """schema = 1
name = "supervision"
seed = 1
[model]
path = "{tokenizer}"
served_name = "sim"
tokenizer = "{tokenizer}"
[workload]
kind = "random"
prompt_tokens = 8
output_tokens = {tokens}
[smoke]
first = false
[warmup]
requests = 0
[[phases]]
users = 1
min_requests = 2
think_time = "{think}"
[deadlines]
load = "{load}"
stall = "1h"
request = "1h"
phase = "2h"
[[variants]]
name = "one"
engine = "sim"
params = {{ {params} }}
"""


class Run:
    """One `sweepd run` in a folder of its own."""

    def __init__(self, binary, **words):
        self.folder = tempfile.TemporaryDirectory()
        self.home = self.folder.name
        tokenizer = os.path.abspath("examples/sim-tokenizer.json")
        path = os.path.join(self.home, "sweep.toml")
        with open(path, "w") as file:
            file.write(SWEEP.format(tokenizer=tokenizer, **words))
        env = dict(os.environ, XDG_CONFIG_HOME=self.home + "/config", XDG_STATE_HOME=self.home + "/state")
        self.said = self.home + "/stderr"
        self.child = subprocess.Popen(
            [binary, "run", path], env=env, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
            stderr=open(self.said, "w"),
        )

    def until(self, words):
        by = time.monotonic() + 60
        while time.monotonic() < by:
            with open(self.said) as file:
                if words in file.read():
                    return
            time.sleep(0.01)
        raise SystemExit(f"sweepd never said {words!r}")

    def guard(self):
        return next(pid for pid in children(self.child.pid) if "__guard" in command(pid))

    def attempt(self):
        (path,) = glob.glob(self.home + "/state/sweepd/runs/*/trials/*/attempt-1/outcome.json")
        with open(path) as file:
            return json.load(file)

    def stop(self):
        self.child.send_signal(signal.SIGINT)
        self.child.wait()
        self.folder.cleanup()


def children(pid):
    found = []
    for path in glob.glob(f"/proc/{pid}/task/*/children"):
        with open(path) as file:
            found += [int(child) for child in file.read().split()]
    return found


def command(pid):
    with open(f"/proc/{pid}/cmdline") as file:
        return file.read()


def latency_ms(binary):
    """From just before the kill to the timeline's entry; the entry has whole milliseconds."""
    run = Run(binary, tokens=100000, think="0s", load="60s", params="step-ms = 20.0, context = 1000000")
    run.until("phase 1-users")
    (engine, *_) = children(run.guard())
    killed = time.clock_gettime_ns(time.CLOCK_MONOTONIC)
    os.kill(engine, signal.SIGKILL)
    run.child.wait()
    attempt = run.attempt()
    run.folder.cleanup()
    entry = next(e for e in attempt["timeline"] if "main process ended" in e["what"])
    return entry["at_ms"] - (killed - attempt["anchor"]["mono_ns"]) / 1e6


def used(pid):
    """CPU seconds, as the scheduler counts them, and voluntary context switches of all threads."""
    seconds = 0
    for path in glob.glob(f"/proc/{pid}/task/*/schedstat"):
        with open(path) as file:
            seconds += int(file.read().split()[0]) / 1e9
    switches = 0
    for path in glob.glob(f"/proc/{pid}/task/*/status"):
        with open(path) as file:
            for line in file:
                if line.startswith("voluntary_ctxt_switches"):
                    switches += int(line.split()[1])
    return seconds, switches


def idle(binary, window_s, label, until, settles_s, **words):
    run = Run(binary, **words)
    run.until(until)
    time.sleep(settles_s)  # What starting costs is over.
    pids = {"sweepd": run.child.pid, "guard": run.guard()}
    before = {name: used(pid) for name, pid in pids.items()}
    began = time.monotonic()
    time.sleep(window_s)
    took = time.monotonic() - began
    for name, pid in pids.items():
        cpu, switches = (after - b for after, b in zip(used(pid), before[name]))
        print(f"idle, {label}: {name}: {cpu * 3600 / took:.2f} CPU s per hour, {switches / took:.1f} wake-ups per s")
    run.stop()


def main():
    binary, repeats, window_s = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    times = sorted(latency_ms(binary) for _ in range(repeats))
    print(
        f"crash detection, {repeats} kills: median {statistics.median(times):.1f} ms, worst {times[-1]:.1f} ms, "
        "best {:.1f} ms (the timeline drops fractions: up to 2 ms more)".format(times[0])
    )
    load = dict(tokens=8, think="1h", load="60s", params="step-ms = 1.0")
    idle(binary, window_s, "a user thinks", "phase 1-users", 15, **load)
    load = dict(tokens=8, think="0s", load="1h", params="start-delay-ms = 3600000")
    # Whoever loads for long is asked more seldom, from 100 s on at the slowest.
    idle(binary, window_s, "engine loads", "loading", 100, **load)


if __name__ == "__main__":
    main()
