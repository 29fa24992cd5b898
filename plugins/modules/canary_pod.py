#!/usr/bin/python
"""A pod on each node that somebody enters, to see whether the agent there records it.

One file on purpose: it is sent over ssh to the standard input of whatever Python a master has
(3.6 or later). It uses the standard library and the master's kubectl.
The pods are gone when it ends, whatever happens; if it is killed, the kubelet ends them.
"""

DOCUMENTATION = r"""
module: canary_pod
short_description: Enter a pod of our own on each node, and remove it
version_added: 0.1.0
author: Exectrail contributors
description:
  - Part of the role C(exectrail.audit.verify). On the first master of the play that answers, it
    makes one pod on each node of the play, runs a command with a unique mark in each with
    C(kubectl exec), and removes the pods. M(exectrail.audit.node_evidence) then sees whether the
    agent of the node has recorded it.
  - The pods meet the restricted pod security standard, tolerate every taint, and end by themselves
    after three minutes. Pods that an earlier run had to leave behind are removed first.
  - What became of each is left in the report folder; nothing fails here.
attributes:
  check_mode:
    description: No pods are made in check mode, since an image that they pull would stay.
    support: none
  diff_mode:
    description: Nothing of a node changes.
    support: none
  platform:
    description: Masters with C(/etc/kubernetes/admin.conf).
    platforms: linux
    support: full
options:
  report_dir:
    description: Folder of the run on the controller, opened with M(exectrail.audit.compliance_run).
    type: path
    required: true
  image:
    description: The image of the pods. It needs a shell (C(sh)) and C(sleep).
    type: str
    required: true
  namespace:
    description: The namespace of the pods.
    type: str
    default: default
requirements:
  - Python 3.6 or later on the node
"""

EXAMPLES = r"""
- name: Enter a canary pod on each node
  exectrail.audit.canary_pod:
    report_dir: reports/verify
    image: registry.example.org/busybox:1.37
  throttle: 1
"""

RETURN = r"""
entered:
  description: How many pods were entered.
  type: int
  returned: on the master that did it
problems:
  description: For each other host, why its pod was not entered.
  type: dict
  returned: on the master that did it
"""

import calendar
import concurrent.futures
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import uuid

KUBECONFIG = "/etc/kubernetes/admin.conf"
KUBECTLS = ("kubectl", "/usr/local/bin/kubectl", "/opt/bin/kubectl")
CONTAINER = "canary"
LABELS = {
    "app.kubernetes.io/managed-by": "exectrail",
    "app.kubernetes.io/component": "canary",
}
SELECTOR = ",".join("%s=%s" % each for each in sorted(LABELS.items()))
MARK = "exectrail.io/mark"

LASTS = 180
READY_SECONDS = 60
CALL_SECONDS = 20
AT_ONCE = 8
MAX_TEXT = 600

# What a container waits for that will not come.
HOPELESS = (
    "CreateContainerConfigError",
    "CreateContainerError",
    "ErrImageNeverPull",
    "ErrImagePull",
    "ImageInspectError",
    "ImagePullBackOff",
    "InvalidImageName",
    "RunContainerError",
)
PULLING = ("ErrImageNeverPull", "ErrImagePull", "ImagePullBackOff", "InvalidImageName")


class Failed(Exception):
    """kubectl can't do it; the text says why."""


