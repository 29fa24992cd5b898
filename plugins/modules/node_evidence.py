#!/usr/bin/python
"""Evidence about one node, printed as one line of JSON.

One file on purpose: it is sent over ssh to the standard input of whatever Python the node has
(3.6 or later). It uses the standard library only, writes nothing, and always exits with 0; what
could not be read is ``{"unreadable": "why"}``. docs/reference/evidence.md lists every item.
installation_evidence.py stands on it.
"""

DOCUMENTATION = r"""
module: node_evidence
short_description: Collect what a preflight needs to know about a node, in one call
version_added: 0.1.0
author: Exectrail contributors
description:
  - Reads operating system, kernel, resolver, automatic upgrades, mounts, container runtimes,
    kubelet, clock, disk and memory, and hardening marks, and returns them as one document.
  - It judges nothing. Each item is either its value or a dictionary with the single key
    C(unreadable) that says why it could not be read. An item that is C(null), empty or
    C(false) is known to be absent.
  - Each item takes at most five seconds and the whole run thirty. At most six programs are
    started, all of them to read only.
attributes:
  check_mode:
    description: Can run in check_mode and return the same result without changing the node.
    support: full
  diff_mode:
    description: Returns details on what has changed when in diff mode.
    support: none
    details: Nothing is ever changed.
  platform:
    description: Operating systems that can be looked at.
    platforms: linux
    support: full
  safe_file_operations:
    description: Uses safe operations to change files.
    support: none
    details: No file is written.
options:
  report_dir:
    description: Folder of the run on the controller, opened with M(exectrail.audit.compliance_run),
      where the evidence is kept.
    type: path
    required: true
  variables:
    description: What checks need to know of the node and the node cannot show.
    type: dict
  installation:
    description: Whether M(exectrail.audit.installation_evidence) looks at the node too, in the same
      call. The run must have been opened with the same option.
    type: bool
    default: false
requirements:
  - Python 3.6 or later on the node
notes:
  - Needs root for the complete picture. Without it, the items that need root are unreadable.
  - It also runs as a plain script, C(python3 - < node_evidence.py).
seealso:
  - name: Evidence reference
    description: Every item, where it comes from and its unit.
    link: https://github.com/exectrail/exectrail/blob/main/docs/reference/evidence.md
"""

EXAMPLES = r"""
- name: Read the evidence of the node
  exectrail.audit.node_evidence:
    report_dir: reports/preflight
"""

RETURN = r"""
evidence:
  description: The evidence document.
  returned: always
  type: dict
  contains:
    schema:
      description: Version of the document's form.
      returned: always
      type: int
      sample: 1
    items:
      description: Item names to values, or to a dictionary that says why there is none.
      returned: always
      type: dict
      sample:
        kernel.release: 6.1.0-30-cloud-amd64
        kernel.lsms: {"unreadable": "/sys/kernel/security is not mounted"}
"""

import sys


def write_no_bytecode():
    """Nothing may be written on the node, not even compiled modules beside its library."""
    sys.dont_write_bytecode = True


write_no_bytecode()

import contextlib
import errno
import json
import os
import re
import select
import signal
import socket
import stat
import struct
import subprocess
import threading
import time

VERSION = "0.1.0"
SCHEMA = 1

# --- limits -----------------------------------------------------------------------------------

PROBE_SECONDS = 5.0
CHILD_SECONDS = 4.0
TOTAL_SECONDS = 30.0
MAX_CHILDREN = 6
# The line that the evidence is sent in, with what is around it, is shorter than 64 kB.
MAX_OUTPUT = 64 * 1000 - 100
MAX_CHILD_OUTPUT = 512 * 1024
MAX_FILE = 256 * 1024
MAX_MOUNTINFO = 4 * 1024 * 1024
MAX_ENTRIES = 65536
MAX_TEXT = 512
MAX_VALUE = 2048
MAX_ROWS = 100
MAX_SYMLINKS = 40

SAFE_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
CHILD_ENVIRONMENT = {
    "PATH": SAFE_PATH,
    "LC_ALL": "C",
    "HOME": "/nonexistent",
    "SYSTEMD_COLORS": "0",
    "SYSTEMD_PAGER": "",
}

# --- what to look for -------------------------------------------------------------------------

UPGRADE_UNITS = (
    "apt-daily.timer",
    "apt-daily-upgrade.timer",
    "unattended-upgrades.service",
    "dnf-automatic.timer",
    "dnf-automatic-install.timer",
    "dnf-automatic-download.timer",
    "dnf-automatic-notifyonly.timer",
    "dnf5-automatic.timer",
    "yum-cron.service",
    "packagekit-background.timer",
    "rpm-ostreed-automatic.timer",
    "os-update.timer",
    "transactional-update.timer",
    "snapd.service",
    "snapd.refresh.timer",
    "zincati.service",
    "update-engine.service",
    "locksmithd.service",
)
# Manager → (unit, name of its process cut to the kernel's 15 characters).
RESOLVER_MANAGERS = {
    "systemd-resolved": ("systemd-resolved.service", "systemd-resolve"),
    "systemd-networkd": ("systemd-networkd.service", "systemd-network"),
    "NetworkManager": ("NetworkManager.service", "NetworkManager"),
    "dhclient": (None, "dhclient"),
}
CLOCK_DAEMONS = (
    ("systemd-timesyncd", ("systemd-timesyncd.service",), "systemd-timesyn"),
    ("chronyd", ("chronyd.service", "chrony.service"), "chronyd"),
    ("ntpd", ("ntpd.service", "ntp.service", "ntpsec.service"), "ntpd"),
)
ACCELERATORS = (
    {
        "name": "overlaybd",
        "units": ("overlaybd-snapshotter.service", "overlaybd-tcmu.service"),
        "paths": (
            "/opt/overlaybd/snapshotter/overlaybd-snapshotter",
            "/opt/overlaybd/bin/overlaybd-tcmu",
            "/etc/overlaybd-snapshotter/config.json",
            "/run/overlaybd-snapshotter/overlaybd.sock",
        ),
        "mounts": ("/io.containerd.snapshotter.v1.overlaybd/",),
    },
    {
        "name": "nydus",
        "units": ("nydus-snapshotter.service",),
        "paths": (
            "/usr/bin/containerd-nydus-grpc",
            "/usr/local/bin/containerd-nydus-grpc",
            "/opt/nydus/bin/containerd-nydus-grpc",
            "/usr/bin/nydusd",
            "/usr/local/bin/nydusd",
            "/opt/nydus/bin/nydusd",
            "/run/containerd-nydus/containerd-nydus-grpc.sock",
        ),
        "mounts": ("/containerd-nydus/", "/io.containerd.snapshotter.v1.nydus/"),
    },
    {
        "name": "stargz",
        "units": ("stargz-snapshotter.service", "stargz-store.service"),
        "paths": (
            "/usr/bin/containerd-stargz-grpc",
            "/usr/local/bin/containerd-stargz-grpc",
            "/usr/bin/stargz-store",
            "/usr/local/bin/stargz-store",
            "/run/containerd-stargz-grpc/containerd-stargz-grpc.sock",
        ),
        "mounts": ("/containerd-stargz-grpc/", "/stargz-store/"),
    },
    {
        "name": "soci",
        "units": ("soci-snapshotter.service", "soci-snapshotter.socket"),
        "paths": (
            "/usr/bin/soci-snapshotter-grpc",
            "/usr/local/bin/soci-snapshotter-grpc",
            "/run/soci-snapshotter-grpc/soci-snapshotter-grpc.sock",
        ),
        "mounts": ("/soci-snapshotter-grpc/",),
    },
)
HARDENING_PATHS = (
    ("Ubuntu Security Guide", "/var/lib/usg"),
    ("Ubuntu Security Guide", "/etc/usg.conf"),
    ("Ubuntu Security Guide", "/etc/usg/default-tailoring.xml"),
    ("Ubuntu CIS scripts", "/usr/share/ubuntu-scap-security-guides/cis-hardening"),
    ("OpenSCAP remediation at installation", "/root/openscap_data"),
    ("Ansible Lockdown", "/etc/ansible/facts.d/compliance_facts.fact"),
    ("DevSec hardening", "/etc/modprobe.d/dev-sec.conf"),
    ("Debian CIS hardening", "/opt/cis-hardening"),
    ("Loongshield SEHarden", "/usr/sbin/loongshield"),
    ("Lynis audit", "/var/log/lynis-report.dat"),
    ("AIDE", "/var/lib/aide/aide.db"),
    ("AIDE", "/var/lib/aide/aide.db.gz"),
)
HARDENING_UNITS = (("fapolicyd", "fapolicyd.service"), ("USBGuard", "usbguard.service"))
UBUNTU_PRO_HARDENING = ("usg", "cis", "fips", "fips-updates", "fips-preview")

KUBE_UNITS = (
    "kubelet.service",
    "k3s.service",
    "k3s-agent.service",
    "rke2-server.service",
    "rke2-agent.service",
    "k0scontroller.service",
    "k0sworker.service",
)
KUBELET_BINARIES = (
    "/usr/bin/kubelet",
    "/usr/local/bin/kubelet",
    "/opt/bin/kubelet",
    "/var/lib/rancher/rke2/bin/kubelet",
    "/var/lib/k0s/bin/kubelet",
    "/home/kubernetes/bin/kubelet",
    "/usr/local/bin/k3s",
)
ADMIN_KUBECONFIGS = (
    "/etc/kubernetes/admin.conf",
    "/etc/rancher/k3s/k3s.yaml",
    "/etc/rancher/rke2/rke2.yaml",
    "/var/lib/k0s/pki/admin.conf",
)
KUBECTL_BINARIES = ("/opt/bin/kubectl", "/var/lib/rancher/rke2/bin/kubectl")
MANAGED_LABELS = ("eks.amazonaws.com/", "cloud.google.com/gke-", "kubernetes.azure.com/")
MANAGED_PROVIDERS = ("aws://", "gce://", "azure://")

RUNTIMES = (
    (
        "containerd",
        ("containerd",),
        ("/run/containerd/containerd.sock", "/run/k3s/containerd/containerd.sock"),
        (
            "/etc/containerd/config.toml",
            "/var/lib/rancher/k3s/agent/etc/containerd/config.toml",
            "/var/lib/rancher/rke2/agent/etc/containerd/config.toml",
            "/etc/k0s/containerd.toml",
        ),
    ),
    ("cri-o", ("crio",), ("/run/crio/crio.sock",), ("/etc/crio/crio.conf",)),
    ("docker", ("dockerd",), ("/run/docker.sock",), ("/etc/docker/daemon.json",)),
    ("podman", ("podman",), ("/run/podman/podman.sock",), ("/etc/containers/containers.conf",)),
)
RUNTIME_DIRECTORIES = (
    "/usr/bin",
    "/usr/local/bin",
    "/usr/sbin",
    "/usr/local/sbin",
    "/opt/bin",
    "/var/lib/rancher/rke2/bin",
    "/var/lib/k0s/bin",
)

