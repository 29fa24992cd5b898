import hashlib
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from exectrail.audit_policy.manifest import add, commands
from exectrail.audit_policy.manifest.settings import Settings
from exectrail.errors import UsageError

BEFORE = (Path(__file__).with_name("golden") / "kubeadm-1.35.yaml").read_text()
AFTER = add(BEFORE, Settings(cluster_id="c0ffee"))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "manifests" / "kube-apiserver.yaml"
    path.parent.mkdir()
    path.write_text(BEFORE)
    path.chmod(0o640)
    return path


def run(*arguments: object) -> Result:
    result = CliRunner().invoke(
        commands.manifest, [str(each) for each in arguments], standalone_mode=False
    )
    if result.exception:
        raise result.exception
    return result


def refused(*arguments: object) -> str:
    with pytest.raises(UsageError) as caught:
        run(*arguments)
    return str(caught.value)


def test_add_prints(path: Path) -> None:
    result = run("add", path, "--cluster-id", "c0ffee")
    assert (result.stdout, result.return_value) == (AFTER, 0)
    assert path.read_text() == BEFORE


def test_options(path: Path, tmp_path: Path) -> None:
    policy = tmp_path / "policy.yaml"
    policy.write_bytes(b"rules: []\n")
    options = [
        "--cluster-id=c1",
        "--policy-file=/srv/p.yaml",
        "--log-path=/srv/log/a.log",
        "--log-maxsize=1",
        "--log-maxbackup=2",
        "--log-maxage=3",
        "--no-log-collection",
        "--policy-type=FileOrCreate",
        "--static-pod-directory=/srv/pods",
        "--take-over",
        "--adopt",
    ]
    wanted = Settings(
        policy_sha256=hashlib.sha256(b"rules: []\n").hexdigest(),
        cluster_id="c1",
        policy_file="/srv/p.yaml",
        log_path="/srv/log/a.log",
        log_maxsize=1,
        log_maxbackup=2,
        log_maxage=3,
        log_collection=False,
        policy_type="FileOrCreate",
        static_pod_directory="/srv/pods",
        take_over=True,
        adopt=True,
    )
    assert run("add", path, "--policy", policy, *options).stdout == add(BEFORE, wanted)


def test_diff(path: Path) -> None:
    result = run("diff", path, "--cluster-id", "c0ffee")
    assert result.return_value == 1
    assert f"--- {path}\n" in result.stdout
    assert "+    - --audit-log-maxage=30\n" in result.stdout
    path.write_text(AFTER)
    result = run("diff", path, "--cluster-id", "c0ffee")
    assert (result.stdout, result.return_value) == ("", 0)


def test_in_place_and_back(path: Path) -> None:
    assert run("add", path, "--cluster-id", "c0ffee", "--in-place").stdout == ""
    assert path.read_text() == AFTER
    assert path.stat().st_mode & 0o777 == 0o640
    assert run("remove", path, "--in-place").stdout == ""
    assert path.read_text() == BEFORE
    assert list(path.parent.iterdir()) == [path]


def test_nothing_to_do_is_no_write(path: Path) -> None:
    path.write_text(AFTER)
    before = path.stat()
    run("add", path, "--cluster-id", "c0ffee", "--in-place")
    assert path.stat() == before


def test_a_link_stays_a_link(path: Path, tmp_path: Path) -> None:
    link = tmp_path / "link.yaml"
    link.symlink_to(path)
    run("add", link, "--cluster-id", "c0ffee", "--in-place")
    assert link.is_symlink()
    assert path.read_text() == AFTER


def broken_fsync(_: int) -> None:
    raise OSError(28, "No space left on device")


def watched_replace(seen: list[str]) -> Callable[[Path, Path], None]:
    def replace(staged: Path, target: Path) -> None:
        seen.extend(each.name for each in target.parent.iterdir())
        os.replace(staged, target)  # noqa: PTH105  the method itself is what is watched

    return replace


def test_kubelet_sees_one_file_at_any_time(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []
    monkeypatch.setattr(Path, "replace", watched_replace(seen))
    run("add", path, "--in-place")
    assert len(seen) == 2
    assert [name for name in seen if not name.startswith(".")] == [path.name]


def test_failed_write_leaves_all_as_it_was(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fsync", broken_fsync)
    assert "No space left" in refused("add", path, "--in-place")
    assert list(path.parent.iterdir()) == [path]
    assert path.read_text() == BEFORE


def test_refusals_name_file_and_line_and_write_nothing(path: Path) -> None:
    text = BEFORE.replace("    image:", "    - --audit-log-maxage=1\n    image:")
    path.write_text(text)
    for command in ("add", "diff"):
        assert refused(command, path).startswith(f"{path}:42: somebody else has set")
    refused("add", path, "--in-place")
    assert path.read_text() == text
    path.write_bytes(b"a: \xff\n")
    assert refused("add", path) == f"{path}:1: not UTF-8; convert the file"
    assert refused("remove", path, "--in-place") == f"{path}:1: not UTF-8; convert the file"


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["--cluster-id", "a b"], "cluster_id"),
        (["--log-maxsize", "0"], "log_maxsize"),
        (["--policy-file", "p.yaml"], "policy_file"),
        (["--policy", "/no/such"], "/no/such: No such file"),
    ],
)
def test_bad_options(path: Path, arguments: list[str], problem: str) -> None:
    assert problem in refused("add", path, *arguments)


def test_no_regular_file(tmp_path: Path) -> None:
    assert "no regular file" in refused("add", tmp_path)
    assert "No such file" in refused("add", tmp_path / "x")


def test_notes_go_to_standard_error(path: Path) -> None:
    twice = "    - --audit-log-maxage=30\n    - --audit-log-maxage=30\n    image:"
    path.write_text(BEFORE.replace("    image:", twice))
    result = run("add", path)
    assert f"{path}: --audit-log-maxage is given 2 times (lines 42, 43)" in result.stderr
    assert "given" not in result.stdout
