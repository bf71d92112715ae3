"""Counts the rows of a folder of Parquet tables, session by session, with DuckDB and with ClickHouse, and prints that as JSON: FOLDER"""

import json
import os
import sys

import chdb
import duckdb

folder = sys.argv[1]
connection = duckdb.connect()


def quoted(text):
    return "'" + text.replace("'", "''") + "'"


def by_duckdb(table, what):
    files = quoted(f"{folder}/{table}/**/*.parquet")
    rows = connection.execute(
        f"SELECT {what}, count(*) FROM read_parquet({files}, hive_partitioning = true) GROUP BY ALL"
    ).fetchall()
    return sorted([*map(str, row[:-1]), row[-1]] for row in rows)


def by_clickhouse(table, what):
    files = quoted(f"{folder}/{table}/**/*.parquet").replace("\\", "\\\\")
    # A moment is a number in both, as is a date.
    answer = chdb.query(
        f"SELECT {what}, count() FROM file({files}, Parquet) GROUP BY ALL SETTINGS use_hive_partitioning = 1",
        "JSONCompactEachRow",
    )
    rows = [json.loads(line) for line in str(answer).splitlines()]
    return sorted([*map(str, row[:-1]), int(row[-1])] for row in rows)


def both(table, what):
    theirs, others = by_duckdb(table, what), by_clickhouse(table, what)
    assert theirs == others, (table, what, theirs, others)
    return theirs


first = "host, date, session"
print(json.dumps({
    "rows": {table: both(table, first) for table in sorted(os.listdir(folder))},
    "kinds": both("events", "session, kind"),
    "verdicts": both("sessions", "session, id, verdict, lost, length(unseen)"),
    # The same moment on both clocks, in microseconds, as DuckDB takes them apart.
    "clocks": connection.execute(
        f"""SELECT count(*) FROM read_parquet({quoted(folder + '/events/**/*.parquet')}) AS events
            JOIN read_parquet({quoted(folder + '/sessions/**/*.parquet')}) AS sessions USING (session)
            WHERE epoch_ns(events.at_time) - epoch_ns(started_time) <> events.at_ns - started_ns"""
    ).fetchone()[0],
    "words": connection.execute(
        f"SELECT list_distinct(flatten(list(argv))) FROM read_parquet({quoted(folder + '/execs/**/*.parquet')})"
    ).fetchone()[0],
}))
