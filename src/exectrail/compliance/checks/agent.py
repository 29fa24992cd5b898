"""Whether the agent of a node runs, sees and records: each link of the chain by its effect."""

from __future__ import annotations

from collections.abc import Mapping

from exectrail.compliance.checks.registry import Outcome, check, listing, plain_check
from exectrail.compliance.checks.sensor import ExecSensor, choose
from exectrail.compliance.items.access import Items, Unreadable
from exectrail.compliance.items.installed import (
    AGENT_CONFIG,
    AGENT_LOG,
    AGENT_PROCESS,
    AGENT_PROGRAM,
    AGENT_STATUS,
    AGENT_UNIT,
    ENTERED,
    LOSSES,
    NOW,
    SELF_TEST,
    AgentStatus,
    Owned,
)

_STOPPED = {"T": "stopped by a signal", "t": "stopped by a debugger", "Z": "dead", "X": "dead"}
_JUST_STARTED = 10.0
"""Seconds in which a start that nobody asked for means that the agent keeps ending."""
PAST = "in the last ten minutes "
"""How the agent begins a reason that is over: agent.losses or node.clock-offset judges it."""
_LOSING = 60.0
"""Seconds after which a loss is one of the past."""
_OVER = ("rotated-unshipped", "file-removed", "torn-line", "agent-killed")
"""Losses that have ended by the time that the agent tells of them."""
_MODES = {"folder": "0700", "file": "0600"}
_DIGITS = 12
"""Digits of its sha256 that a program's folder ends with."""


@plain_check(
    "agent.installed",
    "the unit exectrail-agent.service",
)
def installed(items: Items) -> Outcome:
    """Ask systemd for the unit."""
    unit = items[AGENT_UNIT]
    if unit is None:
        return Outcome.failed("no systemd", "systemd does not run this node.")
    if unit.load != "loaded":
        return Outcome.failed(unit.load, f"The agent's unit is {unit.load}.")
    return Outcome.passed(unit.load, "The agent's unit is there.")


@plain_check(
    "agent.active",
    "an agent that runs, and will after the next boot",
    after=("agent.installed",),
)
def active(items: Items) -> Outcome:
    """Pass if the unit is active and its main process is there and not stopped.

    A process that systemd itself has had to start again within the last ten seconds: fail. One that
    would not be started at the next boot: warn.
    """
    unit = items[AGENT_UNIT]
    state = f"{unit.active} ({unit.sub})" if unit else ""
    if unit is None or (unit.active, unit.sub) != ("active", "running"):
        return Outcome.failed(state, f"The agent's unit is {state}.")
    process = items[AGENT_PROCESS]
    if process is None:
        return Outcome.failed("no process", "The agent's main process is gone.")
    if process.state in _STOPPED:
        told = _STOPPED[process.state]
        return Outcome.failed(told, f"The agent's process {process.pid} is {told}.")
    if unit.restarts and process.age < _JUST_STARTED:
        seen = f"{unit.restarts} restarts, the last one {process.age:.0f} s ago"
        return Outcome.failed(seen, "The agent has ended, and systemd has just started it again.")
    seen = f"{state}, process {process.pid}"
    if unit.enabled != "enabled":
        return Outcome.warned(f"{seen}, {unit.enabled}", "It won't start at the next boot.")
    return Outcome.passed(seen, "The agent runs.")


@plain_check(
    "agent.sees",
    "a self-test of the agent that passes when it is asked for",
    after=("agent.active",),
)
def sees(items: Items) -> Outcome:
    """Pass if the agent's own program came back as an event after it was asked to start one."""
    test = items[SELF_TEST]
    if test is None:
        raise Unreadable(SELF_TEST.name, "the agent was not asked: it did not run")
    if test.problem:
        return Outcome.failed(
            test.problem, f"The agent can't be asked for its self-test: {test.problem}."
        )
    if test.seen is None:
        return Outcome.failed(
            "nothing seen",
            "The agent was asked for its self-test, and did not see its own program: it is blind.",
        )
    seen = f"seen after {max(0.0, test.seen - test.asked):.1f} s"
    return Outcome.passed(seen, "The agent has seen a program that it was asked to start.")


@plain_check(
    "agent.log",
    "that self-test in the log, which root alone can read, in its cap",
    after=("agent.sees",),
)
def log(items: Items) -> Outcome:
    """Look for the self-test's record, the owners and modes of folder and files, and their size.

    The cap is what the agent's configuration says: `max_size_mb` times `max_files`.
    """
    test, found, config = items[SELF_TEST], items[AGENT_LOG], items[AGENT_CONFIG]
    if not (test and test.recorded):
        why = f" The agent says: {listing(said)}." if (said := _reasons(items)) else ""
        return Outcome.failed(
            "no record", f"The self-test is not in {config.folder}/advaudit.log.{why}"
        )
    if found is None:
        return Outcome.failed("no folder", f"There is no folder {config.folder}.")
    wrong = [f"{found.path} has {told}" for told in open_to(found.folder, "folder")]
    wrong += [f"{file.name} has {told}" for file in found.files for told in open_to(file, "file")]
    if wrong:
        return Outcome.failed(
            listing(wrong), "Others than root can get at the agent's log, or own it."
        )
    cap = config.max_size_mb * config.max_files
    seen = f"{found.held / 1e6:.1f} of {cap} MB in {found.path}"
    if found.held > cap * 1_000_000:
        return Outcome.failed(seen, "The agent's log is larger than it may be.")
    return Outcome.passed(seen, "The self-test is in the log, which is for root alone.")


