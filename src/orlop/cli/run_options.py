"""What `orlop run` can be told about the container, and the spec that follows from it."""

from __future__ import annotations

import argparse
import os

from orlop.cli import options
from orlop.errors import InvalidArgument
from orlop.oci.spec import Bind, ContainerSpec, Tmpfs

_SECURITY = ("no-new-privileges", "seccomp=unconfined")


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
        help="show a device of the host")  # fmt: skip
    add("-w", "--workdir", help="working directory")
    add("-u", "--user", metavar="USER[:GROUP]", help="names or numbers")
    add("--hostname", help="host name inside (default: the id)")
    add("--net", choices=["none", "host"], default="none", help="network (%(default)s)")
    for name in ("pid", "ipc", "uts"):
        add(f"--{name}", choices=["private", "host"], default="private",
            help=f"whose {name} namespace (%(default)s)")  # fmt: skip
    add("--cgroupns", choices=["private", "host"], default="host",
        help="whose cgroup namespace (%(default)s)")  # fmt: skip
    add("--shm-size", type=options.memory, default=64 << 20, metavar="SIZE", help="of /dev/shm")
    configure_resources(parser)
    add("--ulimit", action="append", default=[], metavar="NAME=SOFT[:HARD]", help="such as nofile")
    add("--sysctl", action="append", default=[], metavar="NAME=VALUE", help="of a namespace")
    add("--oom-score-adj", type=int, metavar="N", help="-1000 to 1000: who dies first")
    add("--read-only", action="store_true", help="read-only root filesystem")
    add("--privileged", action="store_true", help="all capabilities and devices, no filters")
    add("--cap-add", action="append", default=[], metavar="CAP", help="grant a capability")
    add("--cap-drop", action="append", default=[], metavar="CAP", help="take a capability")
    add("--security-opt", action="append", default=[], choices=_SECURITY, metavar="OPTION",
        help=" or ".join(_SECURITY))  # fmt: skip


def configure_resources(parser: argparse.ArgumentParser) -> None:
    """The limits that may change while a container runs."""
    add = parser.add_argument
    add("-m", "--memory", type=options.memory, default=0, metavar="SIZE",
        help="limit, such as 512m")  # fmt: skip
    add("--memory-swap", type=_swap, default=0, metavar="SIZE",
        help="limit of memory and swap together, -1 for none")  # fmt: skip
    add("--cpus", type=options.cpus, default=0.0, metavar="N", help="limit, such as 1.5")
    add("--cpu-shares", type=int, default=0, metavar="N", help="weight (1024 is usual)")
    add("--cpuset-cpus", default="", metavar="LIST", help="CPUs to run on, such as 0-2,4")
    add("--pids-limit", type=int, default=0, metavar="N", help="most processes at once")


def _swap(text: str) -> int:
    return -1 if text == "-1" else options.memory(text)


def environment(args: argparse.Namespace) -> dict[str, str]:
    """The variables of files, and over them those of the command line."""
    lines = [line for path in args.env_file for line in options.env_file(path)]
    return options.environment([*lines, *args.env])


def spec(args: argparse.Namespace, container: str) -> ContainerSpec:
    """What is asked for; InvalidArgument for what makes no sense."""
    mounts = [options.mount(text) for text in args.mount]
    binds = [each for each in mounts if isinstance(each, Bind)]
    tmpfs = [each for each in mounts if isinstance(each, Tmpfs)]
    sysctls = dict(options.sysctl(text) for text in args.sysctl)
    if args.net == "host" and any(name.startswith("net.") for name in sysctls):
        raise InvalidArgument("sysctls of net.* would be the host's with --net host")
    if args.memory_swap and not args.memory:
        raise InvalidArgument("--memory-swap needs --memory")
    shared = {name for name in ("pid", "ipc", "uts") if getattr(args, name) == "host"}
    hostname = args.hostname or (container if args.net == "none" else os.uname().nodename)
    if "uts" in shared:
        if args.hostname:
            raise InvalidArgument("--hostname would be the host's with --uts host")
        hostname = ""
    return ContainerSpec(
        args=(),
        terminal=args.tty,
        hostname=hostname,
        network=args.net,
        binds=[*(options.bind(text) for text in args.volume), *binds],
        tmpfs=[*(options.tmpfs(text) for text in args.tmpfs), *tmpfs],
        devices=[options.device(text) for text in args.device],
        read_only=args.read_only,
        privileged=args.privileged,
        no_new_privileges="no-new-privileges" in args.security_opt,
        seccomp="seccomp=unconfined" not in args.security_opt,
        cap_add=args.cap_add,
        cap_drop=args.cap_drop,
        memory=args.memory,
        memory_swap=args.memory_swap,
        cpus=args.cpus,
        cpu_shares=args.cpu_shares,
        cpuset=args.cpuset_cpus,
        pids=args.pids_limit,
        ulimits=dict(options.ulimit(text) for text in args.ulimit),
        sysctls=sysctls,
        oom_score_adj=args.oom_score_adj,
        shm_size=args.shm_size,
        host_namespaces=frozenset(shared),
        private_cgroup=args.cgroupns == "private",
    )
