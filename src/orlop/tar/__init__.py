"""tar archives: read and write them, out of a folder and into one.

Entries have all that a filesystem knows of a file: owners beyond 21 bits, nanoseconds, extended
attributes (POSIX pax). Nothing here trusts names or contents.
"""
