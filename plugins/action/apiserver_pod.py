# Copyright: the Exectrail authors
# SPDX-License-Identifier: Apache-2.0
"""Reads one master, or makes on it the change that the plan of the run has for it."""

from __future__ import annotations

import re
import time
from pathlib import Path
from typing import Any

import msgspec
from ansible.utils.display import Display
from ansible_collections.exectrail.audit.plugins.plugin_utils.node_script import NodeScript
from ansible_collections.exectrail.audit.plugins.plugin_utils.run_action import difference

from exectrail.audit_policy.rollout import run
from exectrail.audit_policy.rollout.model import (
    Change,
    Master,
    Request,
    Rollout,
    RolloutError,
    Unread,
    convert,
)
from exectrail.errors import UsageError
from exectrail.printable import printable

STEPS = {
    "saved": "manifest and policy are saved",
    "resumed": "going on with an interrupted change",
    "policy": "the policy is in place",
    "staged": "the manifest is staged",
    "swapped": "the manifest is in place; waiting for the new API server",
    "restarted": "the API server was told to restart",
    "started": "the new API server has started; waiting until it is ready",
    "ready": "the new API server is ready; waiting to see that it lasts",
    "stable": "the new API server lasts",
    "proven": "it has recorded a request of ours as the policy says",
    "done": "done",
    "failed": "failed; putting everything back",
    "collected": "logs are collected",
    "restored": "the old settings are back; waiting for the API server",
    "back": "as before",
    "abandoned": "somebody else has changed the manifest; left as it is",
    "lost": "the API server did not come back",
}

# What a server says when it gives up, then what it complains of, then anything.
_TELLING = (
    r'"command failed"|^Error: |^panic: |^F\d{4} ',
    r"^E\d{4} .*[Ee]rror",
    "rror|invalid",
    "",
)


