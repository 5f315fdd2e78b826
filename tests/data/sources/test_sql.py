"""SQL: SQLite always, PostgreSQL against a real server."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import tempfile
from collections.abc import Iterator
from datetime import datetime, timezone
from pathlib import Path

import pytest

from deshi.data.raw import BadRows
from deshi.data.sources.sql import SQL, hide_password
from deshi.types import DeshiError

MOMENT = 1_577_934_245_000
ROWS = [("u1", "7", MOMENT, 2.5), ("u2", "8", MOMENT, None), ("u1", "8", MOMENT + 1, 1.0)]
QUERY = "SELECT who, what, at, stars FROM events ORDER BY n"
MAPPING = {"user": "who", "item": "what", "timestamp": "at", "rating": "stars"}


@pytest.fixture
def database(tmp_path: Path) -> Path:
    """A SQLite file with three events and two items."""
    path = tmp_path / "my shop.db"
    with sqlite3.connect(path) as base:
        base.execute("CREATE TABLE events (n INTEGER, who TEXT, what INTEGER, at INTEGER, stars REAL)")
        base.executemany("INSERT INTO events VALUES (?, ?, ?, ?, ?)", [(n, *row) for n, row in enumerate(ROWS)])
        base.execute("CREATE TABLE items (item_id INTEGER, title TEXT, brand TEXT)")
        base.execute("INSERT INTO items VALUES (7, 'Soap', NULL), (8, 'Salt', 'Q')")
    base.close()
    return path


def test_sqlite(database: Path, tmp_path: Path) -> None:
    """Rows in the query's order, items with their further columns as text."""
    source = SQL(QUERY, f"sqlite:///{database}", **MAPPING, items_query="SELECT * FROM items")
    raw = source.load(tmp_path)
    assert raw.interactions.rows() == ROWS and raw.time_unit == "ms"
    assert raw.items is not None and raw.items.rows() == [("7", "Soap", None), ("8", "Salt", "Q")]
    assert [file.name for file in raw.files] == ["query", "items_query"]
    assert raw.files == source.load(tmp_path).files


