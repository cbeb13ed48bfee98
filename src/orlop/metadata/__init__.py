"""The metadata database: every record of the daemon, in one SQLite file.

This room owns the schema and its migrations, transactions, and what all records share: namespaces,
labels, list filters, field masks and the references that leases hold. The records themselves
(images, containers, snapshots…) are read and written by their own rooms, inside a `Transaction`.
"""

from orlop.metadata.database import Database, Transaction

__all__ = ["Database", "Transaction"]
