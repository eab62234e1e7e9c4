"""The real SGLang and LMDeploy, made to fail in every way that a CPU allows.

    real_faults.py SWEEPD CACHE [NAME...]

Each case is a sweep of one variant by the sweepd given: this program only does to
the engine what a night may do to it, and reads what sweepd wrote. NAME takes the
cases whose names contain it. Prints a table and fails if any case does.

It signals processes that descend from the sweepd that it started, and no others.
"""

import argparse
import dataclasses
import http.server
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

LOADING_S = 180
HANG_S = 5

ENGINES = {
    "sglang": """
[engines.sglang]
program = "{cache}/sglang/venv/bin/python"

[[variants]]
name = "sglang"
engine = "sglang"
params = {{ {params} }}

[variants.env]
SGLANG_USE_CPU_ENGINE = "1"
PYTHONPATH = "{cache}/sglang/overlay"
OMP_NUM_THREADS = "1"
""",
    "lmdeploy": """
[engines.lmdeploy]
program = "{cache}/lmdeploy/venv/bin/lmdeploy"

[[variants]]
name = "lmdeploy"
engine = "lmdeploy"
params = {{ {params} }}

[variants.env]
LMDEPLOY_ON_CPU = "1"
LMDEPLOY_CPU_MEMORY_MIB = "{memory_mib}"
CUDA_VISIBLE_DEVICES = ""
OMP_NUM_THREADS = "1"
""",
}

PARAMS = {
    "sglang": {
        "device": "cpu",
        "attention-backend": "torch_native",
        "max-total-tokens": 16384,
        "max-running-requests": 8,
    },
    "lmdeploy": {"backend": "pytorch", "session-len": 2048, "max-batch-size": 8},
}

SWEEP = """
schema = 1
name = "fault"
blocks = 1

[model]
path = "{model}"
served_name = "tiny"
{engine}
[workload]
kind = "random"
endpoint = "completions"
prompt_tokens = 64
output_tokens = 32

[warmup]
requests = 4
users = 2

[[phases]]
users = {users}
min_requests = {requests}
min_duration = "{phase_s}s"

[smoke]
first = false

[deadlines]
load = "{load_s}s"
ready = "1min"
stall = "10s"
"""


@dataclasses.dataclass(frozen=True)
class Expected:
    """What must stand in the run. `kinds` of the first attempt; none if it completes."""

    kinds: tuple[str, ...] = ()
    evidence: str = ""
    ending: str = "engine_failed"
    attempts: int | None = None
    # Refused before anything was launched, with this in the message.
    refused: str = ""


@dataclasses.dataclass(frozen=True)
class Case:
    engine: str
    what: str
    expected: Expected
    act: Callable | None = None
    params: dict = dataclasses.field(default_factory=dict)
    model: Callable | None = None
    users: int = 4
    phase_s: int = 3
    load_s: int = LOADING_S
    memory_mib: int = 256

    @property
    def name(self) -> str:
        return f"{self.engine}: {self.what}"


class Night:
    """One run of sweepd and what can be seen of it from outside."""

    def __init__(self, sweepd: Path, file: Path, runs: Path) -> None:
        self.log = open(file.with_suffix(".log"), "w+", encoding="utf-8")
        self.runs = runs
        self.acted: float | None = None
        self.sweepd = subprocess.Popen(
            [sweepd, "run", file, "--runs", runs],
            stdin=subprocess.DEVNULL,
            stdout=self.log,
            stderr=subprocess.STDOUT,
        )

    def said(self) -> str:
        return Path(self.log.name).read_text(encoding="utf-8")

    def until(self, what: str, found: Callable, within_s: float = LOADING_S):
        """The first answer of `found` that is true."""
        end = time.monotonic() + within_s
        while time.monotonic() < end:
            if answer := found():
                return answer
            if self.sweepd.poll() is not None:
                raise RuntimeError(f"sweepd ended before {what}:\n{self.said()}")
            time.sleep(0.05)
        raise RuntimeError(f"no {what} in {within_s} s:\n{self.said()}")

    def file(self, name: str) -> dict:
        """Of the first attempt."""
        found = sorted(self.runs.glob(f"*/trials/*/attempt-1/{name}"))
        return json.loads(found[0].read_text(encoding="utf-8")) if found else {}

    def trial(self) -> dict:
        found = sorted(self.runs.glob("*/trials/*/outcome.json"))
        return json.loads(found[0].read_text(encoding="utf-8")) if found else {}

    def port(self) -> int:
        return self.until("a port", lambda: self.file("manifest.json").get("port"))

    def until_loading(self) -> None:
        self.until("the engine's work", lambda: len(self.engine()) > 1)

    def until_under_load(self) -> None:
        self.until("a phase", lambda: ": phase " in self.said())
        time.sleep(1.5)

    def engine(self) -> list[int]:
        """The engine's processes, the leader first: all below sweepd's guard."""
        guards = children(self.sweepd.pid)
        return [pid for guard in guards for pid in below(guard) if is_engine(pid)]

    def one(self, title: str) -> int:
        def found():
            return [pid for pid in self.engine() if title in title_of(pid)]

        return self.until(f"a process {title}", found)[0]

    def signal(self, pid: int, number: signal.Signals) -> None:
        self.acted = time.time()
        os.kill(pid, number)

    def wait(self) -> int:
        try:
            return self.sweepd.wait(timeout=LOADING_S * 4)
        finally:
            if self.sweepd.poll() is None:
                self.sweepd.terminate()
                self.sweepd.wait(timeout=120)
            self.log.close()


