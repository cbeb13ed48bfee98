"""What `orlop run` can be told about the container, and the spec that follows from it."""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Sequence
from pathlib import Path

from orlop.cli import options, run_network, run_resources, run_security, run_values, user_namespaces
from orlop.client import Connection, containers
from orlop.errors import FailedPrecondition, InvalidArgument
from orlop.oci import spec_resources as resources
from orlop.oci.spec import Bind, ContainerSpec, Tmpfs

_SHM_SIZE = 64 << 20
_OTHERS = "container:"
_NAMESPACES = {
    "pid": ("private", "host", f"{_OTHERS}NAME"),
    "ipc": ("private", "shareable", "none", "host", f"{_OTHERS}NAME"),
    "uts": ("private", "host"),
}
_UNIFIED = Path("/sys/fs/cgroup/cgroup.controllers")
_INITS = ("docker-init", "tini-static", "tini")


def configure(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("-e", "--env", action="append", default=[], metavar="NAME[=VALUE]", help="set a variable")
    add("--env-file", action="append", default=[], metavar="FILE", help="variables, one a line")
    add("-v", "--volume", action="append", default=[], metavar="SOURCE:TARGET[:ro]",
        help="show a host path inside")  # fmt: skip
    add("--mount", action="append", default=[], metavar="type=…,dst=…", help="bind or tmpfs")
    add("--tmpfs", action="append", default=[], metavar="TARGET[:OPTIONS]",
        help="a filesystem in memory")  # fmt: skip
    add("--device", action="append", default=[], metavar="DEVICE[:TARGET][:rwm]",
        help="show a device of the host, or VENDOR/CLASS=NAME by CDI")  # fmt: skip
    add("-w", "--workdir", help="working directory")
    add("-u", "--user", metavar="USER[:GROUP]", help="names or numbers")
    add(
        "-h",
        "--hostname",
        help="host name inside (default: the id, or whose network it has)",
    )
    add("--domainname", help="NIS domain name inside")
    run_network.configure(parser)
    for name, modes in _NAMESPACES.items():
        add(f"--{name}", default="private", metavar="WHOSE",
            help=f"whose {name} namespace: {', '.join(modes)} (%(default)s)")  # fmt: skip
    add("--cgroupns", choices=["private", "host"],
        help="whose cgroup namespace (cgroup v2: private, v1: host)")  # fmt: skip
    add("--userns", default="host", metavar="IDS", help=user_namespaces.HELP)
    add("--shm-size", type=options.memory, default=_SHM_SIZE, metavar="SIZE", help="of /dev/shm")
    run_resources.configure(parser)
    run_resources.configure_fixed(parser)
    add("--ulimit", action="append", default=[], metavar="NAME=SOFT[:HARD]", help="such as nofile")
    add("--sysctl", action="append", default=[], metavar="NAME=VALUE", help="of a namespace")
    add("--oom-score-adj", type=int, metavar="N", help="-1000 to 1000: who dies first")
    add("--storage-opt", action="append", default=[], metavar="NAME=VALUE",
        help="of its filesystem: size=10g, inodes=N, volatile")  # fmt: skip
    add("--read-only", action="store_true", help="read-only root filesystem")
    add("--privileged", action="store_true", help="all capabilities and devices, no filters")
    add("--cap-add", action="append", default=[], metavar="CAP", help="grant a capability")
    add("--cap-drop", action="append", default=[], metavar="CAP", help="take a capability")
    add("--security-opt", action="append", default=[], metavar="OPTION", help=run_security.KNOWN)
    add("--gpus", action="append", default=[], metavar="GPUS",
        help="all, a number, or device=ID,…: devices nvidia.com/gpu by CDI")  # fmt: skip
    add("--cdi-spec-dirs", default="", metavar="FOLDER,…",
        help="where devices are described (/etc/cdi,/var/run/cdi)")  # fmt: skip
    add("--group-add", action="append", default=[], metavar="GROUP", help="name or number")
    add("--annotation", action="append", default=[], metavar="KEY=VALUE", help="for the runtime")
    add("--cgroup-parent", default="", metavar="PATH", help="cgroup to put it in")
    add("--init", action="store_true", help="a first process that reaps, and passes on signals")
    add("--init-path", default="", metavar="PROGRAM", help="which one (tini, from PATH)")
    add("--rdt-class", default="", metavar="CLASS", help="of Intel's resource director")


def environment(args: argparse.Namespace) -> dict[str, str]:
    """The variables of files, and over them those of the command line."""
    lines = [line for path in args.env_file for line in options.lines_of(path)]
    return options.environment([*lines, *args.env])


def namespace_labels(args: argparse.Namespace, connection: Connection) -> dict[str, str]:
    """What tells the daemon whose namespaces to share; NotFound for a container that is not there.

    Raises InvalidArgument for what is no namespace's mode.
    """
    shared = {}
    for kind, modes in _NAMESPACES.items():
        whose = getattr(args, kind)
        prefix, colon, name = whose.partition(":")
        if colon and name and f"{prefix}:NAME" in modes:
            shared[kind] = containers.get(connection, name).id
        elif colon or whose not in modes:
            raise InvalidArgument(f'--{kind} "{whose}" is none of {", ".join(modes)}')
    return {containers.NAMESPACES_LABEL: json.dumps(shared)} if shared else {}


def spec(
    args: argparse.Namespace,
    container: str,
    network: run_network.Choice,
    volumes: Sequence[Bind] = (),
) -> ContainerSpec:
    """What is asked for, with volumes of others; InvalidArgument for what makes no sense."""
    mounts = [run_values.mount(text) for text in args.mount]
    binds = [each for each in mounts if isinstance(each, Bind)]
    tmpfs = [each for each in mounts if isinstance(each, Tmpfs)]
    sysctls = dict(run_values.sysctl(text) for text in args.sysctl)
    if network.namespace == "host" and any(name.startswith("net.") for name in sysctls):
        raise InvalidArgument("sysctls of net.* would be the host's with --net host")
    if args.domainname:
        sysctls["kernel.domainname"] = args.domainname
    uids, gids = user_namespaces.parse(args.userns)
    others = any(getattr(args, kind).startswith(_OTHERS) for kind in _NAMESPACES)
    if uids and (args.privileged or network.namespace == "host" or others or _shared(args)):
        raise InvalidArgument("--userns excludes --privileged and namespaces of host and others")
    security = run_security.parse(args.security_opt)
    if args.memory_swap and not args.memory:
        raise InvalidArgument("--memory-swap needs --memory")
    shared = _shared(args)
    own = os.uname().nodename if network.namespace == "host" else container
    hostname = args.hostname or network.hostname or own
    if "uts" in shared:
        if args.hostname:
            raise InvalidArgument("--hostname would be the host's with --uts host")
        hostname = ""
    return ContainerSpec(
        args=(),
        terminal=args.tty,
        hostname=hostname,
        network=network.namespace,
        binds=[*volumes, *(run_values.bind(text) for text in args.volume), *binds],
        tmpfs=[*(run_values.tmpfs(text) for text in args.tmpfs), *tmpfs],
        devices=[
            each for text in args.device if "=" not in text for each in run_values.devices(text)
        ],
        read_only=args.read_only,
        privileged=args.privileged,
        no_new_privileges=security.no_new_privileges,
        seccomp=security.seccomp,
        apparmor=security.apparmor,
        selinux=security.selinux_label,
        masked=security.masked,
        cap_add=args.cap_add,
        cap_drop=args.cap_drop,
        memory=args.memory,
        memory_swap=args.memory_swap,
        cpus=args.cpus,
        cpu_shares=args.cpu_shares,
        cpuset=args.cpuset_cpus,
        pids=args.pids_limit,
        ulimits=dict(run_values.ulimit(text) for text in args.ulimit),
        sysctls=sysctls,
        oom_score_adj=args.oom_score_adj,
        shm_size=0 if args.ipc == "none" else args.shm_size or _SHM_SIZE,
        host_namespaces=frozenset(shared),
        private_cgroup=args.cgroupns == "private" or (not args.cgroupns and _UNIFIED.exists()),
        annotations=dict(text.partition("=")[::2] for text in args.annotation),
        resources=resources.merged(run_resources.extra(args), run_resources.fixed(args)),
        uid_map=uids,
        gid_map=gids,
        init=_init(args) if args.init or args.init_path else "",
        rdt_class=args.rdt_class,
    )


def _shared(args: argparse.Namespace) -> set[str]:
    """The namespaces that are the host's."""
    return {name for name in _NAMESPACES if getattr(args, name) == "host"}


def _init(args: argparse.Namespace) -> str:
    if args.init_path:
        if not os.access(args.init_path, os.X_OK):
            raise InvalidArgument(f'init "{args.init_path}" is no program of this host')
        return str(Path(args.init_path).absolute())
    import shutil

    for name in _INITS:
        if found := shutil.which(name):
            return found
    raise FailedPrecondition(
        f"--init needs one of {', '.join(_INITS)} in PATH (Debian: tini), or --init-path"
    )


def cdi_devices(args: argparse.Namespace) -> list[str]:
    """The CDI devices that options and annotations name."""
    named = [text for text in args.device if "=" in text]
    annotated = [text for text in args.annotation if text.startswith("cdi.k8s.io/")]
    if not (named or annotated or args.gpus):
        return []  # the usual case, and the module takes its time
    from orlop.oci import cdi

    wanted = [name for text in args.gpus for name in cdi.gpus(text)]
    annotations = dict(text.partition("=")[::2] for text in annotated)
    return [*named, *wanted, *cdi.of_annotations(annotations)]
