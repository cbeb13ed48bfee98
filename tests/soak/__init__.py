"""Random verbs by several clients at once, for as long as told, with or without things killed.

`python -m tests.soak --help`; `make soak` runs the long form, a test the short one.
"""
