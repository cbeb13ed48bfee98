from google.protobuf import empty_pb2 as _empty_pb2
from orlop.wire.services import network_pb2 as _network_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Place(_message.Message):
    __slots__ = ("netns", "path", "container_id", "host")
    NETNS_FIELD_NUMBER: _ClassVar[int]
    PATH_FIELD_NUMBER: _ClassVar[int]
    CONTAINER_ID_FIELD_NUMBER: _ClassVar[int]
    HOST_FIELD_NUMBER: _ClassVar[int]
    netns: str
    path: str
    container_id: str
    host: bool
    def __init__(self, netns: _Optional[str] = ..., path: _Optional[str] = ..., container_id: _Optional[str] = ..., host: _Optional[bool] = ...) -> None: ...

class ApplyRequest(_message.Message):
    __slots__ = ("place", "operations")
    PLACE_FIELD_NUMBER: _ClassVar[int]
    OPERATIONS_FIELD_NUMBER: _ClassVar[int]
    place: Place
    operations: _containers.RepeatedCompositeFieldContainer[Operation]
    def __init__(self, place: _Optional[_Union[Place, _Mapping]] = ..., operations: _Optional[_Iterable[_Union[Operation, _Mapping]]] = ...) -> None: ...

class Operation(_message.Message):
    __slots__ = ("place", "add_link", "set_link", "move_link", "delete_link", "add_address", "delete_address", "add_route", "delete_route", "add_neighbour", "delete_neighbour", "add_rule", "delete_rule", "set_sysctl", "add_rate_limit", "delete_rate_limit")
    PLACE_FIELD_NUMBER: _ClassVar[int]
    ADD_LINK_FIELD_NUMBER: _ClassVar[int]
    SET_LINK_FIELD_NUMBER: _ClassVar[int]
    MOVE_LINK_FIELD_NUMBER: _ClassVar[int]
    DELETE_LINK_FIELD_NUMBER: _ClassVar[int]
    ADD_ADDRESS_FIELD_NUMBER: _ClassVar[int]
    DELETE_ADDRESS_FIELD_NUMBER: _ClassVar[int]
    ADD_ROUTE_FIELD_NUMBER: _ClassVar[int]
    DELETE_ROUTE_FIELD_NUMBER: _ClassVar[int]
    ADD_NEIGHBOUR_FIELD_NUMBER: _ClassVar[int]
    DELETE_NEIGHBOUR_FIELD_NUMBER: _ClassVar[int]
    ADD_RULE_FIELD_NUMBER: _ClassVar[int]
    DELETE_RULE_FIELD_NUMBER: _ClassVar[int]
    SET_SYSCTL_FIELD_NUMBER: _ClassVar[int]
    ADD_RATE_LIMIT_FIELD_NUMBER: _ClassVar[int]
    DELETE_RATE_LIMIT_FIELD_NUMBER: _ClassVar[int]
    place: Place
    add_link: AddLink
    set_link: SetLink
    move_link: MoveLink
    delete_link: DeleteLink
    add_address: AddAddress
    delete_address: DeleteAddress
    add_route: AddRoute
    delete_route: DeleteRoute
    add_neighbour: AddNeighbour
    delete_neighbour: DeleteNeighbour
    add_rule: AddRule
    delete_rule: DeleteRule
    set_sysctl: SetSysctl
    add_rate_limit: AddRateLimit
    delete_rate_limit: DeleteRateLimit
    def __init__(self, place: _Optional[_Union[Place, _Mapping]] = ..., add_link: _Optional[_Union[AddLink, _Mapping]] = ..., set_link: _Optional[_Union[SetLink, _Mapping]] = ..., move_link: _Optional[_Union[MoveLink, _Mapping]] = ..., delete_link: _Optional[_Union[DeleteLink, _Mapping]] = ..., add_address: _Optional[_Union[AddAddress, _Mapping]] = ..., delete_address: _Optional[_Union[DeleteAddress, _Mapping]] = ..., add_route: _Optional[_Union[AddRoute, _Mapping]] = ..., delete_route: _Optional[_Union[DeleteRoute, _Mapping]] = ..., add_neighbour: _Optional[_Union[AddNeighbour, _Mapping]] = ..., delete_neighbour: _Optional[_Union[DeleteNeighbour, _Mapping]] = ..., add_rule: _Optional[_Union[AddRule, _Mapping]] = ..., delete_rule: _Optional[_Union[DeleteRule, _Mapping]] = ..., set_sysctl: _Optional[_Union[SetSysctl, _Mapping]] = ..., add_rate_limit: _Optional[_Union[AddRateLimit, _Mapping]] = ..., delete_rate_limit: _Optional[_Union[DeleteRateLimit, _Mapping]] = ...) -> None: ...

