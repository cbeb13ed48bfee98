"""Whether an image may be pulled: asked once its digest is known, before anything of it is kept."""

from orlop.trust.verifiers import Verifiers

__all__ = ["Verifiers"]
