"""Kubernetes' own audit policy loader and evaluator, as a program that tests can ask."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lab.kubernetes import binaries
from lab.progress import say
from lab.vm.folders import cache_folder
from lab.vm.image import built, digest, prune

_SOURCE = Path(__file__).parent


@dataclass(frozen=True)
class Oracle:
    """One release of k8s.io/apiserver; `modules` names its go.mod."""

    kubernetes: str
    api_version: str
    modules: str

    def ask(self, questions: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """Put all questions to one process; their shape is in main.go."""
        lines = "".join(json.dumps(question) + "\n" for question in questions)
        done = subprocess.run(
            [str(self._program())], input=lines, capture_output=True, text=True, check=True
        )
        return [json.loads(line) for line in done.stdout.splitlines()]

    def _program(self) -> Path:
        modules = _SOURCE / self.modules
        inputs = [_SOURCE / "main.go", modules, modules.with_suffix(".sum")]
        folder = cache_folder() / "oracles" / f"{modules.stem}-{digest({}, inputs)}"
        with built(folder) as draft:
            if draft:
                self._build(draft)
                prune(modules.stem, folder.parent)
        return folder / "oracle"

    def _build(self, draft: Path) -> None:
        go = binaries.toolchain()
        say(f"building the audit policy code of Kubernetes {self.kubernetes} (a minute)")
        environment = {
            **os.environ,
            "CGO_ENABLED": "0",
            "GOFLAGS": "-p=1 -buildvcs=false -trimpath",
            "GOTOOLCHAIN": "local",
            "GOWORK": "off",
        }
        subprocess.run(
            ["nice", go, "build", f"-modfile={self.modules}", "-o", draft / "oracle", "."],
            cwd=_SOURCE,
            env=environment,
            check=True,
        )


ORACLES = (
    Oracle("1.35", "audit.k8s.io/v1", "v1.mod"),
    Oracle("1.23", "audit.k8s.io/v1beta1", "v1beta1.mod"),
)
