"""Log writers: small processes that write what a container prints to files, and rotate them.

A writer is a logger process of containerd's `binary://` contract. The program `orlop-logger` is
one that every shim can start; orlop's own shim forks it instead. `options` are told by the URI,
`formats` makes the entries, `rotation` keeps the files, and `writer` is the loop in between.
Nothing here imports more than it must: each writer lives as long as its container.
"""
