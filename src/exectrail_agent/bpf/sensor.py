"""The bpf sensor: loads the kernel half, or takes over what an earlier agent left, and reads it."""

from __future__ import annotations

import errno
import os
import pkgutil
import struct
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from itertools import chain

from exectrail_agent.bpf import layout
from exectrail_agent.bpf.libbpf import BpfError, BpfObject, Libbpf, Ring
from exectrail_agent.bpf.pins import LINKS, MAPS, PinFolder
from exectrail_agent.bpf.surroundings import (
    CONTROLLERS,
    Surroundings,
    cgroup_in,
    find_surroundings,
)
from exectrail_agent.events import Event, LiveSession, SensorError, Task
from exectrail_agent.proc import ProcReader

FOLDER = "/sys/fs/bpf/exectrail"
RING_SIZE = 8 << 20

_BTF = "/sys/kernel/btf/vmlinux"
_JUMPS = ("at_exec", "at_fork", "at_exit")
_BATCH = 512
_BATCH_BYTES = 1 << 19
_TASKS_MAX = 32768
_DROPS_MAX = 1024
_NUMBER = struct.Struct("=Q")
_PID = struct.Struct("=I")
_IN_FLIGHT = 0.02
_CAUSES = {
    "exec": "ring-full",
    "exit": "ring-full-exit",
    "end": "ring-full-end",
    "fork": "processes-full",
    "entry": "sessions-full",
}


