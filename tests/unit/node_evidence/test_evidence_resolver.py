"""Which nameservers are in force on a link, and where each came from."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from evidence_tree import Directory, Link, Sparse, systemctl

STUB = "/run/systemd/resolve/stub-resolv.conf"
UPLINK = "/run/systemd/resolve/resolv.conf"
LEASE = "# This is private data. Do not parse.\nADDRESS=10.0.2.15\nDNS=10.0.2.3 10.0.2.4\n"
NETPLAN = "/run/systemd/network/10-netplan-ens3.network"
NETWORK = "/etc/systemd/network/10-dhcp.network"
RUNNING = ("loaded", "enabled", "active")

# A healthy Debian or Ubuntu node: networkd has a lease, resolved uses it.
HEALTHY: dict[str, Any] = {
    "/etc/resolv.conf": Link("../run/systemd/resolve/stub-resolv.conf"),
    STUB: "# This is managed by man:systemd-resolved(8).\nnameserver 127.0.0.53\noptions edns0\n",
    UPLINK: "# managed\nnameserver 10.0.2.3\nnameserver 10.0.2.4\nsearch .\n",
    "/run/systemd/netif/links/2": f"NETWORK_FILE={NETWORK}\nDNS=10.0.2.3 10.0.2.4\n",
    "/run/systemd/netif/leases/2": LEASE,
    "/sys/class/net/ens3/ifindex": "2\n",
    "/sys/class/net/lo/ifindex": "1\n",
    NETWORK: "[Match]\nName=ens3\n[Network]\nDHCP=yes\n",
    **systemctl({"systemd-resolved.service": RUNNING, "systemd-networkd.service": RUNNING}),
    "/proc/1/comm": "systemd\n",
}
BY_LEASE = "systemd-networkd lease /run/systemd/netif/leases/2"
Row = tuple[str, str | None, str, str]
LEASED: list[Row] = [
    ("10.0.2.3", "ens3", "dhcp", BY_LEASE),
    ("10.0.2.4", "ens3", "dhcp", BY_LEASE),
]


def tree(**changes: Any) -> dict[str, Any]:
    """HEALTHY with changes; keys are paths with `__` for `/` and None takes a file away."""
    files = {**HEALTHY, **changes}
    return {path: content for path, content in files.items() if content is not None}


def in_use(servers: str, network: str = NETWORK) -> dict[str, Any]:
    """What networkd and resolved write when these servers are in force on ens3."""
    uplink = "".join(f"nameserver {server.partition('#')[0]}\n" for server in servers.split())
    return {
        "/run/systemd/netif/links/2": f"NETWORK_FILE={network}\nDNS={servers}\n",
        UPLINK: uplink,
    }


def rows(got: list[dict[str, Any]]) -> list[Row]:
    return [(row["address"], row["link"], row["source"], row["by"]) for row in got]


CASES: dict[str, tuple[dict[str, Any], list[Row]]] = {
    "lease of networkd": (
        {},
        LEASED,
    ),
    "link straight to the uplink file": (
        {"/etc/resolv.conf": Link("/run/systemd/resolve/resolv.conf")},
        LEASED,
    ),
    "plain file that names the stub": (
        {"/etc/resolv.conf": "nameserver 127.0.0.53\n"},
        LEASED,
    ),
    "static in the .network file": (
        {
            NETWORK: "[Network]\nDHCP=yes\nDNS=9.9.9.9#quad9\n",
            **in_use("9.9.9.9#quad9 10.0.2.3"),
        },
        [("9.9.9.9", "ens3", "static", NETWORK), ("10.0.2.3", "ens3", "dhcp", BY_LEASE)],
    ),
    "the same address in both counts as static": (
        {NETWORK: "[Network]\nDHCP=yes\nDNS=10.0.2.3\n"},
        [("10.0.2.3", "ens3", "static", NETWORK), ("10.0.2.4", "ens3", "dhcp", BY_LEASE)],
    ),
    "static in a drop-in, and UseDNS=no": (
        {
            NETWORK + ".d/dns.conf": "[Network]\nDNS=8.8.8.8\n[DHCPv4]\nUseDNS=no\n",
            **in_use("8.8.8.8"),
        },
        [("8.8.8.8", "ens3", "static", NETWORK + ".d/dns.conf")],
    ),
    "a drop-in that forgets the file's servers": (
        {
            NETWORK: "[Network]\nDNS=10.0.2.3\n",
            NETWORK + ".d/dns.conf": "[Network]\nDNS=\n",
        },
        LEASED,
    ),
    "netplan": (
        {
            **in_use("1.1.1.1", NETPLAN),
            NETPLAN: "[Network]\nDNS=1.1.1.1\n",
            "/etc/netplan/01-a.yaml": "network: {}\n",
            "/etc/netplan/50-cloud-init.yaml": "nameservers: {addresses: [1.1.1.1]}\n",
        },
        [
            (
                "1.1.1.1",
                "ens3",
                "static",
                f"netplan /etc/netplan/50-cloud-init.yaml (as {NETPLAN})",
            )
        ],
    ),
    "resolved.conf drop-in": (
        {
            "/etc/systemd/resolved.conf": "[Resolve]\n#DNS=\n",
            "/etc/systemd/resolved.conf.d/dns.conf": "[Resolve]\nDNS=9.9.9.9\n",
        },
        [
            *LEASED,
            ("9.9.9.9", None, "static", "/etc/systemd/resolved.conf.d/dns.conf"),
        ],
    ),
    "resolved.conf drop-in hidden by a mask": (
        {
            "/usr/lib/systemd/resolved.conf.d/dns.conf": "[Resolve]\nDNS=9.9.9.9\n",
            "/etc/systemd/resolved.conf.d/dns.conf": "",
        },
        LEASED,
    ),
    "fallback servers only when nothing else is there": (
        {
            "/run/systemd/netif/links/2": "DNS=\n",
            UPLINK: "# none\n",
            "/usr/lib/systemd/resolved.conf": "[Resolve]\nFallbackDNS=1.1.1.1\n",
        },
        [("1.1.1.1", None, "static", "/usr/lib/systemd/resolved.conf")],
    ),
    "no server at all": ({"/run/systemd/netif/links/2": "DNS=\n", UPLINK: "# none\n"}, []),
    "IPv6 from a router advertisement beside the lease": (
        in_use("10.0.2.3 fec0::3"),
        [
            ("10.0.2.3", "ens3", "dhcp", BY_LEASE),
            (
                "fec0::3",
                "ens3",
                "dhcp",
                "router advertisement or DHCPv6 on ens3 (systemd-networkd)",
            ),
        ],
    ),
    "set at run time": (
        in_use("8.8.4.4 2001:4860:4860::8844"),
        [
            ("8.8.4.4", "ens3", "unknown", "/run/systemd/netif/links/2"),
            ("2001:4860:4860::8844", "ens3", "unknown", "/run/systemd/netif/links/2"),
        ],
    ),
    "a server that only the uplink file lists": (
        {UPLINK: "nameserver 10.0.2.3\nnameserver 7.7.7.7\n"},
        [
            *LEASED,
            ("7.7.7.7", None, "unknown", UPLINK),
        ],
    ),
    "dhclient's hook for resolved": (
        {
            "/run/systemd/netif/links/2": "DNS=\n",
            UPLINK: "nameserver 10.0.2.3\n",
            "/run/systemd/resolved.conf.d/isc-dhcp-v4-ens3.conf": "[Resolve]\nDNS=10.0.2.3\n",
        },
        [
            (
                "10.0.2.3",
                None,
                "dhcp",
                "dhclient lease, in /run/systemd/resolved.conf.d/isc-dhcp-v4-ens3.conf",
            )
        ],
    ),
    "plain file that a person wrote": (
        {"/etc/resolv.conf": "nameserver 10.0.2.3\nnameserver 8.8.8.8\n"},
        [
            ("10.0.2.3", None, "static", "/etc/resolv.conf"),
            ("8.8.8.8", None, "static", "/etc/resolv.conf"),
        ],
    ),
    "plain file with a local cache and the stub": (
        {"/etc/resolv.conf": "nameserver 169.254.20.10\nnameserver 127.0.0.53\n"},
        [
            ("169.254.20.10", None, "static", "/etc/resolv.conf"),
            *LEASED,
        ],
    ),
    "dangling link": ({STUB: None, UPLINK: None}, []),
    "missing": ({"/etc/resolv.conf": None}, []),
}


@pytest.mark.parametrize(("changes", "expected"), CASES.values(), ids=CASES)
def test_systemd(
    item: Callable[..., Any],
    changes: dict[str, Any],
    expected: list[Row],
) -> None:
    assert rows(item("resolver.nameservers", tree(**changes))) == expected


NM: dict[str, Any] = {
    "/etc/resolv.conf": "# Generated by NetworkManager\nsearch x\nnameserver 192.168.1.1\n",
    "/run/NetworkManager/devices/2": "[device]\nmanaged=1\nconnection-uuid=aaaa\n",
    "/etc/NetworkManager/system-connections/eth0.nmconnection": "[connection]\nid=eth0\nuuid=aaaa\n"
    "[ipv4]\nmethod=auto\n[ipv6]\nmethod=ignore\n",
    "/etc/NetworkManager/system-connections/unused.nmconnection": "[connection]\nuuid=bbbb\n"
    "[ipv4]\ndns=192.168.1.1;\nmethod=manual\n",
    "/sys/class/net/eth0/ifindex": "2\n",
    **systemctl({"NetworkManager.service": RUNNING}),
    "/proc/1/comm": "systemd\n",
}
PROFILE = "/etc/NetworkManager/system-connections/eth0.nmconnection"
IFCFG = "/etc/sysconfig/network-scripts/ifcfg-eth0"
OTHERS: dict[str, tuple[dict[str, Any], list[Row]]] = {
    "NetworkManager by DHCP": (
        NM,
        [("192.168.1.1", "eth0", "dhcp", f"NetworkManager, ipv4.method=auto in {PROFILE}")],
    ),
    "NetworkManager by DHCP through resolved": (
        {
            **NM,
            **{path: HEALTHY[path] for path in (STUB, "/etc/resolv.conf")},
            "/run/systemd/resolve/netif/2": "LLMNR=yes\nSERVERS=192.168.1.1\n",
            UPLINK: "nameserver 192.168.1.1\n",
        },
        [("192.168.1.1", "eth0", "dhcp", f"NetworkManager, ipv4.method=auto in {PROFILE}")],
    ),
    "NetworkManager static": (
        {**NM, PROFILE: "[connection]\nuuid=aaaa\n[ipv4]\nmethod=auto\ndns=192.168.1.1;8.8.8.8;\n"},
        [("192.168.1.1", "eth0", "static", PROFILE)],
    ),
    "NetworkManager that ignores what DHCP gives": (
        {
            **NM,
            PROFILE: "[connection]\nuuid=aaaa\n[ipv4]\nmethod=auto\nignore-auto-dns=true\n"
            "[ipv6]\nmethod=disabled\n",
        },
        [("192.168.1.1", None, "unknown", "/etc/resolv.conf")],
    ),
    "NetworkManager global DNS": (
        {
            **NM,
            "/etc/NetworkManager/conf.d/dns.conf": "[global-dns-domain-*]\nservers=192.168.1.1\n",
        },
        [("192.168.1.1", None, "static", "/etc/NetworkManager/conf.d/dns.conf")],
    ),
    "ifcfg static": (
        {**NM, PROFILE: None, IFCFG: 'DEVICE=eth0\nBOOTPROTO=dhcp\nDNS1="192.168.1.1"\n'},
        [("192.168.1.1", "eth0", "static", IFCFG)],
    ),
    "ifcfg by DHCP": (
        {**NM, PROFILE: None, IFCFG: "DEVICE=eth0\nBOOTPROTO=dhcp\n"},
        [("192.168.1.1", "eth0", "dhcp", f"NetworkManager, BOOTPROTO=dhcp in {IFCFG}")],
    ),
    "dhclient's lease": (
        {
            "/proc/1/comm": "init\n",
            "/proc/77/comm": "dhclient\n",
            "/etc/resolv.conf": "domain x\nnameserver 10.0.0.1\nnameserver 10.0.0.9\n",
            "/var/lib/dhcp/dhclient.eth0.leases": 'lease {\n  interface "eth0";\n'
            "  option domain-name-servers 10.0.0.1;\n}\n",
            "/etc/dhcp/dhclient.conf": "#supersede domain-name-servers 10.0.0.1;\n"
            "prepend domain-name-servers 10.0.0.9;\n",
        },
        [
            ("10.0.0.1", "eth0", "dhcp", "dhclient lease /var/lib/dhcp/dhclient.eth0.leases"),
            ("10.0.0.9", None, "static", "/etc/dhcp/dhclient.conf"),
        ],
    ),
    "dhclient's old lease without dhclient": (
        {
            "/proc/1/comm": "init\n",
            "/etc/resolv.conf": "nameserver 10.0.0.1\n",
            "/var/lib/dhcp/dhclient.eth0.leases": 'lease {\n  interface "eth0";\n'
            "  option domain-name-servers 10.0.0.1;\n}\n",
        },
        [("10.0.0.1", None, "static", "/etc/resolv.conf")],
    ),
    "ifupdown static": (
        {
            "/proc/1/comm": "init\n",
            "/etc/resolv.conf": Link("/run/resolvconf/resolv.conf"),
            "/run/resolvconf/resolv.conf": "# by resolvconf(8)\nnameserver 10.0.0.1\n",
            "/etc/network/interfaces.d/eth0": "iface eth0 inet static\n dns-nameservers 10.0.0.1\n",
        },
        [("10.0.0.1", "eth0", "static", "/etc/network/interfaces.d/eth0")],
    ),
    "dhcpcd": (
        {
            "/proc/1/comm": "init\n",
            "/etc/resolv.conf": "# Generated by dhcpcd from eth0.dhcp, x\nnameserver 10.0.0.1\n",
        },
        [("10.0.0.1", "eth0", "dhcp", "dhcpcd, eth0.dhcp")],
    ),
    "dhcpcd static": (
        {
            "/proc/1/comm": "init\n",
            "/etc/resolv.conf": "# Generated by dhcpcd from eth0.dhcp\nnameserver 10.0.0.1\n",
            "/etc/dhcpcd.conf": "interface eth0\n static domain_name_servers=10.0.0.1\n",
        },
        [("10.0.0.1", None, "static", "/etc/dhcpcd.conf")],
    ),
    "wicked": (
        {
            "/proc/1/comm": "systemd\n",
            "/etc/resolv.conf": Link("/run/netconfig/resolv.conf"),
            "/run/netconfig/resolv.conf": "### autogenerated by netconfig!\nnameserver 10.0.0.1\n"
            "nameserver 10.0.0.2\n",
            "/run/wicked/leaseinfo.eth0.dhcp.ipv4": "DNSSERVERS='10.0.0.1'\n",
            "/etc/sysconfig/network/config": 'NETCONFIG_DNS_STATIC_SERVERS="10.0.0.2"\n',
        },
        [
            ("10.0.0.1", "eth0", "dhcp", "wicked lease /run/wicked/leaseinfo.eth0.dhcp.ipv4"),
            ("10.0.0.2", None, "static", "/etc/sysconfig/network/config"),
        ],
    ),
}


@pytest.mark.parametrize(("files", "expected"), OTHERS.values(), ids=OTHERS)
def test_other_managers(
    item: Callable[..., Any],
    files: dict[str, Any],
    expected: list[Row],
) -> None:
    files = {path: content for path, content in files.items() if content is not None}
    assert rows(item("resolver.nameservers", files)) == expected


@pytest.mark.parametrize(
    "path",
    [
        UPLINK,
        "/run/systemd/netif/links/2",
        "/run/systemd/netif/leases/2",
        NETWORK,
        "/etc/systemd/resolved.conf",
    ],
)
def test_a_source_that_cannot_be_read_makes_the_whole_item_unreadable(
    item: Callable[..., Any], path: str
) -> None:
    got = item("resolver.nameservers", tree(**{path: Sparse(1 << 30)}))
    assert list(got) == ["unreadable"]
    assert path in got["unreadable"]


def conf(kind: str, size: int = 0, *servers: str, **more: Any) -> dict[str, Any]:
    found = {"type": kind, "size": size, "nameservers": list(servers)}
    return {**found, "target": None, "resolved": None, "dangling": False, **more}


TO_STUB = {"target": "../run/systemd/resolve/stub-resolv.conf"}
RESOLV_CONF: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "stub": ({}, conf("symlink", 82, "127.0.0.53", **TO_STUB, resolved=STUB)),
    "plain": (
        {"/etc/resolv.conf": "nameserver 1.1.1.1\n"},
        conf("file", 19, "1.1.1.1", resolved="/etc/resolv.conf"),
    ),
    "dangling": ({STUB: None}, conf("symlink", **TO_STUB, dangling=True)),
    "missing": ({"/etc/resolv.conf": None}, conf("missing")),
    "directory": ({"/etc/resolv.conf": Directory()}, conf("other")),
}


@pytest.mark.parametrize(("changes", "expected"), RESOLV_CONF.values(), ids=RESOLV_CONF)
def test_resolv_conf(
    item: Callable[..., Any], changes: dict[str, Any], expected: dict[str, Any]
) -> None:
    assert item("resolver.resolv_conf", tree(**changes)) == expected


def test_a_loop_is_unreadable(item: Callable[..., Any]) -> None:
    got = item("resolver.resolv_conf", {"/etc/resolv.conf": Link("resolv.conf")})
    assert got == {"unreadable": "/etc/resolv.conf: Too many levels of symbolic links"}


def test_managers_by_unit(item: Callable[..., Any]) -> None:
    assert item("resolver.manager", tree()) == {
        "systemd-resolved": True,
        "systemd-networkd": True,
        "NetworkManager": False,
        "dhclient": False,
    }


def test_managers_by_process_without_systemd(item: Callable[..., Any]) -> None:
    files = {
        "/proc/1/comm": "init\n",
        "/proc/1/ns/pid": Link("pid:[1]"),
        "/proc/20/comm": "NetworkManager\n",
        "/proc/20/ns/pid": Link("pid:[1]"),
        "/proc/21/comm": "dhclient\n",
        "/proc/21/ns/pid": Link("pid:[2]"),
    }
    assert item("resolver.manager", files) == {
        "systemd-resolved": False,
        "systemd-networkd": False,
        "NetworkManager": True,
        "dhclient": False,  # a container's
    }


def test_managers_are_unknown_where_processes_are_hidden(item: Callable[..., Any]) -> None:
    assert list(item("resolver.manager", {})) == ["unreadable"]