def test_many_rows_come_in_chunks(database: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A table larger than a chunk, whose columns are null in one chunk and not in the next."""
    monkeypatch.setattr("deshi.data.sources.sql.CHUNK", 1)
    assert SQL(QUERY, str(database), **MAPPING).load(tmp_path).interactions.rows() == ROWS


def test_malformed_row_is_named(database: Path, tmp_path: Path) -> None:
    """A database has no lines: the row's number in the answer is given."""
    with sqlite3.connect(database) as base:
        base.execute("INSERT INTO events VALUES (9, NULL, 7, 5, 1.0)")
    base.close()
    source = SQL(QUERY, str(database), **MAPPING, time_unit="ms")
    with pytest.raises(DeshiError, match=r"row numbers\), line 4: no user id"):
        source.load(tmp_path)
    assert source.load(tmp_path, BadRows("skip", 1)).bad_rows.skipped == 1


@pytest.mark.parametrize(
    ("query", "message"),
    [("SELECT who FROM events", "no column what, at, stars; it has who"), ("SELECT nothing", "refused the query"),
     ("DELETE FROM events", "refused the query|gives no rows"),
     (QUERY.replace("ORDER", "WHERE n > 9 ORDER"), "is empty")],
)  # fmt: skip
def test_queries_that_fail(database: Path, tmp_path: Path, query: str, message: str) -> None:
    """Each failure says what the database or deshi expected; data are never changed."""
    with pytest.raises(DeshiError, match=message):
        SQL(query, str(database), **MAPPING).load(tmp_path)
    base = sqlite3.connect(database)
    assert base.execute("SELECT count(*) FROM events").fetchone() == (3,)
    base.close()


def test_address_from_the_environment(database: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A password must not land in the run's config."""
    with pytest.raises(DeshiError, match="exactly one"):
        SQL(QUERY)
    with pytest.raises(DeshiError, match="SHOP_DB is not set"):
        SQL(QUERY, dsn_env="SHOP_DB", **MAPPING).load(tmp_path)
    monkeypatch.setenv("SHOP_DB", str(database))
    assert SQL(QUERY, dsn_env="SHOP_DB", **MAPPING).load(tmp_path).interactions.height == 3


def test_missing_file(tmp_path: Path) -> None:
    """SQLite itself would make an empty database."""
    with pytest.raises(DeshiError, match="does not exist"):
        SQL(QUERY, f"sqlite:///{tmp_path}/none.db").load(tmp_path)
    assert not (tmp_path / "none.db").exists()


@pytest.mark.parametrize("dsn", ["postgresql://me:s3:cr@et@host/db", "host=h password=s3:cr@et user=me"])
def test_password_is_never_shown(dsn: str) -> None:
    """Origins are written to the manifest and errors to the log."""
    assert "s3" not in hide_password(dsn) and "cr@et" not in hide_password(dsn) and "me" in hide_password(dsn)


def _server_programs() -> Path | None:
    found = shutil.which("initdb")
    folders = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: path.parent.name)
    return Path(found).parent if found else (folders[-1] if folders else None)


def _as_user() -> list[str]:
    """PostgreSQL refuses to run as root, so root becomes the user ``postgres``."""
    return ["runuser", "-u", "postgres", "--"] if os.geteuid() == 0 else []


@pytest.fixture(scope="module")
def postgres() -> Iterator[str]:
    """The address of a server: DESHI_TEST_POSTGRES, or a private one started for this module."""
    pytest.importorskip("psycopg", reason="needs psycopg (the extra sql)")
    if address := os.environ.get("DESHI_TEST_POSTGRES"):
        yield address
        return
    programs = _server_programs()
    if programs is None:
        pytest.skip("no PostgreSQL server: set DESHI_TEST_POSTGRES, or install the package postgresql")
    with tempfile.TemporaryDirectory(prefix="deshi-pg-") as folder:
        if os.geteuid() == 0:
            shutil.chown(folder, "postgres")
        data, user = f"{folder}/data", _as_user()
        subprocess.run([*user, str(programs / "initdb"), "-D", data, "-A", "trust", "-U", "deshi", "--no-sync"],
                       check=True, capture_output=True, cwd=folder)  # fmt: skip
        options = f"-c listen_addresses='' -c unix_socket_directories='{folder}' -c fsync=off"
        control = [*user, str(programs / "pg_ctl"), "-D", data, "-w"]
        subprocess.run([*control, "-o", options, "-l", f"{folder}/log", "start"], check=True, cwd=folder,
                       stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)  # fmt: skip
        try:
            yield f"host={folder} user=deshi dbname=postgres"
        finally:
            subprocess.run([*control, "-m", "immediate", "stop"], check=False, capture_output=True, cwd=folder)


@pytest.fixture
def shop(postgres: str) -> Iterator[str]:
    """A table of events with a real timestamp column and numeric ratings."""
    import psycopg

    moment = datetime.fromtimestamp(MOMENT / 1000, timezone.utc)
    with psycopg.connect(postgres, autocommit=True) as base:
        base.execute("DROP TABLE IF EXISTS deshi_events")
        base.execute(
            "CREATE TABLE deshi_events (n serial, who text, what bigint, at timestamptz, stars numeric, tags text[])"
        )
        for user, item, time, rating in ROWS:
            row = (user, int(item), moment.replace(microsecond=(time - MOMENT) * 1000), rating)
            base.execute("INSERT INTO deshi_events (who, what, at, stars, tags) VALUES (%s, %s, %s, %s, '{a,b}')", row)
        yield postgres
        base.execute("DROP TABLE IF EXISTS deshi_events")


def test_postgres(shop: str, tmp_path: Path) -> None:
    """A real server: typed columns, chunks by a server-side cursor, items with an array column."""
    query = "SELECT * FROM deshi_events ORDER BY n"
    items = "SELECT DISTINCT ON (what) what AS item_id, who AS title, tags FROM deshi_events ORDER BY what, n"
    raw = SQL(query, shop, **MAPPING, items_query=items).load(tmp_path)
    assert raw.interactions.rows() == ROWS
    assert raw.items is not None and raw.items.rows() == [("7", "u1", "a b"), ("8", "u2", "a b")]


def test_postgres_errors(shop: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A wrong query, a write and a server that isn't there each give a clear error; nothing is changed."""
    for query in ("SELECT nothing FROM deshi_events", "DELETE FROM deshi_events"):
        with pytest.raises(DeshiError, match="refused the query"):
            SQL(query, shop, **MAPPING).load(tmp_path)
    assert SQL("SELECT * FROM deshi_events", shop, **MAPPING).load(tmp_path).interactions.height == 3
    with pytest.raises(DeshiError, match="can't be reached"):
        SQL("SELECT 1", "postgresql://me:secret@127.0.0.1:1/none", **MAPPING).load(tmp_path)
