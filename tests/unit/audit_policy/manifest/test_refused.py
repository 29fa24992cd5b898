"""What is refused: the message names the line and what to do."""

from dataclasses import replace

import pytest

from exectrail.audit_policy.manifest import add, remove
from exectrail.audit_policy.manifest.document import ManifestError
from exectrail.audit_policy.manifest.settings import Settings
from exectrail.errors import UsageError

SETTINGS = Settings(cluster_id="c0ffee")
POD = """\
apiVersion: v1
kind: Pod
metadata:
  name: kube-apiserver
spec:
  containers:
  - command:
    - kube-apiserver
    - --secure-port=6443
    name: kube-apiserver
"""
MOUNTS = """\
    volumeMounts:
    - mountPath: {path}
      name: theirs
      {more}
  volumes:
  - name: theirs
    {source}
"""


def pod(*lines: str) -> str:
    """The pod above with more of the container's lines."""
    return POD + "".join(f"    {line}\n" for line in lines)


def mounted(path: str, source: str, more: str = "mountPropagation: None") -> str:
    return POD + MOUNTS.format(path=path, source=source, more=more)


DOCUMENTS = {
    "empty": ("", 1, "empty"),
    "blank": ("\n \n", 1, "empty"),
    "comments": ("# nothing\n", 1, "comments"),
    "crlf": (POD.replace("\n", "\r\n"), 1, "dos2unix"),
    "one carriage return": (POD.replace("6443", "6443\r"), 9, "dos2unix"),
    "bom": ("\ufeff" + POD, 1, "byte order mark"),
    "line separator": (POD.replace("6443", "6443 # \u2028"), 9, "U+2028"),
    "tab": (POD.replace("    name", "\tname"), 10, "indent with spaces"),
    "control character": (POD.replace("6443", "6443 # \x07"), 9, "control character"),
    "two documents": (POD + "---\nkind: Pod\n", 11, "second document"),
    "second, empty document": (POD + "---\n", 11, "second document"),
    "not yaml": (POD + "  - [\n", 12, "not YAML"),
    "worse escape": (POD.replace("v1", '"\\UFFFFFFFF"'), None, "not YAML"),
    "tagged text": (POD.replace("6443", "6443\n    - !x y"), 10, "quote it"),
    "bad escape": (POD.replace("v1", '"\\U00110000"'), None, "not YAML"),
    "brace, but no JSON": ("\n{apiVersion: v1, kind: Pod}\n", 2, "as JSON"),
    "JSON with a comment": ('{"apiVersion": "v1", # x\n"kind": "Pod"}', 1, "as JSON"),
    "JSON too deep": ('{"a":' + "[" * 90_000, None, "as JSON"),
    "a list": ("- 1\n", 1, "give a Pod"),
    "text": ("kube-apiserver\n", 1, "give a Pod"),
    "not a pod": (POD.replace("Pod", "Deployment"), 1, "Deployment"),
    "list of pods": (POD.replace("kind: Pod", "kind: PodList"), 1, "PodList"),
    "no spec": (POD[: POD.index("spec")], 1, "spec is missing"),
    "no metadata": (POD.replace("metadata:\n  name: kube-apiserver\n", ""), 1, "metadata"),
    "no containers": (
        POD[: POD.index("  containers")] + "  hostNetwork: true\n",
        6,
        "no container",
    ),
    "containers no list": (POD[: POD.index("  containers")] + "  containers: x\n", 6, "no list"),
    "other pod": (POD.replace("kube-apiserver", "etcd"), 7, "no container is kube-apiserver"),
    "two servers": (POD + POD[POD.index("  - command") :], 7, "2 containers"),
    "nameless container": (POD.replace("    name: kube-apiserver\n", ""), 7, "without a name"),
    "key twice": (pod("name: kube-apiserver"), 11, "twice"),
    "key no text": (pod("1: 2"), 11, "quotes"),
    "merge key": (POD.replace("spec:", "x: &x {a: b}\nspec:\n  <<: *x"), 7, "merge key"),
    "command alias": (
        POD.replace("kind: Pod", "kind: Pod\nx: &x [kube-apiserver]").replace(
            "command:\n    - kube-apiserver\n    - --secure-port=6443", "command: *x"
        ),
        8,
        "write it out",
    ),
    "shared command": (pod("args: &x [--a=b]", "x: *x"), 11, "used elsewhere"),
    "shell": (
        POD.replace("- kube-apiserver", "- sh\n    - -c\n    - exec kube-apiserver"),
        8,
        "shell",
    ),
    "no command": (
        "\n".join([*POD.split("\n")[:6], "  - name: kube-apiserver", ""]),
        7,
        "no command",
    ),
    "number as flag": (pod("args:", "- --audit-log-maxage", "- 7"), 13, "quote it"),
    "flag without value": (pod("args:", "- --audit-log-maxage"), 12, "has no value"),
    "end of flags": (pod("args:", "- --"), 12, "ends the flags"),
    "tagged list": (POD.replace("command:", "command: !!set"), 7, "list"),
    "variable twice": (
        pod(*["env:"], *["- {name: aliyun_logs_audit-c0ffee, value: x}"] * 2),
        13,
        "twice",
    ),
    "variable from elsewhere": (
        pod("env:", "- name: aliyun_logs_audit-c0ffee", "  valueFrom: {fieldRef: {}}"),
        12,
        "no plain value",
    ),
    "env no list": (pod("env: {a: b}"), 11, "no list"),
    "annotations no mapping": (POD.replace("spec:", "  annotations: [a]\nspec:"), 5, "no mapping"),
    "marker no text": (
        POD.replace("spec:", "  annotations: {exectrail.audit/policy-sha256: 1}\nspec:"),
        5,
        "quotes",
    ),
    "record edited": (
        POD.replace("spec:", "  annotations: {exectrail.audit/before: '{'}\nspec:"),
        5,
        "edited",
    ),
    "unknown record": (
        POD.replace("spec:", "  annotations: {exectrail.audit/before: '{\"x\": 1}'}\nspec:"),
        5,
        "edited",
    ),
    "log on a read-only parent": (
        mounted("/var/log", "hostPath: {path: /var/log}", "readOnly: true"),
        12,
        "read-only",
    ),
    "log elsewhere": (
        mounted("/var/log/kubernetes", "hostPath: {path: /data}"),
        12,
        "is the host's /data",
    ),
    "log in memory": (mounted("/var", "emptyDir: {}"), 12, "no host path"),
    "log under a sub-path": (
        mounted("/var/log", "hostPath: {path: /var/log}", "subPath: x"),
        12,
        "is the host's /var/log/x",
    ),
    "policy hidden": (mounted("/etc/kubernetes", "configMap: {name: x}"), 12, "no host path"),
    "both names taken": (
        POD + "  volumes: [{name: k8s-audit}, {name: exectrail-k8s-audit}]\n",
        11,
        "rename one",
    ),
    "flags of somebody else": (
        POD.replace("6443\n", "6443\n    - --audit-log-maxage=7\n    - --audit-log-path=-\n"),
        10,
        "line 10: --audit-log-maxage is 7, not 30\n  line 11: --audit-log-path is -, ",
    ),
    "variable of somebody else": (
        pod("env: [{name: aliyun_logs_audit-c0ffee, value: stdout}]"),
        11,
        "--take-over",
    ),
    "dash alone on its line": (pod("args:", "-", "  --a=b"), 13, "on its own line"),
}


