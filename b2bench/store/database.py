"""A DuckDB file that processes share: each call takes its turn, does one transaction, and closes.

It says how a file is made, opened, waited for, checked and lifted to a newer schema; what runs write into it and read
from it is in :mod:`b2bench.store.store`.
"""

from __future__ import annotations

import filecmp
import logging
import math
import os
import random
import re
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import get_ident
from typing import Any, TypeVar

import duckdb
from filelock import FileLock, Timeout

from b2bench.errors import Busy, NoRoom, UserError
from b2bench.locks import NO_LOCKS, lockable, lockless, process_lock
from b2bench.store.rows import DamagedRow, Row, fetched
from b2bench.store.schema import MIGRATIONS, SCHEMA_VERSION, TABLES, column_shape, create_table

CLOSED: dict[str, str | bool | int | float | list[str]] = {
    "autoinstall_known_extensions": "false",
    "autoload_known_extensions": "false",
    "allow_community_extensions": "false",
    "enable_external_access": "false",
    "threads": "1",  # the other cores are the training's
}
PATIENCE = 60.0
"""Seconds that a call waits for its turn, if nobody says otherwise"""
FOR_HOURS = 5 * 3600.0
"""As long as whatever has worked for hours waits to store it; processes of a run wait for each other a little longer"""
SHORT = 10.0
"""As long as somebody waits who is about to end"""
SILENT = 5.0
"""Seconds that a call waits for its turn before it says so, on the log, which is stderr where nobody set it up."""
POLL = 0.005
"""Seconds between two looks whether it is one's turn."""
REST = 2 * POLL
"""Seconds that who comes again at once stays away: the lock knows no queue, and who waits for it looks only every POLL.
A process that wrote without pause kept readers out for 10 seconds and more."""
NOBODY_HERE = "lock is held in PID 0"
"""DuckDB's words for a holder that the system does not name: in another container, or on another machine over NFS"""
MISREAD = ("?",) if os.sep == "\\" else ("?", "\\")
"""What DuckDB 2.0 does not take for a part of a name: the log of ``a?b`` would be ``a.wal?b``, and for ``a\\b`` it
opens ``a/b``"""
log = logging.getLogger(__name__)
log.setLevel(logging.WARNING)  # whatever the level of the root logger is
T = TypeVar("T")


def duration(seconds: float) -> str:
    """``0.3 s``, or ``6 h``."""
    return f"{seconds:g} s" if seconds < 3600 else f"{seconds / 3600:g} h"


class _NoStore(UserError):
    """The file is somebody else's."""


def _draft(path: Path) -> None:
    """Make an empty store in a file that nobody else knows."""
    with duckdb.connect(str(path), config=CLOSED) as con:
        con.begin()
        for table in TABLES:
            for statement in create_table(table):
                con.execute(statement)
        con.execute('CREATE TABLE "schema" (version INTEGER NOT NULL)')
        con.execute('INSERT INTO "schema" VALUES (?)', [SCHEMA_VERSION])
        con.commit()


def _create(path: Path) -> None:
    """Make an empty store in a file beside ``path``, then give it its name: nobody sees half a schema."""
    try:
        with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.") as folder:
            draft = Path(folder) / "draft.duckdb"
            _draft(draft)
            try:
                with suppress(FileExistsError):  # another process was first
                    os.link(draft, path)
            except OSError:  # a file system without hard links
                if not path.exists():
                    os.rename(draft, path)
    except OSError as error:
        raise UserError(f"database {path} cannot be created: {error.strerror}; try another --db") from None
    except duckdb.Error as error:
        if _locks_nothing(error) or NOBODY_HERE in str(error):  # and nobody else knows the draft
            raise lockless(f"database {path}", "--db") from None
        raise UserError(f"database {path} cannot be created: {_first_line(error)}; try another --db") from None


def _holder(error: duckdb.Error) -> str | None:
    """Who holds the file, if that is what the error says."""
    text = str(error)
    if "different configuration" in text:
        return "a connection of this process"
    if "Could not set lock" not in text and "being used by another process" not in text:
        return None
    if NOBODY_HERE in text:
        return "a process in another container or on another machine"
    found = re.search(r"lock is held in (.+?) \(PID (\d+)\)", text)
    return f"process {found[2]} ({Path(found[1]).name})" if found else "another process"


