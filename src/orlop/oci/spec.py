"""The runtime spec of a container made from an image: tight by default, as Docker's is.

`build` returns the `config.json` object of the OCI runtime spec (config.md, config-linux.md).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from orlop.errors import InvalidArgument
from orlop.oci import spec_resources as resources
from orlop.oci.seccomp import default_profile
from orlop.oci.spec_resources import Device
from orlop.oci.users import User

SPEC_VERSION = "1.0.2"
INIT = "/sbin/docker-init"
DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

DEFAULT_CAPABILITIES = (
    "CAP_AUDIT_WRITE",
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_MKNOD",
    "CAP_NET_BIND_SERVICE",
    "CAP_NET_RAW",
    "CAP_SETFCAP",
    "CAP_SETGID",
    "CAP_SETPCAP",
    "CAP_SETUID",
    "CAP_SYS_CHROOT",
)
# In the kernel's order: position is number (capability.h).
_CAPABILITY_NAMES = """
    CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID KILL SETGID SETUID SETPCAP LINUX_IMMUTABLE
    NET_BIND_SERVICE NET_BROADCAST NET_ADMIN NET_RAW IPC_LOCK IPC_OWNER SYS_MODULE SYS_RAWIO
    SYS_CHROOT SYS_PTRACE SYS_PACCT SYS_ADMIN SYS_BOOT SYS_NICE SYS_RESOURCE SYS_TIME SYS_TTY_CONFIG
    MKNOD LEASE AUDIT_WRITE AUDIT_CONTROL SETFCAP MAC_OVERRIDE MAC_ADMIN SYSLOG WAKE_ALARM
    BLOCK_SUSPEND AUDIT_READ PERFMON BPF CHECKPOINT_RESTORE
"""
ALL_CAPABILITIES = tuple(f"CAP_{name}" for name in _CAPABILITY_NAMES.split())

_MASKED = (
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
)
_OF_IPC = ("/dev/shm", "/dev/mqueue")
_READ_ONLY = ("/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger")


class Bind(NamedTuple):
    """A host path shown inside the container; `propagation` is that of mount(8)."""

    source: str
    target: str
    read_only: bool = False
    propagation: str = "rprivate"
    recursive: bool = True


class Tmpfs(NamedTuple):
    """A filesystem in memory; `options` are those of mount(8)."""

    target: str
    options: Sequence[str] = ()


class IdRange(NamedTuple):
    """Ids of a user namespace: `size` of them from `inside` on are those from `outside` on."""

    inside: int
    outside: int
    size: int


class ContainerSpec(NamedTuple):
    """What a user may ask of a container; `build` turns it into a runtime spec.

    `network` is "none" (a namespace of its own with loopback only, which others may connect),
    "host", or the path of a namespace's file. `memory` is in bytes,
    `cpus` in whole-CPU units; 0 is unlimited, and `memory_swap` is both together, -1 without limit.
    `cgroups_path` is where runc makes the cgroup. `host_namespaces` are those of pid, ipc, uts and
    cgroup that are the host's. `ulimits` are soft and hard by name, as `nofile`. `seccomp` is the
    default profile, none, or the path of one.
    `shm_size` is that of /dev/shm, 0 for none.
    `masked` is whether paths of /proc and /sys are hidden or read-only. `resources` are limits that
    are written as in the runtime spec, and count beside the others. `init` is the path of a program
    of the host that runs as the first process and starts the real one. `uid_map` and `gid_map` are
    of a user namespace of its own, if there are any. `rootless` is whether whoever runs it is
    root in a user namespace only.
    """

    args: Sequence[str]
    env: Mapping[str, str] = {}
    cwd: str = "/"
    user: User = User()
    terminal: bool = False
    hostname: str = ""
    network: str = "none"
    binds: Sequence[Bind] = ()
    read_only: bool = False
    privileged: bool = False
    no_new_privileges: bool = False
    seccomp: bool | str = True
    apparmor: str = ""
    selinux: str = ""
    masked: bool = True
    init: str = ""
    rdt_class: str = ""
    cap_add: Sequence[str] = ()
    cap_drop: Sequence[str] = ()
    memory: int = 0
    cpus: float = 0.0
    pids: int = 0
    memory_swap: int = 0
    cpu_shares: int = 0
    cpuset: str = ""
    oom_score_adj: int | None = None
    ulimits: Mapping[str, tuple[int, int]] = {}
    sysctls: Mapping[str, str] = {}
    tmpfs: Sequence[Tmpfs] = ()
    devices: Sequence[Device] = ()
    shm_size: int = 64 << 20
    host_namespaces: frozenset[str] = frozenset()
    resources: Mapping[str, Any] = {}
    uid_map: Sequence[IdRange] = ()
    gid_map: Sequence[IdRange] = ()
    rootless: bool = False
    private_cgroup: bool = False
    cgroups_path: str = ""
    rootfs: str = "rootfs"
    annotations: Mapping[str, str] = {}


def build(wanted: ContainerSpec, *, available: Sequence[str] = ALL_CAPABILITIES) -> dict[str, Any]:
    """The runtime spec for `wanted`; InvalidArgument says what is wrong with it.

    `available` are the capabilities that this kernel and process can grant. A privileged container
    gets all of them, the host's devices, and no masks or filters.
    """
    if wanted.network not in ("none", "host") and not wanted.network.startswith("/"):
        raise InvalidArgument(f'network "{wanted.network}" is not "none", "host" or a path')
    capabilities = _capabilities(wanted, available)
    linux: dict[str, Any] = {
        "cgroupsPath": wanted.cgroups_path,
        "namespaces": _namespaces(wanted),
        "resources": resources.merged(resources.limits(wanted), wanted.resources),
    }
    if wanted.uid_map:
        linux["uidMappings"] = [_id_range(each) for each in wanted.uid_map]
        linux["gidMappings"] = [_id_range(each) for each in wanted.gid_map]
    if wanted.rdt_class:
        linux["intelRdt"] = {"closID": wanted.rdt_class}
    if wanted.selinux:
        linux["mountLabel"] = selinux_mount_label(wanted.selinux)
    if wanted.sysctls:
        linux["sysctl"] = dict(wanted.sysctls)
    if wanted.privileged:
        linux["devices"] = list(resources.host_devices(Path("/dev")))
    else:
        if wanted.devices:
            linux["devices"] = [resources.node(each) for each in wanted.devices]
        if wanted.masked:
            linux["maskedPaths"] = list(_MASKED)
            linux["readonlyPaths"] = list(_READ_ONLY)
        if isinstance(wanted.seccomp, str):
            from orlop.oci import seccomp_file  # noqa: PLC0415 - few have a profile of their own

            linux["seccomp"] = seccomp_file.load(wanted.seccomp, capabilities)
        elif wanted.seccomp:
            linux["seccomp"] = default_profile(capabilities)
    spec: dict[str, Any] = {
        "ociVersion": SPEC_VERSION,
        "process": process(wanted, capabilities),
        "root": {"path": wanted.rootfs, "readonly": wanted.read_only},
        "mounts": _mounts(wanted),
        "annotations": dict(wanted.annotations),
        "linux": linux,
    }
    if wanted.hostname:
        spec["hostname"] = wanted.hostname
    return spec


def selinux_mount_label(process_label: str) -> str:
    """The label of a container's files that goes with that of its process."""
    user, _, _, level = process_label.split(":", 3)
    return f"{user}:object_r:container_file_t:{level}"