def children(pid: int) -> list[int]:
    found = []
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            found += map(int, task.read_text().split())
        except OSError:
            pass
    return found


def below(pid: int) -> list[int]:
    found = []
    for child in children(pid):
        found += [child, *below(child)]
    return found


def title_of(pid: int) -> str:
    try:
        command = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        return command + " " + Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:
        return ""


def is_engine(pid: int) -> bool:
    return "python" in title_of(pid) or "sglang::" in title_of(pid) or "ZMQMPEngine" in title_of(pid)


# --- what a night does --------------------------------------------------------


def kill(title: str | None):
    """Of the leader, or of the process with this title, under load."""

    def act(night: Night) -> None:
        night.until_under_load()
        night.signal(night.one(title) if title else night.engine()[0], signal.SIGKILL)

    return act


def freeze(title: str):
    def act(night: Night) -> None:
        night.until_under_load()
        night.signal(night.one(title), signal.SIGSTOP)

    return act


def end_leader_while_loading(night: Night) -> None:
    night.until_loading()
    time.sleep(HANG_S)
    night.signal(night.engine()[0], signal.SIGTERM)


def end_sweepd_while_loading(night: Night) -> None:
    night.until_loading()
    time.sleep(HANG_S)
    night.signal(night.sweepd.pid, signal.SIGTERM)


def hold_port_silently(night: Night) -> None:
    held = socket.create_server(("127.0.0.1", night.port()))
    night.acted = time.time()
    threading.Thread(target=lambda: (night.sweepd.wait(), held.close()), daemon=True).start()


class Healthy(http.server.BaseHTTPRequestHandler):
    """Says 200 to everything, as another server that was forgotten would."""

    def do_GET(self) -> None:
        body = b'{"status": "healthy", "data": [{"id": "tiny"}]}'
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_POST = do_GET

    def log_message(self, *_args) -> None:
        pass


def hold_port_with_a_server(night: Night) -> None:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", night.port()), Healthy)
    night.acted = time.time()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    threading.Thread(target=lambda: (night.sweepd.wait(), server.shutdown()), daemon=True).start()


# --- models that cannot be served ---------------------------------------------


def without(*names: str):
    def make(model: Path, folder: Path) -> Path:
        shutil.copytree(model, folder, ignore=lambda _dir, _names: names)
        return folder

    return make


