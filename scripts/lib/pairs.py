"""Differences within pairs of trials, with a 90 % interval; for the measuring scripts."""

import math

# Student's t, 95 % one-sided: what a 90 % interval takes. By degrees of freedom.
T = [6.314, 2.920, 2.353, 2.132, 2.015, 1.943, 1.895, 1.860, 1.833, 1.812, 1.796, 1.782, 1.771, 1.761, 1.753, 1.746, 1.740, 1.734,
     1.729, 1.725, 1.721, 1.717, 1.714, 1.711, 1.708, 1.706, 1.703, 1.701, 1.699]

# Figures of the load generator may move by so much.
MOST_RATE = 0.02
MOST_TTFT_MS = 0.1

# The load of a sweep that shows whether something else moves its figures: below half of what two cores can do.
PHASES = """
[workload]
kind = "random"
endpoint = "completions"
prompt_tokens = 32
output_tokens = 1

[smoke]
first = false

[warmup]
requests = 16
users = 8

[[phases]]                 # a closed loop has a speed of its own: for the output tok/s
name = "closed"
users = 2
think_time = "2ms"
min_requests = 100
min_duration = "{closed}s"

[[phases]]                 # each request meets an idle engine, so its TTFT is always the same but for what disturbs it
name = "open"
rate = 400.0               # and an answer takes 0.2 ms: a virtual machine that is away 1 % of the time meets fewer than 1 % of such
                           # requests, so that their p99 is not that of the machine's own absences
arrivals = "constant"
min_duration = "{seconds}s"
"""
ENGINE = 'engine = "sim"\nparams = { step-ms = 0.2, prefill-tokens-per-second = 1000000 }\n'


def phases(seconds: int) -> str:
    return PHASES.format(seconds=seconds, closed=max(2, seconds // 4))


def interval(values: list) -> tuple:
    """Mean, and both ends of its 90 % interval."""
    n = len(values)
    mean = sum(values) / n
    spread = math.sqrt(sum((value - mean) ** 2 for value in values) / (n - 1))
    half = (T[n - 2] if n - 2 < len(T) else 1.645) * spread / math.sqrt(n)
    return mean, mean - half, mean + half


def rate(trial: dict) -> float:
    return trial["steady"]["output_tokens_per_s"]


def ttft(trial: dict, quantile: str = "p99") -> float:
    return trial["latency"]["ttft_ms"][quantile]


def differences(closed: list, opened: list) -> bool:
    """Prints them; whether they are within the limits. Both are pairs of trials, (with, without)."""
    relative = interval([rate(one) / rate(other) - 1 for one, other in closed])
    print(f"  difference of output tok/s: {relative[0]:+.3%}, 90 % interval {relative[1]:+.3%} to {relative[2]:+.3%}")
    for quantile in ("p50", "p95", "p99"):
        later = interval([ttft(one, quantile) - ttft(other, quantile) for one, other in opened])
        print(f"  difference of TTFT {quantile}: {later[0]:+.4f} ms, 90 % interval {later[1]:+.4f} to {later[2]:+.4f} ms")
    within = lambda found, most: max(abs(found[1]), abs(found[2])) <= most
    return within(relative, MOST_RATE) and within(later, MOST_TTFT_MS)
