"""A verification without Ansible's playbooks: nodes asked in parallel over testinfra's connections.

It uses the same folder, evidence and evaluator as the playbook, so that both say the same.
"""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Generator
from pathlib import Path

import msgspec

from exectrail.compliance import canary, collect, evidence, run
from exectrail.compliance.model import Evidence, Report
from exectrail.compliance.requirements import load_profile
from exectrail.compliance.verdict import build_report
from exectrail.nodes import fleet, script

_PODS_SECONDS = 150
"""What making, entering and removing pods takes at most."""


class Verification(msgspec.Struct, frozen=True, kw_only=True):
    """Where it takes place. `scripts` is the folder of the node scripts."""

    directory: Path
    scripts: Path
    inventory: fleet.Inventory
    masters_group: str
    seconds: float
    """How long a node may take to answer."""

    def enter_pods(self, image: str, namespace: str) -> None:
        """Have the first master that answers enter a pod on every node of the run."""
        opened = run.load(self.directory)
        masters = [
            host for host, groups in self.inventory.groups.items() if self.masters_group in groups
        ]
        asked = canary.request(
            image, namespace, {name: opened.addresses[name] for name in opened.selected}
        )
        line = self._line({canary.SCRIPT: asked})
        for master in masters:
            with contextlib.closing(
                fleet.ask(self.inventory, {master: line}, seconds=_PODS_SECONDS)
            ) as answers:
                for answer in answers:
                    for said in script.answers(answer.out):
                        canary.keep(self.directory, said)
                        return

    def read(self) -> Generator[Evidence]:
        """Ask every node of the run, and keep and give its evidence as it comes."""
        opened = run.load(self.directory)
        known = {host: collect.known_before(self.directory, host) for host in opened.selected}
        lines = {host: self._line(collect.verification(known[host])) for host in opened.selected}
        with contextlib.closing(fleet.ask(self.inventory, lines, seconds=self.seconds)) as answers:
            for answer in answers:
                yield self._keep(answer, known[answer.host], opened.inventory[answer.host])

    def _keep(
        self, answer: fleet.Answer, known: dict[str, object], groups: Collection[str]
    ) -> Evidence:
        variables = {
            **known,
            "masters_group": self.masters_group,
            "asked": answer.asked,
            "answered": answer.answered,
        }
        groups = tuple(group for group in groups if group != "all")
        if answer.unreachable:
            found = collect.unreachable(
                answer.host, answer.unreachable, groups=groups, variables=variables
            )
        else:
            found = collect.from_output(
                answer.host, answer.out, answer.err, groups=groups, variables=variables
            )
        evidence.save(found, run.evidence_path(self.directory, answer.host))
        return found

    def _line(self, requests: dict[str, dict[str, object]]) -> str:
        return script.as_argument(script.program(self.scripts, requests))


def narrow(report: Report, profile: str, wanted: Collection[tuple[str, str]]) -> Report:
    """Leave of a report only the (check, host) that are wanted, and judge it anew."""
    hosts = [
        msgspec.structs.replace(
            host, results=tuple(each for each in host.results if (each.check, host.host) in wanted)
        )
        for host in report.hosts
    ]
    return build_report(
        hosts,
        load_profile(profile),
        run_id=report.run_id,
        started=report.started,
        finished=report.finished,
        strict=report.strict,
        interrupted=report.interrupted,
    )