def with_cut_weights(model: Path, folder: Path) -> Path:
    shutil.copytree(model, folder)
    with open(folder / "model.safetensors", "r+b") as weights:
        weights.truncate(os.path.getsize(folder / "model.safetensors") // 2)
    return folder


def of_unknown_kind(model: Path, folder: Path) -> Path:
    shutil.copytree(model, folder)
    config = json.loads((folder / "config.json").read_text())
    config["architectures"] = ["NoSuchForCausalLM"]
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def nowhere(_model: Path, folder: Path) -> Path:
    return folder / "nowhere"


# --- the cases ----------------------------------------------------------------

DONE = Expected(ending="completed")
# The trial is tried again on another port, and is measured.
PORT = Expected(kinds=("port_in_use",), ending="completed", attempts=2)
CANCELLED = Expected(ending="cancelled")
HANG = Expected(kinds=("watchdog_timeout",))


def shared(engine: str, titles: list[str], worker: str) -> list[Case]:
    gone = Expected(kinds=("exited_unexpectedly", "killed_by_user"), evidence="SIGKILL|signal 9|-9|not alive")
    # Somebody else ended it: worth one more launch.
    ended = Expected(kinds=("killed_by_user",), ending="completed", attempts=2)
    cases = [
        Case(engine, "a whole trial", DONE),
        Case(engine, "32 streams at once", DONE, users=32, phase_s=8),
        Case(engine, "port held by a silent listener", PORT, act=hold_port_silently),
        Case(engine, "port held by another healthy server", PORT, act=hold_port_with_a_server),
        Case(engine, "leader killed under load", gone, act=kill(None), phase_s=20),
        Case(engine, "SIGSTOP of the engine under load", HANG, act=freeze(worker), phase_s=20),
        Case(engine, "leader ended while it loads", ended, act=end_leader_while_loading),
        Case(engine, "sweepd ended while it loads", CANCELLED, act=end_sweepd_while_loading),
        Case(engine, "no such model", Expected(refused="nowhere"), model=nowhere),
        Case(
            engine,
            "weights cut short",
            Expected(kinds=("unsupported_model_or_arch",), evidence="SafetensorError"),
            model=with_cut_weights,
        ),
        Case(
            engine,
            "model of an unknown kind",
            Expected(kinds=("unsupported_model_or_arch",), evidence="NoSuchForCausalLM"),
            model=of_unknown_kind,
        ),
    ]
    # LMDeploy's server outlives its engine and answers with errors: its log tells no more than that.
    failing = Expected(
        kinds=("exited_unexpectedly", "assertion_or_python_exception", "cannot_generate"),
        evidence="internal server error|not alive|every request",
    )
    for title in titles:
        expected = failing if engine == "lmdeploy" else gone
        cases.append(Case(engine, f"{title} killed under load", expected, act=kill(title), phase_s=20))
    return cases


CASES = [
    *shared("sglang", ["sglang::scheduler", "sglang::detokenizer"], "sglang::scheduler"),
    Case(
        "sglang",
        "switch with a value",
        Expected(refused="disable-radix-cache"),
        params={"disable-radix-cache": "false"},
    ),
    Case(
        "sglang",
        "flag that argparse would take for another",
        Expected(refused="enable-flashinfer"),
        params={"enable-flashinfer": True},
    ),
    Case(
        "sglang",
        "context longer than the model's",
        Expected(kinds=("bad_config",), evidence="context_length"),
        params={"context-length": 1_000_000},
    ),
    Case(
        "sglang",
        "room for 4 tokens",
        Expected(kinds=("gpu_oom_kv_cache", "bad_config", "cannot_generate", "request_too_long")),
        params={"max-total-tokens": 4},
    ),
    *shared("lmdeploy", ["ZMQMPEngine"], "ZMQMPEngine"),
    Case(
        "lmdeploy",
        "switch with a value",
        Expected(refused="enable-prefix-caching"),
        params={"enable-prefix-caching": "false"},
    ),
    Case(
        "lmdeploy",
        "more GPUs than there are",
        Expected(kinds=("startup_timeout_or_hang", "no_gpu")),
        params={"tp": 2},
        load_s=60,
    ),
    Case(
        "lmdeploy",
        "share of memory that holds no cache",
        Expected(kinds=("gpu_oom_kv_cache",), evidence="No enough gpu memory"),
        params={"cache-max-entry-count": 0.01},
        memory_mib=1,
    ),
]


# --- running and judging ------------------------------------------------------


def toml(value) -> str:
    return str(value).lower() if isinstance(value, bool) else json.dumps(value)


def sweep_of(case: Case, cache: Path, work: Path) -> str:
    model = cache / "real-engines" / "model"
    if case.model:
        model = case.model(model, work / "model")
    params = PARAMS[case.engine] | case.params
    params = ", ".join(f"{name} = {toml(value)}" for name, value in params.items() if value is not None)
    engine = ENGINES[case.engine].format(cache=cache, params=params, memory_mib=case.memory_mib)
    return SWEEP.format(
        model=model,
        engine=engine,
        users=case.users,
        requests=case.users * 5,
        phase_s=case.phase_s,
        load_s=case.load_s,
    )


def wrong(case: Case, night: Night, status: int, before: set[str]) -> list[str]:
    """Everything that is not as expected."""
    expected, found = case.expected, []

    def check(right: bool, message: str) -> None:
        if not right:
            found.append(message)

    if expected.refused:
        check(status == 2, f"exit {status} and not 2")
        check(expected.refused in night.said(), f"{expected.refused!r} is not in the message")
        check(not night.file("manifest.json"), "something was launched")
        return found
    trial, attempt = night.trial(), night.file("outcome.json")
    failure = attempt.get("failure", {})
    check(trial.get("ending", "none") == expected.ending, f"the trial {trial.get('ending')}")
    check(failure.get("kind") in (expected.kinds or (None,)), f"kind {failure.get('kind')}")
    told = json.dumps(failure) + json.dumps(attempt.get("exit"))
    check(bool(re.search(expected.evidence, told)), f"no {expected.evidence} in {told}")
    if expected.attempts:
        check(trial.get("attempts") == expected.attempts, f"{trial.get('attempts')} attempts")
    if case.act not in (hold_port_silently, hold_port_with_a_server):
        teardown = attempt.get("teardown") or {}
        check(teardown.get("verdict") == "clean", f"torn down: {teardown}")
    left = shared_memory() - before
    check(not left, f"left in /dev/shm: {sorted(left)}")
    return found


def shared_memory() -> set[str]:
    return {entry.name for entry in Path("/dev/shm").iterdir()}


def left_behind(cache: Path, known: set[int]) -> list[str]:
    """Processes out of the engines' environments, whoever their parent is by now."""
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) in known:
            continue
        title = title_of(int(entry.name))
        if re.search(rf"{re.escape(str(cache))}/(sglang|lmdeploy)/venv|sglang::|ZMQMPEngine", title):
            found.append(f"{entry.name} {title[:100]}")
    return found


