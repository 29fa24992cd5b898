"""Where the lab keeps things: a cache for every checkout of a user, with their machines."""

import fcntl
import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[2]


def cache_folder() -> Path:
    """$EXECTRAIL_CACHE, else exectrail-lab below the user's cache folder; made when missing."""
    if named := os.environ.get("EXECTRAIL_CACHE"):
        folder = Path(named).absolute()
    else:
        base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
        folder = Path(base) / "exectrail-lab"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    return folder


def all_machines_folder() -> Path:
    """Give the folder with the machines of every checkout."""
    return cache_folder() / "machines"


def machines_folder() -> Path:
    """Give the folder with this checkout's machines, one folder each."""
    own = hashlib.sha256(os.fsencode(CHECKOUT)).hexdigest()[:12]
    return all_machines_folder() / own


@contextmanager
def lock(name: str, *, shared: bool = False, wait: bool = True) -> Iterator[bool]:
    """Hold the cache's lock NAME; gives False when it is taken and WAIT is false.

    The kernel drops the lock with the process, so a crash can't leave one behind.
    """
    folder = cache_folder() / "locks"
    folder.mkdir(exist_ok=True)
    with (folder / name).open("a", encoding="ascii") as file:
        kind = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
        try:
            fcntl.flock(file, kind if wait else kind | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True
