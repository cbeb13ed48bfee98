"""Storage is killed, again and again, at every step that the code takes; nothing may be lost.

A process works with all rooms that store something, and promises what it has finished to a ledger.
Another one is killed at one of its steps: every change of a file, every sync, every commit of the
database is one. The next start must find all that was promised, whole, and nothing besides.

The steps are not named in the code: Python's audit events and SQLite tell of them as they come
(`points`), so that what is written tomorrow has its own.
"""