class Kubectl:
    """The cluster as its administrator sees it from this master."""

    def __init__(self, namespace):
        found = [path for path in map(shutil.which, KUBECTLS) if path]
        if not os.path.exists(KUBECONFIG):
            raise Failed("this master has no %s" % KUBECONFIG)
        if not found:
            raise Failed("this master has no kubectl")
        # kubectl would keep a cache under HOME.
        self.start = [found[0], "--kubeconfig=" + KUBECONFIG, "--cache-dir=/dev/null"]
        self.start += ["--namespace=" + namespace]

    def __call__(self, *words, **options):
        """What it printed; Failed with its last words if that was an error or took too long."""
        command = self.start + ["--request-timeout=%ds" % CALL_SECONDS] + list(words)
        try:
            done = subprocess.run(
                command,
                input=options.get("data", "").encode(),
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                timeout=CALL_SECONDS + 5,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise Failed("kubectl %s: no answer within %d s" % (words[0], CALL_SECONDS)) from None
        if done.returncode:
            said = done.stderr.decode("utf-8", "replace").strip() or "exit %d" % done.returncode
            raise Failed("kubectl %s: %s" % (words[0], said[-MAX_TEXT:]))
        return done.stdout.decode("utf-8", "replace")

    def json(self, *words):
        return json.loads(self(*(words + ("-o", "json"))))


def nodes_of(hosts, nodes):
    """The node of each host: the one called like it, else the one that has a name of it.

    `hosts` maps hosts to the names and addresses that they go by. Hosts that are no nodes of the
    cluster, or that could be several, are left out.
    """
    known = {}
    for node in nodes:
        meta = node["metadata"]
        addresses = [each["address"] for each in node.get("status", {}).get("addresses", [])]
        label = meta.get("labels", {}).get("kubernetes.io/hostname")
        known[meta["name"]] = set([meta["name"]] + ([label] if label else []) + addresses)
    found = {}
    for host, names in hosts.items():
        called = [name for name in names if name in known]
        sharing = [node for node in known if known[node].intersection(names)]
        if called or len(sharing) == 1:
            found[host] = (called or sharing)[0]
    return found


def pod(name, node, mark, request):
    """A pod that waits on the node, and may do nothing else there."""
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": name,
            "namespace": request["namespace"],
            "labels": LABELS,
            "annotations": {MARK: mark},
        },
        "spec": {
            "nodeName": node,
            "tolerations": [{"operator": "Exists"}],
            "restartPolicy": "Never",
            "activeDeadlineSeconds": LASTS,
            "terminationGracePeriodSeconds": 1,
            "automountServiceAccountToken": False,
            "enableServiceLinks": False,
            "securityContext": {
                "runAsNonRoot": True,
                "runAsUser": 65534,
                "runAsGroup": 65534,
                "seccompProfile": {"type": "RuntimeDefault"},
            },
            "containers": [
                {
                    "name": CONTAINER,
                    "image": request["image"],
                    "command": ["sh", "-c", "trap 'exit 0' TERM; sleep %d & wait" % LASTS],
                    "resources": {
                        "requests": {"cpu": "10m", "memory": "16Mi"},
                        "limits": {"cpu": "100m", "memory": "32Mi"},
                    },
                    "securityContext": {
                        "allowPrivilegeEscalation": False,
                        "privileged": False,
                        "readOnlyRootFilesystem": True,
                        "capabilities": {"drop": ["ALL"]},
                    },
                }
            ],
        },
    }


def state(found, image):
    """Whether a pod is "ready", "waiting", or why it never will be ready."""
    status = found.get("status", {})
    for container in status.get("containerStatuses", []):
        waiting = container.get("state", {}).get("waiting") or {}
        reason, said = waiting.get("reason", ""), waiting.get("message", "")
        if reason in PULLING:
            return "the image %s can't be pulled: %s" % (image, said or reason)
        if reason in HOPELESS:
            return "its container can't be started: %s" % (said or reason)
        ended = container.get("state", {}).get("terminated")
        if ended:
            said = ended.get("message") or ended.get("reason") or "no reason given"
            return "its container has ended at once: %s" % said
    if status.get("phase") in ("Failed", "Succeeded"):
        said = status.get("message") or status.get("reason") or "no reason given"
        return "the node did not take it: %s" % said
    conditions = status.get("conditions", [])
    ready = [each for each in conditions if each["type"] == "Ready" and each["status"] == "True"]
    return "ready" if ready else "waiting"