PSEUDO_NAMES = """
    autofs bdev binder binfmt_misc bpf cgroup cgroup2 configfs cpuset debugfs devpts devtmpfs
    efivarfs fuse.gvfsd-fuse fuse.lxcfs fuse.portal fusectl hugetlbfs mqueue nsfs overlay pipefs
    proc pstore ramfs rootfs rpc_pipefs securityfs selinuxfs sockfs squashfs sysfs tmpfs tracefs
"""
PSEUDO_FILESYSTEMS = frozenset(PSEUDO_NAMES.split())
LOCAL_FILESYSTEMS = {"btrfs", "ext2", "ext3", "ext4", "f2fs", "iso9660", "vfat", "xfs", "zfs"}

SYSTEMD_DIRECTORIES = ("/etc/systemd", "/run/systemd", "/usr/local/lib/systemd", "/usr/lib/systemd")
# Where systemd looks for units.
UNIT_DIRECTORIES = (
    "/etc/systemd/system.control",
    "/run/systemd/system.control",
    "/run/systemd/transient",
    "/run/systemd/generator.early",
    "/etc/systemd/system",
    "/etc/systemd/system.attached",
    "/run/systemd/system",
    "/run/systemd/system.attached",
    "/run/systemd/generator",
    "/usr/local/lib/systemd/system",
    "/usr/lib/systemd/system",
    "/lib/systemd/system",
    "/run/systemd/generator.late",
)
LIBRARY_TRIPLETS = {
    "x86_64": "x86_64-linux-gnu",
    "aarch64": "aarch64-linux-gnu",
    "ppc64le": "powerpc64le-linux-gnu",
    "s390x": "s390x-linux-gnu",
    "riscv64": "riscv64-linux-gnu",
    "loongarch64": "loongarch64-linux-gnu",
    "armv7l": "arm-linux-gnueabihf",
}
BPF_SYSCALLS = {
    "x86_64": 321,
    "aarch64": 280,
    "riscv64": 280,
    "loongarch64": 280,
    "ppc64le": 361,
    "ppc64": 361,
    "s390x": 351,
    "armv7l": 386,
    "i686": 357,
}


# --- the node: files, programs, processes -----------------------------------------------------


class Unreadable(Exception):
    """The item exists, or may exist, and its value could not be learnt. The text says why."""


class Absent(Exception):
    """There is no such file or program."""


def problem(path, error):
    """The failure of a system call on `path` as an exception to raise."""
    if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ESRCH):
        return Absent(path)
    text = "%s: %s" % (path, os.strerror(error.errno) if error.errno else error)
    if error.errno in (errno.EACCES, errno.EPERM) and os.geteuid() != 0:
        text += " (needs root)"
    return Unreadable(text)


KINDS = (
    (stat.S_ISREG, "file"),
    (stat.S_ISDIR, "directory"),
    (stat.S_ISLNK, "symlink"),
    (stat.S_ISFIFO, "fifo"),
    (stat.S_ISSOCK, "socket"),
    (stat.S_ISCHR, "device"),
    (stat.S_ISBLK, "device"),
)


def kind_of(info):
    """What a stat result describes: file, directory, symlink, fifo, socket or device."""
    return next((name for test, name in KINDS if test(info.st_mode)), "other")


class Node:
    """The machine as seen below `root`. Every file and program is reached through it.

    Paths are the node's own absolute paths; symlinks are followed inside `root`. Text keeps bytes
    that are not UTF-8 as surrogates; they become backslash escapes on output.
    """

    def __init__(self, root="/", machine=None):
        self.root = os.fsencode(root.rstrip("/"))
        self.machine = machine or os.uname()[4]
        self.deadline = time.monotonic() + PROBE_SECONDS
        self.children = 0
        self.running = []
        self.known = {}

    def host(self, path):
        return self.root + path.encode("utf-8", "surrogateescape")

    def once(self, function):
        """The result of `function(node)`, computed once even when it failed or never came back."""
        if function not in self.known:
            self.known[function] = (None, Unreadable("%s: cut off earlier" % function.__name__))
            try:
                self.known[function] = (function(self), None)
            except (Unreadable, Absent) as error:
                self.known[function] = (None, error)
        value, error = self.known[function]
        if error is not None:
            raise error
        return value

    def resolve(self, path):
        """`path` with every symlink followed, and what is there. Absent when it dangles."""
        parts = [part for part in path.split("/") if part]
        parts.reverse()
        here, hops, info = "", 0, None
        try:
            while parts:
                part = parts.pop()
                if part == ".":
                    continue
                if part == "..":
                    here = here.rpartition("/")[0]
                    continue
                step = here + "/" + part
                info = os.lstat(self.host(step))
                if not stat.S_ISLNK(info.st_mode):
                    here = step
                    continue
                hops += 1
                if hops > MAX_SYMLINKS:
                    raise Unreadable("%s: %s" % (path, os.strerror(errno.ELOOP)))
                target = self.readlink(step)
                if target.startswith("/"):
                    here = ""
                parts.extend(reversed([part for part in target.split("/") if part]))
            return here or "/", os.lstat(self.host(here or "/"))
        except OSError as error:
            raise problem(path, error) from error

    def readlink(self, path):
        try:
            return os.readlink(self.host(path)).decode("utf-8", "surrogateescape")
        except OSError as error:
            raise problem(path, error) from error

    def lstat(self, path):
        """What is at `path` itself, or None."""
        try:
            directory = self.resolve(os.path.dirname(path))[0]
            return os.lstat(self.host(directory.rstrip("/") + "/" + os.path.basename(path)))
        except Absent:
            return None
        except OSError as error:
            failure = problem(path, error)
            if isinstance(failure, Absent):
                return None
            raise failure from error

    def kind(self, path):
        """What `path` leads to, or None."""
        try:
            return kind_of(self.resolve(path)[1])
        except Absent:
            return None

    def open(self, path):
        """A regular file, opened to be read."""
        real, info = self.resolve(path)
        self.must_be_file(path, info)
        flags = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC | os.O_NOFOLLOW
        try:
            stream = os.fdopen(os.open(self.host(real), flags), "rb")
        except OSError as error:
            raise problem(path, error) from error
        try:
            self.must_be_file(path, os.fstat(stream.fileno()))
        except Unreadable:
            stream.close()
            raise
        return stream

    def read(self, path, limit=MAX_FILE):
        """The bytes of a regular file no longer than `limit`."""
        with self.open(path) as stream:
            try:
                data = stream.read(limit + 1)
            except OSError as error:
                raise problem(path, error) from error
        if len(data) > limit:
            raise Unreadable("%s: too large (at most %d bytes are read)" % (path, limit))
        return data

    @staticmethod
    def must_be_file(path, info):
        if not stat.S_ISREG(info.st_mode):
            raise Unreadable("%s: not a regular file but a %s" % (path, kind_of(info)))

    def text(self, path, limit=MAX_FILE):
        data = self.read(path, limit)
        if b"\0" in data:
            raise Unreadable("%s: binary, not text" % path)
        return data.decode("utf-8", "surrogateescape")

    def text_or(self, default, path, limit=MAX_FILE):
        """The text of a file, or `default` when there is none."""
        try:
            return self.text(path, limit)
        except Absent:
            return default

    def names(self, path):
        """Sorted names in a directory; [] when there is no such directory."""
        names = []
        try:
            with_root = self.host(self.resolve(path)[0])
            for entry in os.scandir(with_root):
                names.append(entry.name.decode("utf-8", "surrogateescape"))
                if len(names) > MAX_ENTRIES:
                    raise Unreadable("%s: more than %d entries" % (path, MAX_ENTRIES))
        except Absent:
            return []
        except OSError as error:
            failure = problem(path, error)
            if isinstance(failure, Absent):
                return []
            raise failure from error
        return sorted(names)

    def files(self, path, *suffixes):
        """Paths in a directory whose names end so, sorted."""
        return [path + "/" + name for name in self.names(path) if name.endswith(suffixes)]

    def merged(self, directories, suffix):
        """systemd's merge of directories: the first one that has a name wins; by name, sorted."""
        found = {}
        for directory in directories:
            for path in self.files(directory, suffix):
                found.setdefault(os.path.basename(path), path)
        return [found[name] for name in sorted(found)]

    def which(self, name):
        """Path of a program on the safe search path, or None."""
        candidates = [name] if "/" in name else [d + "/" + name for d in SAFE_PATH.split(":")]
        for path in candidates:
            try:
                info = self.resolve(path)[1]
            except Absent:
                continue
            if stat.S_ISREG(info.st_mode) and info.st_mode & 0o111:
                return path
        return None

    def run(self, name, *arguments):
        """Standard output of a program as text. Absent when it is not installed."""
        program = self.which(name)
        if program is None:
            raise Absent(name)
        if self.children >= MAX_CHILDREN:
            raise Unreadable("%s: %d programs were started already" % (name, MAX_CHILDREN))
        self.children += 1
        seconds = min(CHILD_SECONDS, self.deadline - time.monotonic() - 0.2)
        try:
            child = subprocess.Popen(
                [self.host(self.resolve(program)[0])] + list(arguments),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env=CHILD_ENVIRONMENT,
                cwd="/",
                start_new_session=True,
            )
        except OSError as error:
            raise Unreadable("%s: %s" % (name, error.strerror)) from error
        self.running.append(child)
        try:
            out, err = self.gather(name, child, time.monotonic() + seconds)
        finally:
            kill(child)
            self.running.remove(child)
        text = out.decode("utf-8", "surrogateescape")
        if child.returncode != 0:
            lines = err.decode("utf-8", "surrogateescape").split("\n")
            raise Unreadable("%s: exit code %s: %s" % (name, child.returncode, lines[0][:200]))
        return text

    @staticmethod
    def gather(name, child, deadline):
        """Both outputs of a child, until it closes them, the deadline or the size limit."""
        outputs = {child.stdout.fileno(): [], child.stderr.fileno(): []}
        order = list(outputs)
        poll = select.poll()
        for descriptor in order:
            poll.register(descriptor, select.POLLIN)
        size, open_ends = 0, len(order)
        while open_ends:
            left = deadline - time.monotonic()
            if left <= 0:
                raise Unreadable("%s: no answer in time" % name)
            for descriptor, _ in poll.poll(left * 1000):
                chunk = os.read(descriptor, 1 << 16)
                if not chunk:
                    poll.unregister(descriptor)
                    open_ends -= 1
                outputs[descriptor].append(chunk)
                size += len(chunk)
                if size > MAX_CHILD_OUTPUT:
                    raise Unreadable("%s: more than %d bytes of output" % (name, MAX_CHILD_OUTPUT))
        try:
            child.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            raise Unreadable("%s: no answer in time" % name) from None
        return b"".join(outputs[order[0]]), b"".join(outputs[order[1]])

    def stop_children(self):
        for child in list(self.running):
            kill(child)


