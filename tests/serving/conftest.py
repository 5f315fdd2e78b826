"""The exported bundles that these tests share."""

from tiny_exports import bundle, counted, engine, indexed, serving

__all__ = ["bundle", "counted", "engine", "indexed", "serving"]
