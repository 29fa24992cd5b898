"""What holds for every manifest: generated ones in YAML and JSON, with settings of anybody."""

import json
from pathlib import Path
from typing import Any

import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from exectrail.audit_policy.manifest import add, remove
from exectrail.audit_policy.manifest.document import ManifestError
from exectrail.audit_policy.manifest.settings import ENV_NAME, FLAGS, Settings

GOLDEN = Path(__file__).with_name("golden")
ABSENT = object()
OURS = dict(Settings(cluster_id="c1").flags())
NOISE = st.sampled_from(
    ["", "", "", "  # note", "   # - --audit-log-maxage=1", "\n\n", "\n# at the left"]
)
BIG = settings(max_examples=30, suppress_health_check=[HealthCheck.too_slow])


@st.composite
def flags(draw: st.DrawFn) -> list[str]:
    """Neutral flags with ours between, equal or not, repeated, in every spelling."""
    found = []
    neutral = st.sampled_from(["--secure-port=6443", "--audit-webhook-mode=batch", "--v=2"])
    for name in draw(st.lists(st.sampled_from([*FLAGS, ""]), max_size=6)):
        if not name:
            found.append(draw(neutral))
            continue
        value = draw(st.sampled_from([OURS[name], "7", "/a/b"]))
        spelling = draw(st.sampled_from([name, name.replace("-", "_")]))
        found += draw(st.sampled_from([[f"--{spelling}={value}"], [f"--{spelling}", value]]))
    return found


@st.composite
def environment(draw: st.DrawFn) -> list[dict[str, str]]:
    names = ["GOGC", *Settings(cluster_id="c1").environment(), "aliyun_logs_audit-other"]
    chosen = draw(st.lists(st.sampled_from(names), unique=True, max_size=4))
    return [{"name": n, "value": draw(st.sampled_from(["80", "true", "stdout"]))} for n in chosen]


