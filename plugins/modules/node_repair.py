#!/usr/bin/python
"""Repairs of one node: what is there is read, changed in one transaction, and put back.

One file on purpose: it is sent over ssh to the standard input of whatever Python the node has
(3.6 or later). What to change is decided on the controller. Each
repair has a folder of its own with a journal, which is on the disk before anything changes; so
one that was killed is taken back by the next, and one that was made can be undone later.
"""

DOCUMENTATION = r"""
module: node_repair
short_description: Repair what a check has found on a node, or take the repair back
version_added: 0.1.0
author: Exectrail contributors
description:
  - Part of the role C(exectrail.audit.remediate); a play has no use for it by itself.
  - Reads the node's evidence, judges the checks that the run names, and repairs those that fail and
    have a repair. A repair whose check does not pass afterwards is taken back.
attributes:
  check_mode:
    description: Can run in check_mode and predict what would be changed.
    support: full
  diff_mode:
    description: Returns details on what has changed when in diff mode.
    support: full
  platform:
    description: Nodes with systemd.
    platforms: linux
    support: full
  safe_file_operations:
    description: Uses safe operations to change files.
    support: full
options:
  report_dir:
    description: Folder of the run on the controller, which C(remediation_run) has opened.
    type: path
    required: true
  variables:
    description: Host variables that belong to the evidence.
    type: dict
    default: {}
requirements:
  - Python 3.6 or later on the node
"""

EXAMPLES = r"""
- name: Repair the node
  exectrail.audit.node_repair:
    report_dir: reports/remediate
"""

RETURN = r"""
outcomes:
  description: What came of each check that was named.
  returned: always
  type: list
  elements: dict
"""

import errno
import fcntl
import json
import os
import re
import shutil
import socket
import stat
import struct
import subprocess
import time

STATE = "/var/lib/exectrail/repairs"
MAX_TEXT = 1024 * 1024
UNIT_FOLDERS = ("/etc/systemd/system", "/run/systemd/system")
RUNS = ("active", "activating", "reloading")
STUB = ("127.0.0.53", 53)
LABEL = "security.selinux"
STA_UNSYNC = 0x40
COMMAND_SECONDS = 60
PACKAGE_SECONDS = 300
INSTALL = {
    "apt-get": [
        *("apt-get", "-q", "-y", "--no-install-recommends", "--no-remove"),
        *("-o", "Dpkg::Options::=--force-confold", "-o", "DPkg::Lock::Timeout=60", "install"),
    ],
    "dnf": ["dnf", "-q", "-y", "install"],
    "zypper": ["zypper", "--non-interactive", "install", "--no-recommends"],
}
REFRESH = {
    "apt-get": ["apt-get", "-q", "update"],
    "dnf": ["dnf", "-q", "makecache"],
    "zypper": ["zypper", "--non-interactive", "refresh"],
}
# They refuse to take away what something else has come to need.
REMOVE = {"apt-get": ["dpkg", "--remove"], "dnf": ["rpm", "-e"], "zypper": ["rpm", "-e"]}


class Refused(Exception):
    """The request can't be met; nothing has been changed by it."""


class Failed(Exception):
    """A step of the repair failed."""


class Node:
    """The machine; `root` is where its file system is, another folder in tests."""

    def __init__(self, root="/"):
        self.root = root.rstrip("/")

    def host(self, path):
        return self.root + path

    def run(self, command, seconds=COMMAND_SECONDS):
        """What a command says; Failed with its last words if it fails."""
        code, out, complaint = self.start(command, seconds)
        if code:
            last = (complaint + out).strip().splitlines()[-1:] or ["exit code %d" % code]
            raise Failed("%s: %s" % (" ".join(command), last[0]))
        return out

    def start(self, command, seconds=COMMAND_SECONDS):
        """Its exit code and what it says, on either way."""
        environment = dict(os.environ, LC_ALL="C", LANG="C", DEBIAN_FRONTEND="noninteractive")
        # Ubuntu would restart services, and ask.
        environment.update(NEEDRESTART_SUSPEND="1", NEEDRESTART_MODE="l")
        environment["PATH"] = os.environ.get("PATH", "") + ":/usr/sbin:/usr/bin:/sbin:/bin"
        try:
            done = subprocess.run(
                command,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                timeout=seconds,
                check=False,
            )
        except OSError as error:
            raise Failed("%s: %s" % (command[0], error.strerror)) from error
        except subprocess.TimeoutExpired as error:
            raise Failed("%s: not finished within %d s" % (" ".join(command), seconds)) from error
        told = [text.decode("utf-8", "replace") for text in (done.stdout, done.stderr)]
        return (done.returncode, *told)


