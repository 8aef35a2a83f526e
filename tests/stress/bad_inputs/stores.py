"""Stores and exported results that are damaged, of somebody else, or hold what no run wrote."""

from __future__ import annotations

import random
from pathlib import Path

import duckdb

from b2bench.store.schema import RUN_TABLES, SCHEMA_VERSION, TABLES
from bad_inputs.made import Input, damage_bytes, misplace, tiny

JUNK = (
    "NULL", "'nan'::DOUBLE", "'inf'::DOUBLE", "-1", "9223372036854775807", "''", "'x'", "'\U0001f4a5'",
    "chr(27) || '[31m'",
    "'a' || chr(10) || 'b'", "repeat('x', 100000)", "'../../x'", "'/'", "'[bold]'", "'<script>'", "true",
    "TIMESTAMP 'infinity'",
    "TIMESTAMP '0044-03-15 (BC) 12:00:00'", "DATE '9999-12-31'", "'1'", "0", "1e308",
)  # fmt: skip
DOCUMENTS = (
    "[1]", "null", "3", '"x"', "true", "{}", '{"settings": 3}', '{"settings": {}}', '{"reward": "x"}', '{"reward": []}',
    '{"algorithm": null}', '{"algorithm": {"name": 3}}', '{"backbone": {"name": []}}', '{"found": 1}',
    '{"prompts": {"hash": {}}}',
    '{"queries": "many"}', '{"seed": {}}', '{"preset": 3}', '{"preset": {"deviations": 3}}',
    '{"preset": {"deviations": [3]}}',
    '{"settings": {"lr": [1]}}', '{"settings": {"lr": 1e400}}', '{"settings": {"no such": 1}}',
    '{"a": {"a": {"a": {"a": 1}}}}',
    '{"found": {"plugins": "x", "prompts": 3}}', '{"found": {"plugins": [3]}}', '{"standard_error": "x"}', '{"n": []}',
    '{"reward": {"checkpoint": [1]}}', "[" * 2000 + "]" * 2000,
)  # fmt: skip
COLUMNS = [(table, column) for table in TABLES for column in TABLES[table]]


def stores(drawn: random.Random, folder: Path) -> Input:
    file = folder / "bad.duckdb"
    file.write_bytes((folder / "b2bench.duckdb").read_bytes())
    way = drawn.random()
    command = _reading(drawn)
    if way < 0.3:
        return Input(command, ["bad.duckdb"], damage_bytes(drawn, file))
    if way < 0.35:
        content = drawn.randbytes(drawn.choice((4, 100, 20_000)))
        file.write_bytes(drawn.randbytes(8) + b"DUCK" + content)
        return Input(command, ["bad.duckdb"], "random bytes with DuckDB's mark")
    if way < 0.42:
        what, mode = misplace(drawn, file)
        return Input(command, ["bad.duckdb"], what, unreadable=mode)
    if way < 0.45:
        Path(f"{file}.wal").write_bytes(drawn.randbytes(drawn.choice((10, 3000))))
        return Input(command, ["bad.duckdb"], "a log of random bytes beside it")
    change = drawn.choice((_another, _version, _version, _shape, _shape, _value, _value, _document, _document))
    if change is _another:
        file.unlink()
    with duckdb.connect(str(file)) as con:
        what = change(drawn, con)
    return Input(command, ["bad.duckdb", "config", "run half", "half"], what, loads="--resume" in command)


def _reading(drawn: random.Random) -> list[str]:
    """A command that reads bad.duckdb."""
    html = ["--format", "html", "--out", "report.html"]
    return drawn.choice(
        (
            ["report", "--db", "bad.duckdb"],
            ["report", "--db", "bad.duckdb", *html],
            ["report", "--db", "bad.duckdb", "--format", drawn.choice(("markdown", "csv", "latex", "json"))],
            ["ls", "runs", "--db", "bad.duckdb"],
            ["show", "half", "--db", "bad.duckdb"],
            ["show", "done1", "--db", "bad.duckdb", "--json"],
            ["merge", "bad.duckdb", "b2bench.duckdb", "--into", "all.duckdb"],
            ["merge", "b2bench.duckdb", "--into", "bad.duckdb"],
            ["export", "exported", "--db", "bad.duckdb"],
            ["import", "results", "--db", "bad.duckdb"],
            ["run", "--resume", "half", "--db", "bad.duckdb"],
            ["run", "--resume", "half", "--db", "bad.duckdb"],
            ["run", "--algo", "ddpo", "--db", "bad.duckdb", "--queries", "1", *tiny()],
            ["sweep", "--algo", "ddpo", "--db", "bad.duckdb", "--dry-run"],
            ["baseline", "--kind", "best-of", "--db", "bad.duckdb"],
            ["doctor", "--db", "bad.duckdb"],
        )
    )


def _another(drawn: random.Random, con: duckdb.DuckDBPyConnection) -> str:
    """A database of somebody else, which may look like a store."""
    made = drawn.sample(
        ["runs", "queries", "rounds", "evals", "images", "profiles", "schema", "x"], drawn.randint(0, 8)
    )
    for name in made:
        con.execute(f'CREATE {drawn.choice(("TABLE", "VIEW"))} "{name}" AS SELECT {drawn.choice(JUNK)} AS version')
    return f"a database with {', '.join(made) or 'nothing'}"


def _version(drawn: random.Random, con: duckdb.DuckDBPyConnection) -> str:
    value = drawn.choice(
        (
            "'text'",
            "1.5::DOUBLE",
            "NULL::INTEGER",
            "-1",
            "0",
            str(SCHEMA_VERSION + 1),
            "99999999999",
            "'2'",
            "true",
            "1",
            "[2]",
        )
    )
    rows = drawn.choice(("", "", " UNION ALL SELECT 2", " WHERE false"))
    con.execute('DROP TABLE "schema"')
    con.execute(f'CREATE TABLE "schema" AS SELECT {value} AS {drawn.choice(("version", "version", "number"))}')
    if rows and value in ("1", "-1", "0"):
        con.execute('INSERT INTO "schema" VALUES (2)' if "UNION" in rows else 'DELETE FROM "schema"')
    return f"schema version {value}{rows}"


