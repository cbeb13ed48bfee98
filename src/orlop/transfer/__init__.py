"""Transfers: images from registries and archives into the store, and back.

`Puller` fetches and unpacks as one streaming pipeline, and `Pusher` is the way back. `streams` are
the named streams beside a call, on which progress and questions for credentials travel.
"""

from orlop.transfer.progress import Progress, Report
from orlop.transfer.pull import Puller, Wanted
from orlop.transfer.push import Pusher

__all__ = ["Progress", "Puller", "Pusher", "Report", "Wanted"]