def kill(child):
    """End a child that was not waited for, with its process group; wait a moment, no longer."""
    try:
        if child.returncode is None:
            os.killpg(child.pid, signal.SIGKILL)
            child.wait(0.3)
    except (OSError, subprocess.TimeoutExpired):
        pass
    for stream in (child.stdout, child.stderr):
        stream.close()


# --- parsers: text in, data out; none of them raises on any text ------------------------------

SPACE = " \t\r\n"


def parse_environment(text):
    """Shell-like assignments (os-release and its kin) as a dict; lines that are none are left out.

    Single quotes are literal; in double quotes a backslash escapes only ``"``, ``$``, a backquote
    and itself; outside quotes it escapes anything. Nothing is expanded.
    """
    values = {}
    for line in text.split("\n"):
        match = re.match(r"\s*([A-Za-z_][A-Za-z0-9_]*)=(.*)$", line.rstrip("\r"))
        if match:
            value = unquote_shell(match.group(2))
            if value is not None:
                values[match.group(1)] = value
    return values


def unquote_shell(text):
    """A shell word without its quotes, or None when a quote is not closed."""
    out, quote, at, end = [], "", 0, len(text.rstrip(SPACE))
    while at < end:
        character = text[at]
        following = text[at + 1] if at + 1 < end else ""
        if quote == "'":
            if character == "'":
                quote = ""
            else:
                out.append(character)
        elif character == "\\" and (not quote or (following and following in '"$`\\')):
            out.append(following)
            at += 1
        elif quote == '"':
            if character == '"':
                quote = ""
            else:
                out.append(character)
        elif character in "'\"":
            quote = character
        elif character == "#" and at and text[at - 1] in SPACE:
            return "".join(out).rstrip(SPACE)
        else:
            out.append(character)
        at += 1
    return None if quote else "".join(out)


def parse_version(text):
    """The leading version of a text as three numbers, or None."""
    match = re.match(r"v?([0-9]{1,6})\.([0-9]{1,6})(?:\.([0-9]{1,6}))?", text)
    if not match:
        return None
    return [int(part or 0) for part in match.groups()]


def find_version(text):
    """The first dotted version in a program's answer, as text, or None."""
    match = re.search(r"(?<![0-9.])v?([0-9]{1,6}\.[0-9]{1,6}(?:\.[0-9]{1,6})?)(?![0-9])", text)
    return match.group(1) if match else None


def unescape_octal(text):
    return re.sub(r"\\([0-3][0-7]{2})", lambda match: chr(int(match.group(1), 8)), text)


def parse_mountinfo(text):
    """/proc/PID/mountinfo as rows; options are the mount's and the file system's."""
    rows = []
    for line in text.split("\n"):
        fields = line.split(" ")
        if "-" not in fields[6:]:
            continue
        dash = fields.index("-", 6)
        if len(fields) < dash + 3:
            continue
        options = fields[5].split(",") + (fields[dash + 3 : dash + 4] or [""])[0].split(",")
        rows.append(
            mount_row(fields[dash + 2], fields[4], fields[dash + 1], ",".join(unique(options)))
        )
    return rows


def parse_fstab(text):
    """fstab as rows."""
    rows = []
    for line in text.split("\n"):
        fields = line.split()
        if fields[2:] and not fields[0].startswith("#"):
            rows.append(mount_row(fields[0], fields[1], fields[2], (fields[3:4] or [""])[0]))
    return rows


def mount_row(source, target, fstype, options):
    return {
        "source": unescape_octal(source)[:MAX_TEXT],
        "target": unescape_octal(target)[:MAX_TEXT],
        "fstype": unescape_octal(fstype)[:MAX_TEXT],
        "options": redact(unescape_octal(options))[:256],
    }


def redact(options):
    """Mount options without the secrets that some file systems take there."""
    return re.sub(r"(?i)\b(pass\w*|secret|token|key)=[^,]*", r"\1=***", options)


def unique(values):
    return list(dict.fromkeys(value for value in values if value))


def parse_ini(text):
    """INI text as (section, key, value) in order; a trailing backslash continues a line."""
    rows, section, pending = [], "", ""
    for raw in text.split("\n"):
        line = raw.strip(SPACE)
        if line[:1] in ("#", ";"):
            continue
        line = pending + line
        if line.endswith("\\"):
            pending = line[:-1] + " "
            continue
        pending = ""
        if line.startswith("[") and line.endswith("]"):
            section = line[1:-1]
        elif "=" in line:
            key, _, value = line.partition("=")
            rows.append((section, key.strip(SPACE), value.strip(SPACE)))
    return rows


def ini_list(rows, section, key):
    """Words of a systemd list setting; an empty assignment forgets the earlier ones."""
    words = []
    for name, setting, value in rows:
        if name == section and setting == key:
            words = words + value.split() if value else []
    return words


def ini_last(rows, section, key, default=None):
    """The last value of a setting."""
    values = [value for name, setting, value in rows if name == section and setting == key]
    return values[-1] if values else default


def is_true(text):
    return (text or "").strip().lower() in ("1", "yes", "true", "on")


def parse_apt_dump(text):
    """`apt-config dump` as a dict of its scalar settings; the last one wins."""
    values = {}
    for line in text.split("\n"):
        match = re.match(r'([^\s"]+) "(.*)";$', line)
        if match and not match.group(1).endswith("::"):
            values[match.group(1)] = match.group(2)
    return values


def parse_dhclient_leases(text):
    """The newest dhclient lease of each interface: {interface: [addresses]}."""
    leases, link, servers = {}, None, []
    for line in text.split("\n"):
        words = re.split(r"[\s,;]+", line.strip(SPACE + ";"))
        if words[0] in ("lease", "lease6"):
            link, servers = None, []
        elif words[0] == "interface" and len(words) > 1:
            link = words[1].strip('"')
        elif words[0] == "option" and words[1:2] in (
            ["domain-name-servers"],
            ["dhcp6.name-servers"],
        ):
            servers = words[2:]
        elif line.startswith("}") and link:
            leases[link] = servers
    return leases


def parse_resolv_conf(text):
    """Addresses on the nameserver lines, in order."""
    servers = []
    for line in text.split("\n"):
        words = line.split()
        if len(words) > 1 and words[0] == "nameserver" and dns_address(words[1]):
            servers.append(words[1])
    return servers


def dns_address(text):
    """The canonical IP address in a server entry such as ``[::1]:53%eth0#name``, or None."""
    text = text.rpartition("://")[2].partition("#")[0]
    match = re.match(r"\[([^\]]*)\]", text)
    address = match.group(1) if match else text.partition("%")[0]
    if not match and address.count(":") == 1:
        address = address.partition(":")[0]
    for family in (socket.AF_INET, socket.AF_INET6):
        try:
            return socket.inet_ntop(family, socket.inet_pton(family, address.partition("%")[0]))
        except (OSError, ValueError):
            continue
    return None


def parse_unit_blocks(text):
    """`systemctl show` of several units: one dict per block."""
    blocks = []
    for block in text.strip("\n").split("\n\n"):
        pairs = [line.partition("=") for line in block.split("\n")]
        blocks.append({key: value for key, equals, value in pairs if equals})
    return blocks


# A small reader for the TOML that container runtimes are configured with.

TOML_PIECE = re.compile(
    r'\s+|#[^\n]*|"""(?:\\.|[^\\])*?"""|\'\'\'.*?\'\'\'|"(?:\\.|[^"\\\n])*"|\'[^\'\n]*\''
    r"|[\[\]{}=,]|\.(?=[\s\"'A-Za-z0-9_-])|[A-Za-z0-9_+-]+(?:[.:][0-9][A-Za-z0-9_.:+-]*)?|.",
    re.DOTALL,
)


def parse_toml(text):
    """TOML as {path: value}, paths being tuples of keys; what is not understood is left out.

    Values are text, True, False, or lists of text; numbers and dates stay text.
    """
    values, table, line = {}, (), []
    depth = 0
    for piece in [match.group(0) for match in TOML_PIECE.finditer(text)] + ["\n"]:
        if piece.isspace() or piece[0] == "#":
            if "\n" in piece and (depth <= 0 or line[:1] == ["["]):
                table = toml_statement(values, table, line)
                line, depth = [], 0
            continue
        line.append(piece)
        depth += {"[": 1, "{": 1, "]": -1, "}": -1}.get(piece, 0)
    return values


def toml_statement(values, table, line):
    """Take one statement's pieces into `values`; the table that the next one is in."""
    if line[:1] == ["["]:
        return toml_key([piece for piece in line if piece not in "[]"])
    at = line.index("=") if "=" in line else 0
    if at:
        toml_assign(values, table + toml_key(line[:at]), line[at + 1 :])
    return table


def toml_key(pieces):
    return tuple(toml_text(piece) for piece in pieces if piece != ".")


def toml_text(piece):
    if piece.startswith(('"""', "'''")):
        return piece[3:-3]
    if piece[:1] == "'":
        return piece[1:-1]
    if piece[:1] == '"' and piece[-1:] == '"':
        try:
            return json.loads(piece)
        except ValueError:
            return piece[1:-1]
    return piece


def toml_assign(values, path, pieces):
    if pieces[:1] == ["["]:
        values[path] = [toml_text(piece) for piece in pieces if piece not in ("[", "]", ",")]
    elif pieces[:1] == ["{"]:
        entry = []
        for piece in pieces[1:]:
            if piece in (",", "}"):
                toml_statement(values, path, entry)
                entry = []
            else:
                entry.append(piece)
    elif len(pieces) == 1:
        values[path] = {"true": True, "false": False}.get(pieces[0], toml_text(pieces[0]))


def parse_yaml_scalars(text):
    """Top-level ``key: scalar`` lines of a YAML (or JSON) document as {key: text}."""
    if text.lstrip()[:1] == "{":
        data = parse_json(text)
        return {key: value for key, value in data.items() if isinstance(value, str)}
    pairs = (re.match(r"([A-Za-z0-9_.-]+):\s+(\S.*)$", line) for line in text.split("\n"))
    return {match.group(1): yaml_scalar(match.group(2)) for match in pairs if match}


def yaml_scalar(text):
    text = text.strip(SPACE)
    if text[:1] in ('"', "'"):
        end = text.find(text[0], 1)
        return text[1:end] if end > 0 else text
    return re.split(r"\s#", text)[0].rstrip(SPACE)


def parse_json(text):
    """A JSON object, or {} for anything else."""
    try:
        data = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return data if isinstance(data, dict) else {}


def parse_pod(text):
    """(metadata.name, first image) of a pod manifest, each None when not found."""
    if text.lstrip()[:1] == "{":
        data = parse_json(text)
        metadata, spec = data.get("metadata"), data.get("spec")
        name = metadata.get("name") if isinstance(metadata, dict) else None
        containers = spec.get("containers") if isinstance(spec, dict) else None
        first = containers[0] if isinstance(containers, list) and containers else None
        image = first.get("image") if isinstance(first, dict) else None
        return as_text(name), as_text(image)
    name = image = None
    inside, indent = False, None
    for line in text.split("\n"):
        match = re.match(r"(\s*)(?:-\s+)?([A-Za-z0-9_.-]+):(?:\s+(\S.*))?$", line)
        if not match:
            continue
        depth, key, value = len(match.group(1)), match.group(2), match.group(3)
        if depth == 0 and not line.startswith("-"):
            inside, indent = key == "metadata", None
        elif inside and indent in (None, depth):
            indent = depth
            if key == "name" and value and name is None:
                name = yaml_scalar(value)
        if key == "image" and value and image is None:
            image = yaml_scalar(value)
    return name, image