def is_left_over(found, now):
    """Whether an earlier run has left the pod behind; one that is at work has its time."""
    made = time.strptime(found["metadata"]["creationTimestamp"], "%Y-%m-%dT%H:%M:%SZ")
    return now - calendar.timegm(made) > LASTS


def sweep(kubectl):
    rows = kubectl.json("get", "pods", "-l", SELECTOR)["items"]
    now = time.time()
    remove(kubectl, [row["metadata"]["name"] for row in rows if is_left_over(row, now)])


def remove(kubectl, names):
    if names:
        kubectl("delete", "pods", "--ignore-not-found", "--wait=false", *names)


def await_ready(kubectl, names, image):
    """The state of each pod by its name, when there is no more to wait for."""
    deadline = time.monotonic() + READY_SECONDS
    while True:
        rows = {
            row["metadata"]["name"]: row
            for row in kubectl.json("get", "pods", "-l", SELECTOR)["items"]
        }
        states = {
            name: state(rows[name], image) if name in rows else "it was removed by somebody"
            for name in names
        }
        if "waiting" not in states.values() or time.monotonic() > deadline:
            late = "it was not ready within %d s" % READY_SECONDS
            return {name: late if what == "waiting" else what for name, what in states.items()}
        time.sleep(0.5)


def enter(kubectl, name, mark):
    """Run a command with the mark in the pod; why that failed, or nothing."""
    try:
        kubectl("exec", name, "--container=" + CONTAINER, "--", "sh", "-c", ": " + mark)
    except Failed as error:
        return str(error)
    return ""


def make(kubectl, pods):
    """Make the pods; why each was refused that was. One that is refused stops no other."""
    listed = {"apiVersion": "v1", "kind": "List", "items": pods}
    try:
        kubectl("apply", "-f", "-", data=json.dumps(listed))
    except Failed as error:
        return str(error)
    return ""


def run(request, kubectl):
    """What became of the pod of each host that is a node."""
    mark = "exectrail-canary-" + uuid.uuid4().hex[:12]
    chosen = nodes_of(request["hosts"], kubectl.json("get", "nodes")["items"])
    sweep(kubectl)
    name = {host: "%s-%d" % (mark, number) for number, host in enumerate(sorted(chosen))}
    rows = {
        host: row(mark, request, node=chosen[host], pod=name[host], container=CONTAINER)
        for host in chosen
    }
    if not rows:
        return rows
    try:
        refused = make(kubectl, [pod(name[host], chosen[host], mark, request) for host in chosen])
        states = await_ready(kubectl, list(name.values()), request["image"])
        with concurrent.futures.ThreadPoolExecutor(AT_ONCE) as pool:
            said = {
                host: pool.submit(enter, kubectl, name[host], mark)
                for host in rows
                if states[name[host]] == "ready"
            }
        for host, found in rows.items():
            found["problem"] = said[host].result() if host in said else states[name[host]]
            if refused and found["problem"].startswith("it was removed"):
                found["problem"] = refused
    finally:
        try:
            remove(kubectl, sorted(name.values()))
        except Failed as error:
            for found in rows.values():
                found["problem"] = found["problem"] or "its pod can't be removed: %s" % error
    return rows


def row(mark, request, **more):
    found = {"mark": mark, "namespace": request["namespace"], "problem": ""}
    found.update(more)
    return found


def end(number, frame):
    del frame
    sys.exit("ended by signal %d" % number)


def main(request):
    """Do it."""
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
        signal.signal(number, end)
    try:
        found = run(request, Kubectl(request["namespace"]))
    except (Failed, OSError, ValueError, KeyError) as error:
        # None of them was entered, so this is what each node shows.
        why = str(error) if isinstance(error, Failed) else "%s: %s" % (type(error).__name__, error)
        found = {host: row("", request, problem=why) for host in request["hosts"]}
    return {"hosts": found}
