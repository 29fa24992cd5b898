"""The page of the first hour: its commands, as they stand and in their order, on a cluster."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from lab.cluster.kubeadm import kubectl_command
from lab.cluster.layout import Cluster
from lab.cluster.lifecycle import cluster
from lab.images import recipes
from tests.e2e import checkout
from tests.e2e.checkout import ROOT, Checkout
from tests.e2e.rollout import on
from tests.pages import Line, lines

PAGE = ROOT / "docs/quick-start.md"
IMAGE = "docker.io/library/debian:12"
MARK = "=== "
Story = list[tuple[str, str]]
"""Each command and what it has said."""


@pytest.fixture(scope="module")
def made() -> Iterator[Cluster]:
    """A cluster as a reader has one, who could pull images."""
    with cluster("test-hour") as one:
        on(one, one.workers[0], "ctr", "-n", "k8s.io", "images", "tag", recipes.TOOLS, IMAGE)
        yield one


def fill_in(example: Path, one: Cluster) -> str:
    """Give the example's inventory with the cluster's addresses in it, and a short wait."""
    inventory = yaml.safe_load(example.read_text())
    real = one.inventory()["all"]
    inventory["all"]["vars"] |= real["vars"] | {"audit_policy_stable_seconds": 1}  # type: ignore[index]
    for group, nodes in {"masters": one.masters, "workers": one.workers}.items():
        hosts = inventory["all"]["children"][group]["hosts"]
        named = zip(list(hosts), nodes, strict=False)
        inventory["all"]["children"][group]["hosts"] = {
            name: {"ansible_host": node.address} for name, node in named
        }
    return str(yaml.safe_dump(inventory))


def script(page: list[Line], hosts: Path) -> str:
    """Give a program of the page's commands that ends at the first unexpected exit code."""
    steps = []
    for line in page:
        codes = "|".join(map(str, sorted(line.exit_codes)))
        steps.append(f"echo {shlex.quote(MARK + line.text)}")
        steps.append(f"{{ {line.text}\n}}; code=$?")
        steps.append(f'case $code in {codes}) ;; *) echo "ended with $code"; exit 1;; esac')
        if line.text.startswith("cp -r inventories/example"):
            steps.append(f"cp {shlex.quote(str(hosts))} inventories/mine/hosts.yml")
    return "\n".join(steps)


@pytest.fixture(scope="module")
def story(made: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Story:
    """What each command of the page has said."""
    folder = tmp_path_factory.mktemp("hour")
    reader: Checkout = checkout.copy(folder / "exectrail")
    hosts, programs = folder / "hosts.yml", folder / "bin"
    hosts.write_text(fill_in(reader.folder / "inventories/example/hosts.yml", made))
    programs.mkdir()
    kubectl = programs / "kubectl"
    kubectl.write_text(f'#!/bin/sh\nexec {shlex.join(kubectl_command(made))} "$@"\n')
    kubectl.chmod(0o755)
    ended = reader.run("bash", "-c", script(lines(PAGE), hosts), timeout=500, programs=programs)
    assert ended.code == 0, ended.said
    parts = ("\n" + ended.said).split("\n" + MARK)[1:]
    return [(line, text) for line, _, text in (part.partition("\n") for part in parts)]


def said(story: Story, beginning: str) -> str:
    """What the first command of the page that begins so has said, with each gap as one space."""
    return " ".join(next(text for line, text in story if line.startswith(beginning)).split())


def test_the_page_is_run_to_its_end(story: Story) -> None:
    assert [line for line, _ in story] == [line.text for line in lines(PAGE)]


def test_the_session_is_seen(story: Story) -> None:
    tree = said(story, "ansible workers -i inventories/mine -b -a 'exectrail-agent tail")

    assert "default/web" in tree
    assert "ls /root" in tree


def test_the_audit_log_names_who_has_asked(story: Story) -> None:
    assert '"username":"kubernetes-admin"' in said(story, "ansible masters")


def test_what_was_broken_is_found_and_nothing_else(story: Story) -> None:
    found = said(story, "exectrail verify")

    assert re.findall(r"\b(?:FAIL|ERROR|WARN) (\S+)", found) == ["agent.active"]
    assert "on worker-1" in found


def test_nothing_is_left_in_the_end(made: Cluster, story: Story) -> None:
    assert story
    for node in made.machines:
        root = made.root(node)
        assert not (root / "etc/systemd/system/exectrail-agent.service").exists()
        assert not (root / "etc/kubernetes/audit-policy.yaml").exists()