class BpfSensor:
    """Tells what runs in sessions, from raw tracepoints. See events.Sensor.

    - `folder`: where to pin; what an earlier agent pinned there goes on, and its waiting events
      come first.
    - `ring_size`: bytes for events that wait; rounded up to a power of two of at least a page.
    - `everything`: tell the programs of no session too.
    - `code`: the compiled kernel half; None: the one in this package.

    `pinned` says whether capture goes on after ``close(keep=True)``, `resumed` whether it went on
    before; `notices` are sentences for the operator. `hierarchy` is the cgroup hierarchy of the
    paths, ``cgroup2`` or a v1 controller.

    Raises SensorError.
    """

    name = "bpf"

    def __init__(
        self,
        *,
        folder: str = FOLDER,
        ring_size: int = RING_SIZE,
        everything: bool = False,
        code: bytes | None = None,
    ) -> None:
        self.notices: list[str] = []
        self.resumed = False
        self.taken: Callable[[int], None] = lambda _: None
        self._files: dict[str, int] = {}
        self._own: dict[str, int] = {}
        self._pending: list[bytes] = []
        self._known = layout.Known()
        self._drops = 0
        self._undecoded = 0
        self._replaced = 0
        if not os.path.exists(_BTF):  # noqa: PTH110 - no object is needed
            raise SensorError(f"this kernel describes no types of its own ({_BTF} is missing)")
        try:
            self._libbpf = Libbpf()
            self._surroundings = find_surroundings()
            self._folder = PinFolder(self._libbpf, folder)
            problem = self._folder.take()
            self.pinned = not problem
            if problem:
                self.notices.append(f"capture stops when the agent stops: {problem}")
            size = max(os.sysconf("SC_PAGE_SIZE"), 1 << (ring_size - 1).bit_length())
            self._start(code or _packaged(), size, everything=everything)
            self._ring_size = self._libbpf.map_info(self._files["ring"]).max_entries
            self._ring = Ring(self._files["ring"], self._ring_size)
        except (BpfError, OSError) as error:
            self._let_go()
            raise SensorError(_explain(error)) from None
        except SensorError:
            self._let_go()
            raise
        controller = self._surroundings.controller
        self.hierarchy = CONTROLLERS[controller] or "cgroup2"
        if not self._surroundings.root_cgroup:
            self.notices.append(
                f"the root of {self.hierarchy} is not mounted: all cgroups are told"
            )

    def fileno(self) -> int:
        """Return the ring's file. Read once before the first wait: older events may be there."""
        return self._files["ring"]

    def read(self) -> Sequence[Event]:
        """Return what waits, at most some hundred events at once: they take memory.

        Of some the text is twelve times as long in a record.
        """
        events: list[Event] = []
        pending, self._pending = self._pending, []
        for record in pending:
            self._decode(record, [(0, len(record))], events)
        end = self._ring.position + _BATCH_BYTES
        while len(events) < _BATCH:
            found = self._ring.peek(_BATCH, end - self._ring.position)
            if not found:
                break
            self._decode(self._ring.data, found, events)
            self._ring.release()
        return events

    def fill(self) -> float:
        """Return how full the ring is."""
        return self._ring.waiting / self._ring_size

    def drop(self, session: int) -> None:
        """Make the kernel forget a session."""
        number = _NUMBER.pack(session)
        sessions, dropped = self._files["sessions"], self._files["dropped"]
        # A session that ends meanwhile leaves no one to take its number out again.
        with suppress(BpfError):
            if self._libbpf.look_up(sessions, number, layout.SESSION_SIZE):
                self._libbpf.update(dropped, number, _PID.pack(1))
                if not self._libbpf.look_up(sessions, number, layout.SESSION_SIZE):
                    self._libbpf.delete(dropped, number)
        self._drops += 1
        if self._drops >= _DROPS_MAX:
            self._forget_dropped()

    def live(self) -> Sequence[LiveSession]:
        """Return the sessions that the kernel has; one may consist of sessions inside it alone."""
        look_up = self._libbpf.look_up
        members: dict[int, dict[int, Task]] = {}
        for key in self._libbpf.keys(self._files["sessions"], _NUMBER.size, _TASKS_MAX):
            if look_up(self._files["dropped"], key, _PID.size) is None:
                members[_NUMBER.unpack(key)[0]] = {}
        for key in self._libbpf.keys(self._files["tasks"], _PID.size, _TASKS_MAX):
            value = look_up(self._files["tasks"], key, layout.MARK_SIZE)
            mark = layout.unpack_mark(value) if value else None
            if mark and mark.session in members:
                host_pid = _PID.unpack(key)[0]
                members[mark.session][host_pid] = self._task(host_pid, mark)
        return [LiveSession(number, tuple(tasks.values())) for number, tasks in members.items()]

    def adopt(self, sessions: Sequence[Sequence[Task]]) -> Sequence[int]:
        """Take processes into sessions that began unseen. See events.Sensor."""
        first = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
        numbers = [_NUMBER.pack(first + at) for at in range(len(sessions))]
        pids = [[_PID.pack(task.pid) for task in tasks] for tasks in sessions]
        adopted, libbpf = self._own["adopted"], self._libbpf
        try:
            for at, number in enumerate(numbers):
                for pid in pids[at]:
                    libbpf.update(adopted, pid, number)
            libbpf.iterate(self._own["at_start"])
        except BpfError as error:
            self.notices.append(f"sessions from before the agent are not followed: {error}")
        for pid in chain.from_iterable(pids):
            libbpf.delete(adopted, pid)
        there = (
            libbpf.look_up(self._files["sessions"], one, layout.SESSION_SIZE) for one in numbers
        )
        return [first + at if found else 0 for at, found in enumerate(there)]

    def losses(self) -> Mapping[str, int]:
        """Return what was lost since the maps were made.

        `ring-full` counts programs, `ring-full-exit` and `ring-full-end` ends of processes and
        sessions, `sessions-full` accesses that could not be followed, `processes-full` processes
        that could not; `undecodable` and `replaced` any records.
        """
        cpus = self._libbpf.possible_cpus()
        totals = {}
        for index, cause in enumerate(layout.LOSSES):
            size = cpus * _NUMBER.size
            value = self._libbpf.look_up(self._files["losses"], _PID.pack(index), size)
            totals[_CAUSES[cause]] = sum(struct.unpack(f"={cpus}Q", value)) if value else 0
        return {**totals, "undecodable": self._undecoded, "replaced": self._replaced}

    def close(self, *, keep: bool) -> None:
        """Let go. Without `keep` nothing stays in the kernel or pinned."""
        self._ring.close()
        try:
            if self.pinned and not keep:
                self._folder.remove()
        except OSError as error:
            raise SensorError(f"{self._folder.path}: {error.strerror}") from None
        finally:
            self._let_go()

    def _forget_dropped(self) -> None:
        """Take the room of dropped sessions back: whose processes only sleep never give it up."""
        self._drops = 0
        files, libbpf = self._files, self._libbpf
        with suppress(BpfError):
            numbers = set()
            for number in libbpf.keys(files["dropped"], _NUMBER.size, _TASKS_MAX):
                session = libbpf.look_up(files["sessions"], number, layout.SESSION_SIZE)
                # One that is in another is counted there.
                if session is None or not layout.outer_of(session):
                    numbers.add(number)
            pids = list(libbpf.keys(files["tasks"], _PID.size, _TASKS_MAX)) if numbers else []
            for pid in pids:
                value = libbpf.look_up(files["tasks"], pid, layout.MARK_SIZE)
                if value and _NUMBER.pack(layout.unpack_mark(value).session) in numbers:
                    libbpf.delete(files["tasks"], pid)
            for number in numbers:
                libbpf.delete(files["sessions"], number)
                libbpf.delete(files["dropped"], number)

    # ---- loading ----

    def _start(self, code: bytes, ring_size: int, *, everything: bool) -> None:
        found = self._folder.look() if self.pinned else None
        if found and found.files:
            self._files.update(found.files)
            self._take_over(code, ring_size, everything=everything)
            return
        self._load(code, ring_size, (), everything=everything)
        if found and found.broken:
            self._replace(found.broken)
        if self.pinned:
            self._folder.pin(self._files)

    def _take_over(self, code: bytes, ring_size: int, *, everything: bool) -> None:
        """Put this version's programs in place of those that run, with the same maps."""
        self.resumed = True
        kept = [name for name in MAPS if name != "ring"]
        old = self._files["ring"]
        if self._libbpf.map_info(old).max_entries == ring_size:
            kept.append("ring")
        self._load(code, ring_size, kept, everything=everything)
        if self._files["ring"] != old:
            self._folder.pin({"ring": self._files["ring"]})
            self._drain(old)
        self._forget_dropped()

    def _load(self, code: bytes, ring_size: int, kept: Sequence[str], *, everything: bool) -> None:
        program = self._libbpf.open(code)
        try:
            program.set_constants(_constants(self._surroundings, everything=everything))
            program.resize("ring", ring_size)
            program.resize("scratch", self._libbpf.possible_cpus())
            for name in kept:
                program.use_map(name, self._files[name])
            if kept:
                for name in LINKS:
                    program.skip(name)
            program.load()
            for name in MAPS:
                if name not in kept:
                    self._files[name] = program.map_file(name)
            self._own["adopted"] = program.map_file("adopted")
            self._own["at_start"] = os.dup(program.program_file("at_start"))
            for index, name in enumerate(_JUMPS):
                file = _PID.pack(program.program_file(name))
                self._libbpf.update(self._files["jump"], _PID.pack(index), file)
            if not kept:
                self._attach(program)
        finally:
            program.close()

    def _attach(self, program: BpfObject) -> None:
        # Exec last: the children of a session that begins now have to be seen.
        for name in reversed(tuple(LINKS)):
            self._files[name] = self._libbpf.attach(LINKS[name], program.program_file(name))

    def _replace(self, reason: str) -> None:
        """Remove pins that are of no use. What waited in their ring can't be read any more."""
        ring = self._folder.old_ring()
        self._folder.clear()
        if ring is not None:
            self._drain(ring)
            self._replaced, self._pending = len(self._pending), []
        self.notices.append(f"earlier pins were replaced, and sessions begin anew: {reason}")

    def _drain(self, file: int) -> None:
        """Read a ring that nothing is written to any more, once the programs at work are done."""
        time.sleep(_IN_FLIGHT)
        ring = Ring(file, self._libbpf.map_info(file).max_entries)
        self._pending += [ring.data[begin:end] for begin, end in ring.peek(sys.maxsize)]
        ring.release()
        ring.close()
        os.close(file)

    def _let_go(self) -> None:
        for files in (self._files, self._own):
            for file in files.values():
                os.close(file)
            files.clear()
        if hasattr(self, "_folder"):
            self._folder.release()

    # ---- reading ----

    def _decode(
        self, data: layout.Buffer, records: Sequence[tuple[int, int]], events: list[Event]
    ) -> None:
        """Add the events of records, which are told to be taken before anything forgets them."""
        execs = sum([end - begin > layout.END_SIZE for begin, end in records])
        known, decode = self._known, layout.decode
        for begin, end in records:
            try:
                events.append(decode(data, begin, end, known))
            except layout.LayoutError:
                self._undecoded += 1
                execs -= end - begin > layout.END_SIZE
        self.taken(execs)

    def _task(self, host_pid: int, mark: layout.Mark) -> Task:
        proc = ProcReader()
        return Task(
            pid=mark.pid,
            start=mark.start,
            host_pid=host_pid,
            cgroup=cgroup_in(proc.cgroups(mark.pid), self._surroundings.controller),
            mount_namespace=mark.mount_namespace,
            pid_namespace=mark.pid_namespace,
            executable=proc.executable(mark.pid),
        )


def _constants(here: Surroundings, *, everything: bool) -> bytes:
    return layout.pack_config(
        here.root_cgroup, here.pid_namespace, here.controller, everything=everything
    )


def _packaged() -> bytes:
    try:
        code = pkgutil.get_data("exectrail_agent.bpf", "exec.bpf.o")
    except OSError:
        code = None
    if not code:
        raise SensorError(f"{sys.argv[0] or 'this copy'} was built without the kernel half")
    return code


def _explain(error: Exception) -> str:
    if getattr(error, "errno", 0) == errno.EPERM:
        return f"{error}; the bpf sensor needs CAP_BPF, CAP_PERFMON and CAP_SYS_RESOURCE"
    return str(error)