# --- files ------------------------------------------------------------------------------------


def path_state(node, path):
    """What is there: missing, a link, a regular file with its text, or something other."""
    where = node.host(path)
    try:
        info = os.lstat(where)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR):
            return {"kind": "missing"}
        raise
    if stat.S_ISLNK(info.st_mode):
        return {"kind": "link", "target": os.readlink(where)}
    if not stat.S_ISREG(info.st_mode):
        return {"kind": "other"}
    descriptor = os.open(where, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(descriptor, "rb") as stream:
        raw = stream.read(MAX_TEXT + 1)
    if len(raw) > MAX_TEXT:
        raise Refused("%s is larger than %d bytes" % (path, MAX_TEXT))
    try:
        label = os.getxattr(where, LABEL).decode("utf-8", "replace").rstrip("\0")
    except OSError:
        label = None
    return {
        "kind": "file",
        "text": raw.decode("utf-8", "surrogateescape"),
        "mode": stat.S_IMODE(info.st_mode),
        "owner": [info.st_uid, info.st_gid],
        "label": label,
        "mtime": info.st_mtime_ns,
    }


def staged_name(where):
    # Hidden, so that no program takes it for one of its files; the same after a kill.
    return os.path.join(os.path.dirname(where), ".%s.exectrail" % os.path.basename(where))


def forget_staged(where):
    try:
        os.unlink(staged_name(where))
    except OSError as error:
        if error.errno not in (errno.ENOENT, errno.ENOTDIR):
            raise


def sync_folder(path):
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def put_file(where, text, like):
    """Replace a file in one step; owner, mode, label and time are those of `like`."""
    staged = staged_name(where)
    forget_staged(where)
    descriptor = os.open(staged, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "wb") as stream:
        stream.write(text.encode("utf-8", "surrogateescape"))
        stream.flush()
        if like.get("owner") and like["owner"] != [os.geteuid(), os.getegid()]:
            os.fchown(descriptor, *like["owner"])
        os.fchmod(descriptor, like.get("mode", 0o644))
        if like.get("label"):
            os.setxattr(staged, LABEL, like["label"].encode() + b"\0")
        if like.get("mtime"):
            os.utime(staged, ns=(like["mtime"], like["mtime"]))
        os.fsync(descriptor)
    os.rename(staged, where)
    sync_folder(os.path.dirname(where))


def put_link(where, target):
    staged = staged_name(where)
    forget_staged(where)
    os.symlink(target, staged)
    os.rename(staged, where)
    sync_folder(os.path.dirname(where))


def put_path(where, state):
    """Put back what was there."""
    forget_staged(where)
    if state["kind"] == "file":
        put_file(where, state["text"], state)
    elif state["kind"] == "link":
        put_link(where, state["target"])
    else:
        os.unlink(where)
        sync_folder(os.path.dirname(where))


# --- units ------------------------------------------------------------------------------------


def unit_state(node, name):
    """What systemd says of a unit, and the links by which it is enabled or masked."""
    properties = "LoadState,UnitFileState,ActiveState"
    said = node.run(["systemctl", "show", "--no-pager", "-p", properties, name])
    values = dict(line.split("=", 1) for line in said.splitlines() if "=" in line)
    if "LoadState" not in values:
        raise Failed("systemctl show %s: not understood" % name)
    return {
        "load": values["LoadState"],
        "enabled": values.get("UnitFileState", ""),
        "active": values.get("ActiveState", ""),
        "links": unit_links(node, name),
    }


def unit_links(node, name):
    """{path: target} of the links in the administrator's folders that are about a unit."""
    found = {}
    for folder in UNIT_FOLDERS:
        for each in [folder] + [
            folder + "/" + entry
            for entry in listed(node.host(folder))
            if entry.endswith((".wants", ".requires"))
        ]:
            for entry in listed(node.host(each)):
                path = each + "/" + entry
                if os.path.islink(node.host(path)):
                    target = os.readlink(node.host(path))
                    if name in (entry, os.path.basename(target)):
                        found[path] = target
    return found


def listed(folder):
    return sorted(os.listdir(folder)) if os.path.isdir(folder) else []


def switch_unit(node, name, on):
    if on:
        node.run(["systemctl", "enable", name])
        node.run(["systemctl", "start", name])
    else:
        node.run(["systemctl", "disable", name])
        node.run(["systemctl", "disable", "--runtime", name])
        node.run(["systemctl", "stop", name])


def put_unit(node, name, state):
    """Make the links as they were, which presets and `systemctl enable` might not."""
    now = unit_links(node, name)
    for path in sorted(set(now) - set(state["links"])):
        os.unlink(node.host(path))
        folder = os.path.dirname(node.host(path))
        if folder.endswith((".wants", ".requires")) and not os.listdir(folder):
            os.rmdir(folder)
    for path, target in sorted(state["links"].items()):
        if now.get(path) != target:
            os.makedirs(os.path.dirname(node.host(path)), exist_ok=True)
            put_link(node.host(path), target)
    if now != state["links"]:
        node.run(["systemctl", "daemon-reload"])
    node.run(["systemctl", "start" if state["active"] in RUNS else "stop", name])


# --- packages ---------------------------------------------------------------------------------


def package_state(node, manager, name):
    if manager == "apt-get":
        # It fails for a package that it has never heard of.
        said = node.start(["dpkg-query", "-W", "-f", "${db:Status-Abbrev}${Version}", name])[1]
        policy = node.run(["apt-cache", "policy", name])
        offered = re.search(r"(?m)^\s*Candidate: (?!\(none\))\S", policy) is not None
        installed = said[3:] if said[1:2] == "i" else None
    else:
        code, said, _ = node.start(["rpm", "-q", "--qf", "%{VERSION}", name])
        installed = None if code else said
        offered = True
    return {"name": name, "manager": manager, "installed": installed, "offered": offered}


def find_package(node, names):
    """The state of the package by the first of these managers that the node has."""
    for manager in ("apt-get", "dnf", "zypper"):
        if manager in names and shutil.which(manager):
            return package_state(node, manager, names[manager])
    return None


def install(node, manager, name):
    command = INSTALL[manager] + [name]
    try:
        node.run(command, seconds=PACKAGE_SECONDS)
    except Failed:
        # An old list names files that are no longer there.
        node.run(REFRESH[manager], seconds=PACKAGE_SECONDS)
        node.run(command, seconds=PACKAGE_SECONDS)


def put_package(node, state):
    if state["installed"] is None:
        node.run(REMOVE[state["manager"]] + [state["name"]], seconds=PACKAGE_SECONDS)


# --- what can be asked ------------------------------------------------------------------------


def stub_answers():
    """Whether systemd-resolved answers at its stub; it knows the address of localhost by itself."""
    question = struct.pack("!6H", 4242, 0x0100, 1, 0, 0, 0) + b"\x09localhost\0" + b"\0\1\0\1"
    client = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    try:
        client.settimeout(5)
        client.connect(STUB)
        client.send(question)
        answer = client.recv(512)
    except OSError:
        return False
    finally:
        client.close()
    return answer[:2] == question[:2] and not answer[3] & 0x0F


def resolver_state(node):
    """Which nameservers systemd-resolved has: of links, and for all of them."""
    found = {"answers": stub_answers(), "links": False, "globally": False}
    for line in node.run(["resolvectl", "--no-pager", "dns"]).splitlines():
        name, _, servers = line.partition(":")
        if servers.strip():
            found["globally" if name.strip() == "Global" else "links"] = True
    return found


def clock_is_synchronised():
    import ctypes  # noqa: PLC0415 - costs time, and is needed here only

    block = ctypes.create_string_buffer(1024)
    if ctypes.CDLL(None, use_errno=True).adjtimex(block) < 0:
        raise Failed("adjtimex(2): %s" % os.strerror(ctypes.get_errno()))
    return not struct.unpack_from("@Illlli", block.raw)[5] & STA_UNSYNC


def await_clock(seconds):
    deadline = time.monotonic() + seconds
    while not clock_is_synchronised():
        if time.monotonic() > deadline:
            raise Failed(
                "the clock did not become synchronised within %d s; can the node reach its time "
                "servers?" % seconds
            )
        time.sleep(0.5)


# --- actions ----------------------------------------------------------------------------------


def called(action):
    return action["path"] if "path" in action else action["name"]


def state_of(node, action):
    """What the node has of an action's subject, in a form that can be compared."""
    if action["do"] == "unit":
        return unit_state(node, action["name"])
    if action["do"] == "package":
        return package_state(node, action["manager"], action["name"])
    return path_state(node, action["path"])


def make(node, action, before):
    where = node.host(action.get("path", ""))
    if action["do"] == "write":
        if before["kind"] not in ("file", "missing"):
            raise Failed("%s is no regular file" % action["path"])
        put_file(
            where,
            action["text"],
            {k: before.get(k) for k in ("owner", "mode", "label") if before.get(k) is not None},
        )
    elif action["do"] == "link":
        if before["kind"] == "other":
            raise Failed("%s is neither a file nor a link" % action["path"])
        put_link(where, action["target"])
    elif action["do"] == "unit":
        switch_unit(node, action["name"], action["on"])
    else:
        install(node, action["manager"], action["name"])


def put_back(node, action, before):
    if action["do"] == "unit":
        put_unit(node, action["name"], before)
    elif action["do"] == "package":
        put_package(node, before)
    else:
        put_path(node.host(action["path"]), before)


def same(one, other):
    """Whether two states are the same, but for a file's time and what could be installed."""
    return dict(one, mtime=None, offered=None) == dict(other, mtime=None, offered=None)


def is_made(action, now):
    """Whether a file or link is what the action makes of it."""
    if action["do"] == "write":
        return now["kind"] == "file" and now["text"] == action["text"]
    return now["kind"] == "link" and now["target"] == action["target"]


# --- journals ---------------------------------------------------------------------------------


class Journal:
    """One repair in its folder: the changes, how many are made, and what became of it."""

    def __init__(self, node, folder, data):
        self.node, self.folder, self.data = node, folder, data

    @classmethod
    def create(cls, node, check, changes):
        """Write the journal and the copies of what is there, before anything changes."""
        top = node.host(STATE)
        number = 1 + max([0] + [each.data["number"] for each in journals(node)])
        name = "%s-%s" % (time.strftime("%Y%m%dT%H%M%SZ", time.gmtime()), check)
        folder, again = os.path.join(top, name), 1
        while os.path.lexists(folder):
            again += 1
            folder = os.path.join(top, "%s.%d" % (name, again))
        os.mkdir(folder, 0o700)
        for change in changes:
            if change["before"].get("kind") == "file":
                # For people; the journal has the text too.
                copy = os.path.join(folder, change["action"]["path"].strip("/").replace("/", "-"))
                put_file(copy, change["before"]["text"], {"mode": 0o600})
        data = {"check": check, "number": number, "state": "running", "done": 0}
        data["changes"] = changes
        journal = cls(node, folder, data)
        journal.write()
        sync_folder(top)
        return journal

    def write(self):
        text = json.dumps(self.data, indent=1, sort_keys=True)
        put_file(os.path.join(self.folder, "journal.json"), text, {"mode": 0o600})

    def make(self, seconds):
        for number, change in enumerate(self.data["changes"], 1):
            make(self.node, change["action"], change["before"])
            change["after"] = state_of(self.node, change["action"])
            self.data["done"] = number
            self.write()
        if seconds:
            await_clock(seconds)
        self.data["state"] = "done"
        self.write()

    def to_restore(self):
        """What is no longer as it was; Refused if somebody else has changed any of it."""
        found = []
        for number, change in enumerate(self.data["changes"]):
            action, before = change["action"], change["before"]
            if number > self.data["done"]:
                continue
            now = state_of(self.node, action)
            if same(now, before):
                continue
            if number < self.data["done"]:
                ours = same(now, change["after"])
            else:  # The step in which it was killed: a unit or a package may be anywhere between.
                ours = action["do"] in ("unit", "package") or is_made(action, now)
            if not ours:
                raise Refused(
                    "%s has been changed since it was repaired, so it is left as it is; what was "
                    "there before is in %s" % (called(action), self.folder)
                )
            found.append({"action": action, "before": now, "after": before})
        return found

    def restore(self, state):
        """Put everything back, the last first."""
        changes = self.to_restore()
        for change in reversed(changes):
            put_back(self.node, change["action"], change["after"])
        for change in self.data["changes"]:
            if "path" in change["action"]:
                forget_staged(self.node.host(change["action"]["path"]))
        self.data["state"] = state
        self.write()
        return changes


def journals(node, check=None):
    """The journals of all checks or one, the oldest first. A folder without one changed nothing."""
    top, found = node.host(STATE), []
    for name in listed(top):
        folder = os.path.join(top, name)
        try:
            with open(os.path.join(folder, "journal.json"), encoding="utf-8") as stream:
                data = json.load(stream)
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.ENOTDIR):
                continue
            raise
        if check in (None, data["check"]):
            found.append(Journal(node, folder, data))
    return sorted(found, key=lambda each: each.data["number"])


