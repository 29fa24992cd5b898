"""Whether the operating system upgrades itself."""

from __future__ import annotations

from typing import NamedTuple

from exectrail.compliance.checks.registry import Outcome, Parameters, check, listing
from exectrail.compliance.items.access import Items, Unreadable, gather
from exectrail.compliance.items.node import APT, DNF, UNITS, Unit

_APT_TIMER = "apt-daily-upgrade.timer"
_DNF_UNITS = ("dnf-automatic.timer", "dnf5-automatic.timer", "yum-cron.service")


class AutomaticUpgrades(Parameters, frozen=True):
    """`upgrading_units` upgrade whenever they run, without a further setting."""

    upgrading_units: tuple[str, ...] = (
        "dnf-automatic-install.timer",
        "transactional-update.timer",
        "update-engine.service",
        "zincati.service",
    )

    expects = "nothing upgrades the operating system by itself"


class _Half(NamedTuple):
    """An updater of which one switch is on: `on` says which, `off` what holds it back."""

    on: str
    off: str


@check("node.automatic-upgrades", AutomaticUpgrades)
def automatic_upgrades(items: Items, parameters: AutomaticUpgrades) -> Outcome:
    """Judge by the effect: whether an upgrade will run.

    unattended-upgrades and dnf-automatic have two switches, the configuration and the timer. Both
    on: fail. One on: nothing upgrades, but one step brings it back, so warn, naming both. Both
    off, or not installed: pass. A timer counts as on when it is active, or enabled and so will be
    at the next boot; a masked one does not, unless it still runs. Snaps are no part of the
    operating system.
    """
    halves: list[_Half] = []
    running, unreadable = gather(
        lambda: _apt(items, halves),
        lambda: _dnf(items, halves),
        lambda: [
            f"{name} is {_state(_unit(items, name))}"
            for name in parameters.upgrading_units
            if _live(_unit(items, name))
        ],
    )
    if running:
        return Outcome.failed(listing(running), "The operating system will upgrade itself.")
    if unreadable:
        raise unreadable
    if halves:
        return Outcome.warned(
            listing([f"{half.on}, but {half.off}" for half in halves]),
            f"Nothing upgrades now, but only because {halves[0].off}: {halves[0].on}.",
        )
    return Outcome.passed("off", "Nothing upgrades the operating system by itself.")


def _apt(items: Items, halves: list[_Half]) -> list[str]:
    apt = items[APT]
    if apt is None:
        return []
    interval = apt.config.get("APT::Periodic::Unattended-Upgrade", "0")
    enable = apt.config.get("APT::Periodic::Enable")
    armed = interval not in ("", "0") and enable != "0"
    configured = f"APT::Periodic::Unattended-Upgrade is {interval!r}"
    if enable is not None:
        configured += f" and APT::Periodic::Enable is {enable!r}"
    if not apt.installed:
        if armed:
            halves.append(_Half(configured, "the package unattended-upgrades is not installed"))
        return []
    timer = _unit(items, _APT_TIMER)
    return _both(configured, armed, f"{_APT_TIMER} is {_state(timer)}", _live(timer), halves)


def _dnf(items: Items, halves: list[_Half]) -> list[str]:
    dnf = items[DNF]
    armed = dnf is not None and dnf.apply_updates.lower() in ("yes", "true", "on", "1")
    configured = f"apply_updates is {dnf.apply_updates if dnf else 'not set'}"
    units = {name: _unit(items, name) for name in _DNF_UNITS}
    live = [f"{name} is {_state(unit)}" for name, unit in units.items() if _live(unit)]
    off = "no timer of dnf-automatic is on"
    return _both(configured, armed, listing(live) or off, bool(live), halves)


def _both(
    configured: str,
    armed: bool,  # noqa: FBT001  two switches of one kind: their order is the call's order
    timer: str,
    live: bool,  # noqa: FBT001
    halves: list[_Half],
) -> list[str]:
    if armed and live:
        return [f"{configured} and {timer}"]
    if armed:
        halves.append(_Half(configured, timer))
    elif live:
        halves.append(_Half(timer, configured))
    return []


def _unit(items: Items, name: str) -> Unit:
    units = items[UNITS]
    if not units:  # systemd does not run
        return Unit("not-found", "", "inactive")
    if name not in units:
        raise Unreadable(UNITS.name, f"it says nothing of {name}")
    return units[name]


def _live(unit: Unit) -> bool:
    running = unit.active in ("active", "activating", "reloading")
    return running or unit.enabled in ("enabled", "enabled-runtime")


def _state(unit: Unit) -> str:
    load = "" if unit.load in ("loaded", unit.enabled) else unit.load
    return ", ".join(word for word in (load, unit.enabled, unit.active) if word)
