"""Where processes are compared with their parents: what tells a crossing from any other exec."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from exectrail_agent.audit.lineage import Lineage, Process
from exectrail_agent.audit.parse import Caller
from exectrail_agent.events import Task
from exectrail_agent.proc import Place, ProcReader, Standing, task_at, to_tick

_PLACE_SECONDS = 1.0
_KTHREADD = 2


class Kin:
    """Processes and their parents, from what forks told and, where that is missing, from /proc."""

    def __init__(self, lineage: Lineage, reader: ProcReader) -> None:
        self._lineage = lineage
        self._reader = reader

    def process(self, pid: int) -> Process | None:
        """Return a process, also one whose birth nobody told of; None if there is none."""
        process = self._lineage.get(pid)
        if process is None:
            standing = self._reader.standing(pid)
            if standing:
                process = self._lineage.add(pid, standing.parent, standing.start)
        return process

    def parent(self, process: Process) -> Task:
        """Describe a process's parent as far as it can be known."""
        pid = self._parent_pid(process)
        above = self.process(pid)
        if above and above.task:
            return replace(above.task, pid=pid, host_pid=pid, start=above.start)
        executable, comm = self._reader.name(pid)
        start = above.start if above else 0
        return task_at(pid, start, self._reader.place(pid), executable, comm)

    def has_left(self, process: Process, place: Place, now: float, *, crossed: bool) -> bool:
        """Whether a process that is at PLACE is elsewhere than its parent.

        Of a parent that is gone nobody can tell; then a crossing that was seen decides.
        """
        pid = self._parent_pid(process)
        above = self.process(pid)
        there = self._place_of(above, now) if above else None
        if there is not None and there != place:
            # What was kept may be a second old: before it counts, it is read again.
            there = self._reader.place(pid)
        return crossed if there is None else there != place

    def of_kernel(self, process: Process) -> bool:
        """Whether the kernel itself made a process; audit has no records of what such ones run."""
        pid = self._parent_pid(process)
        above = self.process(pid)
        return pid == _KTHREADD or (above is not None and above.parent == _KTHREADD)

    def crossed(self, caller: Caller, began: int) -> None:
        """Note that a process has gone into other namespaces, and who was born there.

        It may be gone by now: runtimes go in by one that does no more than that.
        """
        process = self._lineage.get(caller.pid)
        if process and process.session:
            return
        if process:
            process.crossed = True
            process.place = self._reader.place(caller.pid) or process.place
        above = self._lineage.get(caller.parent)
        if above:
            above.entering = True
        for young in self._lineage.born_since(process.start if process else to_tick(began)):
            if young.session:
                continue
            if young.parent == caller.pid:
                young.crossed = True
                known = process.place if process else None
                young.place = self._reader.place(young.pid) or known
            elif above and young.parent == above.pid and not young.crossed:
                self.look(young, above)

    def look(self, process: Process, above: Process) -> None:
        """See whether a process was born elsewhere than its parent is, by clone(CLONE_PARENT)."""
        place, there = self._reader.place(process.pid), self._reader.place(above.pid)
        if place and there and place != there:
            process.crossed, process.place = True, place

    def adopt(self, tasks: Sequence[Task], number: int) -> bool:
        """Put processes into a session that began unseen; return whether one is still there."""
        there = False
        for task in tasks:
            process = self.process(task.pid)
            if process and process.start == task.start and not process.session:
                self._lineage.adopt(process, number)
                process.place, process.crossed = self._reader.place(task.pid), False
                process.task, process.told = task, True
                there = True
        return there

    def catch_up(self) -> set[int]:
        """Take in the processes that nobody told of; return the pids of all that there are."""
        there = self._oldest_first()
        for start, pid, standing in there:
            if self._lineage.get(pid) is None:
                self._lineage.add(pid, standing.parent, start)
        return {pid for _, pid, _ in there}

    def _oldest_first(self) -> list[tuple[int, int, Standing]]:
        standings = ((pid, self._reader.standing(pid)) for pid in self._reader.pids())
        return sorted(
            ((one.start, pid, one) for pid, one in standings if one), key=lambda one: one[:2]
        )

    def _parent_pid(self, process: Process) -> int:
        if self._lineage.get(process.parent) is None:
            standing = self._reader.standing(process.pid)
            if standing:
                process.parent = standing.parent
        return process.parent

    def _place_of(self, process: Process, now: float) -> Place | None:
        if now - process.looked_at > _PLACE_SECONDS:
            process.looked, process.looked_at = self._reader.place(process.pid), now
        return process.looked
