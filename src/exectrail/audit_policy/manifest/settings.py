"""What a kube-apiserver's manifest is to say about auditing, checked before any edit."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Literal

from exectrail.audit_policy.manifest.cluster_id import check_cluster_id
from exectrail.audit_policy.manifest.document import Data, ManifestError

POLICY_FLAG = "audit-policy-file"
PATH_FLAG = "audit-log-path"
FLAGS = (
    "audit-log-maxbackup",
    "audit-log-maxsize",
    PATH_FLAG,
    "audit-log-maxage",
    POLICY_FLAG,
)
"""The flags this project owns, in the order in which they are added."""

VOLUMES = {"log": "k8s-audit", "policy": "audit-policy"}
"""The preferred names of the volumes, by role."""

ENV_NAME = re.compile(r"aliyun_logs_audit-(?P<id>[^_]+)(_tags|_product|_jsonfile)?")
"""Names of environment variables that tell a log collector of an API audit log."""

_PATH = re.compile(r"/[A-Za-z0-9._@+-]+(/[A-Za-z0-9._@+-]+)*")
_DIGEST = re.compile(r"[0-9a-f]{64}")

PolicyType = Literal["File", "FileOrCreate"]


@dataclass(frozen=True, slots=True)
class Place:
    """A host path that the server needs: the folder of the log, or the policy file.

    It has the same path in the container. `target` is that path, `volume` the preferred name.
    """

    role: Literal["log", "policy"]
    target: str
    volume: str
    kind: str
    writable: bool

    def mount(self, name: str) -> dict[str, Data]:
        """Return the item for ``volumeMounts``."""
        mount: dict[str, Data] = {"mountPath": self.target, "name": name}
        return mount if self.writable else {**mount, "readOnly": True}

    def host_path(self, name: str) -> dict[str, Data]:
        """Return the item for ``volumes``."""
        return {"hostPath": {"path": self.target, "type": self.kind}, "name": name}


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The audit settings of one API server; the defaults are the vendor's but for `policy_type`.

    - `policy_sha256`: of the policy file, 64 lower-case hex digits; it makes the pod another pod
      when the policy changes. None keeps the one in the manifest (``unknown`` if there is none).
    - `log_maxsize` in MB a file, `log_maxbackup` rotated files, `log_maxage` in days.
    - `cluster_id`: names the environment variables for log collection; None leaves these out, and
      so does `log_collection` = False.
    - `policy_type`: ``File``, because with ``FileOrCreate`` kubelet would make a missing policy an
      empty file, which ends the server at every start and hides that the policy is missing.
    - `take_over`: replace values that somebody else set; `remove` puts them back.
    - `adopt`: values that are there already and equal these are this project's own (kubeadm has
      rendered the manifest anew from its ClusterConfiguration): `remove` takes them out.

    Raises ManifestError, which names the setting, for values that no server could run with.
    """

    policy_sha256: str | None = None
    policy_file: str = "/etc/kubernetes/audit-policy.yaml"
    log_path: str = "/var/log/kubernetes/kubernetes.audit"
    log_maxsize: int = 100
    log_maxbackup: int = 10
    log_maxage: int = 30
    cluster_id: str | None = None
    log_collection: bool = True
    policy_type: PolicyType = "File"
    static_pod_directory: str = "/etc/kubernetes/manifests"
    take_over: bool = False
    adopt: bool = False

    def __post_init__(self) -> None:
        """Check the values."""
        for name in ("log_maxsize", "log_maxbackup", "log_maxage"):
            value = getattr(self, name)
            if type(value) is not int or value <= 0:
                raise ManifestError(f"{name} is {value!r}; give a whole number from 1 on")
        for name in ("policy_file", "log_path", "static_pod_directory"):
            _check_path(name, getattr(self, name))
        if self.policy_sha256 is not None and not _DIGEST.fullmatch(self.policy_sha256):
            raise ManifestError(
                "policy_sha256 is not 64 lower-case hex digits; give the file's hash"
            )
        if self.policy_type not in {"File", "FileOrCreate"}:
            raise ManifestError(f"policy_type is {self.policy_type!r}; give File or FileOrCreate")
        if self.cluster_id is not None:
            check_cluster_id(self.cluster_id)
        self._check_places()

    def _check_places(self) -> None:
        policy, log = PurePosixPath(self.policy_file), PurePosixPath(self.log_path)
        pods = PurePosixPath(self.static_pod_directory)
        for name, path in (("policy_file", policy), ("log_path", log)):
            if path.is_relative_to(pods):
                raise ManifestError(
                    f"{name} {path} is under the static-pod directory {pods}, where kubelet takes "
                    "every file for a pod; give a path elsewhere"
                )
        if log.is_relative_to(policy) or policy == log.parent:
            raise ManifestError(
                f"log_path {log} is, or is under, the policy file {policy}; give another path"
            )
        if pods.is_relative_to(log.parent) or len(log.parent.parts) <= 2:  # noqa: PLR2004  "/", name
            raise ManifestError(
                f"log_path {log} would mount all of {log.parent} writable into the server; "
                "give the log a folder of its own"
            )

    def flags(self) -> dict[str, str]:
        """Return flag names, without dashes, with their values."""
        values = (
            str(self.log_maxbackup),
            str(self.log_maxsize),
            self.log_path,
            str(self.log_maxage),
            self.policy_file,
        )
        return dict(zip(FLAGS, values, strict=True))

    def environment(self) -> dict[str, str]:
        """Return the environment variables, none without a cluster id."""
        if self.cluster_id is None or not self.log_collection:
            return {}
        name = f"aliyun_logs_audit-{self.cluster_id}"
        return {
            name: self.log_path,
            f"{name}_tags": "audit=apiserver",
            f"{name}_product": "k8s-audit",
            f"{name}_jsonfile": "true",
        }

    def places(self) -> tuple[Place, Place]:
        """Return what has to be mounted."""
        folder = str(PurePosixPath(self.log_path).parent)
        return (
            Place("log", folder, VOLUMES["log"], "DirectoryOrCreate", writable=True),
            Place("policy", self.policy_file, VOLUMES["policy"], self.policy_type, writable=False),
        )


def _check_path(name: str, value: object) -> None:
    if (
        not isinstance(value, str)
        or not _PATH.fullmatch(value)
        or {".", ".."} & set(value.split("/"))
    ):
        raise ManifestError(
            f"{name} is {value!r}; give an absolute path of letters, digits and ._@+-, "
            "without '.', '..' or a slash at its end"
        )
