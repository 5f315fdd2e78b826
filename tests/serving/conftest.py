"""The exported bundles that these tests share."""

from tiny_exports import bundle, engine, indexed, serving

__all__ = ["bundle", "engine", "indexed", "serving"]