def as_text(value):
    return value if isinstance(value, str) else None


def parse_flags(arguments):
    """``--flag=value`` and ``--flag value`` of a command line as {flag: value}; the last wins."""
    flags = {}
    for at, argument in enumerate(arguments):
        if argument.startswith("--"):
            flag, equals, value = argument[2:].partition("=")
            following = arguments[at + 1] if at + 1 < len(arguments) else ""
            if not equals and not following.startswith("-"):
                value = following
            flags[flag.replace("_", "-")] = value
    return flags


def redact_arguments(arguments):
    """A command line without the values of flags that name a secret."""
    safe, hide = [], False
    for argument in arguments:
        match = re.match(r"(?i)(--[\w-]*(?:token|password|secret))(=|$)", argument)
        if match:
            safe.append(match.group(1) + ("=***" if match.group(2) else ""))
        else:
            safe.append("***" if hide else argument)
        hide = bool(match and not match.group(2))
    return safe


# --- what several items need ------------------------------------------------------------------


def processes(node):
    """{name cut to 15 characters: [pid, …]} in pid 1's own pid namespace."""
    found = {}
    if node.kind("/proc/1") is None:
        raise Unreadable("/proc/1: not visible (hidepid, or no /proc)")
    for name in node.names("/proc"):
        if not name.isdigit():
            continue
        try:
            found.setdefault(node.text("/proc/%s/comm" % name).rstrip("\n"), []).append(int(name))
        except (Absent, Unreadable):
            continue  # it has ended meanwhile
    return found


def own_processes(node, name):
    """Pids of the processes of that name which belong to the node and not to a container on it."""
    pids = sorted(node.once(processes).get(name, []))
    if not pids:
        return pids
    try:
        namespace = node.readlink("/proc/1/ns/pid")
        return [pid for pid in pids if node.readlink("/proc/%d/ns/pid" % pid) == namespace]
    except (Absent, Unreadable):
        return pids


def systemd_runs(node):
    return node.kind("/run/systemd/system") == "directory"


def units(node):
    """{unit: {load, enabled, active}} of every unit that any item asks for; {} without systemd.

    Only those that have a file are asked for: each costs systemd a message of 200 properties.
    """
    if not systemd_runs(node):
        return {}
    wanted = list(UPGRADE_UNITS) + list(KUBE_UNITS)
    wanted += [unit for unit, _ in RESOLVER_MANAGERS.values() if unit]
    wanted += [unit for _, names, _ in CLOCK_DAEMONS for unit in names]
    wanted += [unit for accelerator in ACCELERATORS for unit in accelerator["units"]]
    wanted += [unit for _, unit in HARDENING_UNITS]
    files = {name for directory in UNIT_DIRECTORIES for name in node.names(directory)}
    present = [unit for unit in wanted if unit in files]
    states = {unit: {"load": "not-found", "enabled": "", "active": "inactive"} for unit in wanted}
    if not present:
        return states
    blocks = ask_systemd(node, present, "Id", "LoadState", "UnitFileState", "ActiveState")
    for unit, block in zip(present, blocks):
        states[unit] = {
            "load": block["LoadState"],
            "enabled": block.get("UnitFileState", ""),
            "active": block.get("ActiveState", ""),
        }
    return states


def ask_systemd(node, unit_names, *properties):
    """The properties of each unit, in systemd's words."""
    try:
        text = node.run("systemctl", "show", "--no-pager", "-p", ",".join(properties), *unit_names)
    except Absent:
        raise Unreadable("systemd runs, but there is no systemctl") from None
    blocks = parse_unit_blocks(text)
    if len(blocks) != len(unit_names) or not all("LoadState" in block for block in blocks):
        raise Unreadable("systemctl: not the answer that was expected")
    return blocks


def is_active(node, unit_names, process):
    """Whether a daemon runs, by its unit or, without systemd, by its process."""
    known = node.once(units)
    if known and unit_names:
        return any(known[unit]["active"] in ("active", "reloading") for unit in unit_names)
    return bool(own_processes(node, process))


# --- operating system and kernel --------------------------------------------------------------


def os_release(node):
    for path in ("/etc/os-release", "/usr/lib/os-release"):
        try:
            values = parse_environment(node.text(path))
        except Absent:
            continue
        return {key: value[:256] for key, value in list(values.items())[:64]}
    raise Unreadable("no /etc/os-release and no /usr/lib/os-release")


def os_architecture(node):
    return node.machine


def os_hostname(node):
    return kernel_file(node, "/proc/sys/kernel/hostname")


def kernel_release(node):
    return kernel_file(node, "/proc/sys/kernel/osrelease")


def kernel_file(node, path):
    try:
        return node.text(path).strip(SPACE)
    except Absent:
        raise Unreadable("%s: no such file" % path) from None


def os_machine_id(node):
    text = node.text_or("", "/etc/machine-id").strip(SPACE)
    return bool(re.match(r"[0-9a-f]{32}$", text)) and text.strip("0") != ""


def kernel_version(node):
    release = kernel_release(node)
    version = parse_version(release)
    if version is None:
        raise Unreadable("not a kernel version: %s" % release[:80])
    return version


def kernel_btf(node):
    if node.kind("/sys/kernel") is None:
        raise Unreadable("/sys is not mounted")
    return node.kind("/sys/kernel/btf/vmlinux") == "file"


def security_file(node, name):
    """A file of securityfs as text, or None when the kernel has none."""
    if not node.names("/sys/kernel/security"):
        raise Unreadable("/sys/kernel/security is not mounted")
    return node.text_or(None, "/sys/kernel/security/" + name)


def kernel_lockdown(node):
    text = security_file(node, "lockdown")
    if text is None:
        return "absent"
    match = re.search(r"\[(none|integrity|confidentiality)\]", text)
    if not match:
        raise Unreadable("/sys/kernel/security/lockdown: not understood: %s" % text[:80])
    return match.group(1)


def kernel_lsms(node):
    text = security_file(node, "lsm")
    if text is None:
        raise Unreadable("/sys/kernel/security/lsm: no such file")
    return unique(text.strip(SPACE).split(","))


def own_mounts(node):
    return parse_mountinfo(kernel_file(node, "/proc/self/mountinfo"))


def kernel_cgroup_mode(node):
    types = {
        row["fstype"]
        for row in node.once(own_mounts)
        if (row["target"] + "/").startswith("/sys/fs/cgroup/")
    }
    if {"cgroup", "cgroup2"} <= types:
        return "hybrid"
    if "cgroup2" in types:
        return "v2"
    if "cgroup" in types:
        return "v1"
    raise Unreadable("no cgroup file system is mounted at /sys/fs/cgroup")


def kernel_tracefs(node):
    targets = [row["target"] for row in node.once(own_mounts) if row["fstype"] == "tracefs"]
    return min(targets, key=lambda target: target != "/sys/kernel/tracing", default=None)


NETLINK_AUDIT = 9
AUDIT_GET = 1000
AUDIT_LIST_RULES = 1013
NLMSG_ERROR = 2
NLMSG_DONE = 3
NLM_F_REQUEST = 1


def kernel_audit(_node):
    try:
        channel = socket.socket(
            socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, NETLINK_AUDIT
        )
    except OSError as error:
        return audit_missing(error.errno)
    with channel:
        channel.settimeout(2.0)
        try:
            channel.bind((0, 0))
            status = next(audit_messages(channel, AUDIT_GET))
            try:
                rules = sum(1 for _ in audit_messages(channel, AUDIT_LIST_RULES))
            except OSError:
                rules = None  # the status alone is worth having
        except socket.timeout:
            raise Unreadable("audit netlink: no answer in time") from None
        except StopIteration:
            raise Unreadable("audit netlink: no status in the answer") from None
        except OSError as error:
            return audit_missing(error.errno)
    _, enabled, _, pid = struct.unpack_from("=4I", status)
    return {"available": True, "enabled": enabled, "pid": pid, "rules": rules}


def audit_missing(code):
    """What a refusal by the audit netlink says about the node."""
    if code in (errno.EPERM, errno.EACCES) and os.geteuid() != 0:
        raise Unreadable("audit netlink: %s (needs root)" % os.strerror(code))
    whys = {
        errno.EPROTONOSUPPORT: "the kernel has no audit",
        errno.ECONNREFUSED: "the kernel has no audit, or this is not its first user namespace",
        errno.EPERM: "not allowed here (a pid namespace, or no CAP_AUDIT_CONTROL)",
    }
    return {"available": False, "why": whys.get(code, os.strerror(code))}


def audit_messages(channel, request):
    """Payloads that answer one request. OSError with the kernel's errno when it refuses."""
    channel.send(struct.pack("=IHHII", 16, request, NLM_F_REQUEST, request, 0))
    while True:
        data = channel.recv(1 << 16)
        at = 0
        while at + 16 <= len(data):
            length, kind, _, sequence, _ = struct.unpack_from("=IHHII", data, at)
            body = data[at + 16 : at + max(length, 16)]
            at += (max(length, 16) + 3) & ~3
            if sequence != request:
                continue
            if kind == NLMSG_DONE:
                return
            if kind == NLMSG_ERROR:
                code = -struct.unpack_from("=i", body)[0]
                raise OSError(code, os.strerror(code))
            yield body


BPF_MAP_CREATE = 0
BPF_PROG_LOAD = 5
BPF_BTF_LOAD = 18
BPF_MAP_TYPE_RINGBUF = 27
BPF_PROG_TYPE_RAW_TRACEPOINT = 17


