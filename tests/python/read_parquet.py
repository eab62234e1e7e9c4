"""Reads a run's Parquet files as a user would, and checks that all readers agree.

    read_parquet.py RUNDIR

Opens each requests.parquet below RUNDIR with pandas, polars and DuckDB. Each
must find as many rows as `records` in the facts.json beside it says, the same
columns, and the same number of stamps in the list column chunk_at_ns. Of each
other Parquet file (samples of the engine, of a GPU) they must find the same
rows, columns and number of values. Prints one line of JSON with the totals. Exit codes: 0 all agree, 1 they differ or
there is nothing to read, 2 a bad command line.
"""

import json
import pathlib
import sys

import duckdb
import pandas
import polars

LIST_COLUMN = "chunk_at_ns"


def by_pandas(path: pathlib.Path) -> dict:
    frame = pandas.read_parquet(path)
    chunks = sum(len(stamps) for stamps in frame[LIST_COLUMN] if stamps is not None)
    return {"rows": len(frame), "columns": list(frame.columns), "chunks": chunks}


def by_polars(path: pathlib.Path) -> dict:
    frame = polars.read_parquet(path)
    chunks = int(frame[LIST_COLUMN].list.len().sum() or 0)
    return {"rows": frame.height, "columns": frame.columns, "chunks": chunks}


def by_duckdb(path: pathlib.Path) -> dict:
    with duckdb.connect() as connection:
        found = connection.execute(
            f"SELECT count(*), coalesce(sum(len({LIST_COLUMN})), 0) FROM read_parquet(?)", [str(path)]
        )
        rows, chunks = found.fetchone()
        described = connection.execute("DESCRIBE SELECT * FROM read_parquet(?)", [str(path)])
        columns = [row[0] for row in described.fetchall()]
    return {"rows": rows, "columns": columns, "chunks": int(chunks)}


def samples_by_pandas(path: pathlib.Path) -> dict:
    frame = pandas.read_parquet(path)
    return {"rows": len(frame), "columns": list(frame.columns), "values": int(frame.count().sum())}


def samples_by_polars(path: pathlib.Path) -> dict:
    frame = polars.read_parquet(path)
    values = sum(frame[column].count() for column in frame.columns)
    return {"rows": frame.height, "columns": frame.columns, "values": values}


def samples_by_duckdb(path: pathlib.Path) -> dict:
    with duckdb.connect() as connection:
        described = connection.execute("DESCRIBE SELECT * FROM read_parquet(?)", [str(path)])
        columns = [row[0] for row in described.fetchall()]
        counts = ", ".join(f'count("{column}")' for column in columns)
        found = connection.execute(f"SELECT count(*), {counts} FROM read_parquet(?)", [str(path)])
        rows, *values = found.fetchone()
    return {"rows": rows, "columns": columns, "values": sum(values)}


SAMPLE_READERS = {
    "pandas": samples_by_pandas,
    "polars": samples_by_polars,
    "duckdb": samples_by_duckdb,
}

READERS = {"pandas": by_pandas, "polars": by_polars, "duckdb": by_duckdb}


def compare(path: pathlib.Path, readers: dict) -> tuple[dict, list[str]]:
    """What the file holds by the first reader, and each disagreement."""
    found = {name: read(path) for name, read in readers.items()}
    first = found["pandas"]
    wrong = [
        f"{path}: {fact} is {first[fact]} by pandas, {other[fact]} by {name}"
        for name, other in found.items()
        for fact in first
        if other[fact] != first[fact]
    ]
    return first, wrong


def check(path: pathlib.Path) -> tuple[dict, list[str]]:
    """The same for a file of requests, which must hold as many as its facts say."""
    first, wrong = compare(path, READERS)
    facts = path.with_name("facts.json")
    records = json.loads(facts.read_text(encoding="utf-8"))["records"] if facts.exists() else None
    if first["rows"] != records:
        wrong.append(f"{path}: {first['rows']} rows, but {facts.name} counts {records} records")
    return first, wrong


def main() -> int:
    if len(sys.argv) != 2:
        print("usage: read_parquet.py RUNDIR", file=sys.stderr)
        return 2
    paths = sorted(pathlib.Path(sys.argv[1]).rglob("requests.parquet"))
    if not paths:
        print(f"no requests.parquet below {sys.argv[1]}", file=sys.stderr)
        return 1
    samples = sorted(set(pathlib.Path(sys.argv[1]).rglob("*.parquet")) - set(paths))
    totals = {"files": len(paths), "rows": 0, "chunks": 0, "sample_files": len(samples), "sample_values": 0}
    wrong = []
    for path in paths:
        found, disagreements = check(path)
        totals["rows"] += found["rows"]
        totals["chunks"] += found["chunks"]
        wrong += disagreements
    for path in samples:
        found, disagreements = compare(path, SAMPLE_READERS)
        totals["sample_values"] += found["values"]
        wrong += disagreements
    print(json.dumps(totals))
    for line in wrong:
        print(line, file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
