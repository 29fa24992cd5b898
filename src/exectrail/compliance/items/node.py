"""The items of node_evidence that checks read: names, and the parts of values that matter here.

What else a value holds is for the reader of the evidence and may change freely.
"""

from __future__ import annotations

import msgspec

from exectrail.compliance.items.access import Item


class ResolvConf(msgspec.Struct, frozen=True):
    """What /etc/resolv.conf is; `resolved` is null when it leads nowhere."""

    type: str
    target: str | None = None
    resolved: str | None = None
    dangling: bool = False


class Manager(msgspec.Struct, frozen=True, rename={"systemd_resolved": "systemd-resolved"}):
    """Whether systemd-resolved runs."""

    systemd_resolved: bool


class Nameserver(msgspec.Struct, frozen=True):
    """A nameserver in force; `source` is dhcp, static or unknown, `by` the file that says so."""

    address: str
    source: str
    link: str | None = None
    by: str = ""


class Apt(msgspec.Struct, frozen=True):
    """Whether unattended-upgrades is installed, and the settings of APT::Periodic."""

    installed: bool
    config: dict[str, str]


class Dnf(msgspec.Struct, frozen=True):
    """The setting of dnf-automatic or yum-cron."""

    apply_updates: str


class Unit(msgspec.Struct, frozen=True):
    """A unit of systemd, in systemctl's words."""

    load: str
    enabled: str
    active: str


class Mount(msgspec.Struct, frozen=True):
    """A mount, or a line of fstab."""

    source: str
    target: str
    fstype: str


class Mounts(msgspec.Struct, frozen=True, kw_only=True):
    """The mounts of the first process; `truncated` if there were more."""

    rows: list[Mount] = msgspec.field(name="list")
    truncated: bool


class MountUnit(msgspec.Struct, frozen=True):
    """A mount unit of systemd."""

    unit: str
    what: str
    where: str
    type: str


class PersistentVolume(msgspec.Struct, frozen=True):
    """A volume; `server` where its definition names one."""

    name: str
    driver: str
    server: str = ""


class StorageClass(msgspec.Struct, frozen=True):
    """A storage class."""

    name: str
    provisioner: str


class Storage(msgspec.Struct, frozen=True):
    """What a master's API server defines."""

    persistent_volumes: list[PersistentVolume]
    storage_classes: list[StorageClass]


class ProxyPlugin(msgspec.Struct, frozen=True):
    """A plug-in of containerd that runs as a process of its own."""

    name: str


class Runtime(msgspec.Struct, frozen=True):
    """A container runtime and its settings."""

    name: str
    config: str | None = None
    snapshotter: str | None = None
    proxy_plugins: list[ProxyPlugin] = []


class Mark(msgspec.Struct, frozen=True):
    """Something seen (an accelerator, a hardening product), and where."""

    name: str
    where: str


class Kubelet(msgspec.Struct, frozen=True):
    """A kubelet, or what has one inside its own process."""

    version: str | None = None
    running: bool = False


class StaticPod(msgspec.Struct, frozen=True):
    """An entry of the static-pod folder; `pod` is the name of the pod that it defines."""

    name: str
    type: str
    hidden: bool
    pod: str | None = None


class StaticPods(msgspec.Struct, frozen=True):
    """The static-pod folder."""

    path: str
    files: list[StaticPod]


class Bpf(msgspec.Struct, frozen=True):
    """Which features of BPF the kernel took when they were tried."""

    available: bool
    why: str = ""
    ring_buffer: bool = False
    raw_tracepoint: bool = False
    btf_load: bool = False


class Audit(msgspec.Struct, frozen=True):
    """Kernel audit; `enabled` is 2 when its rules are locked, `pid` the process that listens."""

    available: bool
    why: str = ""
    enabled: int = 0
    pid: int = 0


class Libbpf(msgspec.Struct, frozen=True):
    """The library."""

    path: str
    version: str


class Python(msgspec.Struct, frozen=True):
    """An interpreter."""

    path: str
    version: str


class Clock(msgspec.Struct, frozen=True):
    """The kernel's clock, and the daemon that sets it."""

    synchronised: bool
    by: str | None = None


class Disk(msgspec.Struct, frozen=True):
    """The file system of the log folder; `bytes_free` is what root can still write."""

    path: str
    bytes_free: int
    inodes_total: int
    inodes_free: int


OS_RELEASE: Item[dict[str, str]] = Item("os.release", dict[str, str])
KERNEL_RELEASE: Item[str] = Item("kernel.release", str)
KERNEL_BTF: Item[bool] = Item("kernel.btf", bool)
KERNEL_LOCKDOWN: Item[str] = Item("kernel.lockdown", str)
KERNEL_BPF: Item[Bpf] = Item("kernel.bpf", Bpf)
KERNEL_AUDIT: Item[Audit] = Item("kernel.audit", Audit)
LIBBPF: Item[Libbpf | None] = Item("libbpf", Libbpf | None)
RESOLV_CONF: Item[ResolvConf] = Item("resolver.resolv_conf", ResolvConf)
MANAGER: Item[Manager] = Item("resolver.manager", Manager)
NAMESERVERS: Item[list[Nameserver]] = Item("resolver.nameservers", list[Nameserver])
APT: Item[Apt | None] = Item("upgrades.apt", Apt | None)
DNF: Item[Dnf | None] = Item("upgrades.dnf", Dnf | None)
UNITS: Item[dict[str, Unit]] = Item("upgrades.units", dict[str, Unit])
MOUNTS: Item[Mounts] = Item("mounts.current", Mounts)
FSTAB: Item[list[Mount]] = Item("mounts.fstab", list[Mount])
MOUNT_UNITS: Item[list[MountUnit]] = Item("mounts.units", list[MountUnit])
STORAGE: Item[Storage | None] = Item("kubernetes.storage", Storage | None)
RUNTIMES: Item[list[Runtime]] = Item("runtimes", list[Runtime])
ACCELERATORS: Item[list[Mark]] = Item("accelerators", list[Mark])
HARDENING: Item[list[Mark]] = Item("hardening", list[Mark])
KUBELET: Item[Kubelet | None] = Item("kubelet", Kubelet | None)
STATIC_PODS: Item[StaticPods | None] = Item("kubelet.static_pods", StaticPods | None)
ROLE: Item[str] = Item("kubernetes.role", str)
KUBERNETES_VERSION: Item[str | None] = Item("kubernetes.version", str | None)
DISTRIBUTION: Item[str] = Item("kubernetes.distribution", str)
SYSTEMD_VERSION: Item[int | None] = Item("systemd.version", int | None)
PYTHONS: Item[list[Python]] = Item("python.interpreters", list[Python])
CLOCK: Item[Clock] = Item("clock", Clock)
LOG_DISK: Item[Disk] = Item("disk.log", Disk)
