"""What a container's labels ask for; the names and meanings are containerd's."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from orlop.errors import InvalidArgument

STATUS = "containerd.io/restart.status"
POLICY = "containerd.io/restart.policy"
COUNT = "containerd.io/restart.count"
LOG_URI = "containerd.io/restart.loguri"
EXPLICITLY_STOPPED = "containerd.io/restart.explicitly-stopped"
# Where orlop's own client had the output of a detached container written.
OWN_LOG_URI = "orlop/log-uri"
# That orlop's clients share its output, and its input too if the value is "stdin".
SHARED = "orlop/attach"

NO, ALWAYS, ON_FAILURE, UNLESS_STOPPED = "no", "always", "on-failure", "unless-stopped"
POLICIES = (NO, ALWAYS, ON_FAILURE, UNLESS_STOPPED)


@dataclass(frozen=True, slots=True)
class Rules:
    """`wanted` is whether the container is to run; `limit` 0 is none, for on-failure.

    `count` is how often it was started again, `log_uri` where its output goes ("" is nowhere),
    `stdin` where its input comes from.
    """

    wanted: bool
    policy: str = ALWAYS
    limit: int = 0
    count: int = 0
    explicitly_stopped: bool = False
    log_uri: str = ""
    stdin: str = ""

    def again(self, status: int) -> bool:
        """Whether to start it after it ended with an exit status."""
        match self.policy:
            case "always":
                return True
            case "unless-stopped":
                return not self.explicitly_stopped
            case "on-failure":
                return status != 0 and (self.limit == 0 or self.count < self.limit)
        return False


def parse(labels: Mapping[str, str]) -> Rules | None:
    """The rules, or None for a container that is nobody's business.

    Raises InvalidArgument for a policy or count that makes no sense.
    """
    status = labels.get(STATUS)
    if status not in ("running", "stopped"):
        return None
    policy, colon, limit = labels.get(POLICY, "").partition(":")
    if (policy and policy not in POLICIES) or (colon and policy != ON_FAILURE):
        raise InvalidArgument(
            f'label {POLICY}="{labels[POLICY]}" is none of {", ".join(POLICIES)}, {ON_FAILURE}:N'
        )
    return Rules(
        wanted=status == "running",
        policy=policy or ALWAYS,
        limit=_number(POLICY, limit) if colon else 0,
        count=_number(COUNT, labels.get(COUNT) or "0"),
        explicitly_stopped=explicitly_stopped(labels),
        log_uri=_output(labels),
        stdin="attach:" if labels.get(SHARED) == "stdin" else "",
    )


def explicitly_stopped(labels: Mapping[str, str]) -> bool:
    """Whether somebody has asked for its end, rather than that it ended."""
    return labels.get(EXPLICITLY_STOPPED, "").lower() in ("1", "t", "true")


def restarts(labels: Mapping[str, str]) -> int:
    """How often a container was started again, to be shown: 0 where its label makes no sense."""
    try:
        return _number(COUNT, labels.get(COUNT) or "0")
    except InvalidArgument:
        return 0


def _output(labels: Mapping[str, str]) -> str:
    uri = labels.get(LOG_URI) or labels.get(OWN_LOG_URI, "")
    if not labels.get(SHARED):
        return uri
    return f"attach+{uri}" if uri else "attach:"


def _number(label: str, text: str) -> int:
    if not (text.isascii() and text.isdecimal()) or len(text) > 9:
        raise InvalidArgument(f'label {label}: "{text}" is not a number of restarts')
    return int(text)
