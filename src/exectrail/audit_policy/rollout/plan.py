"""What a roll-out is to change, from what the masters say of themselves. Pure but for the policy.

Nothing is planned unless every master can take it: a roll-out that has begun must be able to end.
"""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from exectrail import versions
from exectrail.audit_policy import manifest, profiles
from exectrail.audit_policy.lint import LintedPolicy, load
from exectrail.audit_policy.manifest.cluster_id import choose_cluster_id
from exectrail.audit_policy.manifest.document import ManifestError
from exectrail.audit_policy.manifest.settings import Settings
from exectrail.audit_policy.rollout import kubeadm, probe
from exectrail.audit_policy.rollout.model import (
    Change,
    Master,
    Plan,
    Request,
    RolloutError,
    Server,
    Unread,
    own_policy,
)
from exectrail.printable import printable

_MEBIBYTE = 1024 * 1024
_RECENT = 60
_POLICY_MODE = "0600"
_LOG_MODE = "0700"
HolderIsDead = Callable[[str], bool]


@dataclass(frozen=True, slots=True)
class _Policy:
    """The policy that is wanted, as text and as rules."""

    text: str
    sha256: str
    linted: LintedPolicy


def check(request: Request) -> None:
    """Raise RolloutError, or UsageError, for a request that no cluster could meet."""
    if not request.masters:
        raise RolloutError(
            "The inventory names no masters; put them into a group masters, or name the group "
            "with audit_policy_masters_group."
        )
    for name in ("start", "ready", "stable", "probe"):
        if getattr(request.timeouts, name) < 1:
            raise RolloutError(f"The time limit {name} must be at least one second.")
    try:
        request.settings()
    except ManifestError as error:
        raise RolloutError(f"audit_policy_{error.problem}") from error
    if request.state == "present":
        if path := own_policy(request):
            if request.rules_first:
                raise RolloutError(
                    "audit_policy_rules_first goes before the rules of a profile; with "
                    "audit_policy_file, write them into that file."
                )
            load(path)
        else:
            profiles.render(request.profile, "1.30", request.rules_first)


def plan(
    request: Request, masters: Mapping[str, Master | Unread], holder_is_dead: HolderIsDead
) -> Plan:
    """Decide what to do; raise RolloutError, naming every reason, if it can't be done safely."""
    known = {host: each for host, each in masters.items() if isinstance(each, Master)}
    reasons = [
        f"{host}: {each.problem}" for host, each in masters.items() if isinstance(each, Unread)
    ]
    elsewhere = {host: told for host, each in known.items() if (told := _no_static_pod(each))}
    if elsewhere and len(elsewhere) == len(masters):
        listed = "; ".join(f"{host}: {told}" for host, told in elsewhere.items())
        return Plan(not_applicable=f"{listed}. Nothing was changed.")
    reasons += [f"{host}: {told}" for host, told in elsewhere.items()]
    for host, each in known.items():
        if host not in elsewhere:
            reasons += [f"{host}: {told}" for told in _obstacles(request, each, holder_is_dead)]
    if not reasons:
        reasons += _version_spread({host: _server(each).version for host, each in known.items()})
    if reasons:
        raise _refusal(reasons)
    return _changes(request, known)


def _refusal(reasons: list[str]) -> RolloutError:
    listed = "\n  ".join(printable(reason, limit=1500) for reason in reasons)
    return RolloutError(f"No master was touched, because\n  {listed}")


def _no_static_pod(master: Master) -> str:
    if master.foreign:
        return f"its API server is run by {master.foreign}, not as a static pod by the kubelet"
    if master.manifest is None and master.process is None:
        return (
            f"no API server runs here (no kube-apiserver.yaml in {master.kubelet.static_pod_path}, "
            "no such process); of a managed control plane the provider sets the audit policy"
        )
    if master.manifest is None:
        return f"its API server runs, but not from {master.kubelet.static_pod_path}"
    return ""