class AddLink(_message.Message):
    __slots__ = ("name", "kind", "exist_ok", "up", "mtu", "mac", "alias", "master", "hairpin", "peer", "peer_place", "peer_mac", "parent", "mode", "id", "remote", "local", "port")
    NAME_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    EXIST_OK_FIELD_NUMBER: _ClassVar[int]
    UP_FIELD_NUMBER: _ClassVar[int]
    MTU_FIELD_NUMBER: _ClassVar[int]
    MAC_FIELD_NUMBER: _ClassVar[int]
    ALIAS_FIELD_NUMBER: _ClassVar[int]
    MASTER_FIELD_NUMBER: _ClassVar[int]
    HAIRPIN_FIELD_NUMBER: _ClassVar[int]
    PEER_FIELD_NUMBER: _ClassVar[int]
    PEER_PLACE_FIELD_NUMBER: _ClassVar[int]
    PEER_MAC_FIELD_NUMBER: _ClassVar[int]
    PARENT_FIELD_NUMBER: _ClassVar[int]
    MODE_FIELD_NUMBER: _ClassVar[int]
    ID_FIELD_NUMBER: _ClassVar[int]
    REMOTE_FIELD_NUMBER: _ClassVar[int]
    LOCAL_FIELD_NUMBER: _ClassVar[int]
    PORT_FIELD_NUMBER: _ClassVar[int]
    name: str
    kind: str
    exist_ok: bool
    up: bool
    mtu: int
    mac: str
    alias: str
    master: str
    hairpin: bool
    peer: str
    peer_place: Place
    peer_mac: str
    parent: str
    mode: str
    id: int
    remote: str
    local: str
    port: int
    def __init__(self, name: _Optional[str] = ..., kind: _Optional[str] = ..., exist_ok: _Optional[bool] = ..., up: _Optional[bool] = ..., mtu: _Optional[int] = ..., mac: _Optional[str] = ..., alias: _Optional[str] = ..., master: _Optional[str] = ..., hairpin: _Optional[bool] = ..., peer: _Optional[str] = ..., peer_place: _Optional[_Union[Place, _Mapping]] = ..., peer_mac: _Optional[str] = ..., parent: _Optional[str] = ..., mode: _Optional[str] = ..., id: _Optional[int] = ..., remote: _Optional[str] = ..., local: _Optional[str] = ..., port: _Optional[int] = ...) -> None: ...

class SetLink(_message.Message):
    __slots__ = ("name", "up", "mtu", "mac", "master", "alias", "rename")
    NAME_FIELD_NUMBER: _ClassVar[int]
    UP_FIELD_NUMBER: _ClassVar[int]
    MTU_FIELD_NUMBER: _ClassVar[int]
    MAC_FIELD_NUMBER: _ClassVar[int]
    MASTER_FIELD_NUMBER: _ClassVar[int]
    ALIAS_FIELD_NUMBER: _ClassVar[int]
    RENAME_FIELD_NUMBER: _ClassVar[int]
    name: str
    up: bool
    mtu: int
    mac: str
    master: str
    alias: str
    rename: str
    def __init__(self, name: _Optional[str] = ..., up: _Optional[bool] = ..., mtu: _Optional[int] = ..., mac: _Optional[str] = ..., master: _Optional[str] = ..., alias: _Optional[str] = ..., rename: _Optional[str] = ...) -> None: ...

class MoveLink(_message.Message):
    __slots__ = ("name", "to", "rename")
    NAME_FIELD_NUMBER: _ClassVar[int]
    TO_FIELD_NUMBER: _ClassVar[int]
    RENAME_FIELD_NUMBER: _ClassVar[int]
    name: str
    to: Place
    rename: str
    def __init__(self, name: _Optional[str] = ..., to: _Optional[_Union[Place, _Mapping]] = ..., rename: _Optional[str] = ...) -> None: ...