def open_to(found: Owned, kind: str) -> list[str]:
    """Say what about a log's `folder` or `file` is not as for root alone."""
    told = [] if found.owner == (0, 0) else [f"owner {found.owner[0]}:{found.owner[1]}"]
    return told + ([] if found.mode == _MODES[kind] else [f"mode {found.mode}"])


@plain_check(
    "agent.healthy",
    "an agent that says of itself that it is healthy",
    after=("agent.log",),
)
def healthy(items: Items) -> Outcome:
    """Take the agent at its word; what is over, agent.losses and node.clock-offset judge."""
    if reasons := _reasons(items):
        return Outcome.failed(
            "degraded", f"The agent says that it is degraded: {listing(reasons)}."
        )
    return Outcome.passed("healthy", "The agent says that it is healthy.")


@plain_check(
    "agent.losses",
    "no Loss record of the last day",
    after=("agent.log",),
)
def losses(items: Items) -> Outcome:
    """Count the Loss records of the last day by cause: warn, and fail while it is losing.

    It is losing if the newest one is younger than a minute, unless nothing but what is over was
    lost: when the agent was killed, or a file of the log was rotated away or removed.
    """
    found = items[LOSSES]
    if not found.causes:
        return Outcome.passed("none", "Nothing was lost in the last day.")
    seen = ", ".join(f"{cause} {count}" for cause, count in sorted(found.causes.items()))
    if found.newest is None:
        raise Unreadable(LOSSES.name, "losses without a time")
    age = items[NOW] - found.newest
    if age < _LOSING and not set(found.causes) <= set(_OVER):
        return Outcome.failed(seen, f"The agent is losing what happens: {seen}.")
    return Outcome.warned(
        seen, f"The log has lost something in the last day ({seen}); not any more."
    )


@plain_check(
    "agent.program",
    "the program that was installed, and an agent that runs it",
    after=("agent.installed",),
)
def program(items: Items) -> Outcome:
    """Compare the program's sha256 with the name of its folder, and its age with the process's."""
    found = items[AGENT_PROGRAM]
    if found is None:
        return Outcome.failed("none", "There is no program at /usr/lib/exectrail-agent/current.")
    meant = found.folder.rpartition("-")[2]
    if len(meant) != _DIGITS or not found.sha256.startswith(meant):
        return Outcome.failed(
            f"sha256 {found.sha256[:_DIGITS]} in {found.folder}",
            f"{found.path} is not the program that was installed.",
        )
    process, status = items[AGENT_PROCESS], items[AGENT_STATUS]
    runs = process is not None and status is not None and process.pid == status.pid
    if runs and status is not None and status.started < found.written:
        return Outcome.failed(
            f"started {found.written - status.started:.0f} s before {found.folder} was installed",
            "The agent that runs is an older one than is installed.",
        )
    return Outcome.passed(found.folder, "The program is the one that was installed.")


@check("agent.sensor", ExecSensor, after=("agent.active",))
def sensor(items: Items, parameters: ExecSensor) -> Outcome:
    """Compare the sensor in use with the one that preflight would choose.

    The bpf sensor is as good as it gets. The audit sensor where bpf could run: warn.
    """
    used = _status(items).sensor
    if used == "bpf":
        return Outcome.passed(used, "The agent uses the bpf sensor.")
    if used != "audit":
        return Outcome.failed(used, f"The agent uses a sensor that is not known: {used!r}.")
    better = choose(items, parameters)
    if better.name == "bpf":
        return Outcome.warned(
            used, "The agent uses the audit sensor, though the bpf sensor could run."
        )
    return Outcome.passed(used, "The agent uses the audit sensor, as this node needs it.")


@plain_check(
    "cluster.canary",
    "a record of the exec into the canary pod, as an exec",
    after=("node.kubelet", "agent.log"),
)
def canary(items: Items) -> Outcome:
    """Compare the agent's record with the exec into the canary pod of this node, if there was one.

    Namespace, pod, container and command must be its own, and the entry of type ``exec``.
    """
    wanted = items.variables.get("canary")
    if not wanted:
        return Outcome.skipped("not asked for", "There was no canary pod on this node.")
    if not isinstance(wanted, Mapping):
        raise Unreadable("variable canary", f"not a canary pod but {wanted!r}")
    if wanted.get("problem"):
        return Outcome.failed(
            "not entered", f"The canary pod could not be entered: {wanted['problem']}."
        )
    found = items[ENTERED]
    if found is None:
        return Outcome.failed(
            "no record", f"The agent has not recorded the exec into {wanted.get('pod')}."
        )
    meant = {
        name: str(wanted[name]) for name in ("namespace", "pod", "container") if wanted.get(name)
    }
    meant["entry"] = "exec"
    wrong = [
        f"{name} {getattr(found, name) or 'none'} instead of {value}"
        for name, value in meant.items()
        if getattr(found, name) != value
    ]
    if str(wanted.get("mark")) not in found.command:
        wrong.append("another command")
    if wrong:
        return Outcome.failed(
            listing(wrong), "The agent has recorded the exec wrongly or not at all."
        )
    seen = f"{found.entry} into {found.namespace}/{found.pod}, {found.container}"
    return Outcome.passed(seen, "The agent has recorded the exec into the canary pod.")


def _status(items: Items) -> AgentStatus:
    status = items[AGENT_STATUS]
    if status is None:
        raise Unreadable(AGENT_STATUS.name, "the agent has not written its status")
    return status


def _reasons(items: Items) -> list[str]:
    return [each for each in _status(items).reasons if not each.startswith(PAST)]