def _server(master: Master) -> Server:
    assert master.server is not None  # noqa: S101  obstacles have been looked for
    return master.server


def _obstacles(request: Request, master: Master, holder_is_dead: HolderIsDead) -> list[str]:
    found = []
    if master.lock and master.lock.run != request.run and not holder_is_dead(master.lock.holder):
        found.append(
            f"another run is active: {master.lock.holder}. If it is dead, its lock ends in "
            f"{master.lock.seconds} s"
        )
    elif master.rollout and master.rollout.outcome == "running":
        found.append(
            "a change of an earlier run is still being made; run again in a moment"
            if master.rollout.alive
            else "a change was interrupted; it is finished first, but not in check mode"
        )
    if not master.kubelet.running:
        found.append("the kubelet does not run: systemctl start kubelet")
    if master.server is None:
        found.append("the API server does not run: crictl ps -a --name kube-apiserver")
    elif master.server.problem:
        found.append(f"the API server is not ready: {master.server.problem}")
    elif (
        master.server.restarts
        and master.server.age < min(_RECENT, request.timeouts.stable * 3)
        and not _seen_to_last(master)
    ):
        found.append(
            f"the API server has restarted {master.server.restarts} times, the last time "
            f"{master.server.age:.0f} s ago: wait until it lasts"
        )
    found += [
        f"{master.kubelet.static_pod_path}/{name} is another manifest of an API server; move it "
        "out of that folder, whose files are all pods to the kubelet"
        for name in master.strays
    ]
    if master.state_dir:
        found.append(f"{master.state_dir}: set audit_policy_state_dir to another folder")
    if request.state == "present" and master.policy.kind not in {"file", "absent"}:
        found.append(f"{request.policy_file} is {master.policy.kind}; remove it")
    if request.state == "present" and master.log.problem:
        found.append(f"the log can't be written: {master.log.problem}")
    return found


def _seen_to_last(master: Master) -> bool:
    """Say whether our own last change has already waited for this very process."""
    known = master.rollout.lasting if master.rollout else None
    process = master.process
    return bool(known and process and known[:2] == (process.pid, process.start))


def _version_spread(found: Mapping[str, str]) -> list[str]:
    parsed = {host: versions.parse(text) for host, text in found.items()}
    unclear = [f"{host}: unknown version {found[host]!r}" for host, v in parsed.items() if not v]
    minors = sorted({version[:2] for version in parsed.values() if version})
    if unclear or (minors[-1][0] == minors[0][0] and minors[-1][1] - minors[0][1] <= 1):
        return unclear
    listed = ", ".join(f"{host} {text}" for host, text in found.items())
    return [f"the API servers are more than one minor version apart ({listed}): upgrade first"]


def _changes(request: Request, masters: Mapping[str, Master]) -> Plan:
    notes: list[str] = []
    present = request.state == "present"
    policy = _policy(request, masters) if present else None
    settings = _settings(request, masters, policy, notes)
    changes, reasons, unclear = {}, [], []
    for host, master in masters.items():
        try:
            change, remarks = _change(request, master, settings, policy, masters)
        except ManifestError as error:
            where = f"line {error.line}: " if error.line else ""
            told = f"{host}: kube-apiserver.yaml: {where}{error.problem}"
            if host in request.selected:
                reasons.append(told)
            else:
                unclear.append(host)
                notes.append(told)
            continue
        notes += [f"{host}: {remark}" for remark in remarks]
        if change is None:
            continue
        changes[host] = change
        room = master.log.free + master.log.held
        if present and host in request.selected and room < request.log_cap:
            reasons.append(
                f"{host}: the log may take {request.log_cap // _MEBIBYTE} MiB, and "
                f"{request.log_path} has room for {room // _MEBIBYTE} MiB; free some, or lower "
                "audit_policy_log_maxbackup or audit_policy_log_maxsize"
            )
    if reasons:
        raise _refusal(reasons)
    mine = {host: change for host, change in changes.items() if host in request.selected}
    differing = (*(host for host in changes if host not in mine), *unclear)
    return Plan(
        changes=mine,
        notes=tuple(dict.fromkeys(notes)),
        differing=differing,
        kubeadm=None if differing else _kubeadm(masters, changes, notes),
        log_path=request.log_path,
        leaving=tuple(
            host
            for host, master in masters.items()
            if not present and host in request.selected and (host in mine or master.rollout)
        ),
    )


