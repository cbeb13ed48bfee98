"""System calls that Python lacks, typed and errno-true.

Nothing here knows about containers. Importing a module of this room costs next to nothing: shims,
which live on it, are budgeted by the kilobyte.
"""
