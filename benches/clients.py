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


def aiperf(job: Job) -> dict:
    artifacts = job.folder / "artifacts"
    job.run(
        [job.args.peers / "bin/aiperf", "profile", "--model", "m", "--url", f"http://127.0.0.1:{job.port}"]
        + ["--endpoint-type", "completions", "--streaming", "--concurrency", job.users]
        + ["--request-count", job.requests, "--synthetic-input-tokens-mean", 8]
        + ["--output-tokens-mean", job.args.tokens, "--tokenizer", job.args.model]
        + ["--output-artifact-dir", artifacts, "--ui", "none"],
        timeout=600,
    )
    file = next(artifacts.rglob("profile_export_aiperf.json"))
    said = json.loads(file.read_text())
    said = said.get("records", said)
    pick = lambda name, figure: (said.get(name) or {}).get(figure)
    return {
        "ttft_p50": pick("time_to_first_token", "p50"),
        "ttft_p99": pick("time_to_first_token", "p99"),
        "itl_p50": pick("inter_chunk_latency", "p50") or pick("inter_token_latency", "p50"),
        "itl_p99": pick("inter_chunk_latency", "p99") or pick("inter_token_latency", "p99"),
        "tok_per_s": pick("output_token_throughput", "avg"),
        "note": "ITL is a request's mean",
    }


def guidellm(job: Job) -> dict:
    file = job.folder / "guidellm.json"
    job.run(
        [job.args.peers / "bin/guidellm", "run"]
        + ["--backend", f"kind=openai_http,target=http://127.0.0.1:{job.port},model=m,request_format=/v1/completions"]
        + ["--profile", f"kind=concurrent,streams={job.users}"]
        + ["--constraint", f"kind=max_requests,count={job.requests}"]
        + ["--data", f"kind=synthetic_text,prompt_tokens=8,output_tokens={job.args.tokens}"]
        + ["--tokenizer", f"kind=hf_auto,model={job.args.model}"]
        + ["--output", f"kind=json,path={file}", "--disable-console-interactive"],
        timeout=600,
    )
    metrics = json.loads(file.read_text())["benchmarks"][0]["metrics"]

    def pick(name: str, figure: str):
        values = metrics[name]["successful"]
        if figure in values:
            return values[figure]
        return values["percentiles"][figure]

    return {
        "ttft_p50": pick("time_to_first_token_ms", "p50"),
        "ttft_p99": pick("time_to_first_token_ms", "p99"),
        "itl_p50": pick("inter_token_latency_ms", "p50"),
        "itl_p99": pick("inter_token_latency_ms", "p99"),
        "tok_per_s": pick("output_tokens_per_second", "mean"),
        "note": "ITL is a request's mean",
    }


def sglang(job: Job) -> dict:
    file = job.folder / "sglang.jsonl"
    job.run(
        [job.args.sglang / "bin/python", "-m", "sglang.bench_serving", "--backend", "vllm"]
        + ["--base-url", f"http://127.0.0.1:{job.port}", "--model", job.args.model]
        + ["--dataset-name", "random-ids", "--random-input-len", 8, "--random-output-len", job.args.tokens]
        + ["--random-range-ratio", 1, "--num-prompts", job.requests, "--max-concurrency", job.users]
        + ["--output-file", file, "--disable-tqdm"],
        timeout=600,
    )
    said = json.loads(file.read_text().splitlines()[-1])
    return {
        "ttft_p50": said["median_ttft_ms"],
        "ttft_p99": said["p99_ttft_ms"],
        "itl_p50": said["median_itl_ms"],
        "itl_p99": said["p99_itl_ms"],
        "tok_per_s": said["output_throughput"],
    }


def vllm(job: Job) -> dict:
    job.run(
        [job.args.vllm / "bin/vllm", "bench", "serve", "--backend", "openai", "--model", job.args.model]
        + ["--served-model-name", "m", "--base-url", f"http://127.0.0.1:{job.port}"]
        + ["--dataset-name", "random", "--random-input-len", 8, "--random-output-len", job.args.tokens]
        + ["--num-prompts", job.requests, "--max-concurrency", job.users, "--save-result"]
        + ["--result-filename", "vllm.json", "--disable-tqdm"],
        timeout=600,
    )
    return vllm_fields(json.loads((job.folder / "vllm.json").read_text()))


CLIENTS = {
    "floor": floor,
    "sweepd": sweepd,
    "aiperf": aiperf,
    "guidellm": guidellm,
    "sglang": sglang,
    "vllm": vllm,
}
