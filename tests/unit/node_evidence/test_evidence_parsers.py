"""The parsers: exact on what they know, and calm about everything else."""

from __future__ import annotations

import json
import shlex
from types import ModuleType
from typing import Any

import pytest
from evidence_tree import MODULE
from hypothesis import given, settings
from hypothesis import strategies as st

TEXT = st.text() | st.text(alphabet="\"'\\\n=#[]{}()<>;:,.-_ \t\r$`aZ09/", max_size=200)
PARSERS = [
    MODULE.parse_environment,
    MODULE.parse_version,
    MODULE.find_version,
    MODULE.parse_mountinfo,
    MODULE.parse_fstab,
    MODULE.parse_ini,
    MODULE.parse_apt_dump,
    MODULE.parse_dhclient_leases,
    MODULE.parse_resolv_conf,
    MODULE.dns_address,
    MODULE.parse_unit_blocks,
    MODULE.parse_toml,
    MODULE.parse_yaml_scalars,
    MODULE.parse_json,
    MODULE.parse_pod,
]


@pytest.mark.parametrize("parser", PARSERS, ids=lambda parser: parser.__name__)
@given(text=TEXT)
@settings(max_examples=150)
def test_no_text_makes_a_parser_raise(parser: Any, text: str) -> None:
    parser(text)


LINES = {
    "parse_toml": '[plugins."x".y]\nsnapshotter = "a"\nlist = [ "b",\n "c" ] # d\n',
    "parse_mountinfo": "36 35 98:0 / /mnt\\040x rw,noatime master:1 - ext3 /dev/root rw\n",
    "parse_environment": 'NAME="a \\"b\\" \\$c"\nID=\'x\'\n',
    "parse_dhclient_leases": 'lease {\n interface "e";\n option domain-name-servers 1.1.1.1;\n}\n',
    "parse_apt_dump": 'APT "";\nAPT::Periodic::Enable "1";\n',
    "parse_ini": "[Network]\nDNS=1.1.1.1 \\\n 2.2.2.2\n",
    "parse_pod": "metadata:\n  name: x\nspec:\n  containers:\n  - image: y\n",
}


@pytest.mark.parametrize("name", sorted(LINES))
@given(data=st.data())
@settings(max_examples=150)
def test_no_damaged_file_makes_a_parser_raise(name: str, data: st.DataObject) -> None:
    text = LINES[name]
    at = data.draw(st.integers(0, len(text)))
    width = data.draw(st.integers(0, 5))
    getattr(MODULE, name)(text[:at] + data.draw(TEXT) + text[at + width :])


# --- os-release ---


@pytest.mark.parametrize(
    ("line", "value"),
    [
        ("A=plain", "plain"),
        ("A=", ""),
        ('A=""', ""),
        ('A="with space"', "with space"),
        ("A='single $x \\ \"'", 'single $x \\ "'),
        (r'A="esc \" \$ \\ \` \n"', 'esc " $ \\ ` \\n'),
        (r"A=un\ quoted\$x", "un quoted$x"),
        ("A=\"a\"'b'c", "abc"),
        ("A=no quotes here", "no quotes here"),
        ("A=value # comment", "value"),
        ("A=va#lue", "va#lue"),
        ('A="$(reboot) `reboot` ${x}"', "$(reboot) `reboot` ${x}"),
        ("  A=indented  \r", "indented"),
        ("A=1\nA=2", "2"),
        ('A="é\\é"', "é\\é"),
        ("A=x\\", "x"),
    ],
)
def test_environment_value(ne: ModuleType, line: str, value: str) -> None:
    assert ne.parse_environment(line) == {"A": value}


@pytest.mark.parametrize(
    "line", ["# A=1", "A", "=1", "1A=x", "A B=1", 'A="open', "A='open", "-A=1", "", "A-B=1"]
)
def test_a_line_that_assigns_nothing_is_left_out(ne: ModuleType, line: str) -> None:
    assert ne.parse_environment(line + "\nOK=1") == {"OK": "1"}


@given(st.text(alphabet=st.characters(codec="utf-8", exclude_characters="\n\r\0"), max_size=60))
def test_environment_reads_what_a_shell_would_be_given(value: str) -> None:
    assert MODULE.parse_environment("A=" + shlex.quote(value)) == {"A": value}


# --- versions ---


