"""The container's files: what they install is enough, and they agree with the service."""

from __future__ import annotations

import re
import signal
from importlib.metadata import distribution, packages_distributions
from pathlib import Path

import yaml
from packaging.requirements import Requirement

from service_process import Process

ROOT = Path(__file__).parents[3]

BLOCKING = """
import sys
blocked = set({blocked!r})

class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in blocked:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Blocked())
from deshi.cli import main
sys.exit(main())
"""


def installed() -> set[str]:
    """The distributions that the Dockerfile installs, with all that they need on this machine."""
    text = (ROOT / "Dockerfile").read_text(encoding="utf-8").replace("\\\n", " ")
    found: set[str] = set()
    command = re.search(r"pip install -c constraints.txt (.*)", text)
    assert command is not None
    waiting = [*command[1].split(), "deshi"]
    while waiting:
        name = waiting.pop().lower().replace("_", "-")
        if name in found:
            continue
        found.add(name)
        needed = [] if name == "deshi" else map(Requirement, distribution(name).requires or [])
        waiting += [one.name for one in needed if one.marker is None or one.marker.evaluate({"extra": ""})]
    return found


def test_what_the_container_installs_is_enough(serving: Path) -> None:
    """The service starts and stops where nothing else can be imported, PyTorch first of all."""
    names = installed()
    blocked = sorted(
        module
        for module, owners in packages_distributions().items()
        if not any(owner.lower().replace("_", "-") in names for owner in owners) and module.isidentifier()
    )
    assert {"torch", "lightning", "onnx", "matplotlib"} <= set(blocked) and not {"deshi", "faiss"} & set(blocked)
    process = Process(f"bundle={serving}", program=("-c", BLOCKING.format(blocked=blocked)))
    code, printed = process.end(signal.SIGTERM)
    assert code == 0 and "stopped" in printed


def test_compose_and_dockerfile_agree() -> None:
    """Port, mount and key are those of the service; nothing is open to other machines."""
    services = yaml.safe_load((ROOT / "compose.yaml").read_text(encoding="utf-8"))["services"]
    docker = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    assert "bundle=/bundle" in docker and services["serve"]["volumes"][0].endswith(":/bundle:ro")
    assert all(port.startswith("127.0.0.1:") for one in services.values() for port in one["ports"])
    assert "DESHI_API_KEY" in services["serve"]["environment"] and "USER deshi" in docker
    scraped = yaml.safe_load((ROOT / "deploy/prometheus.yaml").read_text(encoding="utf-8"))["scrape_configs"][0]
    assert scraped["static_configs"][0]["targets"] == ["serve:8000"]
    copied = [word for line in docker.splitlines() if line.startswith("COPY") for word in line.split()[1:-1]]
    ignored = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    assert copied and {f"!{name}" for name in copied} <= set(ignored)
    assert all((ROOT / name).exists() for name in copied)
