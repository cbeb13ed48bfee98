from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class CheckRequest(_message.Message):
    __slots__ = ("quick", "repair", "drop", "registry")
    QUICK_FIELD_NUMBER: _ClassVar[int]
    REPAIR_FIELD_NUMBER: _ClassVar[int]
    DROP_FIELD_NUMBER: _ClassVar[int]
    REGISTRY_FIELD_NUMBER: _ClassVar[int]
    quick: bool
    repair: bool
    drop: bool
    registry: RegistryAccess
    def __init__(self, quick: _Optional[bool] = ..., repair: _Optional[bool] = ..., drop: _Optional[bool] = ..., registry: _Optional[_Union[RegistryAccess, _Mapping]] = ...) -> None: ...

class RegistryAccess(_message.Message):
    __slots__ = ("default_scheme", "host_dir", "auth_stream")
    DEFAULT_SCHEME_FIELD_NUMBER: _ClassVar[int]
    HOST_DIR_FIELD_NUMBER: _ClassVar[int]
    AUTH_STREAM_FIELD_NUMBER: _ClassVar[int]
    default_scheme: str
    host_dir: str
    auth_stream: str
    def __init__(self, default_scheme: _Optional[str] = ..., host_dir: _Optional[str] = ..., auth_stream: _Optional[str] = ...) -> None: ...

class CheckResponse(_message.Message):
    __slots__ = ("progress", "finding", "summary")
    PROGRESS_FIELD_NUMBER: _ClassVar[int]
    FINDING_FIELD_NUMBER: _ClassVar[int]
    SUMMARY_FIELD_NUMBER: _ClassVar[int]
    progress: CheckProgress
    finding: Finding
    summary: CheckSummary
    def __init__(self, progress: _Optional[_Union[CheckProgress, _Mapping]] = ..., finding: _Optional[_Union[Finding, _Mapping]] = ..., summary: _Optional[_Union[CheckSummary, _Mapping]] = ...) -> None: ...

class CheckProgress(_message.Message):
    __slots__ = ("done", "total")
    DONE_FIELD_NUMBER: _ClassVar[int]
    TOTAL_FIELD_NUMBER: _ClassVar[int]
    done: int
    total: int
    def __init__(self, done: _Optional[int] = ..., total: _Optional[int] = ...) -> None: ...

