"""How each client is run, and where it says what it measured.

A function takes a job and returns milliseconds by name; what a client does not say is None.
"""

import dataclasses
import json
import pathlib
import subprocess


@dataclasses.dataclass
class Job:
    args: object
    folder: pathlib.Path
    port: int
    users: int
    requests: int

    def run(self, command: list, **more) -> str:
        done = subprocess.run(
            [str(part) for part in command], cwd=self.folder, capture_output=True, text=True, **more
        )
        (self.folder / "stdout").write_text(done.stdout)
        (self.folder / "stderr").write_text(done.stderr)
        if done.returncode != 0:
            raise RuntimeError(f"{command[0]} ended with {done.returncode}: {done.stderr[-2000:]}")
        return done.stdout


def floor(job: Job) -> dict:
    said = json.loads(job.run([job.args.build / "floor", job.port, job.users, job.requests, job.args.tokens]))
    return {
        "ttft_p50": said["ttft_p50_ms"],
        "ttft_p99": said["ttft_p99_ms"],
        "itl_p50": said["itl_p50_ms"],
        "itl_p99": said["itl_p99_ms"],
        "tok_per_s": said["tok_per_s"],
        "phase_cpu_s_per_million": said["cpu_s_per_million"],
        "rss_mb": round(said["rss_kb"] / 1024, 1),
    }


def sweepd(job: Job) -> dict:
    job.run(
        [job.args.sweepd, "bench", "--url", f"http://127.0.0.1:{job.port}", "--model", "m"]
        + ["--users", job.users, "--requests", job.requests, "--prompt-tokens", 8]
        + ["--output-tokens", job.args.tokens, "--save-result", "result.json"]
    )
    said = json.loads((job.folder / "result.json").read_text())
    own = said["sweepd"]
    client = own["client"]
    cpu = client["user_cpu_s"] + client["system_cpu_s"]
    share = own["censoring"]["gaps"] / max(own["censoring"]["gaps_of"], 1)
    return vllm_fields(said) | {
        "phase_cpu_s_per_million": cpu / said["total_output_tokens"] * 1e6,
        "rss_mb": round(client["max_rss_bytes"] / 2**20, 1),
        "note": f"gaps with bounds only {share:.1%}",
    }


def vllm_fields(said: dict) -> dict:
    return {
        "ttft_p50": said["median_ttft_ms"],
        "ttft_p99": said["p99_ttft_ms"],
        "itl_p50": said["median_itl_ms"],
        "itl_p99": said["p99_itl_ms"],
        "tok_per_s": said["output_throughput"],
        "failed": said.get("failed"),
    }


CLIENTS = {"floor": floor, "sweepd": sweepd}