def kernel_bpf(node):
    number = BPF_SYSCALLS.get(node.machine)
    if number is None:
        raise Unreadable("bpf(2): number not known on %s" % node.machine)
    import ctypes  # noqa: PLC0415 - slow to import, and not in every Python
    import resource  # noqa: PLC0415

    with contextlib.suppress(OSError, ValueError):
        # Before 5.11 the kernel counts maps as locked memory, of which little is allowed.
        resource.setrlimit(resource.RLIMIT_MEMLOCK, (resource.RLIM_INFINITY,) * 2)
    syscall = ctypes.CDLL(None, use_errno=True).syscall
    syscall.restype = ctypes.c_long

    def attempt(command, attributes):
        """0 when the kernel takes it, else its errno."""
        block = ctypes.create_string_buffer(attributes, 128)
        descriptor = syscall(
            ctypes.c_long(number), ctypes.c_int(command), ctypes.byref(block), ctypes.c_uint(128)
        )
        if descriptor < 0:
            return ctypes.get_errno()
        os.close(descriptor)
        return 0

    def pointer(data):
        buffers.append(ctypes.create_string_buffer(data, len(data)))
        return ctypes.addressof(buffers[-1])

    buffers = []
    # Two instructions: r0 = 0; exit.
    program = struct.pack("=BBhiBBhi", 0xB7, 0, 0, 0, 0x95, 0, 0, 0)
    # One type, a 4-byte signed integer, and the string table "\0int\0".
    types = struct.pack("=IIII", 1, 1 << 24, 4, 1 << 24 | 32)
    btf = struct.pack("=HBBIIIII", 0xEB9F, 1, 0, 24, 0, 16, 16, 5) + types + b"\0int\0"
    page = os.sysconf("SC_PAGE_SIZE")
    results = {
        "ring_buffer": attempt(
            BPF_MAP_CREATE, struct.pack("=4I", BPF_MAP_TYPE_RINGBUF, 0, 0, page)
        ),
        "raw_tracepoint": attempt(
            BPF_PROG_LOAD,
            struct.pack(
                "=IIQQIIQ",
                BPF_PROG_TYPE_RAW_TRACEPOINT,
                2,
                pointer(program),
                pointer(b"GPL\0"),
                0,
                0,
                0,
            ),
        ),
        "btf_load": attempt(BPF_BTF_LOAD, struct.pack("=QQII", pointer(btf), 0, len(btf), 0)),
    }
    return judge_bpf(results, os.geteuid())


def judge_bpf(results, uid):
    """The item from the errno (0: it worked) of each attempt."""
    codes = set(results.values())
    if codes & {errno.EPERM, errno.EACCES}:
        if uid != 0:
            raise Unreadable("bpf(2): not permitted (needs root)")
        if 0 not in codes:
            return {"available": False, "why": "bpf(2): not permitted, even for root"}
    if codes == {errno.ENOSYS}:
        return {"available": False, "why": "the kernel has no bpf(2)"}
    transient = codes & {errno.ENOMEM, errno.EAGAIN, errno.EMFILE, errno.ENFILE, errno.EINTR}
    if transient:
        raise Unreadable("bpf(2): %s" % os.strerror(transient.pop()))
    return dict({"available": True}, **{name: code == 0 for name, code in results.items()})


def libbpf(node):
    triplet = LIBRARY_TRIPLETS.get(node.machine, "")
    directories = ["/usr/local/lib", "/usr/lib64", "/lib64", "/usr/lib", "/lib"]
    if triplet:
        directories[:0] = ["/usr/local/lib/" + triplet, "/usr/lib/" + triplet, "/lib/" + triplet]
    found = {}
    for directory in directories:
        for name in node.names(directory):
            link = directory + "/" + name
            if re.match(r"libbpf\.so\.[0-9]", name) and node.kind(link) == "file":
                path = node.resolve(link)[0]
                version = re.search(r"\.so\.([0-9]+(?:\.[0-9]+)*)$", path)
                if version and is_native(node, path):
                    found[path] = version.group(1)
    if not found:
        return None
    path = max(found, key=lambda path: [int(part[:9]) for part in found[path].split(".")])
    return {"path": path, "version": found[path]}


def is_native(node, path):
    """Whether an ELF file is for this interpreter's word size."""
    elf_class = {4: b"\x01", 8: b"\x02"}[struct.calcsize("P")]
    with node.open(path) as stream:
        return stream.read(5) == b"\x7fELF" + elf_class


# --- resolver ---------------------------------------------------------------------------------


def resolver_resolv_conf(node):
    path = "/etc/resolv.conf"
    info = node.lstat(path)
    item = {
        "type": "missing" if info is None else kind_of(info),
        "target": None,
        "resolved": None,
        "dangling": False,
        "nameservers": [],
        "size": 0,
    }
    if item["type"] == "symlink":
        item["target"] = node.readlink(path)
    elif item["type"] not in ("file", "missing"):
        item["type"] = "other"
    if item["type"] in ("symlink", "file"):
        try:
            item["resolved"], info = node.resolve(path)
        except Absent:
            item["dangling"] = True
            return item
        if stat.S_ISREG(info.st_mode):
            text = node.text(path)
            item["nameservers"] = parse_resolv_conf(text)[:MAX_ROWS]
            item["size"] = len(text)
    return item


def resolver_manager(node):
    return {
        name: is_active(node, [unit] if unit else [], process)
        for name, (unit, process) in RESOLVER_MANAGERS.items()
    }


def resolver_nameservers(node):
    """Every nameserver in force, the link it belongs to and where it came from.

    What a static file and a lease both name counts as static: it would stay when the lease changes.
    """
    rows = {}
    for address, link, seen, managers in in_force(node):
        canonical = dns_address(address)
        if canonical is None:
            continue
        source, by, owner = origin(node, canonical, link, managers)
        if source == "unknown":
            by = seen
        rows.setdefault(
            (canonical, link),
            {"address": canonical, "link": link or owner, "source": source, "by": by},
        )
    return list(rows.values())[:MAX_ROWS]


STUB_FILES = ("/run/systemd/resolve/stub-resolv.conf", "/run/systemd/resolve/resolv.conf")


def in_force(node):
    """(address, link or None, file it was seen in, managers that may have put it there)."""
    item = node.once(resolver_resolv_conf)
    active = node.once(resolver_manager)
    entries, uses_resolved = [], item["resolved"] in STUB_FILES
    if item["resolved"] and not uses_resolved:
        text = node.text_or("", "/etc/resolv.conf")
        managers = writers(text, item["resolved"], active)
        for address in item["nameservers"]:
            if dns_address(address) in ("127.0.0.53", "127.0.0.54"):
                uses_resolved = True
            else:
                entries.append((address, None, item["resolved"], managers))
    return entries + (resolved_entries(node, active) if uses_resolved else [])


def writers(text, path, active):
    """The programs that may have written a resolv.conf; empty for one that a person wrote."""
    header = "\n".join(line for line in text.split("\n") if line[:1] in ("#", ";")).lower()
    found = set()
    if path.startswith("/run/NetworkManager/") or "networkmanager" in header:
        found.add("NetworkManager")
    if path.startswith("/run/resolvconf/") or "resolvconf" in header:
        found.update(("dhclient", "interfaces", "dhcpcd"))
    if "dhcpcd" in header:
        found.add("dhcpcd")
    if path.startswith("/run/netconfig/") or "netconfig" in header:
        found.add("wicked")
    if "dhclient" in header or (active["dhclient"] and not found):
        found.update(("dhclient", "ifcfg"))
    return found


def resolved_entries(node, active):
    """What systemd-resolved uses: each link's servers, its own configuration, the rest it lists."""
    entries, links = [], node.once(link_names)
    for index in node.names("/run/systemd/netif/links"):
        path = "/run/systemd/netif/links/" + index
        servers = parse_environment(node.text_or("", path)).get("DNS", "").split()
        entries += [(server, links.get(index), path, {"networkd"}) for server in servers]
    runtime = {"NetworkManager"} if active["NetworkManager"] else {"dhclient"}
    for index in node.names("/run/systemd/resolve/netif"):
        path = "/run/systemd/resolve/netif/" + index
        servers = parse_environment(node.text_or("", path)).get("SERVERS", "").split()
        entries += [(server, links.get(index), path, runtime) for server in servers]
    own = resolved_static(node) + resolved_leases(node)
    entries += [(server, None, path, {"resolved"}) for server, _, path in own]
    seen = {dns_address(entry[0]) for entry in entries}
    for address in parse_resolv_conf(node.text_or("", STUB_FILES[1])):
        if dns_address(address) not in seen:
            managers = {"resolved", "networkd"} | runtime
            entries.append((address, None, STUB_FILES[1], managers))
    if not entries:
        fallback = resolved_fallback(node)
        entries = [(server, None, path, {"fallback"}) for server, _, path in fallback]
    return entries


def link_names(node):
    """{interface index as text: name}."""
    names = {}
    for name in node.names("/sys/class/net"):
        names[node.text_or("", "/sys/class/net/%s/ifindex" % name).strip(SPACE)] = name
    return names


def origin(node, address, link, managers):
    """(source, by, link) of one address: static files first, then leases."""
    if not managers:
        return "static", "/etc/resolv.conf", None
    for source, finders in (("static", STATIC), ("dhcp", LEASES)):
        for manager in sorted(managers):
            for finder in finders.get(manager, ()):
                for server, owner, by in node.once(finder):
                    # None stands for "any server that this link's profile got by itself".
                    same = server is None or dns_address(server) == address
                    if same and (not link or not owner or owner == link):
                        where = netplan(node, by, server or address) if "netplan" in by else by
                        return source, where, owner
    return "unknown", "", None


def netplan(node, path, address):
    """The netplan file that `path` was made from, when it can be told."""
    for directory in ("/etc/netplan", "/run/netplan", "/usr/lib/netplan"):
        for source in node.files(directory, ".yaml"):
            if address in node.text(source):
                return "netplan %s (as %s)" % (source, path)
    return "netplan (as %s)" % path


def resolved_static(node, key="DNS"):
    """Servers in resolved.conf and its drop-ins, in systemd's order."""
    found = []
    main = ["%s/resolved.conf" % directory for directory in SYSTEMD_DIRECTORIES]
    paths = [path for path in main if node.kind(path)][:1]
    paths += node.merged(["%s/resolved.conf.d" % d for d in SYSTEMD_DIRECTORIES], ".conf")
    for path in paths:
        if node.kind(path) == "device" or path.startswith(DHCLIENT_RESOLVED):
            continue  # masked by a link to /dev/null, or written from a lease
        for section, name, value in parse_ini(node.text(path)):
            if section == "Resolve" and name == key:
                found = found + [(word, None, path) for word in value.split()] if value else []
    return found


def resolved_fallback(node):
    return resolved_static(node, "FallbackDNS")


# Where dhclient's hook of Debian and Ubuntu puts a lease's servers.
DHCLIENT_RESOLVED = "/run/systemd/resolved.conf.d/isc-dhcp-"


def resolved_leases(node):
    found = []
    for path in node.files("/run/systemd/resolved.conf.d", ".conf"):
        if path.startswith(DHCLIENT_RESOLVED):
            servers = ini_list(parse_ini(node.text(path)), "Resolve", "DNS")
            found += [(server, None, "dhclient lease, in " + path) for server in servers]
    return found


def networkd_static(node):
    """Servers in the .network files that links use."""
    found, links = [], node.once(link_names)
    for index in node.names("/run/systemd/netif/links"):
        state = parse_environment(node.text_or("", "/run/systemd/netif/links/" + index))
        path = state.get("NETWORK_FILE")
        if not path:
            continue
        name = os.path.basename(path)
        drop_ins = ["%s/network/%s.d" % (directory, name) for directory in SYSTEMD_DIRECTORIES]
        servers = []
        for part in [path] + node.merged(drop_ins, ".conf"):
            if node.kind(part) != "file":
                continue
            for section, key, value in parse_ini(node.text(part)):
                if section == "Network" and key == "DNS":
                    servers = (
                        servers + [(word, links.get(index), part) for word in value.split()]
                        if value
                        else []
                    )
        found += servers
    return found