@pytest.mark.parametrize(
    ("text", "version"),
    [
        ("5.10.0-30-cloud-amd64", [5, 10, 0]),
        ("4.19.91-26.al7.x86_64", [4, 19, 91]),
        ("6.12.0+deb13-amd64", [6, 12, 0]),
        ("4.18.0-553.el8", [4, 18, 0]),
        ("4.20-rc1", [4, 20, 0]),
        ("4.19", [4, 19, 0]),
        ("5.15.167.4-microsoft-standard-WSL2", [5, 15, 167]),
        ("v1.30.2", [1, 30, 2]),
        ("6", None),
        ("", None),
        ("linux-6.1", None),
        ("99999999999999999999.1", None),
    ],
)
def test_version(ne: ModuleType, text: str, version: list[int] | None) -> None:
    assert ne.parse_version(text) == version


@given(st.tuples(*[st.integers(0, 999999)] * 3), st.sampled_from(["", "-30-amd64", "+deb13", "_x"]))
def test_version_round_trip(parts: tuple[int, ...], tail: str) -> None:
    assert MODULE.parse_version(".".join(map(str, parts)) + tail) == list(parts)


@pytest.mark.parametrize(
    ("text", "version"),
    [
        ("containerd github.com/containerd/containerd v1.7.2 0cae528dd6cb", "1.7.2"),
        ("containerd github.com/containerd/containerd 1.6.20~ds1 1.6.20~ds1-1+b1", "1.6.20"),
        ("crio version 1.28.1\nVersion:  1.28.1\n", "1.28.1"),
        ("Docker version 24.0.5, build ced0996", "24.0.5"),
        ("podman version 4.3.1", "4.3.1"),
        ("Kubernetes v1.30.2", "1.30.2"),
        ("k3s version v1.30.2+k3s1 (aa4794b3)\ngo version go1.22.4", "1.30.2"),
        ("nothing here", None),
    ],
)
def test_version_in_a_programs_answer(ne: ModuleType, text: str, version: str | None) -> None:
    assert ne.find_version(text) == version


# --- mounts ---


def test_mountinfo_rows(ne: ModuleType) -> None:
    rows = ne.parse_mountinfo(
        "36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 shared:2 - ext3 /dev/root rw,errors=continue\n"
        "40 35 0:40 / /a\\040b\\134c rw - nfs4 server:/x\\011y rw,vers=4.1,addr=10.0.0.1\n"
        "41 35 0:41 / /none rw -\n"
        "broken line\n"
    )
    assert rows == [
        {
            "source": "/dev/root",
            "target": "/mnt2",
            "fstype": "ext3",
            "options": "rw,noatime,errors=continue",
        },
        {
            "source": "server:/x\ty",
            "target": "/a b\\c",
            "fstype": "nfs4",
            "options": "rw,vers=4.1,addr=10.0.0.1",
        },
    ]


def escape(text: str) -> str:
    return "".join(f"\\{ord(c):03o}" if c in " \t\n\\#" else c for c in text)


PATHS = st.text(
    alphabet=st.characters(
        codec="utf-8", exclude_characters="\r\0", exclude_categories=["Zs", "Cc"]
    )
    | st.sampled_from(" \t\n\\#"),
    min_size=1,
    max_size=60,
)


@given(source=PATHS, target=PATHS)
def test_mountinfo_round_trip(source: str, target: str) -> None:
    line = f"1 2 3:4 / /{escape(target)} rw - fuse {escape(source)} rw"
    (row,) = MODULE.parse_mountinfo(line)
    assert (row["source"], row["target"]) == (source, "/" + target)


@given(source=PATHS, target=PATHS)
def test_fstab_round_trip(source: str, target: str) -> None:
    (row,) = MODULE.parse_fstab(f"x{escape(source)}\t/{escape(target)} \t nfs defaults 0 0")
    assert (row["source"], row["target"]) == ("x" + source, "/" + target)


def test_fstab_leaves_comments_and_broken_lines_out(ne: ModuleType) -> None:
    text = "# /dev/x / ext4\n\n/dev/only\nUUID=1 / ext4\n"
    assert ne.parse_fstab(text) == [
        {"source": "UUID=1", "target": "/", "fstype": "ext4", "options": ""}
    ]


@pytest.mark.parametrize("name", ["password", "pass", "PASSWORD2", "secret", "token"])
def test_a_secret_among_the_mount_options_is_not_shown(ne: ModuleType, name: str) -> None:
    (row,) = ne.parse_fstab(f"//s/x /x cifs user=u,{name}=hunter2,vers=3 0 0")
    assert row["options"] == f"user=u,{name}=***,vers=3"


# --- INI, apt, leases, resolv.conf ---