class DeleteLink(_message.Message):
    __slots__ = ("name", "missing_ok")
    NAME_FIELD_NUMBER: _ClassVar[int]
    MISSING_OK_FIELD_NUMBER: _ClassVar[int]
    name: str
    missing_ok: bool
    def __init__(self, name: _Optional[str] = ..., missing_ok: _Optional[bool] = ...) -> None: ...

class AddAddress(_message.Message):
    __slots__ = ("link", "address", "exist_ok")
    LINK_FIELD_NUMBER: _ClassVar[int]
    ADDRESS_FIELD_NUMBER: _ClassVar[int]
    EXIST_OK_FIELD_NUMBER: _ClassVar[int]
    link: str
    address: str
    exist_ok: bool
    def __init__(self, link: _Optional[str] = ..., address: _Optional[str] = ..., exist_ok: _Optional[bool] = ...) -> None: ...

class DeleteAddress(_message.Message):
    __slots__ = ("link", "address")
    LINK_FIELD_NUMBER: _ClassVar[int]
    ADDRESS_FIELD_NUMBER: _ClassVar[int]
    link: str
    address: str
    def __init__(self, link: _Optional[str] = ..., address: _Optional[str] = ...) -> None: ...

class Route(_message.Message):
    __slots__ = ("destination", "gateway", "link", "source", "metric", "table")
    DESTINATION_FIELD_NUMBER: _ClassVar[int]
    GATEWAY_FIELD_NUMBER: _ClassVar[int]
    LINK_FIELD_NUMBER: _ClassVar[int]
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    METRIC_FIELD_NUMBER: _ClassVar[int]
    TABLE_FIELD_NUMBER: _ClassVar[int]
    destination: str
    gateway: str
    link: str
    source: str
    metric: int
    table: int
    def __init__(self, destination: _Optional[str] = ..., gateway: _Optional[str] = ..., link: _Optional[str] = ..., source: _Optional[str] = ..., metric: _Optional[int] = ..., table: _Optional[int] = ...) -> None: ...

class AddRoute(_message.Message):
    __slots__ = ("route", "exist_ok")
    ROUTE_FIELD_NUMBER: _ClassVar[int]
    EXIST_OK_FIELD_NUMBER: _ClassVar[int]
    route: Route
    exist_ok: bool
    def __init__(self, route: _Optional[_Union[Route, _Mapping]] = ..., exist_ok: _Optional[bool] = ...) -> None: ...

class DeleteRoute(_message.Message):
    __slots__ = ("route",)
    ROUTE_FIELD_NUMBER: _ClassVar[int]
    route: Route
    def __init__(self, route: _Optional[_Union[Route, _Mapping]] = ...) -> None: ...

class AddNeighbour(_message.Message):
    __slots__ = ("link", "address", "mac")
    LINK_FIELD_NUMBER: _ClassVar[int]
    ADDRESS_FIELD_NUMBER: _ClassVar[int]
    MAC_FIELD_NUMBER: _ClassVar[int]
    link: str
    address: str
    mac: str
    def __init__(self, link: _Optional[str] = ..., address: _Optional[str] = ..., mac: _Optional[str] = ...) -> None: ...

class DeleteNeighbour(_message.Message):
    __slots__ = ("link", "address")
    LINK_FIELD_NUMBER: _ClassVar[int]
    ADDRESS_FIELD_NUMBER: _ClassVar[int]
    link: str
    address: str
    def __init__(self, link: _Optional[str] = ..., address: _Optional[str] = ...) -> None: ...

class Rule(_message.Message):
    __slots__ = ("priority", "table", "source", "destination", "mark", "family")
    PRIORITY_FIELD_NUMBER: _ClassVar[int]
    TABLE_FIELD_NUMBER: _ClassVar[int]
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    DESTINATION_FIELD_NUMBER: _ClassVar[int]
    MARK_FIELD_NUMBER: _ClassVar[int]
    FAMILY_FIELD_NUMBER: _ClassVar[int]
    priority: int
    table: int
    source: str
    destination: str
    mark: int
    family: int
    def __init__(self, priority: _Optional[int] = ..., table: _Optional[int] = ..., source: _Optional[str] = ..., destination: _Optional[str] = ..., mark: _Optional[int] = ..., family: _Optional[int] = ...) -> None: ...