def networkd_leases(node):
    found, links = [], node.once(link_names)
    for index in node.names("/run/systemd/netif/leases"):
        path = "/run/systemd/netif/leases/" + index
        servers = parse_environment(node.text_or("", path)).get("DNS", "").split()
        by = "systemd-networkd lease " + path
        found += [(server, links.get(index), by) for server in servers]
    return found


def networkd_automatic(node):
    """IPv6 servers from router advertisements or DHCPv6, of which networkd keeps no file.

    A link's servers are either what its configuration and the network gave, or what was set at run
    time in the place of all of it. So when a server of its lease or of its .network file is in
    force, nothing was set at run time, and an IPv6 server that neither names came by itself.
    """
    found, links = [], node.once(link_names)
    named = {}
    for server, link, _ in node.once(networkd_static) + node.once(networkd_leases):
        named.setdefault(link, set()).add(dns_address(server))
    for index in node.names("/run/systemd/netif/links"):
        link = links.get(index)
        state = parse_environment(node.text_or("", "/run/systemd/netif/links/" + index))
        servers = {dns_address(word) for word in state.get("DNS", "").split()}
        if servers & named.get(link, set()):
            by = "router advertisement or DHCPv6 on %s (systemd-networkd)" % link
            rest = sorted(server for server in servers - named[link] if server and ":" in server)
            found += [(server, link, by) for server in rest]
    return found


NM_PROFILES = (
    "/etc/NetworkManager/system-connections",
    "/run/NetworkManager/system-connections",
    "/usr/lib/NetworkManager/system-connections",
)


def nm_profiles(node):
    """(path, settings, link or None) of the NetworkManager profiles that are in use."""
    links, used = node.once(link_names), {}
    for index in node.names("/run/NetworkManager/devices"):
        rows = parse_ini(node.text_or("", "/run/NetworkManager/devices/" + index))
        used[ini_last(rows, "device", "connection-uuid", "")] = links.get(index)
    profiles = []
    for path in node.merged(NM_PROFILES, ""):
        if node.kind(path) != "file":
            continue
        rows = parse_ini(node.text(path))
        uuid = ini_last(rows, "connection", "uuid", "")
        if not used or uuid in used:
            link = used.get(uuid) or ini_last(rows, "connection", "interface-name")
            profiles.append((path, rows, link))
    return profiles


def nm_static(node):
    found = []
    for path, rows, link in node.once(nm_profiles):
        for family in ("ipv4", "ipv6"):
            servers = re.split(r"[;,\s]+", ini_last(rows, family, "dns", ""))
            found += [(server, link, path) for server in servers if server]
    configuration = node.files("/etc/NetworkManager/conf.d", ".conf")
    for path in ["/etc/NetworkManager/NetworkManager.conf"] + configuration:
        for section, key, value in parse_ini(node.text_or("", path)):
            if section.startswith("global-dns-domain-") and key == "servers":
                found += [(server, None, path) for server in re.split(r"[;,\s]+", value) if server]
    return found


def nm_leases(node):
    """Profiles that take servers by themselves: NetworkManager's leases hold no servers."""
    found = []
    for path, rows, link in node.once(nm_profiles):
        for family in ("ipv4", "ipv6"):
            automatic = ini_last(rows, family, "method", "auto") in ("auto", "dhcp")
            if automatic and not is_true(ini_last(rows, family, "ignore-auto-dns")):
                found.append((None, link, "NetworkManager, %s.method=auto in %s" % (family, path)))
                break
    for path, values in node.once(ifcfg_files):
        if values.get("BOOTPROTO", "").lower() == "dhcp" and values.get("PEERDNS", "yes") != "no":
            found.append((None, values.get("DEVICE"), "NetworkManager, BOOTPROTO=dhcp in " + path))
    return found


def ifcfg_files(node):
    directory = "/etc/sysconfig/network-scripts"
    paths = [directory + "/" + n for n in node.names(directory) if n.startswith("ifcfg-")]
    paths += [path for path in ("/etc/sysconfig/network",) if node.kind(path) == "file"]
    return [(path, parse_environment(node.text(path))) for path in paths if path[-4:] != ".bak"]


def ifcfg_static(node):
    return [
        (value, values.get("DEVICE"), path)
        for path, values in node.once(ifcfg_files)
        for key, value in sorted(values.items())
        if re.match(r"DNS[0-9]+$", key)
    ]


def interfaces_static(node):
    """dns-nameservers lines of ifupdown."""
    found = []
    parts = [p for p in node.files("/etc/network/interfaces.d", "") if node.kind(p) == "file"]
    for path in ["/etc/network/interfaces"] + parts:
        link = None
        for line in node.text_or("", path).split("\n"):
            words = line.split()
            if words[:1] == ["iface"]:
                link = (words[1:2] or [None])[0]
            elif words[:1] in (["dns-nameservers"], ["dns-nameserver"]):
                found += [(word, link, path) for word in words[1:]]
    return found


def dhclient_static(node):
    """Servers that dhclient's own configuration puts in the place of, or beside, the lease's."""
    found = []
    for path in ("/etc/dhcp/dhclient.conf", "/etc/dhclient.conf"):
        text = re.sub(r"#[^\n]*", "", node.text_or("", path))
        pattern = r"\b(?:supersede|prepend|append)\s+domain-name-servers\s+([^;]*);"
        for servers in re.findall(pattern, text):
            found += [(server, None, path) for server in re.split(r"[\s,]+", servers) if server]
    return found


def dhclient_leases(node):
    if not node.once(resolver_manager)["dhclient"]:
        return []
    found = []
    for directory in ("/var/lib/dhcp", "/var/lib/dhclient"):
        for path in node.files(directory, ".leases", ".lease"):
            for link, servers in parse_dhclient_leases(node.text(path)).items():
                found += [(server, link, "dhclient lease " + path) for server in servers]
    return found


def dhcpcd_static(node):
    path = "/etc/dhcpcd.conf"
    text = re.sub(r"#[^\n]*", "", node.text_or("", path))
    found = re.findall(r"(?m)^\s*static\s+domain_name_servers=(.*)$", text)
    return [(server, None, path) for servers in found for server in re.split(r"[\s,]+", servers)]


def dhcpcd_leases(node):
    """dhcpcd names the links and protocols it wrote for in the file's first line."""
    match = re.search(r"(?i)dhcpcd from (.*)", node.text_or("", "/etc/resolv.conf"))
    names = re.split(r"[\s,]+", match.group(1)) if match else []
    link = names[0].partition(".")[0] if names else None
    automatic = [name for name in names if name.endswith((".dhcp", ".dhcp6", ".ra"))]
    return [(None, link, "dhcpcd, " + automatic[0])] if automatic else []


def wicked_static(node):
    path = "/etc/sysconfig/network/config"
    values = parse_environment(node.text_or("", path))
    return [(word, None, path) for word in values.get("NETCONFIG_DNS_STATIC_SERVERS", "").split()]


def wicked_leases(node):
    found = []
    for name in node.names("/run/wicked"):
        match = re.match(r"leaseinfo\.(.+)\.(?:dhcp|auto)", name)
        if match:
            path = "/run/wicked/" + name
            servers = parse_environment(node.text(path)).get("DNSSERVERS", "").split()
            found += [(server, match.group(1), "wicked lease " + path) for server in servers]
    return found


STATIC = {
    "networkd": (networkd_static,),
    "resolved": (resolved_static,),
    "fallback": (resolved_fallback,),
    "NetworkManager": (nm_static, ifcfg_static),
    "ifcfg": (ifcfg_static,),
    "interfaces": (interfaces_static,),
    "dhclient": (dhclient_static, interfaces_static),
    "dhcpcd": (dhcpcd_static, interfaces_static),
    "wicked": (wicked_static,),
}
LEASES = {
    "networkd": (networkd_leases, networkd_automatic),
    "resolved": (resolved_leases,),
    "NetworkManager": (nm_leases,),
    "dhclient": (dhclient_leases,),
    "dhcpcd": (dhcpcd_leases,),
    "wicked": (wicked_leases,),
}


# --- automatic upgrades -----------------------------------------------------------------------


def upgrades_apt(node):
    try:
        settings = parse_apt_dump(node.run("apt-config", "dump"))
    except Absent:
        return None
    names = {
        name.lower(): name
        for name in (
            "APT::Periodic::Enable",
            "APT::Periodic::Update-Package-Lists",
            "APT::Periodic::Download-Upgradeable-Packages",
            "APT::Periodic::Unattended-Upgrade",
        )
    }
    return {
        "installed": bool(node.which("unattended-upgrade") or node.which("unattended-upgrades")),
        "config": {
            names[key.lower()]: value for key, value in settings.items() if key.lower() in names
        },
    }


def upgrades_dnf(node):
    for path in (
        "/etc/dnf/automatic.conf",
        "/etc/dnf/dnf5-plugins/automatic.conf",
        "/usr/share/dnf5/dnf5-plugins/automatic.conf",
        "/etc/yum/yum-cron.conf",
    ):
        try:
            rows = parse_ini(node.text(path))
        except Absent:
            continue
        return {"apply_updates": ini_last(rows, "commands", "apply_updates", ""), "file": path}
    return None


def upgrades_units(node):
    known = node.once(units)
    return {unit: known[unit] for unit in UPGRADE_UNITS if unit in known}


# --- mounts -----------------------------------------------------------------------------------


def host_mounts(node):
    return parse_mountinfo(node.text("/proc/1/mountinfo", MAX_MOUNTINFO))


def mounts_current(node):
    try:
        rows = node.once(host_mounts)
    except Absent:
        raise Unreadable("/proc/1/mountinfo: no such file") from None
    rows = [row for row in rows if row["fstype"] not in PSEUDO_FILESYSTEMS]
    # Bind mounts of local disks are many and tell little: they are the first to be left out.
    kept = sorted(rows, key=lambda row: row["fstype"] in LOCAL_FILESYSTEMS)[:MAX_ROWS]
    return {"list": kept, "truncated": len(kept) < len(rows), "total": len(rows)}


def mounts_fstab(node):
    rows = parse_fstab(node.text_or("", "/etc/fstab"))
    if len(rows) > 5 * MAX_ROWS:
        raise Unreadable("/etc/fstab: more than %d lines" % (5 * MAX_ROWS))
    return rows


def mounts_units(node):
    rows = []
    directories = ["%s/system" % directory for directory in SYSTEMD_DIRECTORIES]
    for path in node.merged(directories, ".mount"):
        if node.kind(path) != "file":
            continue  # masked
        name = os.path.basename(path)
        settings = {}
        drop_ins = node.merged(["%s/%s.d" % (d, name) for d in directories], ".conf")
        for part in [path] + [p for p in drop_ins if node.kind(p) == "file"]:
            rows_here = parse_ini(node.text(part))
            settings.update((key, value) for section, key, value in rows_here if section == "Mount")
        if settings.get("Type") not in PSEUDO_FILESYSTEMS:
            row = {key.lower(): settings.get(key, "") for key in ("What", "Where", "Type")}
            rows.append(dict(row, unit=name))
    if len(rows) > MAX_ROWS:
        raise Unreadable("more than %d mount units" % MAX_ROWS)
    return rows