def test_ini(ne: ModuleType) -> None:
    rows = ne.parse_ini(
        "[A]\n# x=1\n;y=2\nDNS=1.1.1.1\\\n 2.2.2.2\nDNS =\n DNS = 3.3.3.3 \n[B]\nDNS=4\n"
    )
    assert ne.ini_list(rows, "A", "DNS") == ["3.3.3.3"]
    assert ne.ini_list(rows, "B", "DNS") == ["4"]
    assert rows[0] == ("A", "DNS", "1.1.1.1 2.2.2.2")
    assert ne.ini_last(rows, "A", "none", "default") == "default"


def test_apt_dump(ne: ModuleType) -> None:
    text = 'APT "";\nAPT::Periodic "";\nAPT::Periodic::Enable "1";\nA::List:: "x";\n'
    text += 'B "a\\"b";\nrubbish\n'
    assert ne.parse_apt_dump(text) == {
        "APT": "",
        "APT::Periodic": "",
        "APT::Periodic::Enable": "1",
        "B": 'a\\"b',
    }


@given(
    st.dictionaries(
        st.from_regex(r"\A[A-Za-z][A-Za-z0-9:-]{0,20}[a-z]\Z"),
        st.text(alphabet=st.characters(codec="utf-8", exclude_characters="\n"), max_size=20),
    )
)
def test_apt_dump_round_trip(settings_: dict[str, str]) -> None:
    text = "".join(f'{key} "{value}";\n' for key, value in settings_.items())
    assert MODULE.parse_apt_dump(text) == settings_


def test_the_newest_dhclient_lease_counts(ne: ModuleType) -> None:
    lease = 'lease {{\n  interface "{}";\n  option domain-name-servers {};\n  renew 1;\n}}\n'
    text = lease.format("ens3", "1.1.1.1") + lease.format("ens4", "9.9.9.9")
    text += lease.format("ens3", "10.0.2.3,10.0.2.4")
    text += 'lease6 {\n  interface "ens5";\n  option dhcp6.name-servers fd00::1 fd00::2;\n}\n'
    assert ne.parse_dhclient_leases(text) == {
        "ens3": ["10.0.2.3", "10.0.2.4"],
        "ens4": ["9.9.9.9"],
        "ens5": ["fd00::1", "fd00::2"],
    }


ADDRESSES = st.lists(st.ip_addresses().map(str), min_size=1, max_size=3)


@given(st.dictionaries(st.from_regex(r"\A[a-z][a-z0-9]{1,14}\Z"), ADDRESSES, max_size=4))
def test_dhclient_leases_round_trip(leases: dict[str, list[str]]) -> None:
    text = "".join(
        f'lease {{\n  interface "{link}";\n  option domain-name-servers {", ".join(servers)};\n}}\n'
        for link, servers in leases.items()
    )
    assert MODULE.parse_dhclient_leases(text) == leases


def test_resolv_conf(ne: ModuleType) -> None:
    text = (
        "# nameserver 1.1.1.1\nnameserver 127.0.0.53 # x\n nameserver\tfe80::1%eth0\nnameserver\n"
    )
    text += "nameserver not-an-address\nnameservers 2.2.2.2\noptions edns0\n"
    assert ne.parse_resolv_conf(text) == ["127.0.0.53", "fe80::1%eth0"]


@pytest.mark.parametrize(
    ("entry", "address"),
    [
        ("10.0.2.3", "10.0.2.3"),
        ("10.0.2.3:53", "10.0.2.3"),
        ("1.1.1.1:853%eth0#cloudflare-dns.com", "1.1.1.1"),
        ("1.1.1.1#one", "1.1.1.1"),
        ("[2606:4700::1111]:53#one", "2606:4700::1111"),
        ("2606:4700:0::1111", "2606:4700::1111"),
        ("fe80::1%eth0", "fe80::1"),
        ("dns+tls://9.9.9.9#quad9", "9.9.9.9"),
        ("localhost", None),
        ("1.2.3", None),
        ("", None),
        ("1.1.1.1\0", None),
    ],
)
def test_dns_address(ne: ModuleType, entry: str, address: str | None) -> None:
    assert ne.dns_address(entry) == address


@given(st.ip_addresses())
def test_every_address_is_known_as_itself(address: Any) -> None:
    assert MODULE.dns_address(str(address)) == MODULE.dns_address(address.exploded)
    assert MODULE.dns_address(str(address)) is not None


# --- TOML, YAML, pods, command lines ---