class AddRule(_message.Message):
    __slots__ = ("rule",)
    RULE_FIELD_NUMBER: _ClassVar[int]
    rule: Rule
    def __init__(self, rule: _Optional[_Union[Rule, _Mapping]] = ...) -> None: ...

class DeleteRule(_message.Message):
    __slots__ = ("rule",)
    RULE_FIELD_NUMBER: _ClassVar[int]
    rule: Rule
    def __init__(self, rule: _Optional[_Union[Rule, _Mapping]] = ...) -> None: ...

class AddRateLimit(_message.Message):
    __slots__ = ("link", "rate", "burst")
    LINK_FIELD_NUMBER: _ClassVar[int]
    RATE_FIELD_NUMBER: _ClassVar[int]
    BURST_FIELD_NUMBER: _ClassVar[int]
    link: str
    rate: int
    burst: int
    def __init__(self, link: _Optional[str] = ..., rate: _Optional[int] = ..., burst: _Optional[int] = ...) -> None: ...

class DeleteRateLimit(_message.Message):
    __slots__ = ("link",)
    LINK_FIELD_NUMBER: _ClassVar[int]
    link: str
    def __init__(self, link: _Optional[str] = ...) -> None: ...

class SetSysctl(_message.Message):
    __slots__ = ("name", "value")
    NAME_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    name: str
    value: str
    def __init__(self, name: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...

class Neighbour(_message.Message):
    __slots__ = ("link", "address", "mac", "permanent")
    LINK_FIELD_NUMBER: _ClassVar[int]
    ADDRESS_FIELD_NUMBER: _ClassVar[int]
    MAC_FIELD_NUMBER: _ClassVar[int]
    PERMANENT_FIELD_NUMBER: _ClassVar[int]
    link: str
    address: str
    mac: str
    permanent: bool
    def __init__(self, link: _Optional[str] = ..., address: _Optional[str] = ..., mac: _Optional[str] = ..., permanent: _Optional[bool] = ...) -> None: ...

class CreateLinkRequest(_message.Message):
    __slots__ = ("place", "link")
    PLACE_FIELD_NUMBER: _ClassVar[int]
    LINK_FIELD_NUMBER: _ClassVar[int]
    place: Place
    link: AddLink
    def __init__(self, place: _Optional[_Union[Place, _Mapping]] = ..., link: _Optional[_Union[AddLink, _Mapping]] = ...) -> None: ...

class CreateLinkResponse(_message.Message):
    __slots__ = ("link",)
    LINK_FIELD_NUMBER: _ClassVar[int]
    link: _network_pb2.Link
    def __init__(self, link: _Optional[_Union[_network_pb2.Link, _Mapping]] = ...) -> None: ...

class GetLinkRequest(_message.Message):
    __slots__ = ("place", "name")
    PLACE_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    place: Place
    name: str
    def __init__(self, place: _Optional[_Union[Place, _Mapping]] = ..., name: _Optional[str] = ...) -> None: ...

class GetLinkResponse(_message.Message):
    __slots__ = ("link",)
    LINK_FIELD_NUMBER: _ClassVar[int]
    link: _network_pb2.Link
    def __init__(self, link: _Optional[_Union[_network_pb2.Link, _Mapping]] = ...) -> None: ...

class ListLinksInRequest(_message.Message):
    __slots__ = ("place",)
    PLACE_FIELD_NUMBER: _ClassVar[int]
    place: Place
    def __init__(self, place: _Optional[_Union[Place, _Mapping]] = ...) -> None: ...

class ListLinksInResponse(_message.Message):
    __slots__ = ("links",)
    LINKS_FIELD_NUMBER: _ClassVar[int]
    links: _containers.RepeatedCompositeFieldContainer[_network_pb2.Link]
    def __init__(self, links: _Optional[_Iterable[_Union[_network_pb2.Link, _Mapping]]] = ...) -> None: ...

class UpdateLinkRequest(_message.Message):
    __slots__ = ("place", "link")
    PLACE_FIELD_NUMBER: _ClassVar[int]
    LINK_FIELD_NUMBER: _ClassVar[int]
    place: Place
    link: SetLink
    def __init__(self, place: _Optional[_Union[Place, _Mapping]] = ..., link: _Optional[_Union[SetLink, _Mapping]] = ...) -> None: ...

class UpdateLinkResponse(_message.Message):
    __slots__ = ("link",)
    LINK_FIELD_NUMBER: _ClassVar[int]
    link: _network_pb2.Link
    def __init__(self, link: _Optional[_Union[_network_pb2.Link, _Mapping]] = ...) -> None: ...

class MoveLinkRequest(_message.Message):
    __slots__ = ("place", "link")
    PLACE_FIELD_NUMBER: _ClassVar[int]
    LINK_FIELD_NUMBER: _ClassVar[int]
    place: Place
    link: MoveLink
    def __init__(self, place: _Optional[_Union[Place, _Mapping]] = ..., link: _Optional[_Union[MoveLink, _Mapping]] = ...) -> None: ...

class MoveLinkResponse(_message.Message):
    __slots__ = ("link",)
    LINK_FIELD_NUMBER: _ClassVar[int]
    link: _network_pb2.Link
    def __init__(self, link: _Optional[_Union[_network_pb2.Link, _Mapping]] = ...) -> None: ...

class DeleteLinkRequest(_message.Message):
    __slots__ = ("place", "link")
    PLACE_FIELD_NUMBER: _ClassVar[int]
    LINK_FIELD_NUMBER: _ClassVar[int]
    place: Place
    link: DeleteLink
    def __init__(self, place: _Optional[_Union[Place, _Mapping]] = ..., link: _Optional[_Union[DeleteLink, _Mapping]] = ...) -> None: ...

class AddAddressRequest(_message.Message):
    __slots__ = ("place", "address")
    PLACE_FIELD_NUMBER: _ClassVar[int]
    ADDRESS_FIELD_NUMBER: _ClassVar[int]
    place: Place
    address: AddAddress
    def __init__(self, place: _Optional[_Union[Place, _Mapping]] = ..., address: _Optional[_Union[AddAddress, _Mapping]] = ...) -> None: ...

class DeleteAddressRequest(_message.Message):
    __slots__ = ("place", "address")
    PLACE_FIELD_NUMBER: _ClassVar[int]
    ADDRESS_FIELD_NUMBER: _ClassVar[int]
    place: Place
    address: DeleteAddress
    def __init__(self, place: _Optional[_Union[Place, _Mapping]] = ..., address: _Optional[_Union[DeleteAddress, _Mapping]] = ...) -> None: ...

class AddRouteRequest(_message.Message):
    __slots__ = ("place", "route")
    PLACE_FIELD_NUMBER: _ClassVar[int]
    ROUTE_FIELD_NUMBER: _ClassVar[int]
    place: Place
    route: AddRoute
    def __init__(self, place: _Optional[_Union[Place, _Mapping]] = ..., route: _Optional[_Union[AddRoute, _Mapping]] = ...) -> None: ...

class DeleteRouteRequest(_message.Message):
    __slots__ = ("place", "route")
    PLACE_FIELD_NUMBER: _ClassVar[int]
    ROUTE_FIELD_NUMBER: _ClassVar[int]
    place: Place
    route: DeleteRoute
    def __init__(self, place: _Optional[_Union[Place, _Mapping]] = ..., route: _Optional[_Union[DeleteRoute, _Mapping]] = ...) -> None: ...

class ListRoutesRequest(_message.Message):
    __slots__ = ("place",)
    PLACE_FIELD_NUMBER: _ClassVar[int]
    place: Place
    def __init__(self, place: _Optional[_Union[Place, _Mapping]] = ...) -> None: ...

class ListRoutesResponse(_message.Message):
    __slots__ = ("routes",)
    ROUTES_FIELD_NUMBER: _ClassVar[int]
    routes: _containers.RepeatedCompositeFieldContainer[Route]
    def __init__(self, routes: _Optional[_Iterable[_Union[Route, _Mapping]]] = ...) -> None: ...

class InspectPlaceRequest(_message.Message):
    __slots__ = ("place", "sysctls")
    PLACE_FIELD_NUMBER: _ClassVar[int]
    SYSCTLS_FIELD_NUMBER: _ClassVar[int]
    place: Place
    sysctls: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, place: _Optional[_Union[Place, _Mapping]] = ..., sysctls: _Optional[_Iterable[str]] = ...) -> None: ...

