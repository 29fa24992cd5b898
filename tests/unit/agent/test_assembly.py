"""What an agent begins with: who tells of pods, and which losses have been told of."""

from __future__ import annotations

from pathlib import Path

import pytest

from exectrail_agent import config
from exectrail_agent.assembly import losses_so_far, pods_source
from tests.unit.agent.world import maker

USABLE = """\
clusters:
- cluster:
    certificate-authority: /etc/kubernetes/pki/ca.crt
    server: https://10.0.0.1:6443
users:
- user:
    client-certificate: /var/lib/kubelet/pki/kubelet-client-current.pem
"""
EMBEDDED = USABLE.replace("client-certificate: /", "client-certificate-data: eA==")


def ask(kubeconfig: Path, pods: str = "auto") -> tuple[bool, str]:
    text = f"[kubernetes]\npods = {pods}\nkubeconfig = {kubeconfig}\n"
    source, nobody = pods_source(config.parse(text), "n1")
    return source is not None, nobody


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (USABLE, ""),
        (EMBEDDED, "names no file with a client certificate"),
        ("", "names no server"),
        (None, "kubelet.conf: No such file or directory"),
    ],
)
def test_who_can_not_be_asked_is_named(tmp_path: Path, text: str | None, says: str) -> None:
    kubeconfig = tmp_path / "kubelet.conf"
    if text is not None:
        kubeconfig.write_text(text)

    there, nobody = ask(kubeconfig)

    assert there == (not says)
    assert says in nobody
    assert bool(nobody) == bool(says)


def test_nobody_is_missed_who_is_not_wanted(tmp_path: Path) -> None:
    assert ask(tmp_path / "kubelet.conf", "off") == (False, "")


@pytest.mark.parametrize(
    ("resumed", "saved", "begins", "count"),
    [
        (True, {"losses": {"ring-full": 5}, "time": 77}, 77, 2),
        (True, {}, 0, 7),
        (True, {"losses": "?", "time": 77}, 0, 7),
        (True, {"losses": {"ring-full": 6}, "told": {"ring-full": 5}, "time": 77}, 77, 2),
        (True, {"losses": {"ring-full": 6}, "told": "?", "time": 77}, 0, 7),
        (False, {"losses": {"ring-full": 5}, "time": 77}, 1_000_000_000_000, 7),
        (False, {"losses": {"ring-full": 5}, "told": {"ring-full": 2}, "time": 77}, 77, 10),
        (False, {"losses": {"ring-full": 5}, "told": {}, "time": 77}, 77, 12),
    ],
)
def test_a_loss_is_told_once_and_from_when_it_may_have_been(
    *, resumed: bool, saved: dict[str, object], begins: int, count: int
) -> None:
    (record,) = losses_so_far(maker(), saved, resumed=resumed).update({"ring-full": 7})

    assert record.loss
    assert (record.loss.begin, record.loss.count) == (begins, count)