def process(wanted: ContainerSpec, capabilities: Sequence[str]) -> dict[str, Any]:
    """The `process` object: also what an exec needs."""
    if not wanted.args:
        raise InvalidArgument("no command: neither the image nor the command line names one")
    if not wanted.cwd.startswith("/"):
        raise InvalidArgument(f'working directory "{wanted.cwd}" is not an absolute path')
    user: dict[str, Any] = {"uid": wanted.user.uid, "gid": wanted.user.gid}
    groups = wanted.user.additional_gids
    if groups or not wanted.rootless:  # root of a user namespace may add none
        # Its own is one of them: a program that sheds it must not gain by that (CVE-2022-36109).
        user["additionalGids"] = list(dict.fromkeys([wanted.user.gid, *groups]))
    held = list(capabilities)
    made: dict[str, Any] = {
        "terminal": wanted.terminal,
        "user": user,
        "args": list(wanted.args),
        "env": [f"{key}={value}" for key, value in environment(wanted).items()],
        "cwd": wanted.cwd,
        "capabilities": {"bounding": held, "effective": held, "permitted": held},
        "noNewPrivileges": wanted.no_new_privileges,
    }
    if wanted.ulimits:
        made["rlimits"] = [
            {"type": f"RLIMIT_{name.upper()}", "soft": soft, "hard": hard}
            for name, (soft, hard) in wanted.ulimits.items()
        ]
    if wanted.init:
        made["args"] = [INIT, "--", *wanted.args]
    if wanted.apparmor:
        made["apparmorProfile"] = wanted.apparmor
    if wanted.selinux:
        made["selinuxLabel"] = wanted.selinux
    if wanted.oom_score_adj is not None or not wanted.rootless:
        # Unsaid, it would be that of the daemon, which the kernel is to spare.
        made["oomScoreAdj"] = wanted.oom_score_adj or 0
    return made