class Lock:
    """One repair at a time; what else is called running was killed."""

    def __init__(self, node):
        self.path = node.host(STATE)

    def __enter__(self):
        os.makedirs(self.path, 0o700, exist_ok=True)
        name = os.path.join(self.path, ".lock")
        self.held = os.open(name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self.held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(self.held)
            raise Refused("another repair of this node is under way") from error

    def __exit__(self, *_):
        os.close(self.held)


# --- requests ---------------------------------------------------------------------------------


def look(node, request):
    """Read what a plan asks for; first take back what a killed run has left of this check."""
    interrupted = [each for each in journals(node, request["check"]) if running(each)]
    if interrupted and not request["dry"]:
        with Lock(node):
            for each in reversed(interrupted):
                each.restore("taken back")
    return {
        "interrupted": bool(interrupted),
        "paths": {path: path_state(node, path) for path in request["paths"]},
        "units": {name: unit_state(node, name) for name in request["units"]},
        "package": find_package(node, request["packages"]),
        "resolver": resolver_state(node) if request["resolver"] else None,
    }


def running(journal):
    return journal.data["state"] == "running"


def apply(node, request):
    """Make the changes, all or none."""
    with Lock(node):
        for change in request["changes"]:
            if not same(state_of(node, change["action"]), change["before"]):
                raise Refused(
                    "%s was changed since it was read; run again" % called(change["action"])
                )
        changes = [dict(change, after=None) for change in request["changes"]]
        journal = Journal.create(node, request["check"], changes)
        try:
            journal.make(request["await_clock"])
        except Exception as error:
            raise Failed("%s; %s" % (words(error), taken_back(journal))) from error
        return {"changes": journal.data["changes"], "folder": journal.folder}


def taken_back(journal):
    try:
        journal.restore("taken back")
    except Exception as error:  # noqa: BLE001 - the first failure must be told with it
        return "it could not be taken back: %s. What was there is in %s" % (
            words(error),
            journal.folder,
        )
    return "everything is as before"


def undo(node, request):
    """Put back what the newest repair of the check changed; only look if `dry`."""
    made = [each for each in journals(node, request["check"]) if running(each) or done(each)]
    if not made:
        return {"changes": None}
    if request["dry"]:
        return {"changes": made[-1].to_restore()}
    with Lock(node):
        return {"changes": made[-1].restore(request["state"])}


def done(journal):
    return journal.data["state"] == "done"


def words(error):
    if isinstance(error, (Refused, Failed)):
        return str(error)
    if isinstance(error, OSError) and error.filename:
        return "%s: %s" % (error.filename, error.strerror)
    return "%s: %s" % (type(error).__name__, error)


DOES = {"look": look, "apply": apply, "undo": undo}


def main(request, root="/"):
    """Do what the request says."""
    return DOES[request["do"]](Node(root), request)