def _policy(request: Request, masters: Mapping[str, Master]) -> _Policy:
    """Render for the oldest server: v1beta1 is read until 1.23, v1 since long before 1.24."""
    oldest = min(
        (_server(each).version for each in masters.values()),
        key=lambda text: versions.parse(text) or (0, 0, 0),
    )
    version = profiles.kubernetes_version(oldest)
    if path := own_policy(request):
        linted = load(path, version)
        text = path.read_text(encoding="utf-8")
    else:
        text = profiles.render(request.profile, oldest, request.rules_first)
        with tempfile.NamedTemporaryFile("w", suffix=".yaml", encoding="utf-8") as rendered:
            rendered.write(text)
            rendered.flush()
            linted = LintedPolicy(Path(rendered.name), version)
    return _Policy(text, hashlib.sha256(text.encode()).hexdigest(), linted)


def _settings(
    request: Request, masters: Mapping[str, Master], policy: _Policy | None, notes: list[str]
) -> Settings:
    uid = _server(next(iter(masters.values()))).namespace_uid
    try:
        chosen = choose_cluster_id(request.cluster_id or None, uid)
    except ManifestError as error:
        raise RolloutError(f"audit_policy_{error.problem}") from error
    if not request.cluster_id and request.log_collection and policy:
        notes.append(f"the cluster id is {chosen.value}, {chosen.origin}")
    return request.settings(
        policy_sha256=policy.sha256 if policy else None, cluster_id=chosen.value
    )


def _change(
    request: Request,
    master: Master,
    settings: Settings,
    policy: _Policy | None,
    masters: Mapping[str, Master],
) -> tuple[Change | None, list[str]]:
    assert master.manifest is not None  # noqa: S101  obstacles have been looked for
    path = master.kubelet.static_pod_path
    text = master.manifest.text
    known = manifest.is_managed(text)
    # kubeadm has rendered it anew from our settings, on this master or on one that has joined; of
    # that one, somebody else's settings may be like ours in part, but not in all.
    adopt = not known and (
        master.applied is not None
        or any(
            each.manifest
            and manifest.is_managed(each.manifest.text)
            and kubeadm.flags(each.manifest.text) == kubeadm.flags(text)
            for each in masters.values()
        )
    )
    settings = replace(settings, static_pod_directory=path, adopt=adopt)
    if policy is None:
        return _removal(request, master, text, settings, adopt=adopt), []
    edit = manifest.edit(text, settings)
    remarks = [*edit.notes, *_drift(master, text, policy)]
    reasons = []
    if edit.text != text:
        reasons.append("the manifest" if known else "the manifest has no audit settings of ours")
    if master.policy.kind == "absent":
        reasons.append("there is no policy file")
    elif master.policy.text != policy.text:
        reasons.append("the policy file is another")
    elif _written_since(master):
        reasons.append("the policy file was written after the API server has read it")
    restart = bool(reasons)
    if master.policy.kind == "file" and (
        master.policy.mode != _POLICY_MODE or master.policy.owner != (0, 0)
    ):
        reasons.append(f"the policy file has mode {master.policy.mode}")
    if master.log.mode not in {None, _LOG_MODE}:
        reasons.append(f"the log folder has mode {master.log.mode}")
    if not reasons:
        _must_obey(master, settings)
        return None, remarks
    chosen = probe.choose(policy.linted.policy, request.run)
    if chosen is None:
        remarks.append(
            "the policy records none of the requests that could show that it is in force: only "
            "the server's arguments and readiness are checked"
        )
    return (
        Change(
            reasons=tuple(reasons),
            expected=_sha256(text),
            manifest=edit.text,
            manifest_before=text,
            policy=policy.text,
            policy_before=master.policy.text if master.policy.kind == "file" else None,
            policy_sha256=policy.sha256,
            restart=restart,
            wanted=dict(settings.flags()),
            probe=chosen,
            absent=False,
        ),
        remarks,
    )


