"""The work of ``deshi serve``: recommendations over HTTP from an exported bundle, until a signal stops it."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import threading
import time
from contextlib import suppress
from typing import Any

from deshi.configuration.needs import SERVER
from deshi.serving.bundle import ServingBundle, find_bundle
from deshi.serving.engine import Engine
from deshi.serving.http.comparison import label_of
from deshi.serving.http.logs import FIELDS, json_logs
from deshi.serving.http.result import ServeResult
from deshi.stages.serve import ServeConfig
from deshi.tables import read_lines
from deshi.types import DeshiError

log = logging.getLogger("deshi.serving.http")  # whose log is JSON

LOOPBACK = ("127.0.0.1", "::1", "localhost")
SHORTEST_KEY = 16


def run(cfg: ServeConfig) -> ServeResult:
    """Serve until SIGINT or SIGTERM; requests under way are answered first.

    Raises:
        DeshiError: if a package is missing, the bundle is refused, or the address can't be used.
    """
    try:
        import uvicorn

        from deshi.serving.http.app import Service, create_app
        from deshi.serving.http.demo import Demo
        from deshi.serving.http.metrics import Metrics
        from deshi.serving.http.page import page
        from deshi.serving.http.reload import Engines
    except ImportError as error:
        raise DeshiError(f"{SERVER.advice} ({error})") from error
    begin = time.perf_counter()
    metrics = Metrics()
    engines = Engines(lambda: _open(cfg, cfg.bundle), lambda bundle: _start(cfg, bundle), metrics)
    service = Service(engines, metrics, read_key(cfg), cfg.body_bytes, cfg.timeout, cfg.log_requests)
    demo = Demo() if cfg.demo is None else Demo.load(cfg.demo.expanduser())
    pages = [page(service, _compared_engines(cfg), demo)]
    app = create_app(service, pages, hooks=[lambda: _reload_on_hangup(service)])
    options = uvicorn.Config(
        app, cfg.host, cfg.port, http="auto", loop="auto", ws="none", lifespan="on", log_config=None,
        access_log=False, server_header=False, proxy_headers=False, limit_concurrency=cfg.connections,
        timeout_graceful_shutdown=int(cfg.timeout) + 1,
    )  # fmt: skip
    with json_logs():
        _announce(cfg, engines.current, service.api_key is not None)
        _serve(uvicorn.Server(options), cfg)
    bundle = engines.current.bundle
    return ServeResult(bundle.name, bundle.version, time.perf_counter() - begin)


def read_key(cfg: ServeConfig) -> str | None:
    """The API key: from its file, or else from the environment; None where neither has one.

    Raises:
        DeshiError: if the file can't be read, or the key is empty, short, or nothing that a header can hold.
    """
    source = f"the environment variable {cfg.api_key_env}"
    key = os.environ.get(cfg.api_key_env)
    if cfg.api_key_file is not None:
        source = str(cfg.api_key_file)
        key = "\n".join(read_lines(cfg.api_key_file.expanduser(), f"of the API key, {source}"))
    if key is None:
        return None
    if len(key) < SHORTEST_KEY or not key.isascii() or not key.isprintable() or " " in key:
        raise DeshiError(
            f"The API key in {source} has {len(key)} characters, expected {SHORTEST_KEY} or more, printable ASCII "
            "without spaces. One is made by: python -c 'import secrets; print(secrets.token_urlsafe(32))'"
        )
    return key


def _open(cfg: ServeConfig, text: str) -> ServingBundle:
    return ServingBundle.load(find_bundle(cfg.paths.runs, text))


def _start(cfg: ServeConfig, bundle: ServingBundle) -> Engine:
    return Engine(bundle, cfg.threads, cfg.precision, search=cfg.search)


def _compared_engines(cfg: ServeConfig) -> dict[str, Engine]:
    """The page's further engines by their labels: a bundle's name, with its version where two have the same."""
    engines: dict[str, Engine] = {}
    for name in cfg.compare_with:
        engine = _start(cfg, _open(cfg, name))
        engines[label_of(engine, engines)] = engine
    return engines


def _announce(cfg: ServeConfig, engine: Engine, key: bool) -> None:
    if cfg.host not in LOOPBACK and not key:
        log.warning("The service is reachable from other machines and has no API key; see docs/serve.md.")
    fields = {
        "bundle": engine.bundle.name, "version": engine.bundle.version, "items": engine.n_items, "api_key": key,
    }  # fmt: skip
    log.info("serving", extra={FIELDS: fields})


def _serve(server: Any, cfg: ServeConfig) -> None:
    """Run until a signal; uvicorn raises that signal once more after the shutdown, which is ignored then."""
    main = threading.current_thread() is threading.main_thread()
    before = {sign: signal.signal(sign, _ignore) for sign in (signal.SIGINT, signal.SIGTERM)} if main else {}
    try:
        server.run()
    except SystemExit as error:  # uvicorn has logged the reason, e.g. a port that is taken
        raise DeshiError(f"The service can't listen on {cfg.host}:{cfg.port}; the log says why.") from error
    finally:
        for sign, handler in before.items():
            signal.signal(sign, handler)
    if not server.started:
        raise DeshiError(f"The service did not start on {cfg.host}:{cfg.port}; the log says why.")


def _ignore(sign: int, frame: Any) -> None:
    """Ignore a signal that comes after the shutdown."""


def _reload_on_hangup(service: Any) -> None:
    """Reload on SIGHUP, where there is such a signal and this is the main thread."""
    running: set[asyncio.Task[Any]] = set()

    async def reload() -> None:
        with suppress(DeshiError):  # logged and counted
            await service.reload()

    def start() -> None:
        task = asyncio.ensure_future(reload())
        running.add(task)  # the loop holds no task of its own
        task.add_done_callback(running.discard)

    if hasattr(signal, "SIGHUP") and threading.current_thread() is threading.main_thread():
        asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, start)
