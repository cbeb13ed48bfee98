"""Transfers: an image from a registry into the store, as one streaming pipeline.

`Puller` is the pipeline; `streams` are the named streams beside a call, on which progress and
questions for credentials travel.
"""

from orlop.transfer.progress import Progress, Report
from orlop.transfer.pull import Puller, Wanted

__all__ = ["Progress", "Puller", "Report", "Wanted"]
