"""orlop: a container runtime for Linux that speaks containerd's API."""

__version__ = "0.1.0"