@pytest.mark.parametrize("name", DOCUMENTS)
def test_refused(name: str) -> None:
    text, line, problem = DOCUMENTS[name]
    with pytest.raises(UsageError) as caught:
        add(text, SETTINGS)
    assert isinstance(caught.value, ManifestError)
    assert problem in str(caught.value)
    assert caught.value.line == line


def test_refusal_is_safe_to_print() -> None:
    with pytest.raises(ManifestError) as caught:
        add(pod('args: ["--audit-log-path=\\e[2J\\u202e"]'), SETTINGS)
    assert "\\x1b[2J\\u202e" in str(caught.value)


TAKE_OVER = {
    "value over several lines": (pod("args:", "- |", "  --audit-log-maxage=7"), 12, "one line"),
    "repetition used elsewhere": (
        pod("args:", "- &x --audit-log-maxage=7", "- --audit-log-maxage=30", "x: *x"),
        12,
        "used elsewhere",
    ),
    "value used elsewhere": (
        pod("args:", "- &x --audit-log-maxage=7", "x: *x"),
        12,
        "used elsewhere",
    ),
    "repetition behind a lone dash": (
        pod("args:", "- a", "-", "  --audit-log-maxage=7", "- --audit-log-maxage=30"),
        14,
        "several values on one line",
    ),
}


