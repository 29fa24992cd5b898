"""Masters as the module reads them, for tests that change one thing of a healthy one."""

from __future__ import annotations

from typing import Any

import msgspec

from exectrail.audit_policy import profiles
from exectrail.audit_policy.rollout.model import Master, Request, convert

MANIFEST = """\
apiVersion: v1
kind: Pod
metadata:
  annotations:
    kubeadm.kubernetes.io/kube-apiserver.advertise-address.endpoint: 10.0.0.1:6443
  name: kube-apiserver
  namespace: kube-system
spec:
  containers:
  - command:
    - kube-apiserver
    - --advertise-address=10.0.0.1
    - --secure-port=6443
    image: registry.k8s.io/kube-apiserver:v1.35.4
    name: kube-apiserver
    volumeMounts:
    - mountPath: /etc/kubernetes/pki
      name: k8s-certs
      readOnly: true
  hostNetwork: true
  volumes:
  - hostPath:
      path: /etc/kubernetes/pki
      type: DirectoryOrCreate
    name: k8s-certs
"""
CONFIGURATION = """\
apiServer: {}
apiVersion: kubeadm.k8s.io/v1beta4
clusterName: lab
kind: ClusterConfiguration
kubernetesVersion: v1.35.4
"""
POLICY = profiles.render("registered", "v1.35.4")
UID = "7f6d8f2e-8a4b-4f0e-9d1a-1f2e3d4c5b6a"


def request(**more: Any) -> Request:
    base: dict[str, Any] = {
        "run": "0123456789abcdef",
        "holder": "root@here pid 1 since 1",
        "state": "present",
        "profile": "registered",
        "own_policy": "",
        "rules_first": [],
        "policy_file": "/etc/kubernetes/audit-policy.yaml",
        "log_path": "/var/log/kubernetes/kubernetes.audit",
        "log_maxsize": 100,
        "log_maxbackup": 10,
        "log_maxage": 30,
        "cluster_id": "c1",
        "log_collection": True,
        "take_over": False,
        "remove_logs": False,
        "state_dir": "/etc/kubernetes/exectrail",
        "timeouts": {},
        "masters": ["m1", "m2", "m3"],
        "selected": ["m1", "m2", "m3"],
    }
    made: Request = convert({**base, **more}, Request)
    return made


def master(**more: Any) -> Master:
    """A healthy master without audit settings; keys like ``server.version`` change a part."""
    base: dict[str, Any] = {
        "kubelet": {"running": True, "static_pod_path": "/etc/kubernetes/manifests"},
        "foreign": None,
        "manifest": {"path": "/etc/kubernetes/manifests/kube-apiserver.yaml", "text": MANIFEST},
        "policy": {"kind": "absent"},
        "log": {"free": 5 << 30, "held": 0, "mode": None, "problem": None},
        "process": {"pid": 10, "start": 100, "args": ["kube-apiserver", "--secure-port=6443"]},
        "server": {
            "problem": None,
            "version": "v1.35.4",
            "namespace_uid": UID,
            "kubeadm": {"data": {"ClusterConfiguration": CONFIGURATION}},
            "restarts": 0,
            "age": 5000.0,
        },
        "strays": [],
        "state_dir": None,
        "applied": None,
        "original": None,
        "rollout": None,
        "lock": None,
    }
    for name, value in more.items():
        head, dot, tail = name.partition("__")
        if dot:
            base[head] = {**base[head], tail: value}
        else:
            base[name] = value
    made: Master = convert(msgspec.to_builtins(base), Master)
    return made
