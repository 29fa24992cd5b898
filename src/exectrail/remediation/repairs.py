"""The repairs: for each check that has one, what to read on the node and what then to do there.

Pure functions of the evidence, the requirement's parameters and what was read. A plan names the
whole state that is wanted; what a node has already is left out later. HandOver where somebody has
to decide; Unreadable where the evidence does not say enough.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable
from typing import Any, NamedTuple

import msgspec

from exectrail.compliance.checks.registry import Parameters
from exectrail.compliance.checks.resolver import ResolvConfTarget
from exectrail.compliance.checks.sensor import Libbpf
from exectrail.compliance.checks.upgrades import AutomaticUpgrades
from exectrail.compliance.items.access import Item, Items
from exectrail.compliance.items.node import APT, CLOCK, LIBBPF, MANAGER, UNITS
from exectrail.remediation.model import (
    Action,
    HandOver,
    Link,
    Look,
    Package,
    Plan,
    Seen,
    Unit,
    WriteFile,
)

APT_FILE = "/etc/apt/apt.conf.d/99zz-exectrail-no-automatic-upgrades"
APT_TEXT = """\
// Written by exectrail remediate for the check node.automatic-upgrades.
APT::Periodic::Unattended-Upgrade "0";
"""
CLOCK_SECONDS = 60
LIBBPF_PACKAGES = {"apt-get": "libbpf1", "dnf": "libbpf", "zypper": "libbpf1"}
_RESOLV_CONF = "/etc/resolv.conf"
_RESOLVED = "/run/systemd/resolve/"
_APT_TIMER = "apt-daily-upgrade.timer"
_DNF_UNITS = (
    "dnf-automatic.timer",
    "dnf-automatic-install.timer",
    "dnf5-automatic.timer",
    "yum-cron.service",
)
# Of two that are installed, the one that somebody has installed beside systemd's own.
_CLOCK_UNITS = ("chrony.service", "chronyd.service", "systemd-timesyncd.service")


class _Dnf(msgspec.Struct, frozen=True):
    apply_updates: str
    file: str


class _Kubelet(msgspec.Struct, frozen=True):
    arguments: list[str] = []
    config: str | None = None


_DNF: Item[_Dnf | None] = Item("upgrades.dnf", _Dnf | None)
_KUBELET: Item[_Kubelet | None] = Item("kubelet", _Kubelet | None)


class Repair(NamedTuple):
    """How one check is repaired: `does` in a few words, then the two functions."""

    does: str
    look: Callable[[Items, Any], Look]
    plan: Callable[[Items, Any, Seen], Plan]


# --- node.resolv-conf -------------------------------------------------------------------------


def _look_at_resolver(items: Items, parameters: ResolvConfTarget) -> Look:
    if not items[MANAGER].systemd_resolved:
        raise HandOver(
            "systemd-resolved does not run: whether this node is to use it is for whoever runs "
            "its network to say."
        )
    kubelet = items[_KUBELET]
    config = (kubelet.config,) if kubelet and kubelet.config else ()
    return Look(paths=(_RESOLV_CONF, parameters.target, *config), resolver=True)


def _repair_resolv_conf(items: Items, parameters: ResolvConfTarget, seen: Seen) -> Plan:
    """Link to the stub, unless names would then no longer be resolved, here or in pods."""
    conf, resolver = seen.paths[_RESOLV_CONF], seen.resolver
    if conf.kind == "other":
        raise HandOver(f"{_RESOLV_CONF} is neither a file nor a link: look what has put it there.")
    if not resolver or not resolver.answers or seen.paths[parameters.target].kind != "file":
        raise HandOver(
            "systemd-resolved runs, but gives no answer at 127.0.0.53 (DNSStubListener=no?): "
            "whoever runs the node's network has to turn its stub on first."
        )
    # From a file that is not its own, systemd-resolved takes the nameservers that all links use.
    own = conf.kind == "missing" or (
        conf.kind == "link"
        and posixpath.normpath(posixpath.join("/etc", conf.target)).startswith(_RESOLVED)
    )
    if not resolver.links and not (own and resolver.globally):
        raise HandOver(
            f"systemd-resolved has no nameserver but those of {_RESOLV_CONF}, so names would no "
            "longer be resolved: whoever runs the node's network has to give it some, by DHCP or "
            "in /etc/systemd/resolved.conf."
        )
    if _pods_take(items, seen) == _RESOLV_CONF:
        raise HandOver(
            f"The kubelet hands {_RESOLV_CONF} on to pods, for which 127.0.0.53 is nobody, and "
            "CoreDNS would ask itself: whoever runs the cluster has to set resolvConf: "
            f"{_RESOLVED}resolv.conf in the kubelet's configuration first."
        )
    return Plan((Link(_RESOLV_CONF, posixpath.relpath(parameters.target, "/etc")),))


def _pods_take(items: Items, seen: Seen) -> str:
    """Give the file whose nameservers the kubelet hands on; empty if there is no kubelet."""
    kubelet = items[_KUBELET]
    if kubelet is None:
        return ""
    for argument in kubelet.arguments:
        if argument.startswith("--resolv-conf="):
            return argument.partition("=")[2]
    text = seen.paths[kubelet.config].text if kubelet.config else ""
    told = re.search(r"(?m)^[\"']?resolvConf[\"']?:[ \t]*[\"']?([^\"'\s#]+)", text)
    return told[1] if told else _RESOLV_CONF


# --- node.automatic-upgrades ------------------------------------------------------------------


def _look_at_upgraders(items: Items, parameters: AutomaticUpgrades) -> Look:
    dnf = items[_DNF]
    others = (_APT_TIMER, *_DNF_UNITS, *parameters.upgrading_units)
    return Look(
        paths=(APT_FILE, *((dnf.file,) if dnf else ())),
        units=tuple(dict.fromkeys(name for name in others if name in items[UNITS])),
    )


def _repair_upgrades(items: Items, parameters: AutomaticUpgrades, seen: Seen) -> Plan:
    """Turn both switches of each upgrader off that has one on."""
    live = {name for name, unit in seen.units.items() if unit.runs or unit.starts}
    foreign = sorted(live & set(parameters.upgrading_units) - set(_DNF_UNITS))
    if foreign:
        raise HandOver(
            f"{foreign[0]} upgrades a whole image, so without it the node gets no fixes at all: "
            "whoever provides the image has to say how it is updated instead."
        )
    actions: list[Action] = []
    apt = items[APT]
    armed = apt and apt.config.get("APT::Periodic::Unattended-Upgrade", "0") not in ("", "0")
    timed = apt and apt.installed and _APT_TIMER in live
    if armed or timed:
        actions.append(WriteFile(APT_FILE, APT_TEXT))
    if timed:
        actions.append(Unit(_APT_TIMER, on=False))
    dnf = items[_DNF]
    if dnf and dnf.apply_updates.lower() in ("yes", "true", "on", "1"):
        actions.append(_dnf_off(dnf.file, seen.paths[dnf.file].text))
    actions += [Unit(name, on=False) for name in _DNF_UNITS if name in live]
    return Plan(tuple(actions))


def _dnf_off(path: str, text: str) -> WriteFile:
    if path.startswith("/usr/"):
        raise HandOver(
            f"{path} belongs to the package and turns upgrades on: whoever provides the node's "
            "image has to change that."
        )
    off = re.sub(r"(?mi)^([ \t]*apply_updates[ \t]*[=:][ \t]*).*$", r"\g<1>no", text)
    return WriteFile(path, off)


# --- node.clock -------------------------------------------------------------------------------


def _look_at_clock(items: Items, parameters: Parameters) -> Look:
    del parameters
    daemon = items[CLOCK].by
    if daemon:
        raise HandOver(
            f"{daemon} runs, but does not get the time: whoever runs the network has to let the "
            "node reach its time servers (UDP port 123), or name others in its configuration."
        )
    return Look(units=_CLOCK_UNITS)


def _repair_clock(items: Items, parameters: Parameters, seen: Seen) -> Plan:
    """Start the time daemon that is installed, and wait until it has set the clock."""
    del items, parameters
    for name in _CLOCK_UNITS:
        if seen.units[name].load == "masked":
            raise HandOver(
                f"{name} is masked, so somebody does not want it to set the clock: whoever "
                f"administers the node has to say what sets it instead, or systemctl unmask {name}"
            )
        if seen.units[name].load == "loaded":
            return Plan((Unit(name, on=True),), await_clock=CLOCK_SECONDS)
    raise HandOver(
        "No time daemon is installed: whoever administers the node has to choose one and its "
        "servers, for example apt-get install systemd-timesyncd || dnf install chrony"
    )


# --- node.libbpf ------------------------------------------------------------------------------


def _look_at_libbpf(items: Items, parameters: Libbpf) -> Look:
    found = items[LIBBPF]
    if found:
        raise HandOver(
            f"{found.path} is older than {parameters.minimum}, which is what this release of the "
            "operating system has: whoever provides the node's image has to take a newer one."
        )
    return Look(packages=LIBBPF_PACKAGES)


def _repair_libbpf(items: Items, parameters: Libbpf, seen: Seen) -> Plan:
    """Install the distribution's package."""
    del items
    package = seen.package
    if package is None:
        raise HandOver(
            "The node has none of apt-get, dnf and zypper: whoever provides its image has to put "
            f"libbpf {parameters.minimum} or later into it."
        )
    if package.installed:
        raise HandOver(
            f"The package {package.name} {package.installed} is installed, but its library is not "
            "there: whoever administers the node has to find out why, and install it again."
        )
    if not package.offered:
        raise HandOver(
            f"The node's package sources have no {package.name}: run apt-get update; if it has "
            "none then either, the release is too old, and whoever provides the node's image has "
            "to take a newer one."
        )
    return Plan((Package(package.name, package.manager),))


REPAIRS = {
    "node.automatic-upgrades": Repair(
        "a setting of apt's that comes last, apply_updates = no for dnf-automatic and yum-cron, "
        "and their timers off",
        _look_at_upgraders,
        _repair_upgrades,
    ),
    "node.clock": Repair(
        "the time daemon that is installed (chrony, else systemd-timesyncd) on, and a wait of up "
        f"to {CLOCK_SECONDS} s for the clock",
        _look_at_clock,
        _repair_clock,
    ),
    "node.libbpf": Repair(
        "the distribution's package of libbpf, where it has one and none is installed",
        _look_at_libbpf,
        _repair_libbpf,
    ),
    "node.resolv-conf": Repair(
        "/etc/resolv.conf a link to the stub of systemd-resolved, where that answers, has "
        "nameservers of its own and no kubelet hands the file on to pods",
        _look_at_resolver,
        _repair_resolv_conf,
    ),
}
"""By the id of the check that judges, which a requirement of another id may use."""