def _locks_nothing(error: duckdb.Error) -> bool:
    """Tell whether the file system has no locks, so that waiting for one is in vain."""
    text = str(error)
    return "Could not set lock" in text and any(os.strerror(number) in text for number in NO_LOCKS)


def _first_line(error: duckdb.Error) -> str:
    return str(error).strip().partition("\n")[0].rstrip(".")


class Database:
    """The file at ``path``. ``patience`` is how many seconds a call waits for a file that another process holds.

    Every method raises :class:`UserError` for a file that it cannot use, and never changes such a file.
    """

    def __init__(self, path: str | Path, patience: float = PATIENCE) -> None:
        self.path = Path(os.path.expanduser(path))
        try:
            str(path).encode()
        except UnicodeEncodeError:  # DuckDB takes UTF-8 alone
            raise UserError(f"database {str(path)!r}: its name is not UTF-8 text; try another --db") from None
        for character in MISREAD:
            if character in os.path.abspath(path):
                raise UserError(
                    f"database {os.path.abspath(path)}: DuckDB cannot use a path with {character} in it, and would put "
                    "its files elsewhere; try another --db"
                )
        self.patience = patience
        self._released = -math.inf  # when this process had its last turn
        self._shared: dict[int, duckdb.DuckDBPyConnection] = {}  # of a thread that reads several things at once

    # -- before a run ------------------------------------------------------------------------------

    def check(self) -> None:
        """Raise :class:`UserError` unless the file is a store, or can be made one here."""
        if self.path.exists():
            self._transaction(lambda _: None, read_only=True)
            writable = os.access(self.path, os.W_OK) and os.access(self.path.parent, os.W_OK)
        else:
            if self.path.is_symlink():  # DuckDB would make its target, without a schema
                raise UserError(f"database {self.path} is a link to nothing; try removing it, or another --db")
            if not self.path.parent.is_dir():
                raise UserError(f"database {self.path}: its folder does not exist; try creating it, or another --db")
            writable = os.access(self.path.parent, os.W_OK)
        if not writable:
            raise UserError(f"database {self.path}: no permission to write it and beside it; try another --db")

    def check_exists(self) -> None:
        """Raise :class:`UserError` unless the file is a store that is there."""
        self._read(lambda _: None)

    def sql(self, query: str, parameters: Sequence[Any] = ()) -> list[Row]:
        """Return the rows of any query, on a read-only connection; JSON columns are text.

        Raises :class:`UserError` with DuckDB's message where the query is wrong or would write.
        """

        def work(con: duckdb.DuckDBPyConnection) -> list[Row]:
            try:
                return fetched(con.execute(query, list(parameters)))
            except duckdb.InterruptException:
                raise
            except duckdb.Error as error:
                raise UserError(f"SQL on {self.path}: {_first_line(error)}") from None

        return self._read(work)

    def together(self, work: Callable[[], T]) -> T:
        """Return what ``work`` returns. All that it reads is of one state of the file, on one connection.

        So a report of a store that runs go on writing to does not mix two states, and opens the file once. Others wait
        until it is done: ``work`` reads, and leaves what is done with it to its caller.

        Raises:
            RuntimeError: ``work`` writes to this store.
        """

        def shared(con: duckdb.DuckDBPyConnection) -> T:
            self._shared[get_ident()] = con
            try:
                return work()
            finally:
                del self._shared[get_ident()]

        return work() if get_ident() in self._shared else self._read(shared)

    # -- connections -------------------------------------------------------------------------------

    def _read(self, work: Callable[[duckdb.DuckDBPyConnection], T]) -> T:
        if get_ident() in self._shared:
            return work(self._shared[get_ident()])
        if not self.path.exists():
            raise UserError(f"database {self.path} does not exist; `b2bench run` makes one, or try another --db")
        return self._transaction(work, read_only=True)

    def _write(self, work: Callable[[duckdb.DuckDBPyConnection], T], new: bool = True) -> T:
        """Do ``work`` in a transaction. ``new``: in a store that is made for it, if there is none."""
        if get_ident() in self._shared:
            raise RuntimeError(f"database {self.path}: what reads several things together cannot write")
        if not self.path.exists():
            if not new:
                raise UserError(
                    f"database {self.path} is gone: it was moved or removed since the run began; try putting it back"
                )
            self.check()
            _create(self.path)
        return self._transaction(work, read_only=False)

    def _transaction(self, work: Callable[[duckdb.DuckDBPyConnection], T], read_only: bool) -> T:
        if self.path.is_dir():
            raise UserError(f"database {self.path} is a folder; try --db with a file")
        new = not self._lock_path.exists()
        if new:
            self._check_kind()
        try:
            with self._turn():
                return self._alone(work, read_only)
        except _NoStore:
            if new:  # nothing of ours stays beside somebody else's file
                self._lock_path.unlink(missing_ok=True)
            raise

    @contextmanager
    def waiting(self, seconds: float) -> Iterator[None]:
        """Until it is left, calls wait for at least so many seconds, or for what was asked for if that is not usual."""
        usual = self.patience
        self.patience = seconds if usual == PATIENCE else usual
        try:
            yield
        finally:
            self.patience = usual

    @property
    def _at_most(self) -> str:
        return f"at most {duration(self.patience)}"

    @property
    def _lock_path(self) -> Path:
        """Beside the file itself: of two links to one store each must find the other's turn."""
        there = Path(os.path.realpath(self.path))
        return there.with_name(f"{there.name}.lock")

    def _check_kind(self) -> None:
        """Refuse a file that is not a DuckDB file before a lock is put beside it."""
        with suppress(OSError), self.path.open("rb") as file:
            if file.read(12)[8:] != b"DUCK":
                raise UserError(f"{self.path} is not a DuckDB file, and it stays untouched; try another --db")

    @contextmanager
    def _turn(self) -> Iterator[None]:
        """Until it is left, no other call of any process has the file open; the system ends it with the process.

        DuckDB's own lock is not enough. DuckDB 2.0 reads a file's headers before it locks it, and not again after: if
        another process commits in between, the headers are stale and what it committed is overwritten. Sixteen
        writers beside a reader lost one transaction in a hundred (tests/stress/writers.py).
        """
        path = self._lock_path
        time.sleep(max(0.0, self._released + REST - time.monotonic()))
        try:
            # whoever may use the store may wait for it: the lock has the store's mode, or a new file's
            there = self.path.is_file()
            lock = process_lock(path, self.path.stat().st_mode & 0o777) if there else process_lock(path)
            with lockable(f"database {self.path}", "--db"):
                self._acquire(lock)
        except OSError as error:
            if os.access(self.path.parent, os.W_OK):
                raise UserError(f"database {self.path}: its lock {path} cannot be used: {error.strerror}") from None
            yield  # a folder that nobody writes: readers alone need no turns
            return
        try:
            yield
        finally:
            lock.release()
            self._released = time.monotonic()

    def _acquire(self, lock: FileLock) -> None:
        """Wait for one's turn. ``patience`` may become less meanwhile, because somebody wants to end."""
        started, said = time.monotonic(), self.patience <= SILENT
        while True:
            left = started + self.patience - time.monotonic()
            try:
                lock.acquire(max(0.0, min(SILENT, left)), poll_interval=POLL)
                return
            except Timeout:
                if time.monotonic() >= started + self.patience:
                    reason = f"database {self.path} has been in use by other b2bench processes for "
                    raise Busy(reason + duration(self.patience)) from None
                if not said:
                    said = True
                    log.warning("waiting for database %s, which others use (%s)", self.path, self._at_most)

    def _alone(self, work: Callable[[duckdb.DuckDBPyConnection], T], read_only: bool) -> T:
        con = self._connect(read_only)
        try:
            version = self._version(con)
            if version < SCHEMA_VERSION:
                con.close()
                self._back_up(version)
                con = self._connect(read_only=False)
            con.begin()  # closing without a commit rolls back
            for step in range(version + 1, SCHEMA_VERSION + 1):
                con.execute(MIGRATIONS[step])
                con.execute('UPDATE "schema" SET version = ?', [step])
            self._check_shape(con)
            result = work(con)
            con.commit()
            return result
        except (duckdb.IOException, duckdb.TransactionException) as error:
            if not isinstance(error, duckdb.IOException) and "write file" not in str(error):
                raise
            reason = f"database {self.path} cannot be written: {_first_line(error)}; what it holds is whole"
            raise (UserError if read_only else NoRoom)(reason) from None
        except DamagedRow as error:
            raise UserError(f"database {self.path} is damaged, or was changed by hand: {error}") from None
        except (RuntimeError, duckdb.InterruptException) as error:
            if "interrupted" not in str(error).lower():
                raise
            raise KeyboardInterrupt from None  # DuckDB swallows the one of Ctrl-C: "Query interrupted"
        except duckdb.Error as error:
            error.add_note(f"database {self.path}")  # DuckDB does not say which
            raise
        finally:
            con.close()

    def _back_up(self, version: int) -> None:
        """Copy the file as it is to ``NAME.schema-VERSION`` before its schema changes, in whole or not at all.

        Copies that are there stay: of a migration that was cut short, which is the same, or of another store of this
        name, beside which this one gets a number.
        """
        self._connect(read_only=False).close()  # what its log holds comes into the file
        copy = self.path.with_name(f"{self.path.name}.schema-{version}")
        draft = copy.with_name(f".{copy.name}.{os.getpid()}")
        try:
            try:
                shutil.copy2(self.path, draft)
                with draft.open("r+b") as file:  # Windows syncs nothing that is open for reading alone
                    os.fsync(file.fileno())
                number = 1
                while copy.exists() and not filecmp.cmp(copy, draft, shallow=False):
                    number += 1
                    copy = self.path.with_name(f"{self.path.name}.schema-{version}.{number}")
                draft.replace(copy)
            finally:
                draft.unlink(missing_ok=True)
        except OSError as error:
            raise UserError(
                f"database {self.path} has an older schema and cannot be copied to {copy} before that is changed: "
                f"{error.strerror}; try making room beside it, or another --db"
            ) from None

    def _connect(self, read_only: bool) -> duckdb.DuckDBPyConnection:
        """Open the file, and wait while another process has it open."""
        started, pause, said = time.monotonic(), 0.005, self.patience <= SILENT
        while True:
            try:
                # absolute: DuckDB would take a: of a name a:b for an extension
                return duckdb.connect(os.path.abspath(self.path), read_only=read_only, config=CLOSED)
            except duckdb.Error as error:
                if _locks_nothing(error):
                    raise lockless(f"database {self.path}", "--db") from None
                holder = _holder(error)
                if holder is None:
                    raise UserError(self._unusable(error)) from None
                if not said and time.monotonic() > started + SILENT:
                    said = True
                    log.warning("waiting for database %s: %s has it (%s)", self.path, holder, self._at_most)
                if time.monotonic() > started + self.patience:
                    raise Busy(
                        f"database {self.path} has been locked for {duration(self.patience)} by {holder}"
                    ) from None
            # jitter, or processes that met once would keep meeting
            time.sleep(pause * random.uniform(0.5, 1.5))
            # a short limit: beside a writer without pause the gaps are milliseconds, and few tries never meet one
            pause = min(2 * pause, 0.05)

    def _unusable(self, error: duckdb.Error) -> str:
        text = str(error)
        if "not a valid DuckDB database" in text:
            return f"{self.path} is not a DuckDB file, and it stays untouched; try another --db"
        if "version number" in text:
            return f"{self.path} is of another DuckDB version: {_first_line(error)}; upgrade duckdb"
        return f"database {self.path} cannot be opened: {_first_line(error)}; try another --db"

    def _version(self, con: duckdb.DuckDBPyConnection) -> int:
        try:
            found = con.execute('SELECT version FROM "schema"').fetchall()
        except (duckdb.CatalogException, duckdb.BinderException):
            found = []
        version = found[0][0] if len(found) == 1 else None
        if not isinstance(version, int) or version < 1:
            raise self._no_store()
        if version > SCHEMA_VERSION:
            raise UserError(
                f"{self.path} has schema version {version}, and this b2bench knows up to {SCHEMA_VERSION}; "
                "try a newer b2bench, or another --db"
            )
        return version

    def _check_shape(self, con: duckdb.DuckDBPyConnection) -> None:
        """Refuse tables that no b2bench made: whatever reads them takes columns, types and keys for granted."""
        for table in TABLES:
            try:
                rows = con.execute(f"PRAGMA table_info('{table}')").fetchall()
            except duckdb.CatalogException:
                raise self._no_store() from None
            found = {name: (kind, required, key) for _, name, kind, required, _, key in rows}
            for name in (*TABLES[table], *found):  # what is missing is said before what is new
                if found.get(name) != column_shape(table, name):
                    what = "lacks column" if name not in found else "has another, or none of b2bench's, as column"
                    raise UserError(
                        f"database {self.path} is damaged, or was changed by hand: table {table} {what} {name}; "
                        "try another --db"
                    )

    def _no_store(self) -> UserError:
        return _NoStore(f"{self.path} is a DuckDB file but not a b2bench store; try another --db")
