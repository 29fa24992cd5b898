"""Every repair's plan: needed, already right, not to be made without somebody, unreadable."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from exectrail.compliance.model import Evidence
from exectrail.compliance.waivers import NO_WAIVERS
from exectrail.remediation import decide
from exectrail.remediation.model import Action, Became, Link, Outcome, Package, Unit, WriteFile
from exectrail.remediation.repairs import APT_FILE, APT_TEXT
from tests.unit.compliance.nodes import TODAY, node, profile

OFF = {"load": "loaded", "enabled": "disabled", "active": "inactive", "links": {}}
ON = {"load": "loaded", "enabled": "enabled", "active": "active", "links": {"/a": "/b"}}
GONE = {"load": "not-found", "enabled": "", "active": "inactive", "links": {}}
MISSING = {"kind": "missing"}


def text(content: str) -> dict[str, Any]:
    return {"kind": "file", "text": content, "mode": 0o644, "owner": [0, 0], "label": None}


def link(target: str) -> dict[str, Any]:
    return {"kind": "link", "target": target}


def planned(check: str, evidence: Evidence, **seen: Any) -> decide.Job | Outcome:
    """Go the way that a node's repair goes, with `seen` for what the node would answer."""
    (case,) = decide.judge(evidence, profile("self_managed"), NO_WAIVERS, [check], TODAY)
    if settled := decide.settled(case):
        return settled
    wanted = decide.look(case, evidence)
    if isinstance(wanted, Outcome):
        return wanted
    seen = {"paths": {}, "units": {}, "package": None, "resolver": None, **seen}
    seen["paths"] = {**dict.fromkeys(wanted.paths, MISSING), **seen["paths"]}
    seen["units"] = {**dict.fromkeys(wanted.units, GONE), **seen["units"]}
    return decide.plan(case, evidence, seen)


def actions(made: decide.Job | Outcome) -> list[Action]:
    assert isinstance(made, decide.Job), made
    return [change.action for change in made.changes]


def told(made: decide.Job | Outcome, became: Became) -> str:
    assert isinstance(made, Outcome), made
    assert made.became == became, made
    return made.message


# --- node.resolv-conf -------------------------------------------------------------------------

CONF = "/etc/resolv.conf"
STUB = "/run/systemd/resolve/stub-resolv.conf"
UPSTREAM = "/run/systemd/resolve/resolv.conf"
WELL = {"answers": True, "links": True, "globally": False}
TO_STUB = Link(CONF, "../run/systemd/resolve/stub-resolv.conf")


def resolv_conf(
    state: dict[str, Any],
    *,
    resolver: dict[str, bool] | None = None,
    stub: dict[str, Any] | None = None,
    kubelet: dict[str, Any] | None = None,
    config: str = "",
) -> decide.Job | Outcome:
    item = {"type": "file", "target": None, "resolved": CONF, "dangling": False}
    evidence = node(items={"resolver.resolv_conf": item, "kubelet": kubelet})
    paths = {CONF: state, STUB: stub or text("nameserver 127.0.0.53\n")}
    if kubelet and kubelet.get("config"):
        paths[kubelet["config"]] = text(config)
    return planned("node.resolv-conf", evidence, paths=paths, resolver=resolver or WELL)


@pytest.mark.parametrize(
    "state",
    [MISSING, text("nameserver 10.0.0.1\n"), link("/run/gone"), link(UPSTREAM)],
    ids=["missing", "file", "dangling", "upstream"],
)
def test_resolv_conf_becomes_a_link_to_the_stub(state: dict[str, Any]) -> None:
    assert actions(resolv_conf(state)) == [TO_STUB]


@pytest.mark.parametrize("state", [MISSING, link("../run/systemd/resolve/resolv.conf")])
def test_nameservers_of_resolved_s_own_settings_will_do(state: dict[str, Any]) -> None:
    settings = {"answers": True, "links": False, "globally": True}

    assert actions(resolv_conf(state, resolver=settings)) == [TO_STUB]


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"state": {"kind": "other"}}, "neither a file nor a link"),
        ({"resolver": {**WELL, "answers": False}}, "no answer at 127.0.0.53"),
        ({"stub": MISSING}, "no answer at 127.0.0.53"),
        ({"resolver": {**WELL, "links": False}}, "no nameserver but those of"),
        # From a file that somebody has written, systemd-resolved takes what it then says is its.
        (
            {"resolver": {"answers": True, "links": False, "globally": True}},
            "no nameserver but those of",
        ),
    ],
)
def test_resolv_conf_is_left_where_names_would_not_be_resolved(
    changes: dict[str, Any], why: str
) -> None:
    made = resolv_conf(**{"state": text("nameserver 10.0.0.1\n"), **changes})

    assert why in told(made, Became.BY_HAND)


KUBELET = {"arguments": ["--v=2"], "config": "/var/lib/kubelet/config.yaml"}


