"""Whether KVM really works here: some hosts have a /dev/kvm under which no stock kernel boots."""

import json
import os
import platform
import subprocess
from pathlib import Path

from lab.progress import say
from lab.vm.folders import cache_folder
from lab.vm.hostpackages import QEMU, qemu_version
from lab.vm.image import Image, digest

_PROBE_SECONDS = 10


def host_cpu() -> str:
    """Model and features of the host's processor, as the kernel tells them."""
    wanted = ("vendor_id", "model name", "stepping", "flags")
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").split("\n\n")[0].splitlines()
    return "\n".join(line for line in lines if line.startswith(wanted))


def host_key() -> str:
    """Name what decides whether KVM works: QEMU, the running kernel and the processor."""
    version = ".".join(map(str, qemu_version()))
    return digest({"qemu": version, "kernel": platform.release(), "cpu": host_cpu()})


def choose(image: Image) -> str:
    """Give "kvm" where a kernel really boots under it, else "tcg"; the answer is remembered."""
    if not os.access("/dev/kvm", os.R_OK | os.W_OK):
        return "tcg"
    file = cache_folder() / "accelerator.json"
    known = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
    if (key := host_key()) not in known:
        known[key] = "kvm" if _boots(image) else "tcg"
        draft = file.with_suffix(f".{os.getpid()}")
        draft.write_text(json.dumps(known), encoding="utf-8")
        draft.replace(file)
        verdict = "works" if known[key] == "kvm" else "is there, but no kernel boots under it"
        say(f"probe: KVM {verdict}: using {known[key]}")
    answer: str = known[key]
    return answer


def _boots(image: Image) -> bool:
    # The kernel starts, runs one program and powers off: nothing less proves that KVM works.
    arguments = "console=ttyS0 panic=-1 rdinit=/bin/poweroff"
    try:
        done = subprocess.run(
            [
                QEMU,
                *("-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"),
                *("-machine", "q35", "-accel", "kvm", "-cpu", "host", "-smp", "2", "-m", "512M"),
                *("-kernel", str(image.kernel), "-initrd", str(image.initrd)),
                *("-append", arguments, "-serial", "stdio"),
            ],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            timeout=_PROBE_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return False
    return done.returncode == 0 and b"as init process" in done.stdout
