import multiprocessing
import os
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from lab.vm import folders
from lab.vm.image import Image, built, digest, image_key, prune
from lab.vm.qemu import Hardware
from lab.vm.recipe import RECIPES
from lab.vm.snapshot import snapshot_key

DEBIAN = RECIPES["debian12"]
FORK = multiprocessing.get_context("fork")


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("EXECTRAIL_CACHE", str(tmp_path / "cache"))
    return folders.cache_folder()


def test_the_cache_folder_follows_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert folders.cache_folder() == tmp_path / "cache"
    monkeypatch.delenv("EXECTRAIL_CACHE")
    assert folders.cache_folder() == tmp_path / "xdg" / "exectrail-lab"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert folders.cache_folder() == tmp_path / "home" / ".cache" / "exectrail-lab"


def test_two_checkouts_have_folders_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    first = folders.machines_folder()
    monkeypatch.setattr(folders, "CHECKOUT", Path("/another/checkout"))

    assert folders.machines_folder() != first
    assert folders.machines_folder().parent == first.parent


def test_a_digest_depends_on_every_value_and_file(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("one")
    first = digest({"a": "1", "b": "2"}, [file])
    assert first == digest({"b": "2", "a": "1"}, [file])
    assert first != digest({"a": "1", "b": "3"}, [file])
    assert first != digest({"a": "12", "b": ""}, [file])
    file.write_text("two")
    assert first != digest({"a": "1", "b": "2"}, [file])


def test_an_images_key_depends_on_the_recipe_and_the_release() -> None:
    keys = {
        image_key(DEBIAN, "r1"),
        image_key(DEBIAN, "r2"),
        image_key(replace(DEBIAN, extra=()), "r1"),
        image_key(replace(DEBIAN, name="other"), "r1"),
        image_key(replace(DEBIAN, suite="other"), "r1"),
    }
    assert len(keys) == 5


def test_a_snapshots_key_depends_on_all_that_its_state_is_bound_to() -> None:
    image = Image(Path("/cache/images/debian12-1"))
    emulated = Hardware("tcg", image)
    keys = [
        snapshot_key(emulated, (10, 0, 2)),
        snapshot_key(emulated, (10, 0, 3)),
        snapshot_key(Hardware("kvm", image), (10, 0, 2)),
        snapshot_key(Hardware("tcg", Image(Path("/cache/images/debian12-2"))), (10, 0, 2)),
        snapshot_key(Hardware("tcg", image, "root=/dev/vda quiet"), (10, 0, 2)),
    ]
    assert len(set(keys)) == len(keys)


@pytest.mark.parametrize(("accelerator", "bound"), [("kvm", True), ("tcg", False)])
def test_only_kvm_binds_a_snapshot_to_the_hosts_processor(
    accelerator: str,
    bound: bool,  # noqa: FBT001  a table's column
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    hardware = Hardware(accelerator, Image(Path("/cache/images/debian12-1")))
    first = snapshot_key(hardware, (10, 0))
    monkeypatch.setattr("lab.vm.accelerator.host_cpu", lambda: "another processor")

    assert (snapshot_key(hardware, (10, 0)) != first) is bound


def test_what_is_built_appears_whole_and_is_built_once(cache: Path) -> None:
    folder = cache / "images" / "debian12-1"
    with built(folder) as draft:
        assert draft
        (draft / "disk").write_text("content")
        assert not folder.exists()
    assert (folder / "disk").read_text() == "content"
    with built(folder) as draft:
        assert draft is None


def interrupted(folder: Path) -> None:
    with built(folder) as draft:
        assert draft
        (draft / "half").touch()
        raise KeyboardInterrupt


def test_an_interrupted_build_leaves_nothing(cache: Path) -> None:
    folder = cache / "images" / "debian12-1"
    with pytest.raises(KeyboardInterrupt):
        interrupted(folder)
    assert list(folder.parent.iterdir()) == []


def test_the_draft_of_a_killed_build_is_neither_used_nor_kept(cache: Path) -> None:
    folder = cache / "images" / "debian12-1"
    left = folder.parent / ".debian12-1.abcdef"
    left.mkdir(parents=True)
    with built(folder) as draft:
        assert draft
        assert draft != left
        assert not left.exists()


def build(folder: Path, built_by: Path) -> None:
    with built(folder) as draft:
        if draft:
            time.sleep(0.3)
            with built_by.open("a") as file:
                file.write(f"{os.getpid()}\n")


def test_two_runs_at_once_build_once(cache: Path, tmp_path: Path) -> None:
    folder, log = cache / "images" / "debian12-1", tmp_path / "log"
    runs = [FORK.Process(target=build, args=(folder, log)) for _ in range(3)]
    for run in runs:
        run.start()
    for run in runs:
        run.join(100)
    assert [run.exitcode for run in runs] == [0, 0, 0]
    assert folder.is_dir()
    assert len(log.read_text().splitlines()) == 1


def hold(ready: Path) -> None:
    with folders.lock("x"):
        ready.touch()
        time.sleep(600)


@pytest.fixture
def killed_holder(tmp_path: Path) -> Iterator[multiprocessing.Process]:
    ready = tmp_path / "ready"
    process = FORK.Process(target=hold, args=(ready,))
    process.start()
    while not ready.exists():
        time.sleep(0.01)
    yield process
    process.kill()
    process.join()


def test_a_killed_run_leaves_no_lock(killed_holder: multiprocessing.Process) -> None:
    with folders.lock("x", wait=False) as free:
        assert not free
    killed_holder.kill()
    killed_holder.join()
    with folders.lock("x", wait=False) as free:
        assert free


def test_only_what_is_long_unused_is_pruned(cache: Path) -> None:
    ages = {"debian12-new": 1, "debian12-old": 15, ".debian12-draft.x": 2, "debian13-old": 15}
    for name, days in ages.items():
        folder = cache / "images" / name
        folder.mkdir(parents=True)
        os.utime(folder, (0, time.time() - days * 24 * 3600))

    prune("debian12", cache / "images")

    assert {entry.name for entry in (cache / "images").iterdir()} == {
        "debian12-new",
        "debian13-old",
    }


def test_using_a_build_keeps_it(cache: Path) -> None:
    folder = cache / "images" / "debian12-1"
    folder.mkdir(parents=True)
    os.utime(folder, (0, 0))
    with built(folder):
        pass
    prune("debian12", folder.parent)
    assert folder.exists()