@pytest.mark.parametrize(
    ("kubelet", "config"),
    [
        (KUBELET, "kind: KubeletConfiguration\n"),
        (KUBELET, "resolvConf: /etc/resolv.conf\n"),
        ({**KUBELET, "arguments": ["--resolv-conf=/etc/resolv.conf"]}, f"resolvConf: {UPSTREAM}\n"),
        ({"arguments": [], "config": None}, ""),
    ],
)
def test_resolv_conf_is_left_where_a_kubelet_gives_it_to_pods(
    kubelet: dict[str, Any], config: str
) -> None:
    made = resolv_conf(text("nameserver 10.0.0.1\n"), kubelet=kubelet, config=config)

    assert "CoreDNS would ask itself" in told(made, Became.BY_HAND)


@pytest.mark.parametrize(
    ("kubelet", "config"),
    [
        (KUBELET, f"resolvConf: {UPSTREAM}\n"),
        (KUBELET, f'"resolvConf": "{UPSTREAM}" # kubeadm\n'),
        ({**KUBELET, "arguments": [f"--resolv-conf={UPSTREAM}"]}, ""),
    ],
)
def test_resolv_conf_is_linked_where_pods_get_another(kubelet: dict[str, Any], config: str) -> None:
    made = resolv_conf(text("nameserver 10.0.0.1\n"), kubelet=kubelet, config=config)

    assert actions(made) == [TO_STUB]


def test_a_resolv_conf_that_is_right_is_left_alone() -> None:
    assert "leads to" in told(planned("node.resolv-conf", node()), Became.NOTHING)


def test_without_systemd_resolved_there_is_nothing_to_link_to() -> None:
    item = {"type": "file", "target": None, "resolved": CONF, "dangling": False}
    manager = {"systemd-resolved": False}
    evidence = node(items={"resolver.resolv_conf": item, "resolver.manager": manager})
    (case,) = decide.judge(
        evidence, profile("self_managed"), NO_WAIVERS, ["node.resolv-conf"], TODAY
    )

    assert "It does not apply" in told(planned("node.resolv-conf", evidence), Became.NOTHING)
    # The vendor's rules ask for it all the same.
    assert "whoever runs its network" in told(decide.look(case, evidence), Became.BY_HAND)  # type: ignore[arg-type]


@pytest.mark.parametrize("item", ["resolver.manager", "kubelet"])
def test_what_can_t_be_read_is_not_repaired(item: str) -> None:
    conf = {"type": "missing"}
    evidence = node(items={"resolver.resolv_conf": conf, item: {"unreadable": "no answer"}})

    made = planned(
        "node.resolv-conf", evidence, paths={CONF: MISSING, STUB: text("")}, resolver=WELL
    )

    assert "no answer" in told(made, Became.UNKNOWN)


# --- node.automatic-upgrades ------------------------------------------------------------------

TIMER = "apt-daily-upgrade.timer"


def upgraders(
    *, apt: str | None = "0", installed: bool = True, dnf: str | None = None, **units: Any
) -> Evidence:
    known = node().items["upgrades.units"]
    live = {name.replace("_", "-") + ".timer": state for name, state in units.items()}
    config = {"APT::Periodic::Unattended-Upgrade": apt}
    return node(
        items={
            "upgrades.units": {**known, **live},
            "upgrades.apt": apt and {"installed": installed, "config": config},
            "upgrades.dnf": dnf and {"apply_updates": "yes", "file": dnf},
        }
    )


def switched_off(evidence: Evidence, **seen: Any) -> decide.Job | Outcome:
    units = {name: dict(OFF, **state) for name, state in evidence.items["upgrades.units"].items()}
    return planned("node.automatic-upgrades", evidence, units=units, **seen)


WRITTEN = WriteFile(APT_FILE, APT_TEXT)


@pytest.mark.parametrize(
    ("evidence", "wanted"),
    [
        (upgraders(apt="1", apt_daily_upgrade=ON), [WRITTEN, Unit(TIMER, on=False)]),
        (upgraders(apt="0", apt_daily_upgrade=ON), [WRITTEN, Unit(TIMER, on=False)]),
        (upgraders(apt="1", apt_daily_upgrade=OFF), [WRITTEN]),
        (upgraders(apt="1", apt_daily_upgrade={**OFF, "load": "masked"}), [WRITTEN]),
        (upgraders(apt="1", installed=False, apt_daily_upgrade=ON), [WRITTEN]),
        (
            upgraders(apt=None, dnf_automatic_install=ON),
            [Unit("dnf-automatic-install.timer", on=False)],
        ),
    ],
    ids=["both", "timer", "setting", "masked", "not installed", "dnf's own timer"],
)
def test_both_switches_are_turned_off(evidence: Evidence, wanted: list[Action]) -> None:
    assert actions(switched_off(evidence)) == wanted


def test_dnf_keeps_its_other_settings() -> None:
    path = "/etc/dnf/automatic.conf"
    before = "[commands]\nupgrade_type = default\n  Apply_Updates: yes # ours\n[emitters]\n"
    evidence = upgraders(apt=None, dnf=path, dnf_automatic=ON)

    made = switched_off(evidence, paths={APT_FILE: MISSING, path: text(before)})

    after = "[commands]\nupgrade_type = default\n  Apply_Updates: no\n[emitters]\n"
    assert actions(made) == [WriteFile(path, after), Unit("dnf-automatic.timer", on=False)]