class Finding(_message.Message):
    __slots__ = ("kind", "damage", "namespace", "name", "path", "problem", "used_by", "advice", "outcome")
    class Outcome(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        FOUND: _ClassVar[Finding.Outcome]
        REPAIRED: _ClassVar[Finding.Outcome]
        DROPPED: _ClassVar[Finding.Outcome]
        LEFT: _ClassVar[Finding.Outcome]
    FOUND: Finding.Outcome
    REPAIRED: Finding.Outcome
    DROPPED: Finding.Outcome
    LEFT: Finding.Outcome
    KIND_FIELD_NUMBER: _ClassVar[int]
    DAMAGE_FIELD_NUMBER: _ClassVar[int]
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    PATH_FIELD_NUMBER: _ClassVar[int]
    PROBLEM_FIELD_NUMBER: _ClassVar[int]
    USED_BY_FIELD_NUMBER: _ClassVar[int]
    ADVICE_FIELD_NUMBER: _ClassVar[int]
    OUTCOME_FIELD_NUMBER: _ClassVar[int]
    kind: str
    damage: bool
    namespace: str
    name: str
    path: str
    problem: str
    used_by: _containers.RepeatedScalarFieldContainer[str]
    advice: str
    outcome: Finding.Outcome
    def __init__(self, kind: _Optional[str] = ..., damage: _Optional[bool] = ..., namespace: _Optional[str] = ..., name: _Optional[str] = ..., path: _Optional[str] = ..., problem: _Optional[str] = ..., used_by: _Optional[_Iterable[str]] = ..., advice: _Optional[str] = ..., outcome: _Optional[_Union[Finding.Outcome, str]] = ...) -> None: ...

class CheckSummary(_message.Message):
    __slots__ = ("blobs", "bytes", "snapshots", "damage_left")
    BLOBS_FIELD_NUMBER: _ClassVar[int]
    BYTES_FIELD_NUMBER: _ClassVar[int]
    SNAPSHOTS_FIELD_NUMBER: _ClassVar[int]
    DAMAGE_LEFT_FIELD_NUMBER: _ClassVar[int]
    blobs: int
    bytes: int
    snapshots: int
    damage_left: int
    def __init__(self, blobs: _Optional[int] = ..., bytes: _Optional[int] = ..., snapshots: _Optional[int] = ..., damage_left: _Optional[int] = ...) -> None: ...

class AdoptRequest(_message.Message):
    __slots__ = ("path",)
    PATH_FIELD_NUMBER: _ClassVar[int]
    path: str
    def __init__(self, path: _Optional[str] = ...) -> None: ...

class AdoptResponse(_message.Message):
    __slots__ = ("kind", "namespace", "name", "how", "size", "problem")
    KIND_FIELD_NUMBER: _ClassVar[int]
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    HOW_FIELD_NUMBER: _ClassVar[int]
    SIZE_FIELD_NUMBER: _ClassVar[int]
    PROBLEM_FIELD_NUMBER: _ClassVar[int]
    kind: str
    namespace: str
    name: str
    how: str
    size: int
    problem: str
    def __init__(self, kind: _Optional[str] = ..., namespace: _Optional[str] = ..., name: _Optional[str] = ..., how: _Optional[str] = ..., size: _Optional[int] = ..., problem: _Optional[str] = ...) -> None: ...

class BackupRequest(_message.Message):
    __slots__ = ("path",)
    PATH_FIELD_NUMBER: _ClassVar[int]
    path: str
    def __init__(self, path: _Optional[str] = ...) -> None: ...

class BackupResponse(_message.Message):
    __slots__ = ("progress", "summary")
    PROGRESS_FIELD_NUMBER: _ClassVar[int]
    SUMMARY_FIELD_NUMBER: _ClassVar[int]
    progress: BackupProgress
    summary: BackupSummary
    def __init__(self, progress: _Optional[_Union[BackupProgress, _Mapping]] = ..., summary: _Optional[_Union[BackupSummary, _Mapping]] = ...) -> None: ...

class BackupProgress(_message.Message):
    __slots__ = ("done", "total")
    DONE_FIELD_NUMBER: _ClassVar[int]
    TOTAL_FIELD_NUMBER: _ClassVar[int]
    done: int
    total: int
    def __init__(self, done: _Optional[int] = ..., total: _Optional[int] = ...) -> None: ...

class BackupSummary(_message.Message):
    __slots__ = ("blobs", "bytes", "how", "lost")
    class HowEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: int
        def __init__(self, key: _Optional[str] = ..., value: _Optional[int] = ...) -> None: ...
    BLOBS_FIELD_NUMBER: _ClassVar[int]
    BYTES_FIELD_NUMBER: _ClassVar[int]
    HOW_FIELD_NUMBER: _ClassVar[int]
    LOST_FIELD_NUMBER: _ClassVar[int]
    blobs: int
    bytes: int
    how: _containers.ScalarMap[str, int]
    lost: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, blobs: _Optional[int] = ..., bytes: _Optional[int] = ..., how: _Optional[_Mapping[str, int]] = ..., lost: _Optional[_Iterable[str]] = ...) -> None: ...

class UsageRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class UsageResponse(_message.Message):
    __slots__ = ("taken",)
    TAKEN_FIELD_NUMBER: _ClassVar[int]
    taken: _containers.RepeatedCompositeFieldContainer[Taken]
    def __init__(self, taken: _Optional[_Iterable[_Union[Taken, _Mapping]]] = ...) -> None: ...

class Taken(_message.Message):
    __slots__ = ("kind", "files", "size", "on_disk")
    KIND_FIELD_NUMBER: _ClassVar[int]
    FILES_FIELD_NUMBER: _ClassVar[int]
    SIZE_FIELD_NUMBER: _ClassVar[int]
    ON_DISK_FIELD_NUMBER: _ClassVar[int]
    kind: str
    files: int
    size: int
    on_disk: int
    def __init__(self, kind: _Optional[str] = ..., files: _Optional[int] = ..., size: _Optional[int] = ..., on_disk: _Optional[int] = ...) -> None: ...
