import pytest

from exectrail.nodes.reachability import explain


@pytest.mark.parametrize(
    ("said", "problem", "fix"),
    [
        (
            "WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED!\nHost key verification failed.",
            "not the one on record",
            "ssh-keygen -R n1",
        ),
        ("No ED25519 host key is known for n1\nHost key verification failed.", "not known", "hand"),
        ("root@n1: Permission denied (publickey).", "refused the login", "authorized_keys"),
        ("Permissions 0644 for 'k' are too open. bad permissions", "private key file", "0600"),
        ("ssh: Could not resolve hostname n1", "does not resolve", "ansible_host"),
        ("connect to host n1 port 22: Connection refused", "nothing listens", "ansible_port"),
        ("connect to host n1 port 22: Connection timed out", "does not answer", "up"),
        ("Incorrect sudo password", "password is wrong", "--ask-become-pass"),
        ("sudo: a password is required", "needs a password", "--ask-become-pass"),
        (
            "Timeout (12s) waiting for privilege escalation prompt:",
            "needs a password",
            "--ask-become-pass",
        ),
        ("/bin/sh: 1: sudo: not found", "cannot become root", "root"),
        (
            'unix_listener: path "/a/b" too long for Unix domain socket',
            "too long",
            "control_path_dir",
        ),
        ("you must install the sshpass program", "sshpass", "use a key"),
        ("kernel of truth: odd words", "odd words", "ansible n1 -m"),
        ("", "no answer at all", "ansible n1 -m"),
    ],
)
def test_one_problem_and_one_fix(said: str, problem: str, fix: str) -> None:
    obstacle = explain(said, "n1")

    assert problem in obstacle.problem
    assert fix in obstacle.fix
