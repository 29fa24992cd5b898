"""Asks for the pods of this node with the credentials that the node itself has."""

from __future__ import annotations

import base64
import re
from collections import deque
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import quote

from exectrail_agent.containers import pods
from exectrail_agent.containers.fetch import Endpoint, FetchError, get
from exectrail_agent.containers.pods import PodFacts

KUBECONFIG = "/etc/kubernetes/kubelet.conf"
_SECONDS = 1.0
_MAX_BYTES = 8 << 20
_INTERVAL = 300.0
_FIRST_RETRY, _LAST_RETRY = 0.5, 300.0
_SOONEST = 0.25
_BURST, _BURST_SECONDS = 10, 5.0
_TRIES = 5
_MAX_WANTED = 256
_FORBIDDEN = (
    "; these credentials need the right to get /pods of the kubelet (nodes/proxy or nodes/pods) or"
    " to list the pods with spec.nodeName of this node"
)


def api_server(node: str, kubeconfig: str = KUBECONFIG) -> Endpoint:
    """Return the API server's list of this node's pods, as the kubelet itself would ask for it.

    Every kubelet may list the pods of its own node. Raises ValueError if the file does not say
    where the server is and name the files with the credentials; OSError if it can't be read.
    """
    text = Path(kubeconfig).read_text(encoding="utf-8")

    def one(key: str) -> str:
        # YAML or JSON; the standard library reads JSON only, and these are plain scalars in both.
        pattern = rf"""^[\s{{,-]*["']?{key}["']?\s*:\s*["']?([^\s"',}}]+)"""
        found = set(re.findall(pattern, text, re.MULTILINE))
        if len(found) > 1:
            raise ValueError(f"{kubeconfig} has more than one {key}")
        return found.pop() if found else ""

    def path(key: str) -> str:
        value = one(key)
        return str(Path(kubeconfig).parent / value) if value else ""

    server = one("server").rstrip("/")
    if not server.startswith("https://"):
        raise ValueError(f"{kubeconfig} names no server with https")
    endpoint = Endpoint(
        # From the server's cache: an exact list would be read from etcd, of all nodes.
        f"{server}/api/v1/pods?fieldSelector={quote(f'spec.nodeName={node}')}&resourceVersion=0",
        ca_file=path("certificate-authority"),
        ca_text=base64.b64decode(one("certificate-authority-data")).decode("ascii"),
        cert_file=path("client-certificate"),
        key_file=path("client-key"),
        token_file=path("tokenFile"),
    )
    if not (endpoint.ca_file or endpoint.ca_text):
        raise ValueError(f"{kubeconfig} names no certificate authority")
    if not (endpoint.cert_file or endpoint.token_file):
        raise ValueError(f"{kubeconfig} names no file with a client certificate or a token")
    return endpoint


class KubeletPods:
    """A PodSource that asks one endpoint for a list of pods.

    The loop calls `poll` whenever `wait` says so. It blocks for one second at most, and asks
    every five minutes, and at once when a container has appeared that the last answer lacks, ten
    times in five seconds at most. That nobody answers is a `problem` from the second time on.
    """

    def __init__(self, endpoint: Endpoint) -> None:
        self.problem = ""
        self._endpoint = endpoint
        self._pods: Mapping[str, PodFacts] = {}
        self._wanted: dict[tuple[str, str], int] = {}
        self._asked: deque[float] = deque(maxlen=_BURST)
        self._failures = 0

    def pod(self, uid: str) -> PodFacts | None:
        """Return what the last answer said of a pod."""
        return self._pods.get(uid)

    def want(self, uid: str, container: str) -> None:
        """Ask at the next poll, unless this container is known."""
        if not self._knows(uid, container) and len(self._wanted) < _MAX_WANTED:
            self._wanted[uid, container] = 0

    def wait(self, now: float) -> float:
        """Return the seconds until `poll` has something to do."""
        if not self._asked:
            return 0.0
        next_time = self._asked[-1] + _INTERVAL
        if self._failures:
            pause = min(_FIRST_RETRY * 2.0 ** (self._failures - 1), _LAST_RETRY)
            next_time = self._asked[-1] + pause
        elif self._wanted:
            # The first question at once: the runtime starts a container within tens of ms.
            tries = min(self._wanted.values())
            next_time = self._asked[-1] + (_SOONEST * 2.0 ** (tries - 1) if tries else 0.0)
            if len(self._asked) == _BURST:
                next_time = max(next_time, self._asked[0] + _BURST_SECONDS)
        return max(0.0, next_time - now)

    def poll(self, now: float) -> None:
        """Ask, if it is time; `now` is seconds of a clock that never goes back."""
        if self.wait(now) > 0:
            return
        self._asked.append(now)
        try:
            self._pods = pods.parse(get(self._endpoint, seconds=_SECONDS, limit=_MAX_BYTES))
        except (FetchError, ValueError) as error:
            self._failures = min(self._failures + 1, 16)
            if self._failures == 1 and isinstance(error, FetchError) and not error.status:
                return  # It is late: who waits for an answer may still get it in time.
            self.problem = f"labels and probes are not known: {error}"
            if isinstance(error, FetchError) and error.status in (401, 403):
                self.problem += _FORBIDDEN
            return
        self._failures = 0
        self.problem = ""
        self._wanted = {
            (uid, container): tries + 1
            for (uid, container), tries in self._wanted.items()
            if tries + 1 < _TRIES and not self._knows(uid, container)
        }

    def _knows(self, uid: str, container: str) -> bool:
        facts = self._pods.get(uid)
        return facts is not None and container in facts.kinds