# --- container runtimes -----------------------------------------------------------------------


def runtimes(node):
    found, versions_left = [], 2
    for name, programs, sockets, configurations in RUNTIMES:
        paths = [d + "/" + p for d in RUNTIME_DIRECTORIES for p in programs]
        binary = next((path for path in paths if node.which(path)), None)
        config = next((path for path in configurations if node.kind(path)), None)
        open_socket = next((path for path in sockets if node.kind(path) == "socket"), None)
        if not binary and not open_socket:
            continue
        version = None
        if binary and versions_left:
            versions_left -= 1
            version = program_version(node, binary)
        row = {
            "name": name,
            "binary": binary,
            "version": version,
            "socket": open_socket,
            "config": config,
            "snapshotter": None,
            "proxy_plugins": [],
            "cgroup_driver": None,
        }
        row.update(RUNTIME_SETTINGS[name](node, config))
        found.append(row)
    return found


def program_version(node, binary):
    """A program's own version, or None when it does not tell."""
    try:
        return find_version(node.run(binary, "--version"))
    except (Absent, Unreadable):
        return None


# The tables that hold the default snapshotter: configuration versions 1 and 2, and version 3.
SNAPSHOTTER_TABLES = ("containerd", "io.containerd.cri.v1.images")


def containerd_settings(node, config):
    values = node.once(containerd_configuration) if config else {}
    snapshotter, driver, plugins = "overlayfs", "cgroupfs", {}
    for path, value in values.items():
        if path[:1] == ("proxy_plugins",) and path[2:]:
            plugins.setdefault(path[1], {})[path[2]] = value
        elif path[-1] == "snapshotter" and "".join(path[-2:-1]) in SNAPSHOTTER_TABLES:
            snapshotter = as_text(value)
        elif path[-1] in ("SystemdCgroup", "systemd_cgroup") and value is True:
            driver = "systemd"
    return {
        "snapshotter": snapshotter,
        "cgroup_driver": driver,
        "proxy_plugins": [
            {
                "name": name,
                "type": as_text(plugin.get("type")),
                "address": as_text(plugin.get("address")),
            }
            for name, plugin in sorted(plugins.items())
        ][:20],
    }


def containerd_configuration(node):
    """The first containerd configuration there is, with its imports, as parse_toml gives it."""
    config = next((path for path in RUNTIMES[0][3] if node.kind(path)), None)
    if config is None:
        return {}
    values = parse_toml(node.text(config))
    imports = values.get(("imports",))
    for pattern in imports if isinstance(imports, list) else []:
        directory, _, name = pattern.rpartition("/")
        if not directory.startswith("/"):
            directory = os.path.join(os.path.dirname(config), directory).rstrip("/")
        matcher = re.compile(".*".join(re.escape(part) for part in name.split("*")) + "$")
        for entry in node.names(directory)[:MAX_ROWS]:
            if matcher.match(entry):
                values.update(parse_toml(node.text(directory + "/" + entry)))
    return values


def crio_settings(node, config):
    paths = ([config] if config else []) + node.files("/etc/crio/crio.conf.d", ".conf")
    driver = "systemd"
    for path in paths:
        driver = parse_toml(node.text(path)).get(("crio", "runtime", "cgroup_manager"), driver)
    return {"cgroup_driver": driver}


def docker_settings(node, config):
    values = parse_json(node.text(config)) if config else {}
    options = values.get("exec-opts")
    for option in options if isinstance(options, list) else []:
        if isinstance(option, str) and option.startswith("native.cgroupdriver="):
            return {"cgroup_driver": option.partition("=")[2]}
    return {}


def podman_settings(node, config):
    values = parse_toml(node.text(config)) if config else {}
    return {"cgroup_driver": as_text(values.get(("engine", "cgroup_manager")))}


RUNTIME_SETTINGS = {
    "containerd": containerd_settings,
    "cri-o": crio_settings,
    "docker": docker_settings,
    "podman": podman_settings,
}


STORAGE_CONFIGURATION = "/etc/containers/storage.conf"


def accelerators(node):
    known, configuration = node.once(units), node.once(containerd_configuration)
    store = parse_toml(node.text_or("", STORAGE_CONFIGURATION))
    layers = store.get(("storage", "options", "additionallayerstores"), [])
    layers = layers if isinstance(layers, list) else []
    targets = [row["target"] for row in node.once(host_mounts)]
    found = []
    for entry in ACCELERATORS:
        name, marks = entry["name"], []
        for path, value in configuration.items():
            words = [word for word in (path[-1] == "snapshotter" and value,) if word]
            if path[:1] == ("proxy_plugins",) and path[-1] == "address":
                words += [path[1], value]
            if any(name in word for word in words if isinstance(word, str)):
                marks.append("containerd setting %s = %s" % (".".join(path), value))
        if any(name in layer for layer in layers):
            marks.append("additional layer store %s in %s" % (layers[0], STORAGE_CONFIGURATION))
        for unit in entry["units"]:
            state = known.get(unit, {})
            if state.get("load") == "loaded":
                marks.append("unit %s (%s)" % (unit, state["active"]))
        marks += [path for path in entry["paths"] if node.kind(path)]
        marks += [
            "mount " + target
            for target in targets
            if any(part in target + "/" for part in entry["mounts"])
        ][:3]
        if marks:
            found.append({"name": name, "where": "; ".join(unique(marks))})
    return found


# --- kubelet and Kubernetes -------------------------------------------------------------------


def kubelet(node):
    pid = next(iter(own_processes(node, "kubelet") or k3s_pids(node)), None)
    binary = next((path for path in KUBELET_BINARIES if node.which(path)), None)
    if pid is None and binary is None:
        return None
    arguments = []
    if pid is not None:
        command = node.read("/proc/%d/cmdline" % pid).decode("utf-8", "surrogateescape")
        arguments = [word for word in command.split("\0") if word]
    flags = parse_flags(arguments)
    config = flags.get("config") or "/var/lib/kubelet/config.yaml"
    settings = {}
    if node.kind(config):
        settings = parse_yaml_scalars(node.text(config))
    else:
        config = None
    if flags.get("config-dir"):
        for path in node.files(flags["config-dir"], ".conf"):
            settings.update(parse_yaml_scalars(node.text(path)))
    kubeconfig = flags.get("kubeconfig") or "/etc/kubernetes/kubelet.conf"
    match = re.search(r"(?m)^\s*-?\s*server:\s+(\S+)", node.text_or("", kubeconfig))
    return {
        "binary": binary,
        "version": program_version(node, binary) if binary else None,
        "running": pid is not None,
        "arguments": redact_arguments([word[:MAX_TEXT] for word in arguments[:MAX_ROWS]]),
        "config": config,
        "static_pod_path": flags.get("pod-manifest-path") or settings.get("staticPodPath"),
        "cgroup_driver": flags.get("cgroup-driver") or settings.get("cgroupDriver") or "cgroupfs",
        "kubeconfig": kubeconfig if node.kind(kubeconfig) else None,
        "server": yaml_scalar(match.group(1)) if match else None,
        "provider_id": flags.get("provider-id") or settings.get("providerID"),
    }


def k3s_pids(node):
    """k3s has the kubelet inside its own process."""
    names = [name for name in node.once(processes) if name in ("k3s-server", "k3s-agent", "k3s")]
    return [pid for name in sorted(names) for pid in own_processes(node, name)]


def kubelet_static_pods(node):
    known = node.once(kubelet)
    path = (known or {}).get("static_pod_path") or "/etc/kubernetes/manifests"
    if node.kind(path) != "directory":
        return None
    names = node.names(path)
    if len(names) > MAX_ROWS:
        raise Unreadable("%s: more than %d files" % (path, MAX_ROWS))
    return {"path": path, "files": [static_pod_file(node, path, name) for name in names]}


def static_pod_file(node, directory, name):
    path = directory.rstrip("/") + "/" + name
    info = node.lstat(path)
    kind = kind_of(info) if info else "other"
    row = {
        "name": name,
        "type": kind,
        "size": info.st_size if info else 0,
        "pod": None,
        "image": None,
        "hidden": name.startswith("."),
    }
    if kind in ("file", "symlink"):
        try:
            row["pod"], row["image"] = parse_pod(node.text(path))
        except (Absent, Unreadable) as error:
            row["problem"] = str(error)
    return row


def kubernetes_role(node):
    if node.once(kubelet) is None:
        return "none"
    pods = node.once(kubelet_static_pods)
    images = [row["image"] or "" for row in pods["files"] if not row["hidden"]] if pods else []
    if any("kube-apiserver" in image for image in images) or own_processes(node, "kube-apiserver"):
        return "master"
    servers = ("k3s.service", "rke2-server.service", "k0scontroller.service")
    known = node.once(units)
    runs = any(known.get(unit, {}).get("active") == "active" for unit in servers)
    return "master" if runs else "worker"


def kubernetes_version(node):
    known = node.once(kubelet)
    if known is None:
        return None
    pods = node.once(kubelet_static_pods)
    for row in pods["files"] if pods else []:
        match = re.search(r"/kube-apiserver(?:-[a-z0-9]+)?:(v?[0-9][^@\s]*)", row["image"] or "")
        if match and not row["hidden"] and find_version(match.group(1)):
            return find_version(match.group(1))
    if known["version"] is None:
        raise Unreadable("the kubelet does not tell its version")
    return known["version"]


def kubernetes_distribution(node):  # noqa: PLR0911 - a table of marks, in order of precedence
    known = node.once(kubelet)
    if known is None:
        return "none"
    binary, flags = known["binary"] or "", parse_flags(known["arguments"])
    labels, provider = flags.get("node-labels", ""), known["provider_id"] or ""
    if binary.endswith("/k3s"):
        return "k3s"
    if "/rke2/" in binary or node.kind("/etc/rancher/rke2"):
        return "rke2"
    if "/k0s/" in binary or node.kind("/etc/k0s"):
        return "k0s"
    if "ack.aliyun.com=" in labels or re.match(r"[a-z]{2}-[a-z0-9-]+\.i-[a-z0-9]+$", provider):
        return "ack"
    if any(label in labels for label in MANAGED_LABELS):
        return "managed"
    if node.kind("/var/lib/kubelet/kubeadm-flags.env"):
        return "kubeadm"
    return "managed" if provider.startswith(MANAGED_PROVIDERS) else "unknown"


STORAGE_QUERY = (
    "jsonpath={range .items[*]}{.kind}{'\\t'}{.metadata.name}{'\\t'}{.provisioner}"
    "{.spec.csi.driver}{.spec.flexVolume.driver}{'\\t'}{.spec.nfs.server}"
    "{.spec.csi.volumeAttributes.server}{'\\n'}{end}"
)


