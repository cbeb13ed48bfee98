"""One boot of the virtual machine: it runs a script and ends with its exit status."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from tests.vm.disk import CHECKOUT, write_disk
from tests.vm.image import ready_image

TIMED_OUT = 124
NO_ANSWER = 125


def run(script: str, *, limit: float, shell: bool = False, parameters: str = "") -> int:
    """Boot the machine and run a shell script in the checkout; its exit status.

    What it prints goes to standard output as it comes; with `shell` it owns the terminal instead.
    `parameters` are more of the kernel's command line.
    A machine that is not done after `limit` seconds is ended, and its console shown.
    """
    image = ready_image()
    with _folder() as folder:
        disk, console, status = folder / "checkout.img", folder / "console", folder / "status"
        write_disk(disk, script, (image / "python").read_text().strip())
        terminal = "stdio,signal=off" if shell else f"file,path={console}"
        command = _qemu(image, disk, status, terminal, parameters)
        if shell:
            return subprocess.run(command, check=False).returncode
        timed_out = False
        with (
            subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE) as qemu,
            _passed_on(qemu.stdout),
        ):
            try:
                qemu.wait(limit)
            except subprocess.TimeoutExpired:
                timed_out = True
            finally:
                qemu.kill()
        answer = status.read_text().strip() if status.exists() else ""
        if answer and not timed_out:
            return int(answer)
        what = f"not done after {limit:.0f} s" if timed_out else "ended without an answer"
        print(f"\nvirtual machine: {what}; the end of its console:", file=sys.stderr)
        print(*console.read_text(errors="replace").splitlines()[-40:], sep="\n", file=sys.stderr)
        return TIMED_OUT if timed_out else NO_ANSWER


def _qemu(image: Path, disk: Path, status: Path, console: str, parameters: str) -> list[str]:
    # Modules for hardware of old PCs would take seconds to find nothing.
    kernel = (
        "console=ttyS0 quiet panic=-1 apparmor=1 security=apparmor systemd.show_status=false "
        "modprobe.blacklist=ata_generic,ata_piix,floppy,i2c_piix4,kvm,pcspkr,psmouse " + parameters
    )
    devices = ["virtio-rng-pci", "virtio-serial-pci"]
    means: list[str] = []
    for number in (0, 1):  # two cards on one cable that leads nowhere else
        means += ["-netdev", f"hubport,id=card{number},hubid=0"]
        devices.append(f"virtio-net-pci,netdev=card{number},romfile=")
    backends = [f"{console},id=console"]
    for name, path in (("output", Path("/dev/stdout")), ("status", status)):
        backends.append(f"file,path={path},id={name}")
        devices.append(f"virtserialport,chardev={name},name={name}")
    for name, path in (("root", image / "root.img"), ("host", disk)):
        devices.append(f"virtio-blk-pci,drive={name}")
        # Writes go to a temporary file that has no name.
        means += ["-drive", f"file={path},id={name},if=none,format=raw,snapshot=on"]
    return [
        *("setpriv", "--pdeathsig", "KILL"),  # whatever ends this process ends the machine
        *("qemu-system-x86_64", "-nodefaults", "-no-user-config", "-no-reboot"),
        *("-machine", "pc,usb=off,hpet=off", "-accel", "tcg,thread=multi", "-cpu", "Nehalem"),
        *("-smp", "2", "-m", "2048", "-display", "none", "-append", kernel),
        *("-kernel", str(image / "kernel"), "-initrd", str(image / "initrd")),
        *means,
        *(word for backend in backends for word in ("-chardev", backend)),
        *(word for device in devices for word in ("-device", device)),
        *("-serial", "chardev:console"),
    ]


@contextmanager
def _folder() -> Iterator[Path]:
    """A folder on the checkout's file system, which goes with the context."""
    (CHECKOUT / "build").mkdir(exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix="vm-", dir=CHECKOUT / "build"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder)


@contextmanager
def _passed_on(output: IO[bytes] | None) -> Iterator[None]:
    """Whatever arrives goes to standard output at once."""
    assert output is not None

    def copy() -> None:
        while data := output.read1(1 << 16):  # type: ignore[attr-defined]
            sys.stdout.write(data.decode(errors="replace"))
            sys.stdout.flush()

    thread = threading.Thread(target=copy)
    thread.start()
    try:
        yield
    finally:
        thread.join()
