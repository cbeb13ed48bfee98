"""An HTTP/1.1 server for what the daemon shows: its registry, its metrics, a page.

A site answers requests; the server holds connections, and ends what a client draws out.
"""

from orlop.web.body import BadRequest, Body
from orlop.web.exchange import Reply, Request, Site, Slice, Stream
from orlop.web.server import HttpServer, Limits
from orlop.web.tls import Tls
from orlop.web.token import Token

__all__ = [
    "BadRequest",
    "Body",
    "HttpServer",
    "Limits",
    "Reply",
    "Request",
    "Site",
    "Slice",
    "Stream",
    "Tls",
    "Token",
]