def kubernetes_storage(node):
    if node.once(kubernetes_role) != "master":
        return None
    kubeconfig = next((path for path in ADMIN_KUBECONFIGS if node.kind(path)), None)
    if kubeconfig is None:
        raise Unreadable("no administrator's kubeconfig on this master")
    node.read(kubeconfig)
    program = next((path for path in ("kubectl",) + KUBECTL_BINARIES if node.which(path)), None)
    if program is None:
        raise Unreadable("no kubectl on this master")
    # kubectl would keep a cache under HOME: nothing may be written.
    text = node.run(
        program,
        "--kubeconfig=" + kubeconfig,
        "--cache-dir=/dev/null",
        "--request-timeout=4s",
        "get",
        "persistentvolumes,storageclasses",
        "-o",
        STORAGE_QUERY,
    )
    volumes, classes = [], []
    for line in text.split("\n"):
        kind, name, driver, server = (line.split("\t") + ["", "", ""])[:4]
        if kind == "StorageClass":
            classes.append({"name": name, "provisioner": driver})
        elif kind == "PersistentVolume":
            row = {"name": name, "driver": driver or ("nfs" if server else "in-tree")}
            volumes.append(dict(row, server=server) if server else row)
    return {"persistent_volumes": fewer(volumes, "driver"), "storage_classes": classes[:MAX_ROWS]}


def fewer(rows, key):
    """At most MAX_ROWS rows, with one of every different `key` and server before any second one."""
    seen, first, rest = set(), [], []
    for row in rows:
        mark = (row[key], row.get("server"))
        (rest if mark in seen else first).append(row)
        seen.add(mark)
    return (first + rest)[:MAX_ROWS]


# --- the rest of the machine ------------------------------------------------------------------


def systemd_version(node):
    roots = ("/usr/lib/systemd", "/lib/systemd")
    if not any(node.kind(root + "/systemd") == "file" for root in roots):
        return None
    triplet = LIBRARY_TRIPLETS.get(node.machine, "")
    for directory in roots + ("/usr/lib/%s/systemd" % triplet, "/usr/lib64/systemd"):
        for name in node.names(directory):
            match = re.match(r"libsystemd-shared-([0-9]{3,4})\b", name)
            if match:
                return int(match.group(1))
    match = re.match(r"systemd ([0-9]{1,4})", node.run("systemctl", "--version"))
    if not match:
        raise Unreadable("systemctl --version: not understood")
    return int(match.group(1))


PYTHON_NAMES = ("python3", "platform-python", "python") + tuple("python3.%d" % n for n in range(30))


def python_interpreters(node):
    found = {}
    for directory in ("/usr/bin", "/usr/local/bin", "/usr/libexec", "/opt/bin", "/bin"):
        for name in PYTHON_NAMES:
            path = directory + "/" + name
            if node.which(path):
                real = node.resolve(path)[0]
                match = re.search(r"python([23]\.[0-9]+)$", real)
                if match:
                    found.setdefault(real, {"path": path, "version": match.group(1)})
    own = os.path.realpath(sys.executable) if sys.executable else ""
    if own in found:
        found[own]["version"] = "%d.%d.%d" % sys.version_info[:3]
    return list(found.values())


STA_UNSYNC = 0x40


def clock(node):
    import ctypes  # noqa: PLC0415 - as above

    block = ctypes.create_string_buffer(1024)
    if ctypes.CDLL(None, use_errno=True).adjtimex(block) < 0:
        raise Unreadable("adjtimex(2): %s" % os.strerror(ctypes.get_errno()))
    _, _, _, error, _, status = struct.unpack_from("@Illlli", block.raw)
    by = None
    for name, unit_names, process in CLOCK_DAEMONS:
        if by is None and is_active(node, unit_names, process):
            by = name
    return {
        "synchronised": not status & STA_UNSYNC,
        "by": by,
        "max_error_seconds": round(error / 1e6, 6),
    }


def disk_log(node):
    path = "/var/log"
    try:
        space = os.statvfs(node.host(node.resolve(path)[0]))
    except Absent:
        raise Unreadable("/var/log: no such directory") from None
    except OSError as error:
        raise problem(path, error) from error
    return {
        "path": path,
        "bytes_total": space.f_blocks * space.f_frsize,
        "bytes_free": space.f_bfree * space.f_frsize,
        "inodes_total": space.f_files,
        "inodes_free": space.f_ffree,
    }


def memory_total(node):
    match = re.search(r"(?m)^MemTotal:\s+([0-9]+) kB$", kernel_file(node, "/proc/meminfo"))
    if not match:
        raise Unreadable("/proc/meminfo: no MemTotal")
    return int(match.group(1)) * 1024


def hardening(node):
    marks = []
    for name, path in HARDENING_PATHS:
        kind = node.kind(path)
        if kind and (kind != "directory" or node.names(path)):
            marks.append({"name": name, "where": path})
    known = node.once(units)
    for name, unit in HARDENING_UNITS:
        if known.get(unit, {}).get("active") == "active":
            marks.append({"name": name, "where": unit})
    if node.text_or("0", "/proc/sys/crypto/fips_enabled").strip(SPACE) == "1":
        marks.append({"name": "FIPS mode", "where": "/proc/sys/crypto/fips_enabled"})
    image = parse_environment(node.text_or("", "/etc/image-id"))
    if "dengbao" in image.get("image_id", ""):
        marks.append({"name": "MLPS 2.0 image", "where": "/etc/image-id: " + image["image_id"]})
    path = "/var/lib/ubuntu-advantage/status.json"
    services = parse_json(node.text_or("", path)).get("services")
    for service in services if isinstance(services, list) else []:
        if not isinstance(service, dict) or service.get("status") != "enabled":
            continue
        if service.get("name") in UBUNTU_PRO_HARDENING:
            marks.append({"name": "Ubuntu Pro %s" % service["name"], "where": path})
    return marks


# --- the run ----------------------------------------------------------------------------------

ITEMS = (
    ("os.release", os_release),
    ("os.architecture", os_architecture),
    ("os.hostname", os_hostname),
    ("os.machine_id", os_machine_id),
    ("kernel.release", kernel_release),
    ("kernel.version", kernel_version),
    ("kernel.btf", kernel_btf),
    ("kernel.lockdown", kernel_lockdown),
    ("kernel.lsms", kernel_lsms),
    ("kernel.cgroup_mode", kernel_cgroup_mode),
    ("kernel.tracefs", kernel_tracefs),
    ("kernel.audit", kernel_audit),
    ("kernel.bpf", kernel_bpf),
    ("libbpf", libbpf),
    ("upgrades.units", upgrades_units),
    ("upgrades.apt", upgrades_apt),
    ("upgrades.dnf", upgrades_dnf),
    ("resolver.resolv_conf", resolver_resolv_conf),
    ("resolver.manager", resolver_manager),
    ("resolver.nameservers", resolver_nameservers),
    ("mounts.current", mounts_current),
    ("mounts.fstab", mounts_fstab),
    ("mounts.units", mounts_units),
    ("kubelet", kubelet),
    ("kubelet.static_pods", kubelet_static_pods),
    ("kubernetes.role", kubernetes_role),
    ("kubernetes.version", kubernetes_version),
    ("kubernetes.distribution", kubernetes_distribution),
    ("kubernetes.storage", kubernetes_storage),
    ("runtimes", runtimes),
    ("accelerators", accelerators),
    ("systemd.version", systemd_version),
    ("python.interpreters", python_interpreters),
    ("clock", clock),
    ("disk.log", disk_log),
    ("memory.total", memory_total),
    ("hardening", hardening),
)


def unreadable(why):
    return {"unreadable": clean(why)[:MAX_TEXT]}


def clean(value, longest=MAX_VALUE):
    """`value` with its texts cut, and bytes that were no UTF-8 shown as backslash escapes."""
    if isinstance(value, str):
        value = value[:longest]
        try:
            data = value.encode("utf-8", "surrogateescape")
        except UnicodeEncodeError:
            data = value.encode("utf-8", "backslashreplace")
        return data.decode("utf-8", "backslashreplace")
    if isinstance(value, dict):
        return {clean(key): clean(entry, longest) for key, entry in value.items()}
    if isinstance(value, list):
        return [clean(entry, longest) for entry in value]
    return value


def probe(node, function, finish=clean):
    """The value of one item, `finish`ed, or why there is none. Never raises."""
    try:
        return finish(function(node))
    except Unreadable as error:
        return unreadable(str(error))
    except Absent as error:
        return unreadable("%s: no such file" % error)
    except OSError as error:
        return unreadable("%s: %s" % (error.filename or "system call", error.strerror))
    except Exception as error:  # noqa: BLE001 - one item's surprise must not cost the others
        return unreadable("unexpected: %s: %s" % (type(error).__name__, error))


def collect(node, items=ITEMS):
    """Every item by name, and the names of those that the time limits cut off."""
    started, found, late = time.monotonic(), {}, []
    for name, function in items:
        seconds = min(PROBE_SECONDS, started + TOTAL_SECONDS - time.monotonic())
        if seconds <= 0:
            late.append(name)
            found[name] = unreadable("not reached within %g s" % TOTAL_SECONDS)
            continue
        node.deadline = time.monotonic() + seconds
        answer = []
        # A thread, since only that leaves a system call behind which nothing can interrupt.
        worker = threading.Thread(
            target=lambda f=function, a=answer: a.append(probe(node, f)), daemon=True
        )
        try:
            worker.start()
        except RuntimeError as error:
            found[name] = unreadable(str(error))
            continue
        worker.join(seconds)
        if answer:
            found[name] = answer[0]
        else:
            late.append(name)
            found[name] = unreadable("not finished within %g s" % round(seconds, 1))
    node.stop_children()
    return found, late


def document(items, limit=MAX_OUTPUT):
    """The evidence; what is largest gives way until all of it is no longer than `limit`."""
    while True:
        evidence = {"schema": SCHEMA, "items": items}
        if len(encode(evidence)) <= limit:
            return evidence
        sizes = {name: len(json.dumps(value)) for name, value in items.items()}
        largest = max(sizes, key=sizes.get)
        items[largest] = unreadable("too large: %d bytes" % sizes[largest])


def encode(value):
    return json.dumps(value, separators=(",", ":"))


def main(_request=None):
    """Every item of this machine, and how it went."""
    started = time.monotonic()
    node = Node()
    items, late = collect(node)
    items["collector"] = {
        "version": VERSION,
        "python": "%d.%d.%d" % sys.version_info[:3],
        "uid": os.geteuid(),
        "seconds": round(time.monotonic() - started, 3),
        "children": node.children,
        "late": late,
    }
    return document(items)


def tell(evidence):
    """Print it, and end."""
    try:
        sys.stdout.write(encode({"evidence": evidence}) + "\n")
        sys.stdout.flush()
    except OSError:
        pass  # nobody reads any more
    # Threads that a system call holds would keep the interpreter from ending by itself.
    os._exit(0)


if __name__ == "__main__":
    tell(main())
