"""Which network file systems a node uses."""

from __future__ import annotations

from fnmatch import fnmatchcase

from exectrail.compliance.checks.registry import Outcome, Parameters, check, listing
from exectrail.compliance.items.access import Items, Unreadable, gather
from exectrail.compliance.items.node import FSTAB, MOUNT_UNITS, MOUNTS, STORAGE


class CpfsVolumes(Parameters, frozen=True):
    """How Cloud Parallel File Storage is recognised.

    `fstypes` and `sources` (globs over what is mounted) for mounts; `drivers` for volumes and
    classes; `shared_drivers` serve CPFS beside other file systems, so a volume of theirs may be
    one.
    """

    fstypes: tuple[str, ...]
    sources: tuple[str, ...]
    drivers: tuple[str, ...]
    shared_drivers: tuple[str, ...] = ()

    expects = "no CPFS volume is mounted, configured or defined"


@check("node.cpfs-volumes", CpfsVolumes)
def cpfs_volumes(items: Items, parameters: CpfsVolumes) -> Outcome:
    """Look in four layers: mounts, fstab, mount units and, on a master, volumes and classes.

    One match in one layer fails, whatever the others say. Without a match, a layer that could not
    be read, or a list of mounts that was cut off, is an error. A volume whose driver serves other
    file systems too, and which names no server, warns.
    """

    def cpfs(fstype: str, source: str) -> bool:
        return fstype in parameters.fstypes or any(
            fnmatchcase(source, pattern) for pattern in parameters.sources
        )

    def mounted() -> list[str]:
        mounts = items[MOUNTS]
        matches = [
            f"mounted: {mount.source} on {mount.target} ({mount.fstype})"
            for mount in mounts.rows
            if cpfs(mount.fstype, mount.source)
        ]
        if mounts.truncated and not matches:
            raise Unreadable(MOUNTS.name, "the list was cut off, and what is left has no match")
        return matches

    def defined() -> list[str]:
        storage = items[STORAGE]
        if storage is None:
            return []
        return [
            f"persistent volume {volume.name} ({volume.driver} {volume.server})"
            for volume in storage.persistent_volumes
            if volume.driver in parameters.drivers or cpfs("", volume.server)
        ] + [
            f"storage class {storage_class.name} ({storage_class.provisioner})"
            for storage_class in storage.storage_classes
            if storage_class.provisioner in parameters.drivers
        ]

    found, unreadable = gather(
        mounted,
        lambda: [
            f"/etc/fstab: {line.source} on {line.target} ({line.fstype})"
            for line in items[FSTAB]
            if cpfs(line.fstype, line.source)
        ],
        lambda: [
            f"mount unit {unit.unit}: {unit.what} on {unit.where} ({unit.type})"
            for unit in items[MOUNT_UNITS]
            if cpfs(unit.type, unit.what)
        ],
        defined,
    )
    if found:
        return Outcome.failed(listing(found), "CPFS is in use on this node.")
    if unreadable:
        raise unreadable
    storage = items[STORAGE]
    doubtful = [
        f"persistent volume {volume.name} ({volume.driver})"
        for volume in (storage.persistent_volumes if storage else ())
        if volume.driver in parameters.shared_drivers and not volume.server
    ]
    if doubtful:
        return Outcome.warned(
            listing(doubtful),
            "These volumes may be CPFS: their driver serves other file systems too.",
        )
    return Outcome.passed("none", "No layer shows a CPFS volume.")
