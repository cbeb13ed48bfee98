"""The executor: one small process per container (or pod) that outlives the daemon.

It is single-threaded: an event loop of our own (`loop`) serves the Task API over ttrpc (`server`,
`service`), drives runc (`runc`), owns stdio and consoles (`stdio`, `console`, `logger`), reaps what
exits (`children`) and sends events to the daemon (`events`). `main:run` is what the fork server
runs; `binary:main` is the same as an ordinary shim binary under any daemon of the shim protocol.

Imports no asyncio, logging, subprocess or grpc: a shim must stay small.
"""
