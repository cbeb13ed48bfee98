"""Trees of files as tar archives: read and write them, into a folder, out of one, or what has
changed from one to another.

Entries have all that a filesystem knows of a file: owners beyond 21 bits, nanoseconds, extended
attributes (POSIX pax). Nothing here trusts names or contents.
"""
