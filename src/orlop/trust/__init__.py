"""Whether an image may be pulled: asked once its digest is known, before anything of it is kept.

`Gate` asks the operator's policies (`policy`), some of which require signatures (`signatures`), and
then the image verifiers (`verifiers`).
"""

from orlop.trust.gate import Gate
from orlop.trust.verifiers import Verifiers

__all__ = ["Gate", "Verifiers"]