@pytest.mark.parametrize("name", TAKE_OVER)
def test_not_taken_over(name: str) -> None:
    text, line, problem = TAKE_OVER[name]
    with pytest.raises(ManifestError) as caught:
        add(text, replace(SETTINGS, take_over=True))
    assert problem in str(caught.value)
    assert caught.value.line == line


def test_too_large() -> None:
    with pytest.raises(ManifestError, match="1000000 characters"):
        add(POD + "#" * 1_000_000, SETTINGS)


def test_nested_too_deeply() -> None:
    with pytest.raises(ManifestError, match="too deeply"):
        add("[" * 100 + "]" * 100, SETTINGS)


def test_other_container_uses_our_volume() -> None:
    more = "  - name: shipper\n    volumeMounts:\n    - {mountPath: /logs, name: k8s-audit}\n"
    text = add(POD, SETTINGS).replace("  volumes:\n", more + "  volumes:\n")
    assert add(text, SETTINGS) == text
    with pytest.raises(ManifestError, match="'shipper' also mounts the volume k8s-audit"):
        remove(text)


VALUES = {
    "policy under the static pods": (
        {"policy_file": "/etc/kubernetes/manifests/p.yaml"},
        "static-pod",
    ),
    "policy deep under them": ({"policy_file": "/etc/kubernetes/manifests/a/p.yaml"}, "static-pod"),
    "log under the static pods": ({"log_path": "/etc/kubernetes/manifests/a.log"}, "static-pod"),
    "other static pods": (
        {"static_pod_directory": "/srv/pods", "log_path": "/srv/pods/a"},
        "static-pod directory /srv/pods",
    ),
    "log beside the static pods": ({"log_path": "/etc/kubernetes/a.log"}, "folder of its own"),
    "log at the root": ({"log_path": "/a.log"}, "folder of its own"),
    "log in /var": ({"log_path": "/var/a.log"}, "folder of its own"),
    "log is the policy": ({"log_path": "/etc/kubernetes/audit-policy.yaml"}, "another path"),
    "log under the policy": ({"log_path": "/etc/kubernetes/audit-policy.yaml/a"}, "another path"),
    "relative policy": ({"policy_file": "audit-policy.yaml"}, "absolute path"),
    "relative log": ({"log_path": "./a.log"}, "absolute path"),
    "standard output": ({"log_path": "-"}, "absolute path"),
    "dots": ({"log_path": "/var/log/../x/a.log"}, "absolute path"),
    "slash at the end": ({"log_path": "/var/log/kubernetes/"}, "slash at its end"),
    "blank": ({"log_path": "/var/log/a b/c"}, "absolute path"),
    "expansion": ({"log_path": "/var/log/$(HOME)/c"}, "absolute path"),
    "newline": ({"policy_file": "/etc/kubernetes/p\n"}, "absolute path"),
    "path no text": ({"policy_file": None}, "absolute path"),
    "no size": ({"log_maxsize": 0}, "log_maxsize is 0"),
    "negative backups": ({"log_maxbackup": -1}, "log_maxbackup is -1"),
    "text as age": ({"log_maxage": "30"}, "log_maxage is '30'"),
    "true as age": ({"log_maxage": True}, "log_maxage is True"),
    "fraction": ({"log_maxage": 1.5}, "log_maxage is 1.5"),
    "empty id": ({"cluster_id": ""}, "cluster_id is ''"),
    "id with a blank": ({"cluster_id": "a b"}, "cluster_id is 'a b'"),
    "id with an equals sign": ({"cluster_id": "a=b"}, "cluster_id"),
    "id with an underscore": ({"cluster_id": "a_tags"}, "underscore"),
    "id with a newline": ({"cluster_id": "a\n"}, "cluster_id"),
    "id beyond ASCII": ({"cluster_id": "ä"}, "cluster_id"),
    "long id": ({"cluster_id": "a" * 64}, "63"),
    "type": ({"policy_type": "Directory"}, "File or FileOrCreate"),
    "digest": ({"policy_sha256": "x"}, "64"),
}


@pytest.mark.parametrize("name", VALUES)
def test_settings_refused(name: str) -> None:
    values, problem = VALUES[name]
    with pytest.raises(ManifestError) as caught:
        replace(SETTINGS, **values)
    assert problem in str(caught.value)