def _written_since(master: Master) -> bool:
    """Say whether the policy file is younger than the server, which reads it when it starts."""
    return master.process is not None and master.policy.written > master.process.started > 0


def _removal(
    request: Request, master: Master, text: str, settings: Settings, *, adopt: bool
) -> Change | None:
    adopted = manifest.add(text, replace(settings, take_over=True)) if adopt else text
    new = manifest.remove(adopted)
    managed = master.applied is not None or master.original is not None
    logs = request.remove_logs and bool(master.log.held)
    if new == text and not managed and not logs:
        return None
    original = (master.original or {}).get("policy")
    return Change(
        reasons=("the audit settings are to go" if new != text else "their rest is to go",),
        expected=_sha256(text),
        manifest=new,
        manifest_before=text,
        policy=original,
        policy_before=master.policy.text if master.policy.kind == "file" else None,
        policy_sha256=None,
        restart=new != text,
        wanted={name: kubeadm.flags(new).get(name) for name in settings.flags()},
        probe=None,
        absent=True,
    )


def _drift(master: Master, text: str, policy: _Policy) -> list[str]:
    """Say what somebody has changed by hand since our last change."""
    if master.applied is None:
        return []
    found = []
    if master.applied.manifest != text:
        how = "changed by hand" if manifest.is_managed(text) else "rendered anew by kubeadm"
        found.append(f"drift: kube-apiserver.yaml was {how} since the last run")
    ours = master.applied.policy_sha256
    if master.policy.kind == "absent":
        found.append("drift: the policy file is gone")
    elif ours not in {_sha256(master.policy.text), None} and master.policy.text != policy.text:
        found.append("drift: the policy file was changed by hand since the last run")
    return found


def _must_obey(master: Master, settings: Settings) -> None:
    """Raise ManifestError if the server runs with other settings than its manifest has."""
    given = kubeadm.flags_of(master.process.args if master.process else [])
    wrong = [name for name, value in settings.flags().items() if given.get(name) != value]
    if wrong:
        raise ManifestError(
            f"the running API server has not taken --{wrong[0]} from it; see the kubelet's "
            "journal: journalctl -u kubelet"
        )


def _kubeadm(
    masters: Mapping[str, Master], changes: Mapping[str, Change], notes: list[str]
) -> tuple[str, str] | None:
    host, master = next(iter(masters.items()))
    assert master.manifest is not None  # noqa: S101  obstacles have been looked for
    found = _server(master).kubeadm
    configuration = ((found or {}).get("data") or {}).get("ClusterConfiguration")
    if not configuration:
        notes.append(
            "there is no kubeadm ClusterConfiguration: after an upgrade of the cluster, run again"
        )
        return None
    change = changes.get(host)
    after = change.manifest if change else master.manifest.text
    applied = [each.applied.manifest for each in masters.values() if each.applied]
    if not applied and not changes:
        return None
    old = kubeadm.audit(applied[0]) if applied else kubeadm.Audit()
    new = kubeadm.audit(after)
    wanted = kubeadm.agree(configuration, old, new)
    if new.environment and not kubeadm.keeps_environment(configuration):
        notes.append(
            "this kubeadm's configuration can't hold environment variables: after an upgrade of "
            "the cluster, run again"
        )
    return None if wanted is None else (configuration, wanted)


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()
