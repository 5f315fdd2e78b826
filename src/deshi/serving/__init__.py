"""Serving bundles and the engine that answers from them, without PyTorch."""

from deshi.serving.bundle import BundleError, ServingBundle, find_bundle
from deshi.serving.engine import Engine, Recommendation, RequestError, ScoredItem, load

__all__ = [
    "BundleError",
    "Engine",
    "Recommendation",
    "RequestError",
    "ScoredItem",
    "ServingBundle",
    "find_bundle",
    "load",
]