class InspectPlaceResponse(_message.Message):
    __slots__ = ("links", "routes", "neighbours", "rules", "sysctls")
    class SysctlsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    LINKS_FIELD_NUMBER: _ClassVar[int]
    ROUTES_FIELD_NUMBER: _ClassVar[int]
    NEIGHBOURS_FIELD_NUMBER: _ClassVar[int]
    RULES_FIELD_NUMBER: _ClassVar[int]
    SYSCTLS_FIELD_NUMBER: _ClassVar[int]
    links: _containers.RepeatedCompositeFieldContainer[_network_pb2.Link]
    routes: _containers.RepeatedCompositeFieldContainer[Route]
    neighbours: _containers.RepeatedCompositeFieldContainer[Neighbour]
    rules: _containers.RepeatedCompositeFieldContainer[Rule]
    sysctls: _containers.ScalarMap[str, str]
    def __init__(self, links: _Optional[_Iterable[_Union[_network_pb2.Link, _Mapping]]] = ..., routes: _Optional[_Iterable[_Union[Route, _Mapping]]] = ..., neighbours: _Optional[_Iterable[_Union[Neighbour, _Mapping]]] = ..., rules: _Optional[_Iterable[_Union[Rule, _Mapping]]] = ..., sysctls: _Optional[_Mapping[str, str]] = ...) -> None: ...