def seen_after(night: Night) -> str:
    """From what was done to it until sweepd began to stop it."""
    attempt = night.file("outcome.json")
    if night.acted is None or "anchor" not in attempt:
        return ""
    began = attempt["anchor"]["realtime_ns"] / 1e9
    ends = ("stopping", "its main process ended", "verifying that nothing is left")
    for entry in attempt["timeline"]:
        after = began + entry["at_ms"] / 1e3 - night.acted
        if entry["what"].startswith(ends) and after > -0.1:
            return f"{max(after, 0):.2f}"
    return ""


def run(case: Case, sweepd: Path, cache: Path, work: Path) -> tuple[list[str], Night, float]:
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    file = work / "sweep.toml"
    file.write_text(sweep_of(case, cache, work), encoding="utf-8")
    before, known = shared_memory(), {int(e.name) for e in Path("/proc").iterdir() if e.name.isdigit()}
    began = time.monotonic()
    night = Night(sweepd, file, work / "runs")
    found = []
    try:
        if case.act:
            case.act(night)
    except RuntimeError as error:
        found.append(str(error))
        night.sweepd.terminate()
    status = night.wait()
    if found:
        return found, night, time.monotonic() - began
    found = wrong(case, night, status, before)
    found += [f"left running: {title}" for title in left_behind(cache, known)]
    return found, night, time.monotonic() - began


def row(case: Case, night: Night, seconds: float, found: list[str]) -> str:
    attempt, trial = night.file("outcome.json"), night.trial()
    failure = attempt.get("failure", {})
    if case.expected.refused:
        outcome, shown = "refused", f"names `{case.expected.refused}`"
    else:
        outcome = failure.get("kind") or attempt.get("ending", "?")
        said = [{"text": failure.get("summary", "")}]
        evidence = said if outcome == "exited_unexpectedly" else failure.get("evidence") or said
        shown = evidence[0]["text"].replace("|", "/")[:90]
        if trial.get("attempts", 1) > 1:
            outcome += f", then {trial['ending']}"
    killed = (attempt.get("teardown") or {}).get("strays_killed", "")
    cells = [case.engine, case.what, outcome, shown, seen_after(night), str(killed), f"{seconds:.0f}"]
    return "| " + " | ".join([*cells, "ok" if not found else "WRONG"]) + " |"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("sweepd", type=Path)
    parser.add_argument("cache", type=Path)
    parser.add_argument("name", nargs="*")
    asked = parser.parse_args()
    cases = [c for c in CASES if all(name in c.name for name in asked.name)]
    if not cases:
        print("no case is called so; there are:", *(c.name for c in CASES), sep="\n  ", file=sys.stderr)
        return 2
    work, rows, failed = asked.cache / "real-engines" / "faults", [], 0
    for number, case in enumerate(cases, start=1):
        print(f"[{number}/{len(cases)}] {case.name}", file=sys.stderr, flush=True)
        found, night, seconds = run(case, asked.sweepd.absolute(), asked.cache, work / str(number))
        rows.append(row(case, night, seconds, found))
        failed += bool(found)
        for message in found:
            print(f"    {message}", file=sys.stderr, flush=True)
    print("| engine | fault | first attempt | evidence | seen after s | strays killed | took s | |")
    print("|---|---|---|---|---|---|---|---|")
    print(*rows, sep="\n")
    print(f"{len(cases) - failed} of {len(cases)} as expected", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
