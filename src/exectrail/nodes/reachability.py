"""Says in one sentence why a node could not be looked at, and what to do about it."""

from __future__ import annotations

import re
from typing import NamedTuple

NO_PYTHON = "exectrail: no Python 3 here"
"""What a node says that has none."""


class Obstacle(NamedTuple):
    """`problem` is what happened, `fix` what the reader can do or type."""

    problem: str
    fix: str


_KNOWN = (
    (
        NO_PYTHON,
        "it has no Python 3",
        "apt-get install python3 || dnf install python3 || zypper install python3",
    ),
    (
        r"REMOTE HOST IDENTIFICATION HAS CHANGED|Host key for .* has changed",
        "its ssh host key is not the one on record",
        (
            "Find out why it changed: a reinstalled node, or somebody in between. "
            "If that is right, forget the old key and connect once by hand:\nssh-keygen -R {host}"
        ),
    ),
    (
        r"Host key verification failed|No \w+ host key is known",
        "its ssh host key is not known",
        (
            "Connect once by hand and compare the fingerprint, "
            "or put the key into the known_hosts file."
        ),
    ),
    (
        r"UNPROTECTED PRIVATE KEY FILE|bad permissions",
        "ssh refuses the private key file because others can read it",
        "Make the file that ansible_ssh_private_key_file names yours alone (mode 0600).",
    ),
    (
        r"Permission denied \(|Authentication failed|Invalid/incorrect password",
        "ssh refused the login",
        (
            "Check ansible_user and ansible_ssh_private_key_file in the inventory, "
            "and that the key is in the node's authorized_keys."
        ),
    ),
    (
        r"(?i)could not resolve hostname|name or service not known",
        "its name does not resolve",
        "Correct ansible_host in the inventory, or the name service of this machine.",
    ),
    (
        r"(?i)connection refused",
        "nothing listens on its ssh port",
        "Check ansible_host and ansible_port, and that sshd runs there.",
    ),
    (
        r"(?i)waiting for privilege escalation",
        "becoming root needs a password, or does not answer",
        "Add --ask-become-pass, or allow the user to become root without one.",
    ),
    (
        r"(?i)timed out|no route to host|network is unreachable|timeout \(",
        "it does not answer",
        "Check that the node is up, and reachable from here at ansible_host and ansible_port.",
    ),
    (
        r"(?i)incorrect \w+ password|sorry, try again",
        "the become password is wrong",
        "Give the right one with --ask-become-pass.",
    ),
    (
        r"(?i)missing \w+ password|a password is required|a terminal is required",
        "becoming root needs a password",
        "Add --ask-become-pass, or allow the user to become root without one.",
    ),
    (
        r"(?i)(sudo|su|doas): (command )?not found|not in the sudoers file|not allowed to execute",
        "the login user cannot become root",
        "Install sudo and allow the user to use it, or log in as root (ansible_user=root).",
    ),
    (
        r"too long for Unix domain socket",
        "the path of ssh's shared connection is too long on this machine",
        "Set a shorter control_path_dir in ansible.cfg (ANSIBLE_SSH_CONTROL_PATH_DIR).",
    ),
    (
        r"(?i)sshpass",
        "a password login needs the program sshpass on this machine",
        "Install sshpass, or use a key.",
    ),
)


def explain(text: str, host: str) -> Obstacle:
    """Turn what ssh, sudo, Ansible or a shell said into an obstacle; pass on unknown words."""
    for pattern, problem, fix in _KNOWN:
        if re.search(pattern, text):
            return Obstacle(problem, fix.format(host=host))
    said = [line.strip() for line in text.splitlines() if line.strip()]
    return Obstacle(
        f"it could not be read: {said[-1][:300] if said else 'no answer at all'}",
        f"Try by hand:\nansible {host} -m ansible.builtin.raw -a id -b -vvv",
    )
