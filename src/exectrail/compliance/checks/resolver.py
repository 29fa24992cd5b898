"""How a node resolves names."""

from __future__ import annotations

import posixpath

from exectrail.compliance.checks.registry import Outcome, Parameters, check, listing, plain_check
from exectrail.compliance.items.access import Items, Unreadable
from exectrail.compliance.items.node import MANAGER, NAMESERVERS, RESOLV_CONF, Nameserver

_FILE = "/etc/resolv.conf"


class ResolvConfTarget(Parameters, frozen=True):
    """`target` is the file that the symlink must lead to."""

    target: str = "/run/systemd/resolve/stub-resolv.conf"

    expects = _FILE + " is a symlink that leads to {target}"


@check("node.resolv-conf", ResolvConfTarget)
def resolv_conf(items: Items, parameters: ResolvConfTarget) -> Outcome:
    """Compare where the symlink leads, not how it is written: relative targets and chains count."""
    conf = items[RESOLV_CONF]
    if conf.type == "missing":
        return Outcome.failed("missing", f"There is no {_FILE}.")
    if conf.type != "symlink":
        kind = "regular file" if conf.type == "file" else conf.type
        return Outcome.failed(kind, f"{_FILE} is no symlink ({kind}).")
    written = posixpath.normpath(posixpath.join(posixpath.dirname(_FILE), conf.target or ""))
    leads_to = posixpath.normpath(conf.resolved) if conf.resolved else written
    seen = f"symlink to {conf.target}" + ("" if leads_to == conf.target else f", so to {leads_to}")
    if conf.dangling:
        stopped = leads_to == posixpath.normpath(parameters.target)
        why = ": systemd-resolved does not run" if stopped else ""
        return Outcome.failed(
            f"{seen} (missing)", f"{_FILE} leads to {leads_to}, which is missing{why}."
        )
    if leads_to != posixpath.normpath(parameters.target):
        return Outcome.failed(seen, f"{_FILE} leads to {leads_to} instead.")
    return Outcome.passed(seen, f"{_FILE} leads to {leads_to}.")


@plain_check("node.dns-source", "every nameserver in force was given by DHCP")
def dns_source(items: Items) -> Outcome:
    """Judge where each nameserver in force came from: all from DHCP passes, a static one fails.

    Nameservers that only a hand-written /etc/resolv.conf names are `node.resolv-conf`'s matter
    while systemd-resolved runs: they say nothing of how the links are configured, and one fault
    is not reported twice. Without systemd-resolved they are static nameservers like any other.
    """
    servers = items[NAMESERVERS]
    judged = [server for server in servers if server.by != _FILE]
    if not judged:
        if _bypassed(items):
            return Outcome.skipped(
                _shown(servers),
                f"{_FILE} bypasses systemd-resolved, which node.resolv-conf judges, "
                "and no link has a nameserver.",
            )
        judged = servers
    seen = _shown(judged)
    static = [server for server in judged if server.source == "static"]
    if static:
        return Outcome.failed(seen, f"{len(static)} of {len(judged)} nameservers are set by hand.")
    if not judged:
        return Outcome.failed("none", "No nameserver is in force, from DHCP or otherwise.")
    if any(server.source != "dhcp" for server in judged):
        raise Unreadable(NAMESERVERS.name, f"it is not known where they came from: {seen}")
    return Outcome.passed(seen, "DHCP gave every nameserver in force.")


def _bypassed(items: Items) -> bool:
    conf = items[RESOLV_CONF]
    return (conf.type != "symlink" or conf.dangling) and items[MANAGER].systemd_resolved


def _shown(servers: list[Nameserver]) -> str:
    return (
        listing(
            [
                f"{server.address}"
                + (f" on {server.link}" if server.link else "")
                + f": {server.source}"
                + (f" ({server.by})" if server.by else "")
                for server in servers
            ]
        )
        or "none"
    )