@pytest.mark.parametrize(
    ("evidence", "why"),
    [
        (upgraders(apt=None, transactional_update=ON), "transactional-update.timer upgrades a"),
        (
            upgraders(apt=None, dnf="/usr/share/dnf5/automatic.conf", dnf_automatic=ON),
            "belongs to the package",
        ),
    ],
)
def test_upgrades_of_images_are_somebody_s_choice(evidence: Evidence, why: str) -> None:
    assert why in told(switched_off(evidence), Became.BY_HAND)


def test_a_node_that_does_not_upgrade_itself_is_left_alone() -> None:
    told(switched_off(upgraders()), Became.NOTHING)


def test_upgraders_that_can_t_be_read_are_not_touched() -> None:
    evidence = node(items={"upgrades.units": {"unreadable": "no answer in time"}})

    assert "no answer" in told(planned("node.automatic-upgrades", evidence), Became.UNKNOWN)


def test_a_repair_without_anything_to_do_says_so() -> None:
    evidence = upgraders(apt="1", apt_daily_upgrade=OFF)

    made = switched_off(evidence, paths={APT_FILE: text(APT_TEXT)})

    assert "is so already" in told(made, Became.FAILED)


# --- node.clock -------------------------------------------------------------------------------


def clock(by: str | None, **units: dict[str, Any]) -> decide.Job | Outcome:
    evidence = node(items={"clock": {"synchronised": False, "by": by}})
    named = {name.replace("_", "-") + ".service": state for name, state in units.items()}
    return planned("node.clock", evidence, units=named)


@pytest.mark.parametrize(
    ("units", "name"),
    [
        ({"systemd_timesyncd": OFF}, "systemd-timesyncd.service"),
        ({"systemd_timesyncd": OFF, "chrony": OFF}, "chrony.service"),
        ({"chronyd": OFF}, "chronyd.service"),
    ],
)
def test_the_time_daemon_that_is_installed_is_started(units: dict[str, Any], name: str) -> None:
    made = clock(None, **units)

    assert actions(made) == [Unit(name, on=True)]
    assert isinstance(made, decide.Job)
    assert made.await_clock == 60


@pytest.mark.parametrize(
    ("by", "units", "why"),
    [
        ("chronyd", {"chronyd": ON}, "chronyd runs, but does not get the time"),
        (None, {}, "No time daemon is installed"),
        (None, {"systemd_timesyncd": {**OFF, "load": "masked"}}, "is masked"),
    ],
)
def test_a_clock_is_somebody_s(by: str | None, units: dict[str, Any], why: str) -> None:
    assert why in told(clock(by, **units), Became.BY_HAND)


def test_a_clock_that_goes_right_is_left_alone() -> None:
    told(planned("node.clock", node()), Became.NOTHING)


def test_a_clock_that_can_t_be_read_is_left_alone() -> None:
    evidence = node(items={"clock": {"unreadable": "adjtimex(2): not permitted"}})

    assert "not permitted" in told(planned("node.clock", evidence), Became.UNKNOWN)


# --- node.libbpf ------------------------------------------------------------------------------

PACKAGE = {"name": "libbpf1", "manager": "apt-get", "installed": None, "offered": True}


def libbpf(package: dict[str, Any] | None, found: dict[str, str] | None = None) -> Any:
    return planned("node.libbpf", node(items={"libbpf": found}), package=package)


def test_libbpf_is_installed_by_the_node_s_manager() -> None:
    assert actions(libbpf(PACKAGE)) == [Package("libbpf1", "apt-get")]


@pytest.mark.parametrize(
    ("package", "why"),
    [
        (None, "none of apt-get, dnf and zypper"),
        ({**PACKAGE, "installed": "1.1.0"}, "its library is not there"),
        ({**PACKAGE, "offered": False}, "run apt-get update"),
    ],
)
def test_a_libbpf_that_can_t_be_had_is_somebody_s(package: dict[str, Any] | None, why: str) -> None:
    assert why in told(libbpf(package), Became.BY_HAND)


def test_a_libbpf_that_is_too_old_is_the_release_s() -> None:
    old = {"path": "/usr/lib/libbpf.so.0.3", "version": "0.3"}

    assert "older than 1.0" in told(libbpf(PACKAGE, old), Became.BY_HAND)


def test_a_libbpf_that_is_there_is_left_alone() -> None:
    told(planned("node.libbpf", node()), Became.NOTHING)


def test_a_libbpf_that_can_t_be_read_is_left_alone() -> None:
    assert "denied" in told(libbpf(PACKAGE, {"unreadable": "denied"}), Became.UNKNOWN)


def test_a_plan_travels_as_json() -> None:
    made = switched_off(upgraders(apt="1", apt_daily_upgrade=ON))
    assert isinstance(made, decide.Job)

    sent = msgspec.to_builtins(made.changes)

    assert [each["action"]["do"] for each in sent] == ["write", "unit"]
    assert sent[0]["before"] == MISSING
    shown = [row for row in decide.diffs(made.changes) if row[0] == TIMER]
    assert shown == [(TIMER, "enabled, active\n", "disabled, inactive\n")]
