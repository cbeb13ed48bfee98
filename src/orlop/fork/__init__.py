"""The fork server: a warm, single-threaded process that forks shims and workers on request.

A Python process costs about 100 ms and 25 MB to start; a fork of a warm one costs next to nothing.
`server` is that process, `client` is how the daemon starts it and asks, `worker` is a job with an
answer: a forked process that reports back over a socket and dies with its owner.
"""
