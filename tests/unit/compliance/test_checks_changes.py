"""The checks of automatic upgrades, CPFS volumes, image acceleration and hardening."""

from __future__ import annotations

from typing import Any

import pytest

from tests.unit.compliance.nodes import judge, load, node

ON = {"load": "loaded", "enabled": "enabled", "active": "active"}
OFF = {"load": "loaded", "enabled": "disabled", "active": "inactive"}
MASKED = {"load": "masked", "enabled": "masked", "active": "inactive"}
NEXT_BOOT = {"load": "loaded", "enabled": "enabled", "active": "inactive"}
STILL = {"load": "masked", "enabled": "masked", "active": "active"}


def units(**changed: dict[str, str]) -> dict[str, Any]:
    known: dict[str, Any] = load("debian12-vm").items["upgrades.units"]
    names = {name.replace("-", "_").replace(".", "_"): name for name in known}
    return {**known, **{names[name]: state for name, state in changed.items()}}


def apt(value: str | None, *, installed: bool = True, enable: str | None = None) -> dict[str, Any]:
    settings = {
        "APT::Periodic::Unattended-Upgrade": value,
        "APT::Periodic::Enable": enable,
    }
    config = {name: setting for name, setting in settings.items() if setting is not None}
    return {"installed": installed, "config": config}


@pytest.mark.parametrize(
    ("found", "timer", "status", "says"),
    [
        (apt("1"), ON, "fail", "is '1' and apt-daily-upgrade.timer is enabled, active"),
        (apt("always"), ON, "fail", "is 'always'"),
        (apt("7", enable="1"), ON, "fail", "is '7' and APT::Periodic::Enable is '1' and apt-"),
        (apt("1", enable=""), ON, "fail", "is '1'"),
        (apt("1"), OFF | {"active": "activating"}, "fail", "is disabled, activating"),
        (apt("1"), OFF | {"active": "failed"}, "warn", "is disabled, failed"),
        (apt("1"), OFF | {"enabled": "enabled-runtime"}, "fail", "is enabled-runtime, inactive"),
        (apt("1"), NEXT_BOOT, "fail", "is enabled, inactive"),
        (apt("1"), STILL, "fail", "is masked, active"),
        (apt("1"), MASKED, "warn", "is '1', but apt-daily-upgrade.timer is masked, inactive"),
        (apt("1"), OFF, "warn", "is '1', but apt-daily-upgrade.timer is disabled, inactive"),
        (apt("1", enable="0"), ON, "warn", "but APT::Periodic::Unattended-Upgrade is '1' and "),
        (apt("0"), ON, "warn", "timer is enabled, active, but APT::Periodic"),
        (apt(""), ON, "warn", "timer is enabled, active, but APT::Periodic"),
        (apt(None), ON, "warn", "is '0'"),
        (apt("1", installed=False), ON, "warn", "unattended-upgrades is not installed"),
        (apt(None, installed=False), ON, "pass", "off"),
        (apt("0", installed=False), ON, "pass", "off"),
        (apt("0"), OFF, "pass", "off"),
        (apt("1", enable="0"), OFF, "pass", "off"),
        (apt(None), MASKED, "pass", "off"),
        (None, ON, "pass", "off"),
        ({"unreadable": "apt-config failed"}, ON, "error", "unreadable"),
        (apt("1"), {"unreadable": "x"}, "error", "unreadable"),
    ],
)
def test_automatic_upgrades_by_apt(found: Any, timer: Any, status: str, says: str) -> None:
    items = {"upgrades.apt": found, "upgrades.units": units(apt_daily_upgrade_timer=timer)}
    result = judge("node.automatic-upgrades", node(items=items))
    assert (result.status, says in result.observed) == (status, True), result


def dnf(value: str) -> dict[str, str]:
    return {"apply_updates": value, "file": "/etc/dnf/automatic.conf"}


