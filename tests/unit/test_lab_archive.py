import json
from pathlib import Path

import pytest

from lab.errors import LabError
from lab.vm import archive
from lab.vm.archive import Source

PRINTED = """\
'http://mirror.test/debian/dists/bookworm/InRelease' mirror.test_debian_dists_bookworm_InRelease 0
'http://mirror.test/debian/dists/bookworm-updates/InRelease' x_InRelease 0
'file:/srv/a%20mirror/dists/bookworm-security/updates/Release' y_Release 0
'http://mirror.test/debian/dists/bookworm/InRelease' mirror.test_debian_dists_bookworm_InRelease 0
'http://mirror.test/debian/dists/bookworm/main/binary-amd64/Packages.xz' z_Packages 0
"""


def test_sources_are_read_from_what_apt_would_update() -> None:
    assert archive.parse_update_uris(PRINTED) == [
        Source("http://mirror.test/debian", "bookworm"),
        Source("http://mirror.test/debian", "bookworm-updates"),
        Source("file:/srv/a%20mirror", "bookworm-security/updates"),
    ]


def test_apt_without_sources_gives_none() -> None:
    assert archive.parse_update_uris("") == []


@pytest.mark.parametrize(
    ("text", "debian"),
    [
        (b"-----BEGIN PGP SIGNED MESSAGE-----\nOrigin: Debian\nLabel: Debian\n", True),
        (b"Origin: Debian\nLabel: Debian-Security\n", True),
        (b"Origin: Docker\nLabel: Docker CE\nSuite: bookworm\n", False),
        (b"Origin: Debian Backports of somebody\nLabel: mine\n", False),
        (b"<html>a captive portal</html>", False),
        (b"\xff\xfe", False),
        (b"", False),
    ],
)
def test_a_vendors_suite_of_the_same_name_is_not_debians(text: bytes, debian: bool) -> None:  # noqa: FBT001  a table's column
    assert archive.is_debian_release(text) is debian


@pytest.fixture
def mirror(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A mirror in a folder, named by the host's apt; the cache is empty."""
    monkeypatch.setenv("EXECTRAIL_CACHE", str(tmp_path / "cache"))
    suite = tmp_path / "mirror" / "dists" / "bookworm"
    suite.mkdir(parents=True)
    uri = f"file:{tmp_path}/mirror"
    monkeypatch.setattr(archive, "host_sources", lambda: [Source(uri, "bookworm")])
    return suite / "InRelease"


def age(cache: Path, seconds: int) -> None:
    file = cache / "releases" / "bookworm.json"
    known = json.loads(file.read_text())
    known["checked"] -= seconds
    file.write_text(json.dumps(known))


def test_a_release_is_asked_for_once_a_day_and_then_again(mirror: Path, tmp_path: Path) -> None:
    mirror.write_text("Origin: Debian\nLabel: Debian\nVersion: 12.1\n")
    first = archive.release("bookworm")
    mirror.write_text("Origin: Debian\nLabel: Debian\nVersion: 12.2\n")

    assert archive.release("bookworm") == first
    age(tmp_path / "cache", 25 * 3600)
    assert archive.release("bookworm").digest != first.digest


def test_a_warm_cache_works_offline(mirror: Path, tmp_path: Path) -> None:
    mirror.write_text("Origin: Debian\nLabel: Debian\n")
    first = archive.release("bookworm")
    mirror.unlink()
    age(tmp_path / "cache", 25 * 3600)

    assert archive.release("bookworm") == first


def test_a_suite_that_no_mirror_has_is_one_clear_error(mirror: Path) -> None:
    mirror.write_text("Origin: Somebody\n")

    with pytest.raises(LabError, match=r"bookworm.*sources\.list\.d"):
        archive.release("bookworm")
