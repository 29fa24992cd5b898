"""The Debian archive that the host's own apt uses: where it is and what its suites hold now."""

import hashlib
import json
import os
import re
import subprocess
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from lab.errors import LabError
from lab.progress import say
from lab.vm.folders import cache_folder

KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
_CHECK_EVERY = 24 * 3600
_INDEX = re.compile(r"^'(?P<uri>.+?)/dists/(?P<suite>.+?)/(?:InRelease|Release)' ", re.MULTILINE)


@dataclass(frozen=True)
class Source:
    """One suite of one archive, such as bookworm-updates below some mirror's address."""

    uri: str
    suite: str


@dataclass(frozen=True)
class Release:
    """A suite as the archive publishes it: the digest changes whenever its packages do."""

    source: Source
    digest: str


def parse_update_uris(text: str) -> list[Source]:
    """Find the sources in what `apt-get --print-uris update` prints."""
    found = (Source(m["uri"], m["suite"]) for m in _INDEX.finditer(text))
    return list(dict.fromkeys(found))


def host_sources() -> list[Source]:
    """List the sources of the host's apt, whatever format its files have: apt itself reads them."""
    done = subprocess.run(
        ["apt-get", "--print-uris", "update"], capture_output=True, text=True, check=False
    )
    sources = parse_update_uris(done.stdout)
    if not sources:
        raise LabError(
            "the host's apt names no package source; the lab builds its machines from the mirror "
            f"that apt uses: put one into /etc/apt/sources.list.d. {done.stderr.strip()}"
        )
    return sources


def host_codename() -> str:
    """Debian's code name of the host, such as bookworm; empty when the host is not Debian."""
    text = Path("/etc/os-release").read_text(encoding="utf-8")
    values = dict(line.split("=", 1) for line in text.splitlines() if "=" in line)
    if values.get("ID", "").strip('"') != "debian":
        return ""
    return values.get("VERSION_CODENAME", "").strip('"')


def transport_options() -> list[str]:
    """List the host's apt settings about reaching the mirror (proxies, certificates, dates)."""
    done = subprocess.run(["apt-config", "dump"], capture_output=True, text=True, check=True)
    wanted = ("Acquire::http", "Acquire::https", "Acquire::Check-", "Acquire::Retries")
    return [line for line in done.stdout.splitlines() if line.startswith(wanted)]


def _download(source: Source) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "InRelease"
        as_root = ["-o", "APT::Sandbox::User=root"] if os.geteuid() == 0 else []
        address = f"{source.uri}/dists/{source.suite}/InRelease"
        done = subprocess.run(
            ["/usr/lib/apt/apt-helper", *as_root, "download-file", address, str(file)],
            capture_output=True,
            text=True,
            check=False,
        )
        return file.read_bytes() if done.returncode == 0 and file.exists() else b""


def is_debian_release(text: bytes) -> bool:
    """Tell Debian's own suite from a vendor's repository that borrows the suite's name."""
    head = text[:4096].decode("utf-8", "replace").splitlines()
    return "Origin: Debian" in head and any(line.startswith("Label: Debian") for line in head)


def release(suite: str) -> Release:
    """Find SUITE on the host's mirror.

    The archive is asked at most once a day; when it can't be reached, the last answer holds, so
    that a warm cache works offline. Raises LabError when the suite was never seen.
    """
    file = cache_folder() / "releases" / f"{suite}.json"
    known = json.loads(file.read_text(encoding="utf-8")) if file.exists() else None
    if known and 0 <= time.time() - known["checked"] < _CHECK_EVERY:
        return Release(Source(known["uri"], suite), known["digest"])
    for uri in dict.fromkeys(s.uri for s in host_sources() if not s.suite.endswith("-security")):
        source = Source(uri, suite)
        text = _download(source)
        if is_debian_release(text):
            digest = hashlib.sha256(text).hexdigest()
            file.parent.mkdir(exist_ok=True)
            draft = file.with_suffix(f".{os.getpid()}")
            draft.write_text(
                json.dumps({"uri": uri, "digest": digest, "checked": time.time()}),
                encoding="utf-8",
            )
            draft.replace(file)
            return Release(source, digest)
    if known:
        say(f"the mirror of {suite} can't be reached: going on with what it held last")
        return Release(Source(known["uri"], suite), known["digest"])
    raise LabError(
        f"none of the mirrors that the host's apt uses has Debian's suite {suite}, or none can be "
        "reached: check the network and /etc/apt/sources.list.d"
    )