class LinkStatsRequest(_message.Message):
    __slots__ = ("place", "name")
    PLACE_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    place: Place
    name: str
    def __init__(self, place: _Optional[_Union[Place, _Mapping]] = ..., name: _Optional[str] = ...) -> None: ...

class LinkStatsResponse(_message.Message):
    __slots__ = ("stats",)
    STATS_FIELD_NUMBER: _ClassVar[int]
    stats: _containers.RepeatedCompositeFieldContainer[LinkStats]
    def __init__(self, stats: _Optional[_Iterable[_Union[LinkStats, _Mapping]]] = ...) -> None: ...

class LinkStats(_message.Message):
    __slots__ = ("index", "name", "counters")
    INDEX_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    COUNTERS_FIELD_NUMBER: _ClassVar[int]
    index: int
    name: str
    counters: _network_pb2.Counters
    def __init__(self, index: _Optional[int] = ..., name: _Optional[str] = ..., counters: _Optional[_Union[_network_pb2.Counters, _Mapping]] = ...) -> None: ...

class WatchRequest(_message.Message):
    __slots__ = ("place",)
    PLACE_FIELD_NUMBER: _ClassVar[int]
    place: Place
    def __init__(self, place: _Optional[_Union[Place, _Mapping]] = ...) -> None: ...

class WatchResponse(_message.Message):
    __slots__ = ("event", "link", "address", "interface", "route")
    class Event(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        UNKNOWN: _ClassVar[WatchResponse.Event]
        LINK: _ClassVar[WatchResponse.Event]
        LINK_DELETED: _ClassVar[WatchResponse.Event]
        ADDRESS: _ClassVar[WatchResponse.Event]
        ADDRESS_DELETED: _ClassVar[WatchResponse.Event]
        ROUTE: _ClassVar[WatchResponse.Event]
        ROUTE_DELETED: _ClassVar[WatchResponse.Event]
        LOST: _ClassVar[WatchResponse.Event]
        SYNCED: _ClassVar[WatchResponse.Event]
    UNKNOWN: WatchResponse.Event
    LINK: WatchResponse.Event
    LINK_DELETED: WatchResponse.Event
    ADDRESS: WatchResponse.Event
    ADDRESS_DELETED: WatchResponse.Event
    ROUTE: WatchResponse.Event
    ROUTE_DELETED: WatchResponse.Event
    LOST: WatchResponse.Event
    SYNCED: WatchResponse.Event
    EVENT_FIELD_NUMBER: _ClassVar[int]
    LINK_FIELD_NUMBER: _ClassVar[int]
    ADDRESS_FIELD_NUMBER: _ClassVar[int]
    INTERFACE_FIELD_NUMBER: _ClassVar[int]
    ROUTE_FIELD_NUMBER: _ClassVar[int]
    event: WatchResponse.Event
    link: _network_pb2.Link
    address: str
    interface: str
    route: Route
    def __init__(self, event: _Optional[_Union[WatchResponse.Event, str]] = ..., link: _Optional[_Union[_network_pb2.Link, _Mapping]] = ..., address: _Optional[str] = ..., interface: _Optional[str] = ..., route: _Optional[_Union[Route, _Mapping]] = ...) -> None: ...
