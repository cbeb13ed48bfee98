"""Regular expressions as list filters use them: RE2's syntax, in time linear in the text.

Python's own `re` backtracks, and holds the interpreter lock while it does: one bad expression from
a client would stop the whole daemon. Here a text is read once, whatever the expression. Only
whether it is found is told, so groups and greediness do not matter. Unicode's general categories
(`\\pL`) are known, its scripts (`\\p{Greek}`) are not.
"""

from orlop.metadata.regex.matcher import Pattern

__all__ = ["Pattern"]
