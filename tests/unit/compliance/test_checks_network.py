"""The checks of resolv.conf and of where nameservers come from."""

from __future__ import annotations

from typing import Any

import pytest

from tests.unit.compliance.nodes import judge, node

STUB = "/run/systemd/resolve/stub-resolv.conf"
UBUNTU = "ubuntu2204-ack-worker"


def conf(kind: str = "symlink", target: str | None = None, resolved: str | None = None) -> Any:
    return {"type": kind, "target": target, "resolved": resolved, "dangling": resolved is None}


@pytest.mark.parametrize(
    ("found", "status", "says"),
    [
        (conf(target=STUB, resolved=STUB), "pass", f"leads to {STUB}"),
        (conf(target="../run/systemd/resolve/stub-resolv.conf", resolved=STUB), "pass", STUB),
        (conf(target="/etc/resolv.link", resolved=STUB), "pass", STUB),
        (conf(target="//run//systemd/resolve/x", resolved="/run//systemd/resolve/stub-resolv.conf"),
         "pass", STUB),
        (conf(target="/run/systemd/resolve/resolv.conf",
              resolved="/run/systemd/resolve/resolv.conf"), "fail", "resolve/resolv.conf instead"),
        (conf(target=STUB, resolved="/elsewhere"), "fail", "leads to /elsewhere instead"),
        (conf("file", resolved="/etc/resolv.conf"), "fail", "is no symlink (regular file)"),
        (conf("other"), "fail", "is no symlink (other)"),
        (conf("a-thing"), "fail", "is no symlink (a-thing)"),
        (conf("unknown", STUB, STUB), "fail", "is no symlink (unknown)"),
        (conf(target="/zzz", resolved="/zzz"), "fail", "leads to /zzz instead"),
        (conf(target="/zzz"), "fail", "leads to /zzz, which is missing."),
        (conf("missing"), "fail", "There is no /etc/resolv.conf"),
        (conf(target="/nowhere"), "fail", "leads to /nowhere, which is missing."),
        (conf(target="../run/systemd/resolve/stub-resolv.conf"), "fail",
         f"leads to {STUB}, which is missing: systemd-resolved does not run."),
        (conf(target=None), "fail", "missing"),
        (conf(target=STUB, resolved=STUB) | {"dangling": True}, "fail", "which is missing: "),
    ],
)  # fmt: skip
@pytest.mark.parametrize(("base", "profile"), [(UBUNTU, "ack"), ("debian12-vm", "self_managed")])
def test_resolv_conf(
    found: dict[str, Any], status: str, says: str, base: str, profile: str
) -> None:
    result = judge("node.resolv-conf", node(base, {"resolver.resolv_conf": found}), profile)
    assert (result.status, says in result.message) == (status, True), result


def test_resolv_conf_shows_both_ends_of_a_chain() -> None:
    chain = conf(target="/etc/resolv.link", resolved=STUB)
    result = judge("node.resolv-conf", node(items={"resolver.resolv_conf": chain}))
    assert result.observed == f"symlink to /etc/resolv.link, so to {STUB}"
    direct = judge(
        "node.resolv-conf", node(items={"resolver.resolv_conf": conf(target=STUB, resolved=STUB)})
    )
    assert direct.observed == f"symlink to {STUB}"


STOPPED = {"resolver.manager": {"systemd-resolved": False}}


@pytest.mark.parametrize(
    ("profile", "base", "items", "status"),
    [
        ("self_managed", "debian12-vm", STOPPED, "skip"),
        ("self_managed", "debian12-vm", {"resolver.manager": {"unreadable": "x"}}, "error"),
        ("ack", UBUNTU, STOPPED, "pass"),
        ("ack", "debian12-vm", {"resolver.resolv_conf": {"unreadable": "x"}}, "skip"),
        ("ack", UBUNTU, {"os.release": {"unreadable": "x"}}, "error"),
    ],
)
def test_whom_resolv_conf_is_for(
    profile: str, base: str, items: dict[str, Any], status: str
) -> None:
    assert judge("node.resolv-conf", node(base, items), profile).status == status


