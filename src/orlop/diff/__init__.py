"""Layers: apply one to a filesystem, make one from two.

Layers and filesystems are hostile, so they meet in worker processes that see nothing but the
folders concerned (`unpack`, `pack`). `apply` and `compare` are the daemon's side. Nothing is
imported here: workers are forked from a process that has loaded those two and little else.
"""