def _loose(con: duckdb.DuckDBPyConnection, table: str, column: str = "", kind: str = "") -> None:
    """The table without its constraints, with a column of another type."""
    con.execute(f"CREATE TABLE loose AS SELECT * FROM {table}")
    con.execute(f"DROP TABLE {table}")
    con.execute(f"ALTER TABLE loose RENAME TO {table}")
    if column:
        con.execute(f"ALTER TABLE {table} ALTER {column} TYPE {kind} USING NULL")


def _shape(drawn: random.Random, con: duckdb.DuckDBPyConnection) -> str:
    """Tables and columns that lack, are too many, or of another type."""
    table, column = drawn.choice(COLUMNS)
    way = drawn.choice(("drop table", "drop column", "rename column", "add column", "type", "view"))
    if way == "drop table":
        con.execute(f"DROP TABLE {table}")
        return f"no table {table}"
    _loose(con, table)
    if way == "drop column":
        con.execute(f"ALTER TABLE {table} DROP COLUMN {column}")
    elif way == "rename column":
        con.execute(f"ALTER TABLE {table} RENAME COLUMN {column} TO other")
    elif way == "add column":
        con.execute(f"ALTER TABLE {table} ADD COLUMN other INTEGER")
    elif way == "type":
        kind = drawn.choice(
            ("VARCHAR", "DOUBLE", "BLOB", "INTEGER[]", "DATE", "BOOLEAN", "HUGEINT", "STRUCT(a INTEGER)")
        )
        _loose(con, table, column, kind)
        return f"{table}.{column} of type {kind}"
    else:
        con.execute(f"ALTER TABLE {table} RENAME TO behind")
        con.execute(f"CREATE VIEW {table} AS SELECT * FROM behind")
    return f"{way} {table}.{column}"


def _value(drawn: random.Random, con: duckdb.DuckDBPyConnection) -> str:
    """Nonsense in a column, within the table's constraints or without them."""
    table, column = drawn.choice([place for place in COLUMNS if drawn.random() < 0.3 or place[0] in ("runs", "evals")])
    value = drawn.choice(JUNK)
    if loose := drawn.random() < 0.5:
        _loose(con, table)
    try:
        con.execute(f"UPDATE {table} SET {column} = {value}")
    except duckdb.Error:  # it does not fit the type, or the constraint
        _loose(con, table, column, "VARCHAR")
        con.execute(f"UPDATE {table} SET {column} = {value}")
        loose = True
    return f"{table}.{column} = {value}{' without constraints' if loose else ''}"


def _document(drawn: random.Random, con: duckdb.DuckDBPyConnection) -> str:
    """JSON of another form where an object is expected, or in a place within one."""
    table, column = drawn.choice(
        [place for place in COLUMNS if TABLES[place[0]][place[1]][0] == "JSON"] + [("runs", "config")] * 8
    )
    if column == "config" and drawn.random() < 0.5:
        part = drawn.choice(
            ("settings", "algorithm", "wrapper", "reward", "backbone", "prompts", "queries", "seed", "found")
        )
        document = drawn.choice(DOCUMENTS)
        con.execute("UPDATE runs SET config = json_merge_patch(config, ?)", [f'{{"{part}": null}}'])
        if drawn.random() < 0.7:
            con.execute("UPDATE runs SET config = json_merge_patch(config, ?)", [f'{{"{part}": {document}}}'])
        return f"runs.config.{part} = {document[:60]}"
    document = drawn.choice(DOCUMENTS)
    con.execute(f"UPDATE {table} SET {column} = ?", [document])
    return f"{table}.{column} = {document[:60]}"


def parquet(drawn: random.Random, folder: Path) -> Input:
    """Exported results, one file of them damaged."""
    command = ["import", "results", "--db", drawn.choice(("b2bench.duckdb", "other.duckdb"))]
    table = drawn.choice(RUN_TABLES)
    file = folder / "results" / f"{table}.parquet"
    way = drawn.random()
    if way < 0.4:
        return Input(command, [file.name, "results"], damage_bytes(drawn, file))
    if way < 0.5:
        what, mode = misplace(drawn, file)
        return Input(command, [file.name], what, unreadable=mode)
    if way < 0.55:
        other = file.with_name(drawn.choice(("runs.parquet", "evals.parquet", "rounds.parquet")))
        file.write_bytes(other.read_bytes())
        return Input(command, [file.name, "runs.parquet"], f"{file.name} is {other.name}")
    if way < 0.6:
        file.write_text("run_id,queries\na,1\n", encoding="utf-8")
        return Input(command, [file.name], f"{file.name} is CSV")
    column = drawn.choice([*TABLES[table]])
    value = drawn.choice((*JUNK, "[1]", "{'a': 1}", "'[1]'"))
    change = drawn.choice(
        (
            f"* REPLACE ({value} AS {column})",
            f"* EXCLUDE ({column})",
            f"*, {value} AS other",
            f"* RENAME ({column} AS other)",
        )
    )
    with duckdb.connect() as con:
        con.execute(f"CREATE TABLE t AS SELECT {change} FROM '{file}'")
        if drawn.random() < 0.2:
            con.execute("INSERT INTO t SELECT * FROM t")
        con.execute(f"COPY t TO '{file}'")
    return Input(command, [file.name, "results", column], f"{file.name}: {change[:80]}")
