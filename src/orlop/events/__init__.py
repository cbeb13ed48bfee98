"""Events: what happened to a record or a task, told to whoever subscribed.

A publisher never waits: each subscriber has a bounded buffer, and one that does not keep up is
ended with an error instead of losing events silently. What a daemon that has just started finds to
have ended is kept for a while, for those who followed it before.
"""

from orlop.events.exchange import Exchange, Publisher, Subscription
from orlop.events.fields import decoded
from orlop.events.listener import Listener

__all__ = ["Exchange", "Listener", "Publisher", "Subscription", "decoded"]
