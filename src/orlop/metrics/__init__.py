"""Metrics of the daemon and of its containers, for Prometheus and whoever reads its formats.

`Endpoint` is where they are scraped, `Scraper` makes what it answers: the daemon's own from what
its rooms count (`Internals`), and those of containers from their cgroups (`Containers`), which
worker processes read, so that no shim wakes and no call waits. Between scrapes nothing is done.
"""
