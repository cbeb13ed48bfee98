"""Layers: apply one to a filesystem.

The bytes of a layer are hostile, so they meet the filesystem in a worker process that sees nothing
but the target folder (`unpack`). `apply` is the daemon's side. Nothing is imported here: workers
are forked from a process that has loaded `unpack` and little else.
"""