class ActionModule(NodeScript):
    """See the documentation of the module of the same name."""

    def perform(self, task_vars: dict[str, Any]) -> dict[str, Any]:
        """Do what `do` says; fail with one message."""
        self._vars = task_vars
        self._folder = Path(str(self._task.args["run_dir"]))
        self._host = str(self._task.args.get("host") or self._vars["inventory_hostname"])
        does = {
            "read": self._read,
            "resume": self._resume,
            "change": self._change,
            "lock": self._lock,
            "unlock": self._unlock,
            "persist": self._persist,
            "leave": self._leave,
        }
        return does[str(self._task.args["do"])](run.request(self._folder))

    def _call(self, asked: Request, do: str, **more: Any) -> dict[str, Any]:
        """Let the node's script do something; UsageError with the reason if it did not."""
        request = {
            "do": do,
            "run": asked.run,
            "policy_file": asked.policy_file,
            "log_path": asked.log_path,
            "state_dir": asked.state_dir,
            **more,
        }
        return dict(self.answer("apiserver_pod", request, self._vars))

    def _read(self, asked: Request) -> dict[str, Any]:
        try:
            said = self._call(asked, "read")
        except UsageError as error:
            said = {"problem": str(error)}
        found = run.save_master(self._folder, self._host, said)
        if isinstance(found, Unread):
            return {"changed": False, "problem": found.problem, "interrupted": False}
        return {"changed": False, "problem": None, "interrupted": _interrupted(found)}

    def _resume(self, asked: Request) -> dict[str, Any]:
        found = run.master(self._folder, self._host)
        if not isinstance(found, Master) or not found.rollout or not _interrupted(found):
            return {"changed": False}
        self._say("an earlier run was interrupted here; its change is finished first")
        if not found.rollout.alive:
            self._call(asked, "resume")
        ended = self._watch(asked, found.rollout.run)
        if ended.outcome == "lost":
            raise RolloutError(self._failure(ended))
        run.save_master(self._folder, self._host, self._call(asked, "read"))
        return {"changed": True, "outcome": ended.outcome}

    def _lock(self, asked: Request) -> dict[str, Any]:
        masters = len(run.load_plan(self._folder).changes)
        found = run.master(self._folder, self._host)
        held = found.lock if isinstance(found, Master) else None
        dead = held is not None and run.holder_is_dead(held.holder)
        self._call(
            asked,
            "lock",
            holder=asked.holder,
            seconds=asked.seconds_per_master * masters,
            replaces=held.run if held and dead else None,
        )
        return {"changed": False}

    def _unlock(self, asked: Request) -> dict[str, Any]:
        self._call(asked, "unlock")
        return {"changed": False}

    def _persist(self, asked: Request) -> dict[str, Any]:
        wanted = run.load_plan(self._folder).kubeadm
        if wanted is None:
            return {"changed": False}
        before, after = wanted
        if not self._task.check_mode:
            self._call(asked, "persist", expected=before, configuration=after)
        shown = difference("kubeadm ClusterConfiguration", before, after)
        return {"changed": True, "diff": [shown]}

    def _leave(self, asked: Request) -> dict[str, Any]:
        if self._task.check_mode:
            return {"changed": True}
        return {"changed": bool(self._call(asked, "leave")["left"])}

    def _change(self, asked: Request) -> dict[str, Any]:
        change = run.change(self._folder, self._host)
        if change is None:
            return {"changed": False}
        stopped = run.stopped_at(self._folder)
        if stopped:
            return {"changed": False, "msg": f"not touched, because {stopped} failed"}
        result = {"changed": True, "reasons": list(change.reasons), "diff": _diffs(asked, change)}
        if self._task.check_mode:
            return result
        try:
            self._call(
                asked,
                "begin",
                **msgspec.to_builtins(change),
                timeouts=msgspec.to_builtins(asked.timeouts),
                remove_logs=asked.remove_logs,
            )
            ended = self._watch(asked, asked.run)
        except UsageError as error:
            run.stop(self._folder, self._host, {"cause.txt": f"{error}\n"})
            raise
        if ended.outcome != "done":
            return {"failed": True, "changed": False, "msg": self._failure(ended)}
        return {**result, "seconds_unavailable": ended.unavailable}

    def _watch(self, asked: Request, change_run: str) -> Rollout:
        """Tell each step as it is reached; return when the change has ended."""
        told = dead = 0
        started = time.monotonic()
        while True:
            try:
                answer = self._call(asked, "watch", known=told)
            except UsageError as error:
                # The change goes on without us; the way to it may come back.
                dead += 1
                if dead > 30:  # noqa: PLR2004  a minute
                    raise RolloutError(
                        f"{self._host} is out of reach in the middle of its change, which goes on "
                        f"or is taken back there; run again to see. {error}"
                    ) from error
                time.sleep(2)
                continue
            dead = 0
            found: Rollout = convert(answer["rollout"], Rollout)
            for name, _ in found.steps[told:]:
                self._say(f"{STEPS.get(name, name)} ({time.monotonic() - started:.0f} s)")
            told = len(found.steps)
            if found.run != change_run:
                raise RolloutError("another run has taken over this master")
            if found.interrupted:
                raise RolloutError(
                    f"the change of {self._host} was interrupted; run again to finish it"
                )
            if found.outcome != "running":
                return found

    def _failure(self, ended: Rollout) -> str:
        folder = run.stop(self._folder, self._host, ended.evidence)
        cause = printable(ended.cause, limit=1000)
        state = (
            "The old manifest and policy are back and the API server is ready."
            if ended.outcome == "back"
            else "The old manifest is back, but the API server is NOT ready: "
            f"{printable(ended.problem, limit=500)}. What was there is in {ended.folder} on it."
        )
        last = _last_words(ended.evidence.get("kube-apiserver.log", ""))
        words = f" Its last words: {last.rstrip('.')}." if last else ""
        if not last and (obstacle := _kubelets_words(ended.evidence.get("kubelet.log", ""))):
            words = f" The kubelet says: {obstacle.rstrip('.')}."
        return (
            f"{self._host}: {cause}.{words} {state} {self._others()} "
            f"Logs and the difference: {folder}"
        )

    def _others(self) -> str:
        """Tell what has become of the masters before this one and after it."""
        try:
            order = list(run.load_plan(self._folder).changes)
        except RolloutError:
            # What an earlier run has left is finished before anything is planned.
            order = []
        changed = ", ".join(order[: order.index(self._host)] if self._host in order else [])
        before = f"The new settings are in force on {changed}. " if changed else ""
        return f"{before}Other masters were not touched."

    def _say(self, text: str) -> None:
        Display().display(f"{self._host}: {text}")


def _interrupted(found: Master) -> bool:
    return (
        found.rollout is not None
        and found.rollout.outcome == "running"
        and (
            found.lock is None
            or found.lock.run != found.rollout.run
            or run.holder_is_dead(found.lock.holder)
        )
    )


def _diffs(asked: Request, change: Change) -> list[dict[str, str]]:
    found = []
    if change.manifest != change.manifest_before:
        found.append(difference("kube-apiserver.yaml", change.manifest_before, change.manifest))
    if (change.policy or "") != (change.policy_before or ""):
        found.append(difference(asked.policy_file, change.policy_before or "", change.policy or ""))
    return found


def _last_words(log: str) -> str:
    if log.startswith("# FORMER"):
        return ""
    lines = [line for line in log.splitlines() if line.strip() and not line.startswith("#")]
    # Not the time and stream that the container runtime writes before each line.
    lines = [re.sub(r"^\S+ std(out|err) [FP] ", "", line) for line in lines]
    for telling in _TELLING:
        if found := [line for line in lines if re.search(telling, line)]:
            return printable(found[-1], limit=400)
    return ""


def _kubelets_words(log: str) -> str:
    """Tell what keeps the kubelet from starting the container, a mount for example."""
    said = [line.partition(" Error: ")[2] for line in log.splitlines()]
    return next((printable(each, limit=400) for each in reversed(said) if each), "")
