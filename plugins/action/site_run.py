# Copyright: the Exectrail authors
# SPDX-License-Identifier: Apache-2.0
"""Checks, notes and sums up a run on the controller; never connects to a node."""

from __future__ import annotations

import datetime as dt
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from ansible.module_utils.common.arg_spec import ArgumentSpecValidator
from ansible.module_utils.parsing.convert_bool import boolean
from ansible.utils.display import Display
from ansible_collections.exectrail.audit.plugins.plugin_utils.run_action import (
    MISSING,
    RunAction,
    plain,
)

if not MISSING:
    from exectrail.audit_policy.rollout import run as policy_run
    from exectrail.errors import UsageError
    from exectrail.hostnames import fold
    from exectrail.printable import printable
    from exectrail.site import held, journal, outcome, request, summary, waves
    from exectrail.site.journal import Begun, Note

_ROLES = Path(__file__).resolve().parents[2] / "roles"
_BEFORE = ("groups", "upgradable", "begin")
"""Stages that need no run."""
_CHECKED = ("preflight", "install", "exec_agent", "audit_policy", "verify")


class ActionModule(RunAction):
    """See the documentation of the module of the same name."""

    def perform(self, task_vars: dict[str, Any]) -> dict[str, Any]:
        """Return ``changed: false``; fail with one message when the run can't or may not go on."""
        self._vars = task_vars
        self._args = plain(self._task.args)
        self._folder = Path(str(self._args.get("directory", "")))
        does = {
            "groups": self._groups,
            "begin": self._begin,
            "gate": self._gate,
            "plan": self._plan,
            "wave": self._wave,
            "note": self._note,
            "policy": self._policy,
            "upgradable": self._upgradable,
            "held": self._held,
            "finish": self._finish,
        }
        stage = self._args["stage"]
        if stage not in _BEFORE:
            if "__install_begun" not in task_vars and not self._task.run_once:
                # Not by every node: the next step that is the run's says it.
                return {"changed": False}
            self.must_have_begun(task_vars, "__install_begun")
        return {"changed": False, **does[stage]()}

    # ---- before anything is touched ----

    def _groups(self) -> dict[str, Any]:
        self._nodes()
        return {}

    def _nodes(self) -> request.Nodes:
        return request.nodes(
            plain(dict(self._vars["groups"])), self._args["masters"], self._args["workers"]
        )

    def _begin(self) -> dict[str, Any]:
        found = self._nodes()
        selected = [str(host) for host in self._vars["ansible_play_hosts_all"]]
        specs = {role: _options(role) for role in _CHECKED}
        prefixes = tuple(f"{role}_" for role in specs)
        given = {}
        for host in selected:
            variables = self._vars["hostvars"][host]
            given[host] = {
                str(name): plain(variables[name])
                for name in variables
                if str(name).startswith(prefixes)
            }
        request.check(given, specs, _judge)
        waves.plan([], self._args["waves"])
        journal.begin(
            self._folder,
            Begun(
                run_id=self._args.get("run_id") or uuid.uuid4().hex,
                mode=self._args["mode"],
                started=dt.datetime.now(dt.UTC),
                check=bool(self._task.check_mode),
                nodes=tuple(selected),
                masters=tuple(host for host in found.masters if host in selected),
                left_out=found.left_out,
                waves=tuple(self._args["waves"]),
                max_fail_percentage=int(self._args["max_fail_percentage"]),
                reports={name: str(path) for name, path in self._args["reports"].items()},
            ),
        )
        return {}

    def _gate(self) -> dict[str, Any]:
        blocked: dict[str, list[str]] = self._args["blocked"]
        if not blocked:
            Display().display("No node is blocked: going on. The summary says again what is left.")
            return {}
        notes = [
            Note(host=host, step="preflight", outcome="failed", detail=", ".join(checks))
            for host, checks in blocked.items()
        ]
        return self._stop(
            notes,
            f"Nothing was touched, because {fold(blocked, limit=8)} can't take it. Do what the "
            "preflight report says, waive what you accept (preflight_waivers), or leave nodes out "
            f"(--limit 'all:!{min(blocked)}').",
        )

    def _stop(self, notes: list[Note], problem: str) -> dict[str, Any]:
        """End the run here, with its summary."""
        journal.note(self._folder, notes)
        code = self._sum_up().exit_code
        return {"failed": True, "msg": problem, "exit_code": code}

    # ---- agents ----

    def _plan(self) -> dict[str, Any]:
        known = journal.load(self._folder)
        begun, plans, lost = known.begun, {}, []
        for host in begun.nodes:
            if ("agent", host) in known.notes:
                continue  # Ansible comes back here for a node that it had lost.
            found = self._vars["hostvars"][host].get("__exec_agent_plan")
            if found and not found.get("failed"):
                plans[host] = plain(dict(found))
            else:
                said = "the node could not be reached"
                lost.append(Note(host=host, step="agent", outcome="lost", detail=said))
        judged = outcome.agents(begun.mode, plans)
        notes = [*judged.notes, *lost]
        if judged.refused:
            listed = "\n".join(f"  {line}" for line in judged.refused)
            return self._stop(notes, f"Nothing was touched, because\n{listed}")
        journal.note(self._folder, notes)
        made = waves.plan(judged.changing, begun.waves)
        for number, hosts in enumerate(made, 1):
            Display().display(f"Wave {number} of {len(made)}: {fold(hosts, limit=8)}")
        return {"waves": [{"number": number, "hosts": each} for number, each in enumerate(made)]}

    def _wave(self) -> dict[str, Any]:
        number, hosts = int(self._args["wave"]["number"]), self._args["wave"]["hosts"]
        planned = [each["hosts"] for each in self._vars["__install_plan"]["waves"]]
        found = journal.load(self._folder)
        # Who was in an earlier wave and has said nothing has gone away.
        before = {host for each in planned[:number] for host in each}
        failed = [note.host for note in found.of("agent", "failed", "lost")]
        failed += [note.host for note in found.of("agent", "planned") if note.host in before]
        total = len(found.of("agent", "planned", "done", "left", "failed", "lost"))
        percentage = found.begun.max_fail_percentage
        if waves.may_go_on(first=planned[0], failed=failed, total=total, percentage=percentage):
            return {"go": True}
        names = fold(failed, limit=8)
        why = f"not touched, because of {names} (install_max_fail_percentage: {percentage})"
        left = [note.host for note in found.of("agent", "planned") if note.host in hosts]
        journal.note(
            self._folder,
            [Note(host=host, step="agent", outcome="left", detail=why) for host in left],
        )
        Display().display(f"Wave {number + 1} is left alone: {why}")
        return {"go": False}

    def _note(self) -> dict[str, Any]:
        host, step = str(self._vars["inventory_hostname"]), self._args["step"]
        failed = self._args.get("failed")
        if failed:
            ended: journal.Outcome = "lost" if failed.get("unheard") else "failed"
            detail = str(failed.get("msg") or "failed")
        else:
            planned = journal.load(self._folder).notes.get((step, host))
            ended, detail = self._args["outcome"], planned.detail if planned else ""
        journal.note(self._folder, [Note(host=host, step=step, outcome=ended, detail=detail)])
        return {}

    # ---- masters ----

    def _policy(self) -> dict[str, Any]:
        directory = Path(str(self._args["policy_directory"]))
        host = str(self._vars["inventory_hostname"])
        try:
            plan = policy_run.load_plan(directory)
        except UsageError:
            plan = None
        if "problem" in self._args:
            stopped = policy_run.stopped_at(directory)
            notes = [outcome.broken_policy(host, plan, stopped, str(self._args["problem"]))]
        else:
            masters = journal.load(self._folder).begun.masters
            notes = [
                outcome.policy(each, plan, resumed=self._resumed(each)) for each in masters if plan
            ]
        journal.note(self._folder, notes)
        return {}

    def _resumed(self, host: str) -> bool:
        """Say whether this run has first ended there what another had begun."""
        read = self._vars["hostvars"][host].get("__audit_policy_read") or {}
        return bool(read.get("interrupted")) and not self._task.check_mode

    def _upgradable(self) -> dict[str, Any]:
        outcome.must_be_upgradable(Path(str(self._args["policy_directory"])))
        return {}

    # ---- the end ----

    def _held(self) -> dict[str, Any]:
        """List what a purge deletes, and stop unless that is confirmed."""
        found = {}
        for host in self._vars["ansible_play_hosts_all"]:
            variables = self._vars["hostvars"][host]
            files: list[Any] = []
            for name in ("__exec_agent_held", "__audit_policy_held"):
                files += (variables.get(name) or {}).get("files", [])
            found[str(host)] = [(str(one["path"]), int(one["size"])) for one in files]
        Display().display(held.render(found))
        if self._task.check_mode or boolean(self._args.get("confirm") or "no", strict=False):
            return {}
        raise UsageError(
            "Nothing was deleted or changed. If all of that is to go: purge=true, confirm=yes."
        )

    def _finish(self) -> dict[str, Any]:
        made = self._sum_up()
        result = {"exit_code": made.exit_code}
        if made.exit_code > 1:
            failed = [node.host for node in made.nodes if any(each.gates for each in node.left)]
            said = fold(failed, limit=8) or "the run"
            return {**result, "failed": True, "msg": f"Not all is well: {said}; see the summary."}
        return result

    def _sum_up(self) -> summary.Summary:
        made = outcome.sum_up(self._folder)
        Display().display(summary.render(made).rstrip("\n"))
        Display().display(f"Summary: {summary.save(made, self._folder)}", stderr=True)
        return made


def _options(role: str) -> dict[str, Any]:
    path = _ROLES / role / "meta" / "argument_specs.yml"
    if not path.exists():
        return {}
    specs = yaml.safe_load(path.read_text(encoding="utf-8"))
    options: dict[str, Any] = specs["argument_specs"]["main"]["options"]
    return options


def _judge(options: request.Options, given: Mapping[str, Any]) -> Sequence[str]:
    """Let Ansible say what is wrong with the values, as it does where a role begins."""
    wanted = {name: options[name] for name in given}
    judged = ArgumentSpecValidator(wanted).validate(dict(given))
    return [printable(str(said), limit=500) for said in judged.error_messages]
