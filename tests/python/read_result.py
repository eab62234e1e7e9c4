"""Reads a result file of a serving benchmark as scripts written for such files do.

    read_result.py FILE...

Knows nothing of who wrote the file: it takes the fields that dashboards and
regression scripts index without asking, checks that they are numbers, and
prints one CSV line a file. Exit codes: 0 all read, 1 a field is missing or no
number, 2 a bad command line.
"""

import json
import sys

TEXTS = ["date", "backend", "endpoint_type", "model_id"]
COUNTS = ["num_prompts", "completed", "failed", "total_input_tokens", "total_output_tokens"]
RATES = ["duration", "request_throughput", "output_throughput", "total_token_throughput"]
LATENCIES = [
    f"{figure}_{metric}_ms"
    for metric in ("ttft", "tpot", "itl", "e2el")
    for figure in ("mean", "median", "std", "p99")
]


def read(path: str) -> list:
    with open(path, encoding="utf-8") as file:
        result = json.load(file)
    for key in TEXTS:
        assert isinstance(result[key], str), key
    for key in COUNTS:
        assert isinstance(result[key], int), key
    row = [result["model_id"], result["max_concurrency"], float(result["request_rate"])]
    row += [result[key] for key in COUNTS]
    row += [round(float(result[key]), 3) for key in RATES + LATENCIES]
    assert result["completed"] + result["failed"] == result["num_prompts"], "requests are missing"
    tokens = result["total_input_tokens"] + result["total_output_tokens"]
    rate = tokens / result["duration"]
    assert abs(rate - result["total_token_throughput"]) <= 0.01 * rate, "rates do not add up"
    return row


def main() -> int:
    if len(sys.argv) < 2:
        print(__doc__, file=sys.stderr)
        return 2
    print(",".join(["model", "concurrency", "rate"] + COUNTS + RATES + LATENCIES))
    for path in sys.argv[1:]:
        try:
            print(",".join(str(value) for value in read(path)))
        except (AssertionError, KeyError, TypeError, ValueError) as error:
            print(f"{path}: {error!r}", file=sys.stderr)
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
