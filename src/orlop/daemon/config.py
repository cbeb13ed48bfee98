"""What can be configured, and what each part is without a word of configuration."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

DEFAULT_FILE = Path("/etc/orlop/config.toml")
LEVELS = ("debug", "info", "warning", "error")
FORMATS = ("text", "json")
SHARING = ("shared", "isolated")
SNAPSHOTTERS = ("overlayfs", "erofs", "btrfs", "native")
NETWORKS = ("bridge", "host", "none")
FIREWALLS = ("auto", "nftables", "iptables")
OTLP = ("http/protobuf", "grpc")
OWN_SHIM = "orlop"
# Unix socket paths hold 107 bytes; a shim's socket adds "/s/" and 32 digits to the state folder.
SOCKET_PATH_MAX = 107
STATE_MAX = SOCKET_PATH_MAX - len("/s/") - 32


class ConfigError(Exception):
    """A configuration that cannot be used; the text is for the operator."""


@dataclass(frozen=True, slots=True)
class Grpc:
    """The sockets that clients use; `address` "" is `orlop.sock` in the state folder."""

    address: str = ""
    uid: int = -1
    gid: int = -1

    @property
    def private(self) -> bool:
        """Whether only the daemon's own user may connect."""
        return self.uid < 0 and self.gid < 0

    @property
    def mode(self) -> int:
        return 0o600 if self.private else 0o660


@dataclass(frozen=True, slots=True)
class Log:
    level: str = "info"
    format: str = "text"


@dataclass(frozen=True, slots=True)
class Content:
    sharing: str = "shared"
    verity: bool = False


@dataclass(frozen=True, slots=True)
class Snapshots:
    """`serve` is the socket at which other daemons use the snapshotters; "" is none.

    Quotas, of bytes and inodes, are what a container may write; 0 is no limit. `volatile` is
    whether that may be lost when the machine stops. `slow_chown` is whether files are copied for
    other owners where mounts cannot show them. `sync` is whether unpacked layers are on disk before
    they count.
    """

    default: str = "overlayfs"
    serve: str = ""
    quota_size: int = 0
    quota_inodes: int = 0
    volatile: bool = False
    slow_chown: bool = False
    sync: bool = True


@dataclass(frozen=True, slots=True)
class ProxyPlugin:
    """A service by somebody else, under containerd's keys."""

    type: str = ""
    address: str = ""
    platform: str = ""
    capabilities: tuple[str, ...] = ()
    exports: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Registry:
    """Where `hosts.toml` files are; folders joined by colons."""

    config_path: str = "/etc/orlop/certs.d:/etc/containerd/certs.d"

    @property
    def folders(self) -> list[Path]:
        return [Path(each) for each in self.config_path.split(":") if each]


@dataclass(frozen=True, slots=True)
class Diff:
    max_size: int = 64 << 30
    max_entries: int = 10_000_000
    max_ratio: int = 200
    max_zeros: int = 1 << 38


@dataclass(frozen=True, slots=True)
class Serve:
    """The registry; `address` "" is none."""

    address: str = ""
    namespace: str = "default"
    name: str = ""
    push: bool = False
    max_blob: int = 64 << 30
    cert: str = ""
    key: str = ""
    client_ca: str = ""
    plain_http: bool = False


@dataclass(frozen=True, slots=True)
class Trust:
    """The file of policies, by repository."""

    policy: str = "/etc/orlop/trust.toml"


@dataclass(frozen=True, slots=True)
class ImageVerifier:
    """The programs that every pull asks; the time limit is in seconds."""

    bin_dir: str = "/opt/containerd/image-verifier/bin"
    max_verifiers: int = 10
    per_verifier_timeout: int = 10


@dataclass(frozen=True, slots=True)
class StreamProcessor:
    """A program that turns layers of the media types `accepts` into one that `returns` names."""

    accepts: tuple[str, ...] = ()
    returns: str = ""
    path: str = ""
    args: tuple[str, ...] = ()
    env: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Restart:
    """Seconds between the rounds of the restart monitor."""

    interval: int = 10


@dataclass(frozen=True, slots=True)
class Gc:
    """When garbage is collected; delays are in seconds."""

    pause_threshold: float = 0.02
    deletion_threshold: int = 0
    mutation_threshold: int = 100
    schedule_delay: float = 0.0
    startup_delay: float = 0.1


@dataclass(frozen=True, slots=True)
class Network:
    """The first network's interface, pools of subnets, packet filter, and where CNI's files are."""

    default: str = "bridge"
    bridge: str = "orlop0"
    firewall: str = "auto"
    router: bool = False
    pool: str = "10.88.0.0/13"
    pool_prefix: int = 20
    pool6: str = "fd6f:726c:6f70::/48"
    pool6_prefix: int = 64
    cni_config: str = "/etc/cni/net.d"
    cni_plugins: str = "/opt/cni/bin:/usr/lib/cni"
    cni_timeout: int = 60

    @property
    def cni_folders(self) -> list[Path]:
        return [Path(each) for each in self.cni_plugins.split(":") if each]


@dataclass(frozen=True, slots=True)
class Shown:
    """Where something is shown by HTTP, and to whom; `address` "" is nowhere."""

    address: str = ""
    token: str = ""
    cert: str = ""
    key: str = ""
    client_ca: str = ""
    public: bool = False


@dataclass(frozen=True, slots=True)
class Metrics(Shown):
    """Where metrics are scraped, and what they tell."""

    labels: tuple[str, ...] = ()
    max_containers: int = 2000
    filesystem_age: int = 60


@dataclass(frozen=True, slots=True)
class Tracing:
    """Where spans are sent; `endpoint` "" is where the environment says, or nowhere."""

    endpoint: str = ""
    protocol: str = ""
    insecure: bool = False
    sampling_ratio: float = 1.0


@dataclass(frozen=True, slots=True)
class Status(Shown):
    """Where the status page is; `hosts` are more names that it may be called by."""

    hosts: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Config:
    """All of it; see `default.toml` for the meaning of each value."""

    root: str = "/var/lib/orlop"
    state: str = "/run/orlop"
    grpc: Grpc = field(default_factory=Grpc)
    log: Log = field(default_factory=Log)
    content: Content = field(default_factory=Content)
    snapshots: Snapshots = field(default_factory=Snapshots)
    diff: Diff = field(default_factory=Diff)
    serve: Serve = field(default_factory=Serve)
    registry: Registry = field(default_factory=Registry)
    trust: Trust = field(default_factory=Trust)
    image_verifier: ImageVerifier = field(default_factory=ImageVerifier)
    restart: Restart = field(default_factory=Restart)
    gc: Gc = field(default_factory=Gc)
    network: Network = field(default_factory=Network)
    metrics: Metrics = field(default_factory=Metrics)
    tracing: Tracing = field(default_factory=Tracing)
    status: Status = field(default_factory=Status)
    runtimes: Mapping[str, str] = field(default_factory=dict)
    stream_processors: Mapping[str, StreamProcessor] = field(default_factory=dict)
    proxy_plugins: Mapping[str, ProxyPlugin] = field(default_factory=dict)

    @property
    def address(self) -> str:
        """The path of the gRPC socket; the ttrpc one adds `.ttrpc`."""
        return self.grpc.address or f"{self.state}/orlop.sock"

    @property
    def ttrpc_address(self) -> str:
        return f"{self.address}.ttrpc"
