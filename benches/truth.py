"""The server's log, and what clients should have measured by it."""

import array
import pathlib
import struct


class Truth:
    """Token times of the last `requests` requests, in milliseconds."""

    def __init__(self, path: pathlib.Path, requests: int):
        data = path.read_bytes()
        self.requests = []
        at = 0
        while at < len(data):
            number, tokens, arrival = struct.unpack_from("<IIq", data, at)
            at += 16
            sends = array.array("q")
            sends.frombytes(data[at : at + 8 * tokens])
            at += 8 * tokens
            self.requests.append((number, arrival, sends))
        self.requests = self.requests[-requests:]

    def ttft(self) -> list:
        return sorted((s[0] - arrival) / 1e6 for _, arrival, s in self.requests if s)

    def itl(self) -> list:
        gaps = []
        for _, _, sends in self.requests:
            gaps.extend((b - a) / 1e6 for a, b in zip(sends, sends[1:]))
        gaps.sort()
        return gaps

    def tokens(self) -> int:
        return sum(len(sends) for _, _, sends in self.requests)

    def seconds(self) -> float:
        first = min(arrival for _, arrival, _ in self.requests)
        last = max(sends[-1] for _, _, sends in self.requests if sends)
        return (last - first) / 1e9

    def figures(self) -> dict:
        ttft, itl = self.ttft(), self.itl()
        return {
            "ttft_p50": quantile(ttft, 0.50),
            "ttft_p99": quantile(ttft, 0.99),
            "itl_p50": quantile(itl, 0.50),
            "itl_p99": quantile(itl, 0.99),
            "tok_per_s": self.tokens() / self.seconds(),
        }


def quantile(values: list, q: float) -> float:
    """numpy's default: linear between order statistics."""
    if not values:
        return float("nan")
    position = q * (len(values) - 1)
    low = int(position)
    high = min(low + 1, len(values) - 1)
    return values[low] + (values[high] - values[low]) * (position - low)