def test_toml_of_containerd(ne: ModuleType) -> None:
    values = ne.parse_toml(
        """
version = 2   # comment
imports = ["/etc/containerd/conf.d/*.toml",
  '/b.toml', ]
[plugins."io.containerd.grpc.v1.cri".containerd]
  snapshotter = "overlaybd"
  [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
    SystemdCgroup = true
[proxy_plugins]
  overlaybd = { type = "snapshot", address = "/run/a.sock" }
  [proxy_plugins.'with.dot']
  type = 'snap#shot'
  text = \"\"\"
[not.a.table]
\"\"\"
a.b."c" = 1.5
[[list.of.tables]]
x = false
[broken
y = "z"
"""
    )
    cri = ("plugins", "io.containerd.grpc.v1.cri", "containerd")
    assert values == {
        ("version",): "2",
        ("imports",): ["/etc/containerd/conf.d/*.toml", "/b.toml"],
        (*cri, "snapshotter"): "overlaybd",
        (*cri, "runtimes", "runc", "options", "SystemdCgroup"): True,
        ("proxy_plugins", "overlaybd", "type"): "snapshot",
        ("proxy_plugins", "overlaybd", "address"): "/run/a.sock",
        ("proxy_plugins", "with.dot", "type"): "snap#shot",
        ("proxy_plugins", "with.dot", "text"): "\n[not.a.table]\n",
        ("proxy_plugins", "with.dot", "a", "b", "c"): "1.5",
        ("list", "of", "tables", "x"): False,
        ("broken", "y"): "z",
    }


KEYS = st.text(alphabet=st.characters(codec="utf-8", exclude_categories=["Cc"]), max_size=12)


@given(st.dictionaries(st.tuples(KEYS, KEYS), KEYS | st.booleans(), max_size=5))
def test_toml_round_trip(values: dict[tuple[str, str], Any]) -> None:
    def quote(value: object) -> str:
        return json.dumps(value, ensure_ascii=False)

    text = "".join(
        f"[{quote(table)}]\n{quote(key)} = {quote(value)}\n"
        for (table, key), value in values.items()
    )
    assert MODULE.parse_toml(text) == values


@pytest.mark.parametrize(
    "text",
    [
        """
apiVersion: v1
kind: Pod
metadata:
  labels:
    name: no
  name: etcd # x
spec:
  containers:
  - command:
    - x
    image: 'r/etcd:3'
  - image: second
""",
        "metadata:\n    name: etcd\nspec:\n  containers:\n  - name: no\n    image: r/etcd:3\n",
        '{"metadata": {"name": "etcd"}, "spec": {"containers": [{"image": "r/etcd:3"}]}}',
    ],
)
def test_pod_manifest(ne: ModuleType, text: str) -> None:
    assert ne.parse_pod(text) == ("etcd", "r/etcd:3")


@pytest.mark.parametrize(
    "text",
    ["", "no pod", "[1]", '{"metadata": 1, "spec": {"containers": []}}', "{broken", "name: x"],
)
def test_what_is_no_pod_has_no_name(ne: ModuleType, text: str) -> None:
    assert ne.parse_pod(text) == (None, None)


def test_yaml_scalars(ne: ModuleType) -> None:
    text = 'staticPodPath: "/a b" # x\ncgroupDriver: systemd\nnested:\n  providerID: no\nempty:\n'
    assert ne.parse_yaml_scalars(text) == {"staticPodPath": "/a b", "cgroupDriver": "systemd"}
    assert ne.parse_yaml_scalars('{"staticPodPath": "/x", "n": 1}') == {"staticPodPath": "/x"}


def test_flags(ne: ModuleType) -> None:
    words = ["kubelet", "--a=1", "--b", "2", "--c", "--d=x=y", "-v", "--a", "3"]
    assert ne.parse_flags(words) == {"a": "3", "b": "2", "c": "", "d": "x=y"}


def test_secrets_among_arguments_are_not_shown(ne: ModuleType) -> None:
    words = ["k3s", "--token=x", "--agent-token", "y", "--authentication-token-webhook=true", "z"]
    assert ne.redact_arguments(words) == [
        "k3s",
        "--token=***",
        "--agent-token",
        "***",
        "--authentication-token-webhook=true",
        "z",
    ]


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(alphabet=st.characters(), max_size=20),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
        max_leaves=10,
    )
)
def test_whatever_was_found_becomes_strict_json(value: object) -> None:
    data = json.dumps(MODULE.clean(value)).encode("ascii")
    json.dumps(json.loads(data), ensure_ascii=False).encode("utf-8")