def environment(wanted: ContainerSpec) -> dict[str, str]:
    """The variables of the process: PATH, HOSTNAME, HOME and TERM unless given, then the given."""
    env = {"PATH": DEFAULT_PATH}
    if wanted.hostname:
        env["HOSTNAME"] = wanted.hostname
    if wanted.terminal:
        env["TERM"] = "xterm"
    env.update(wanted.env)
    env.setdefault("HOME", wanted.user.home)
    return env


def _capabilities(wanted: ContainerSpec, available: Sequence[str]) -> list[str]:
    if wanted.privileged:
        return list(available)
    drop = {capability_name(name) for name in wanted.cap_drop}
    add = {capability_name(name) for name in wanted.cap_add}
    if beyond := add - {"CAP_ALL", *available}:
        raise InvalidArgument(f'capability "{min(beyond)}" is not ours to grant on this host')
    base = set() if "CAP_ALL" in drop else set(DEFAULT_CAPABILITIES) - drop
    base |= set(available) if "CAP_ALL" in add else add
    return [name for name in ALL_CAPABILITIES if name in base and name in available]


def capability_name(name: str) -> str:
    """`net_admin`, `NET_ADMIN` and `CAP_NET_ADMIN` are one; InvalidArgument for an unknown one."""
    full = name.upper() if name.upper().startswith("CAP_") else f"CAP_{name.upper()}"
    if full != "CAP_ALL" and full not in ALL_CAPABILITIES:
        raise InvalidArgument(f'capability "{name}" is not one that Linux has')
    return full


def _id_range(each: IdRange) -> dict[str, int]:
    return {"containerID": each.inside, "hostID": each.outside, "size": each.size}


def _namespaces(wanted: ContainerSpec) -> list[dict[str, str]]:
    kinds = [each for each in ("pid", "ipc", "uts") if each not in wanted.host_namespaces]
    kinds += ["mount", *(["user"] if wanted.uid_map else [])]
    if wanted.private_cgroup:
        kinds.append("cgroup")
    found = [{"type": kind} for kind in kinds]
    if wanted.network.startswith("/"):
        found.append({"type": "network", "path": wanted.network})
    elif wanted.network == "none":
        found.append({"type": "network"})
    return found


def _mounts(wanted: ContainerSpec) -> list[dict[str, Any]]:
    access = "rw" if wanted.privileged else "ro"
    quiet = ["nosuid", "noexec", "nodev"]
    memory = [*quiet, "mode=1777", f"size={wanted.shm_size}"]
    mounts = [
        _mount("/proc", "proc", "proc", quiet),
        _mount("/dev", "tmpfs", "tmpfs", ["nosuid", "strictatime", "mode=755", "size=65536k"]),
        _mount(
            "/dev/pts",
            "devpts",
            "devpts",
            ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"],
        ),
        *([_mount("/dev/shm", "tmpfs", "shm", memory)] if wanted.shm_size else []),
        _mount("/dev/mqueue", "mqueue", "mqueue", quiet),
        _mount("/sys", "sysfs", "sysfs", [*quiet, access]),
        _mount("/sys/fs/cgroup", "cgroup", "cgroup", [*quiet, "relatime", access]),
    ]
    if wanted.rootless:
        mounts = [_as_it_is(each, wanted) for each in mounts]
    if "ipc" in wanted.host_namespaces:
        # POSIX shared memory and queues belong to the namespace.
        mounts = [each for each in mounts if each["destination"] not in _OF_IPC]
        mounts += [_bind_mount(Bind(each, each)) for each in _OF_IPC if Path(each).is_dir()]
    init = [Bind(wanted.init, INIT, read_only=True)] if wanted.init else []
    own = [_bind_mount(each) for each in (*init, *wanted.binds)]
    own += [
        _mount(t.target, "tmpfs", "tmpfs", ["nosuid", "nodev", "noexec", *t.options])
        for t in wanted.tmpfs
    ]
    # What is below another's target would be hidden by that, were it first.
    return mounts + sorted(own, key=lambda each: len(Path(each["destination"]).parts))


def _as_it_is(mount: dict[str, Any], wanted: ContainerSpec) -> dict[str, Any]:
    """The host's mount, instead of a new one of a filesystem that shows a namespace of the host.

    To make that, one must be root where the namespace comes from.
    """
    target = mount["destination"]
    shows = {"/sys": wanted.network == "host", "/proc": "pid" in wanted.host_namespaces}
    if not shows.get(target):
        return mount
    return _mount(target, "bind", target, ["rbind", "rprivate", *mount["options"]])


def _bind_mount(bind: Bind) -> dict[str, Any]:
    access = "ro" if bind.read_only else "rw"
    kind = "rbind" if bind.recursive else "bind"
    return _mount(bind.target, "bind", bind.source, [kind, bind.propagation, access])


def _mount(target: str, kind: str, source: str, options: Sequence[str]) -> dict[str, Any]:
    return {"destination": target, "type": kind, "source": source, "options": list(options)}