def server(source: str, by: str = "/somewhere", address: str = "10.0.0.2") -> dict[str, Any]:
    return {"address": address, "link": "eth0", "source": source, "by": by}


BY_HAND = {**server("static", "/etc/resolv.conf", "9.9.9.9"), "link": None}
PLAIN_FILE = {"resolver.resolv_conf": conf("file", resolved="/etc/resolv.conf")}
UNKNOWN_TYPE = {"resolver.resolv_conf": conf("unknown", resolved="/etc/resolv.conf")}
DANGLING = {"resolver.resolv_conf": conf(target="/nowhere")}


@pytest.mark.parametrize(
    ("servers", "items", "status", "says"),
    [
        ([server("dhcp")], {}, "pass", "DHCP gave every nameserver"),
        ([server("dhcp"), server("dhcp")], {}, "pass", "DHCP gave every nameserver"),
        ([server("dhcp"), server("static")], {}, "fail", "1 of 2 nameservers"),
        ([server("static"), server("unknown")], {}, "fail", "1 of 2 nameservers"),
        ([server("dhcp"), server("unknown")], {}, "error", "not known where they came from"),
        ([server("?")], {}, "error", "not known where they came from"),
        ([], {}, "fail", "No nameserver is in force"),
        # A hand-written file in front of systemd-resolved is node.resolv-conf's one finding.
        ([BY_HAND], PLAIN_FILE, "skip", "node.resolv-conf judges"),
        ([BY_HAND], UNKNOWN_TYPE, "skip", "node.resolv-conf judges"),
        ([BY_HAND, server("dhcp")], PLAIN_FILE, "pass", "DHCP gave every"),
        ([BY_HAND, server("static")], PLAIN_FILE, "fail", "1 of 1 nameservers"),
        ([], DANGLING, "skip", "node.resolv-conf judges"),
        ([BY_HAND], {}, "fail", "1 of 1 nameservers"),
        # Without systemd-resolved nobody else reports it.
        ([BY_HAND], {**PLAIN_FILE, **STOPPED}, "fail", "1 of 1 nameservers"),
        ([], {**DANGLING, **STOPPED}, "fail", "No nameserver is in force"),
        ([BY_HAND], {"resolver.resolv_conf": {"unreadable": "x"}}, "error", "resolv_conf: x"),
        (
            [BY_HAND],
            {**PLAIN_FILE, "resolver.manager": {"unreadable": "x"}},
            "error",
            "resolver.manager: x",
        ),
        ([server("dhcp")], {"resolver.resolv_conf": {"unreadable": "x"}}, "pass", "DHCP"),
    ],
)
def test_dns_source(servers: list[Any], items: dict[str, Any], status: str, says: str) -> None:
    judged = node(items={"resolver.nameservers": servers, **items})
    result = judge("node.dns-source", judged)
    assert (result.status, says in result.message) == (status, True), result


def test_dns_source_names_address_link_and_file() -> None:
    rows = [server("dhcp", "lease 2"), {"address": "1.1.1.1", "source": "static"}]
    result = judge("node.dns-source", node(items={"resolver.nameservers": rows}))
    assert result.observed == "10.0.0.2 on eth0: dhcp (lease 2); 1.1.1.1: static"


def test_many_nameservers_are_cut_off() -> None:
    rows = [server("dhcp", address=f"10.0.0.{n}") for n in range(7)]
    result = judge("node.dns-source", node(items={"resolver.nameservers": rows}))
    assert result.observed.endswith("10.0.0.4 on eth0: dhcp (/somewhere); and 2 more")
    result = judge("node.dns-source", node(items={"resolver.nameservers": rows[:6]}))
    assert result.observed.endswith("10.0.0.4 on eth0: dhcp (/somewhere); and 1 more")
    result = judge("node.dns-source", node(items={"resolver.nameservers": rows[:5]}))
    assert result.observed.endswith("10.0.0.4 on eth0: dhcp (/somewhere)")
