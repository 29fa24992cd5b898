"""The text of a program's record, of which most is as it was for another one before."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import NamedTuple

from exectrail_agent.events import AlikeEvent, ExecEvent
from exectrail_agent.log.escape import to_text
from exectrail_agent.log.records import COMMAND, RecordMaker, members
from exectrail_agent.sessions.program import base, fields, is_script, is_unnamed
from exectrail_agent.sessions.session import Process, Session

_KEPT = 4 << 20
_EACH = 1024
"""Bytes that a template takes beside its text, or a family."""
_HOLE = "\0"
"""No JSON holds it."""
_HOLES = {
    "process.pid": f'"process.pid":{_HOLE}',
    "process.args": f'"process.args":[{_HOLE}]',
    "process.cmdline": f'"process.cmdline":{_HOLE}',
    "process.argsBytes": f'"process.argsBytes":{_HOLE}',
}


def words(
    session: Session, event: ExecEvent, parent: Process | None, above_id: str
) -> dict[str, object]:
    """Return the fields of a program's record, below that of `above_id`."""
    found = fields(event)
    found.update(session.fields)
    if above_id:
        found["parentEventId"] = above_id
    above_name = parent.name if parent else to_text(base(event.parent.executable))[0]
    if above_name:
        found["process.parentname"] = above_name
    return found


class Template(NamedTuple):
    """Records of alike programs below one parent.

    `text` is what stands around their time, boot time, id, pid, arguments, command line and its
    size. `common` is what all records of the session have, `name` the program's.
    """

    text: tuple[str, ...]
    name: str
    common: Mapping[str, object]


class Family:
    """Programs alike to `model`; `plain` if it does not matter how they were called."""

    def __init__(self, model: ExecEvent) -> None:
        self.model = model
        self.plain = model.filename == model.task.executable and not is_unnamed(model.filename)
        self.templates: dict[Hashable, Template] = {}

    def way(self, argv: bytes) -> Hashable:
        """Return what their names depend on if they are not plain."""
        args = argv.split(b"\0")
        return args[0], is_script(self.model, args)


class Wording:
    """Keeps the templates of programs that differ in nothing but process and arguments.

    Those of a loop do: to fill one takes a fraction of the time. Where they become too many, all
    are forgotten: a loop's are soon made again.
    """

    def __init__(self, maker: RecordMaker) -> None:
        self._maker = maker
        self._bytes = 0
        self.families: dict[int, Family] = {}
        """By the identity of the model, which nothing else has while the family holds it."""

    def family(self, model: ExecEvent) -> Family:
        """Begin a family."""
        self._keep(len(model.filename) + len(model.cwd))
        made = self.families[id(model)] = Family(model)
        return made

    def learn(
        self, family: Family, key: Hashable, session: Session, event: AlikeEvent, parent: Process
    ) -> Template | None:
        """Make a family's template for programs below `parent`; None if they take more care."""
        found = words(session, event.whole(), parent, parent.event_id)
        if "escaped" in found:
            return None
        found.pop("process.hostPid", None)
        told = ",".join(_HOLES.get(name) or members({name: one}) for name, one in found.items())
        text = self._maker.body(
            COMMAND, told, trace=session.trace, time=_HOLE, boot_time=_HOLE, event_id=_HOLE
        )
        made = Template(tuple(text.split(_HOLE)), str(found["process.name"]), session.fields)
        self._keep(len(text))
        family.templates[key] = made
        return made

    def _keep(self, size: int) -> None:
        self._bytes += size + _EACH
        if self._bytes > _KEPT:
            self.families.clear()
            self._bytes = size + _EACH
