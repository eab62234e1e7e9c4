"""Sets load generators against a server whose token times are known.

    run.py --build DIR --sweepd PATH [--clients a,b] [--users 100,1000,2000] [--requests-per-user N]
           [--tokens N] [--ttft-ms MS] [--gap-ms MS] [--busy N] [--peers VENV] [--vllm VENV]
           [--sglang VENV] [--json FILE]

Each client meets a fresh server. Printed: what it reported, what was true, the tokens a second it
drained and the CPU it took, all its processes from start to end. DIR holds what scripts/bench
built: `server` and `floor`.
"""

import argparse
import json
import os
import pathlib
import resource
import signal
import socket
import subprocess
import sys
import tempfile
import time

import clients
from truth import Truth


def wait_for_port(port: int, process: subprocess.Popen) -> None:
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise RuntimeError("the server ended at once")
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.02)
    raise RuntimeError("the server does not listen")


def one(args, client: str, users: int, busy: int) -> dict:
    requests = users * args.requests_per_user
    folder = pathlib.Path(tempfile.mkdtemp(prefix="sweepd-bench-"))
    log = folder / "truth"
    port = args.port
    server = subprocess.Popen(
        [args.build / "server", "--port", str(port), "--ttft-ms", str(args.ttft_ms)]
        + ["--gap-ms", str(args.gap_ms), "--log", log],
        stderr=subprocess.PIPE,
    )
    spin = "while True: pass"
    hogs = []
    try:
        wait_for_port(port, server)
        hogs = [subprocess.Popen([sys.executable, "-c", spin]) for _ in range(busy)]
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        job = clients.Job(args, folder, port, users, requests)
        reported = clients.CLIENTS[client](job)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
    finally:
        for hog in hogs:
            hog.kill()
        server.send_signal(signal.SIGTERM)
        said = server.communicate(timeout=60)[1].decode().strip()
    truth = Truth(log, requests)
    true = truth.figures()
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    row = {
        "client": client,
        "users": users,
        "busy": busy,
        "requests": len(truth.requests),
        "reported": reported,
        "true": true,
        "cpu_s_per_million": cpu / max(truth.tokens(), 1) * 1e6,
        "server": said,
    }
    print(line(row), flush=True)
    return row


def line(row: dict) -> str:
    reported, true = row["reported"], row["true"]
    parts = [f"{row['client']:>9} {row['users']:>6} users"]
    for key in ("ttft_p50", "ttft_p99", "itl_p50", "itl_p99"):
        said = reported.get(key)
        shown = "absent" if said is None else f"{said:.3f} ({said - true[key]:+.3f})"
        parts.append(f"{key} {shown}")
    parts.append(f"drained {reported.get('tok_per_s') or 0:.0f}/s of {true['tok_per_s']:.0f}/s")
    parts.append(f"CPU {row['cpu_s_per_million']:.1f} s/M")
    if "phase_cpu_s_per_million" in reported:
        parts.append(f"(phase {reported['phase_cpu_s_per_million']:.2f})")
    for key in ("rss_mb", "failed", "note"):
        if reported.get(key):
            parts.append(f"{key} {reported[key]}")
    return "  ".join(parts)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--build", type=pathlib.Path, required=True)
    parser.add_argument("--sweepd", type=pathlib.Path, required=True)
    parser.add_argument("--clients", default="floor,sweepd")
    parser.add_argument("--users", default="1000")
    parser.add_argument("--requests-per-user", type=int, default=2)
    parser.add_argument("--tokens", type=int, default=256)
    parser.add_argument("--ttft-ms", type=float, default=50)
    parser.add_argument("--gap-ms", type=float, default=20)
    parser.add_argument("--busy", type=int, default=0)
    parser.add_argument("--port", type=int, default=8917)
    parser.add_argument("--peers", type=pathlib.Path, help="a venv with aiperf and guidellm")
    parser.add_argument("--vllm", type=pathlib.Path, help="a venv with vllm")
    parser.add_argument("--sglang", type=pathlib.Path, help="a venv with sglang")
    parser.add_argument("--model", type=pathlib.Path, help="a model folder with a tokenizer, for peers")
    parser.add_argument("--json", type=pathlib.Path)
    args = parser.parse_args()
    args.build, args.sweepd = args.build.absolute(), args.sweepd.absolute()
    os.nice(0)
    rows = []
    for users in map(int, args.users.split(",")):
        for client in args.clients.split(","):
            rows.append(one(args, client, users, args.busy))
    if args.json:
        args.json.write_text(json.dumps(rows, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
