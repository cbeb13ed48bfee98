"""Events: what happened to a record or a task, told to whoever subscribed.

A publisher never waits: each subscriber has a bounded buffer, and one that does not keep up is
ended with an error instead of losing events silently. Nothing is kept for later subscribers.
"""

from orlop.events.exchange import Exchange, Publisher, Subscription
from orlop.events.fields import decoded

__all__ = ["Exchange", "Publisher", "Subscription", "decoded"]
