"""Services in the documentation: started with ``&``, asked with curl, ended with kill."""

from __future__ import annotations

import shlex
import signal
import urllib.request

from service_process import Process

ADDRESS = "http://127.0.0.1:8000"
"""Where a page's service answers; in a test it is another port, which no other test has."""


class Services:
    """The service that a page has started, if it has."""

    def __init__(self) -> None:
        self._process: Process | None = None

    def knows(self, words: list[str]) -> bool:
        """Whether a command is about services."""
        return words[0] in ("curl", "kill") or words[-1] == "&"

    def run(self, words: list[str]) -> None:
        """Start, ask or end; a wrong answer or exit code fails."""
        if words[-1] == "&":
            assert words[:2] == ["deshi", "serve"] and self._process is None, shlex.join(words)
            self._process = Process(*words[2:-1])
            return
        assert self._process is not None, f"no service to {shlex.join(words)}"
        if words[0] == "kill":
            code, printed = self._process.end(signal.SIGTERM)
            assert code == 0, printed
            self._process = None
        else:
            self._ask(words[1:])

    def end(self) -> None:
        """Whatever a page has left running."""
        if self._process is not None:
            self._process.kill()

    def _ask(self, words: list[str]) -> None:
        headers, data, url = {}, None, ""
        rest = iter(words)
        for word in rest:
            if word == "-H":
                name, _, value = next(rest).partition(": ")
                headers[name] = value
            elif word == "-d":
                data = next(rest).encode()
            elif word != "-s":
                url = word
        assert self._process is not None and url.startswith(ADDRESS), shlex.join(words)
        request = urllib.request.Request(self._process.url + url.removeprefix(ADDRESS), data, headers)
        with urllib.request.urlopen(request, timeout=30) as answer:
            assert answer.status == 200 and answer.read()