@pytest.mark.parametrize(
    ("found", "changed", "status", "says"),
    [
        (dnf("yes"), {"dnf_automatic_timer": ON}, "fail", "dnf-automatic.timer is enabled"),
        (dnf("True"), {"dnf5_automatic_timer": ON}, "fail", "dnf5-automatic.timer is enabled"),
        (dnf("1"), {"yum_cron_service": ON}, "fail", "yum-cron.service is enabled"),
        (dnf("on"), {"yum_cron_service": ON}, "fail", "yum-cron.service is enabled"),
        (dnf("yes"), {"dnf_automatic_timer": MASKED}, "warn", "no timer of dnf-automatic is on"),
        (dnf("no"), {"dnf_automatic_timer": ON}, "warn", "but apply_updates is no"),
        (None, {"yum_cron_service": ON}, "warn", "but apply_updates is not set"),
        (dnf("no"), {}, "pass", "off"),
        (None, {}, "pass", "off"),
        (dnf("no"), {"dnf_automatic_install_timer": ON}, "fail", "automatic-install.timer is"),
        (None, {"dnf_automatic_install_timer": NEXT_BOOT}, "fail", "enabled, inactive"),
        (None, {"dnf_automatic_install_timer": MASKED}, "pass", "off"),
        (None, {"transactional_update_timer": ON}, "fail", "transactional-update.timer"),
        (None, {"zincati_service": ON}, "fail", "zincati.service"),
        (None, {"update_engine_service": ON}, "fail", "update-engine.service"),
        (None, {"snapd_service": ON}, "pass", "off"),
        ({"unreadable": "x"}, {}, "error", "unreadable"),
        ({"unreadable": "x"}, {"zincati_service": ON}, "fail", "zincati.service"),
    ],
)
def test_automatic_upgrades_by_others(
    found: Any, changed: dict[str, Any], status: str, says: str
) -> None:
    items = {"upgrades.apt": None, "upgrades.dnf": found, "upgrades.units": units(**changed)}
    result = judge("node.automatic-upgrades", node(items=items))
    assert (result.status, says in result.observed) == (status, True), result


def test_a_disabled_setting_is_named_beside_the_enabled_one() -> None:
    items = {
        "upgrades.apt": apt("1", enable="0"),
        "upgrades.units": units(apt_daily_upgrade_timer=ON),
    }
    assert judge("node.automatic-upgrades", node(items=items)).message == (
        "Nothing upgrades now, but only because APT::Periodic::Unattended-Upgrade is '1' and "
        "APT::Periodic::Enable is '0': apt-daily-upgrade.timer is enabled, active."
    )


def test_of_two_updaters_with_one_switch_on_both_are_shown_and_the_first_is_explained() -> None:
    items = {"upgrades.apt": apt("1"), "upgrades.dnf": dnf("yes")}
    result = judge("node.automatic-upgrades", node(items=items))
    assert result.status == "warn"
    assert result.observed.endswith("; apply_updates is yes, but no timer of dnf-automatic is on")
    assert result.message == (
        "Nothing upgrades now, but only because apt-daily-upgrade.timer is disabled, inactive: "
        "APT::Periodic::Unattended-Upgrade is '1'."
    )


def test_a_node_without_systemd_has_no_timers() -> None:
    items = {"upgrades.apt": apt("1"), "upgrades.units": {}}
    result = judge("node.automatic-upgrades", node(items=items))
    assert result.status == "warn"
    assert "timer is not-found, inactive" in result.observed


def test_a_unit_that_was_not_asked_for_is_not_known_to_be_off() -> None:
    known = units()
    del known["zincati.service"]
    result = judge("node.automatic-upgrades", node(items={"upgrades.units": known}))
    assert result.status == "error"
    assert "says nothing of zincati.service" in result.message


def mount(source: str, fstype: str = "nfs") -> dict[str, str]:
    return {"source": source, "target": "/mnt/data", "fstype": fstype, "options": "rw"}


def mounts(*rows: dict[str, str], truncated: bool = False) -> dict[str, Any]:
    return {"list": list(rows), "truncated": truncated, "total": len(rows)}


def storage(driver: str = "", provisioner: str = "", **more: str) -> dict[str, Any]:
    return {
        "persistent_volumes": [{"name": "pv-1", "driver": driver, **more}] if driver else [],
        "storage_classes": [{"name": "fast", "provisioner": provisioner}] if provisioner else [],
    }


CPFS = "cpfs-012345.cn-hangzhou.cpfs.aliyuncs.com:/share"
NAS = "35e9f-abc.cn-shanghai.nas.aliyuncs.com:/"
EFC = "fuse.aliyun-alinas-efc"