@st.composite
def mounts(draw: st.DrawFn) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Mounts and volumes: unrelated ones, those that cover our paths, and our names for others."""
    found: list[dict[str, Any]] = []
    volumes: list[dict[str, Any]] = []
    paths = ["/srv", "/etc/kubernetes/pki", "/etc/kubernetes", "/var/log", "/var/log/kubernetes"]
    names = draw(st.permutations(["a", "b", "k8s-audit", "audit-policy", "e"]))
    for path, name in zip(draw(st.lists(st.sampled_from(paths), unique=True)), names, strict=False):
        found.append({"mountPath": path, "name": name})
        volumes.append({"name": name, "hostPath": {"path": path}})
    return found, volumes


@st.composite
def pods(draw: st.DrawFn) -> dict[str, Any]:
    container: dict[str, Any] = {"name": "kube-apiserver", "command": ["kube-apiserver"]}
    where = draw(st.sampled_from(["command", "args"]))
    container[where] = [*container.get(where, []), *draw(flags())]
    volume_mounts, volumes = draw(mounts())
    nothing = st.sampled_from([ABSENT, None, []])
    for owner, key, items in (
        (container, "env", draw(environment())),
        (container, "volumeMounts", volume_mounts),
    ):
        owner[key] = items or draw(nothing)
    spec = {"containers": [{"name": "other", "image": "x"}, container]}
    spec["containers"] = draw(st.permutations(spec["containers"]))
    annotations = draw(st.sampled_from([ABSENT, None, {}, {"owner": "platform"}]))
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": present({"name": "api", "annotations": annotations}),
        "spec": present({**spec, "volumes": volumes or draw(nothing), "hostNetwork": True}),
    }


def present(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: present(each) for key, each in value.items() if each is not ABSENT}
    if isinstance(value, list):
        return [present(each) for each in value]
    return value


class Writer:
    """Writes YAML in all the ways that people do, with comments wherever they may be."""

    def __init__(self, draw: st.DrawFn) -> None:
        self.draw = draw
        self.step = draw(st.sampled_from([2, 4]))
        self.list_step = draw(st.sampled_from([0, 2]))

    def scalar(self, value: Any) -> str:
        if not isinstance(value, str):
            return self.draw(st.sampled_from(["", " ~", " null"])) if value is None else " true"
        plain = [value] if yaml.safe_load(value) == value else []
        return " " + self.draw(st.sampled_from([*plain, f"'{value}'", json.dumps(value)]))

    def value(self, value: Any, column: int) -> str:
        if isinstance(value, dict | list) and (not value or self.draw(st.integers(0, 9)) == 0):
            flow = json.dumps(value) if value else self.draw(st.sampled_from(["{}", "{ }"]))
            return (
                " "
                + (flow if value or isinstance(value, dict) else flow.translate(BRACKETS))
                + "\n"
            )
        if isinstance(value, dict):
            return "\n" + self.mapping(value, column + self.step)
        if isinstance(value, list):
            return "\n" + self.list(value, column + self.list_step)
        return self.scalar(value) + self.noise()

    def noise(self) -> str:
        return self.draw(NOISE) + "\n"

    def mapping(self, value: dict[str, Any], column: int) -> str:
        lines = [f"{' ' * column}{key}:{self.value(each, column)}" for key, each in value.items()]
        return "".join(lines)

    def list(self, value: list[Any], column: int) -> str:
        text = ""
        for each in value:
            if isinstance(each, dict):
                gap = self.draw(st.integers(1, 3))
                body = self.mapping(each, column + 1 + gap)
                text += f"{' ' * column}-{body[column + 1 :]}"
            else:
                text += f"{' ' * column}-{self.scalar(each)}{self.noise()}"
        return text


BRACKETS = str.maketrans("{}", "[]")


@st.composite
def manifests(draw: st.DrawFn) -> str:
    pod = present(draw(pods()))
    shape = draw(st.sampled_from(["yaml", "yaml", "yaml", "json"]))
    if shape == "json":
        return json.dumps(pod, indent=draw(st.sampled_from([None, 2, 4])))
    text = Writer(draw).mapping(pod, 0)
    return text if draw(st.booleans()) else text.rstrip("\n")


WANTED = st.builds(
    Settings,
    policy_sha256=st.sampled_from([None, "a" * 64, "1" * 64]),
    log_path=st.sampled_from([Settings.log_path, "/srv/audit/a.log"]),
    policy_file=st.sampled_from([Settings.policy_file, "/srv/policy.yaml"]),
    log_maxage=st.sampled_from([7, 30, 365]),
    cluster_id=st.sampled_from([None, "c1", "c2"]),
    log_collection=st.booleans(),
    take_over=st.just(value=True),
)


@BIG
@given(manifests(), WANTED)
def test_add_again_and_remove(text: str, wanted: Settings) -> None:
    assert remove(text) == text
    added = add(text, wanted)
    assert add(added, wanted) == added
    assert remove(added) == text


@BIG
@given(manifests(), st.lists(WANTED, min_size=2, max_size=3))
def test_remove_after_changes_of_mind(text: str, wanted: list[Settings]) -> None:
    added = text
    for each in wanted:
        added = add(added, each)
        assert add(added, each) == added
    assert remove(added) == text


@BIG
@given(manifests(), WANTED)
def test_just_the_settings_change(text: str, wanted: Settings) -> None:
    added = add(text, wanted)
    before, after = stripped(text), stripped(added)
    assert before == after
    assert added.count("# at the left") == text.count("# at the left")
    arguments = server(added)["command"] + server(added).get("args", [])
    joined = " ".join(arguments).replace("_", "-").replace("=", " ")
    for name, value in wanted.flags().items():
        assert joined.count(f"--{name} ") == 1
        assert f"--{name} {value}" in joined.replace("_", "-")
    variables = {each["name"]: each["value"] for each in server(added).get("env") or []}
    assert wanted.environment().items() <= variables.items()
    for place in wanted.places():
        assert [m for m in server(added)["volumeMounts"] if covers(m["mountPath"], place.target)]


SPLICE = st.text(alphabet="abc:-#&*!|>'\"%@`{}[], \n\t\r\\\ufeff\x85é~01", max_size=4)


@BIG
@given(st.sampled_from(sorted(GOLDEN.glob("*.yaml"))), st.data())
def test_damaged_text_is_refused_or_edited_exactly(path: Path, data: st.DataObject) -> None:
    text = path.read_text()
    if data.draw(st.booleans()):
        text = add(text, Settings(policy_sha256="3" * 64, cluster_id="c0ffee", take_over=True))
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(text)))
        gone = data.draw(st.integers(0, 6))
        text = text[:at] + data.draw(SPLICE) + text[at + gone :]
    wanted = Settings(cluster_id="c0ffee", take_over=True)
    try:
        added = add(text, wanted)
        removed = remove(text)
    except ManifestError:
        return
    assert add(added, wanted) == added
    assert remove(added) == removed


def covers(mounted: str, target: str) -> bool:
    return target == mounted or target.startswith(f"{mounted}/")


def server(text: str) -> dict[str, Any]:
    containers = yaml.safe_load(text)["spec"]["containers"]
    return next(each for each in containers if each["name"] == "kube-apiserver")


def stripped(text: str) -> Any:
    """The manifest as another reader sees it, without all that auditing can change."""
    pod = yaml.safe_load(text)
    container = next(c for c in pod["spec"]["containers"] if c["name"] == "kube-apiserver")
    names = tuple(f"--{name}" for name in FLAGS)
    arguments: list[str] = []
    values = iter(container.pop("command") + container.pop("args", []))
    for value in values:
        normal = value.replace("_", "-")
        if not normal.startswith(names):
            arguments.append(value)
        elif "=" not in value:
            next(values)
    container["arguments"] = arguments
    variables = container.pop("env", None) or []
    container["env"] = [each for each in variables if not ENV_NAME.fullmatch(each["name"])]
    for owner, key in ((container, "volumeMounts"), (pod["spec"], "volumes")):
        items = owner.pop(key, None) or []
        owner[key] = [each for each in items if not each["name"].startswith("exectrail-")]
        owner[key] = [each for each in owner[key] if not is_ours(each)]
    annotations = pod["metadata"].pop("annotations", None) or {}
    pod["metadata"]["annotations"] = {
        key: value for key, value in annotations.items() if not key.startswith("exectrail")
    }
    return pod


def is_ours(item: dict[str, Any]) -> bool:
    return "type" in item.get("hostPath", {}) or item.get("mountPath") in {
        Settings.policy_file,
        "/srv/policy.yaml",
        "/var/log/kubernetes",
        "/srv/audit",
    }
