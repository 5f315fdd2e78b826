"""The exported bundle that these tests share."""

from exports import bundle, engine, serving

__all__ = ["bundle", "engine", "serving"]