@pytest.mark.parametrize(
    ("items", "status", "says"),
    [
        ({"mounts.current": mounts(mount(CPFS))}, "fail", f"mounted: {CPFS} on /mnt/data (nfs)"),
        ({"mounts.current": mounts(mount("x", "cpfs"))}, "fail", "mounted: x on"),
        ({"mounts.current": mounts(mount("x", "cpfs-nfs"))}, "fail", "mounted: x on"),
        ({"mounts.current": mounts(mount(f"bindroot-1:{CPFS}", EFC))}, "fail", "bindroot-1:cpfs-"),
        ({"mounts.current": mounts(mount(f"bindroot-1:{NAS}", EFC))}, "pass", "none"),
        ({"mounts.current": mounts(mount("127.0.1.255:/share"))}, "fail", "127.0.1.255"),
        ({"mounts.current": mounts(mount("bmcpfs-1.cpfs.aliyuncs.com:/"))}, "fail", "bmcpfs-1"),
        ({"mounts.current": mounts(mount(NAS), mount("/dev/vda", "ext4"))}, "pass", "none"),
        ({"mounts.current": mounts(mount(NAS), truncated=True)}, "error", "unreadable"),
        ({"mounts.current": mounts(mount(CPFS), truncated=True)}, "fail", "mounted"),
        ({"mounts.fstab": [mount(CPFS, "cpfs-nfs")]}, "fail", f"/etc/fstab: {CPFS}"),
        ({"mounts.fstab": [mount(NAS)]}, "pass", "none"),
        (
            {"mounts.units": [{"unit": "mnt.mount", "what": CPFS, "where": "/mnt", "type": "nfs"}]},
            "fail",
            f"mount unit mnt.mount: {CPFS} on /mnt (nfs)",
        ),
        (
            {"mounts.units": [{"unit": "mnt.mount", "what": NAS, "where": "/mnt", "type": "nfs"}]},
            "pass",
            "none",
        ),
        ({"kubernetes.storage": storage("bmcpfsplugin.csi.alibabacloud.com")}, "fail", "pv-1"),
        ({"kubernetes.storage": storage("cpfsplugin.csi.alibabacloud.com")}, "fail", "pv-1"),
        ({"kubernetes.storage": storage("alicloud/cpfs")}, "fail", "persistent volume pv-1"),
        ({"kubernetes.storage": storage("nfs", server=CPFS)}, "fail", "persistent volume pv-1"),
        ({"kubernetes.storage": storage("povplugin.csi.alibabacloud.com")}, "pass", "none"),
        ({"kubernetes.storage": storage("nasplugin.csi.alibabacloud.com")}, "warn", "pv-1"),
        (
            {"kubernetes.storage": storage("nasplugin.csi.alibabacloud.com", server=NAS)},
            "pass",
            "none",
        ),
        (
            {"kubernetes.storage": storage(provisioner="bmcpfsplugin.csi.alibabacloud.com")},
            "fail",
            "storage class fast",
        ),
        (
            {"kubernetes.storage": storage(provisioner="nasplugin.csi.alibabacloud.com")},
            "pass",
            "none",
        ),
        ({"kubernetes.storage": {"unreadable": "x"}}, "error", "unreadable"),
        (
            {"kubernetes.storage": {"unreadable": "x"}, "mounts.fstab": [mount(CPFS)]},
            "fail",
            "/etc/fstab",
        ),
        ({"mounts.fstab": {"unreadable": "x"}}, "error", "unreadable"),
    ],
)
def test_cpfs_volumes(items: dict[str, Any], status: str, says: str) -> None:
    result = judge("node.cpfs-volumes", node(items=items))
    assert (result.status, says in result.observed) == (status, True), result


def runtime(snapshotter: str | None = None, plugin: str | None = None) -> list[dict[str, Any]]:
    plugins = [{"name": plugin, "type": "snapshot", "address": "/run/x.sock"}] if plugin else []
    return [
        {
            "name": "containerd",
            "config": "/etc/containerd/config.toml",
            "snapshotter": snapshotter,
            "proxy_plugins": plugins,
        }
    ]


@pytest.mark.parametrize(
    ("items", "status", "seen"),
    [
        ({"runtimes": runtime("overlayfs", "metrics")}, "pass", "none"),
        ({"runtimes": runtime()}, "pass", "none"),
        (
            {"runtimes": runtime("overlaybd", "overlaybd")},
            "fail",
            "containerd uses overlaybd (/etc/containerd/config.toml)",
        ),
        (
            {"runtimes": runtime("overlayfs", "nydus")},
            "fail",
            "containerd uses nydus (/etc/containerd/config.toml)",
        ),
        (
            {"accelerators": [{"name": "stargz", "where": "/usr/bin/containerd-stargz-grpc"}]},
            "fail",
            "stargz: /usr/bin/containerd-stargz-grpc",
        ),
        ({"accelerators": {"unreadable": "x"}}, "error", "unreadable"),
        ({"runtimes": {"unreadable": "x"}}, "error", "unreadable"),
        (
            {"accelerators": {"unreadable": "x"}, "runtimes": runtime("soci")},
            "fail",
            "containerd uses soci (/etc/containerd/config.toml)",
        ),
    ],
)
def test_image_acceleration(items: dict[str, Any], status: str, seen: str) -> None:
    result = judge("node.image-acceleration", node(items=items))
    assert (result.status, result.observed) == (status, seen)


@pytest.mark.parametrize(
    ("marks", "status", "seen"),
    [
        ([], "pass", "none"),
        ([{"name": "FIPS mode", "where": "/proc"}], "fail", "FIPS mode: /proc"),
        ({"unreadable": "x"}, "error", "unreadable"),
    ],
)
def test_security_hardening(marks: Any, status: str, seen: str) -> None:
    judged = node("ubuntu2204-ack-worker", {"hardening": marks})
    result = judge("node.security-hardening", judged, "ack")
    assert (result.status, result.observed) == (status, seen)
