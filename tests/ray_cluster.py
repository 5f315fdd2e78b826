"""A real Ray cluster of two nodes on this machine, each a raylet with one core, for the tests of ``engine=ray``."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from deshi.configuration.schemas import RayConfig

NODE = {"num_cpus": 1, "object_store_memory": 80 << 20}
TESTS = Path(__file__).parent


class TwoNodes:
    """The cluster; a node that was killed is replaced for the next test.

    Args:
        cluster: of Ray's own test utilities.
    """

    def __init__(self, cluster: Any) -> None:
        self._cluster, self._second = cluster, cluster.add_node(**NODE)

    @property
    def settings(self) -> RayConfig:
        """How deshi reaches it."""
        return RayConfig(address=self.address)

    @property
    def address(self) -> str:
        """Of its head."""
        return str(self._cluster.address)

    @contextmanager
    def killer(self) -> Iterator[Any]:
        """A function that kills the second node, as a power cut would, at its first call."""
        calls: list[object] = []

        def kill() -> None:
            if not calls:
                calls.append(self._cluster.remove_node(self._second, allow_graceful=False))

        yield kill
        assert calls, "the node was not killed"
        self._second = self._cluster.add_node(**NODE)


@pytest.fixture(scope="module")
def two_nodes() -> Iterator[TwoNodes]:
    """Starts in about ten seconds: one for a module."""
    pytest.importorskip("ray")
    import ray
    from ray.cluster_utils import Cluster

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("PYTHONPATH", os.pathsep.join([str(TESTS), os.environ.get("PYTHONPATH", "")]))
        cluster = Cluster(initialize_head=True, head_node_args=NODE | {"include_dashboard": False})
        try:
            nodes = TwoNodes(cluster)
            ray.init(nodes.address, log_to_driver=False, configure_logging=False)  # tests share it and its workers
            yield nodes
        finally:
            ray.shutdown()
            cluster.shutdown()
