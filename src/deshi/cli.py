"""The command ``deshi STAGE [key=value ...]``: composes a stage's configuration, runs it, prints its result."""

from __future__ import annotations

import errno
import logging
import os
import re
import select
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

from deshi.configuration.stage import Stage
from deshi.stages import STAGES, by_data, compose, find_stage, run_checked
from deshi.types import DeshiError

USAGE = """\
deshi STAGE [key=value ...]      run a stage
deshi STAGE NAME [key=value ...] the same with data=NAME, run=NAME, store=NAME or bundle=NAME, as its help says
deshi STAGE --help               its groups, keys and examples
deshi STAGE --dry-run ...      check the configuration and what it needs, print both with an estimate, stop
deshi STAGE --config-dir DIR   take groups of your own from DIR/GROUP/NAME.yaml too
deshi --version"""

INTERRUPTED = 130
PIPE_CLOSED = 141
WRONG_USE = 2
TABLE_WIDTH = 120


@dataclass
class Arguments:
    """The command line, taken apart."""

    stage: str | None = None
    subject: list[str] = field(default_factory=list)
    overrides: list[str] = field(default_factory=list)
    config_dir: Path | None = None
    help: bool = False
    version: bool = False
    dry_run: bool = False


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code.

    Returns:
        0 when the stage has done its work, or what its result says (``exit_code``: ``audit`` says 1 when it has found
        an error); 2 for an error that the user can fix, 130 after an interruption, 141 when what reads the output has
        stopped reading, as ``| head`` does.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    try:
        code = _main(words)
        sys.stdout.flush()
        return code
    except DeshiError as error:
        if os.environ.get("DESHI_TRACEBACK") == "1":
            raise
        print(f"error: {error}", file=sys.stderr)
        return WRONG_USE
    except BrokenPipeError:
        if not _stdout_is_closed():
            raise
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # else Python's exit complains once more
        return PIPE_CLOSED
    except (OSError, MemoryError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and not _NO_MEMORY.search(str(error)):
            raise
        if os.environ.get("DESHI_TRACEBACK") == "1":
            raise
        print(f"error: {_of_the_system(error)}", file=sys.stderr)
        return WRONG_USE
    except (KeyboardInterrupt, SystemExit) as error:
        cause = error if isinstance(error, KeyboardInterrupt) else error.__context__
        if not isinstance(cause, KeyboardInterrupt):
            raise
        print(f"\ninterrupted. {_what_next(str(cause), words)}", file=sys.stderr)
        return INTERRUPTED


_NO_MEMORY = re.compile("can't allocate memory|out of memory|not enough memory", re.IGNORECASE)
"""What PyTorch says in a RuntimeError, of a GPU or of the machine."""


def _of_the_system(error: OSError | MemoryError | RuntimeError) -> str:
    """What the system refused, with the file that it is about."""
    if not isinstance(error, OSError):
        reason = str(error).partition("\n")[0]
        return (
            f"There is not enough memory ({reason}). Close other programs, or use smaller batches "
            "(train.batch_positions, eval.batch_size), a smaller network or fewer data."
        )
    paths = [str(path) for path in (error.filename, error.filename2) if path is not None]
    reason = error.strerror or str(error) or type(error).__name__
    return f"{' -> '.join(paths)}: {reason}. {_ADVICE.get(error.errno or 0, _CHECK)}".removeprefix(": ")


_CHECK = "Check the path and its disk, and run the command again."
_ADVICE = {
    errno.ENOSPC: "Free some space there, or work elsewhere with paths.root=FOLDER.",
    errno.EDQUOT: "Free some space there, or work elsewhere with paths.root=FOLDER.",
    errno.EFBIG: "The file reached the size that is allowed: raise the limit (ulimit -f).",
    errno.EACCES: "Check who may read and write there, or work elsewhere with paths.root=FOLDER.",
    errno.EPERM: "Check who may read and write there, or work elsewhere with paths.root=FOLDER.",
    errno.EROFS: "Nothing can be written there: work elsewhere with paths.root=FOLDER.",
    errno.ENAMETOOLONG: "Give a shorter name.",
    errno.ENOTDIR: "A file is where a folder is expected: move it, or give another path.",
    errno.EEXIST: "A file is where a folder is expected: move it, or give another path.",
    errno.EISDIR: "A folder is where a file is expected: give the path of a file.",
    errno.ENOENT: "Check the path.",
    errno.EIO: "The disk could not read or write it: check the disk and the copy.",
}


def _stdout_is_closed() -> bool:
    """Whether nobody reads the standard output any more."""
    poll = select.poll()
    poll.register(sys.stdout.fileno(), 0)
    return any(events & select.POLLERR for _, events in poll.poll(0))


def _main(words: list[str]) -> int:
    arguments = read(words)
    if arguments.version:
        print(f"deshi {version('deshi')}")
    elif arguments.stage is None:
        print(general_help())
        return 0 if arguments.help else WRONG_USE
    elif arguments.help:
        print(stage_help(find_stage(arguments.stage), arguments.config_dir))
    else:
        return _run(find_stage(arguments.stage), arguments)
    return 0


def _run(stage: Stage, arguments: Arguments) -> int:
    from deshi.configuration.launch import further_rank
    from deshi.configuration.overrides import from_python
    from deshi.configuration.show import render

    overrides = [*from_python(stage.with_subject(arguments.subject, {})), *arguments.overrides]
    config = compose(stage.name, overrides, {}, arguments.config_dir)
    with _log_on_stderr():
        config = by_data(stage.name, config, arguments.config_dir, prepare=not arguments.dry_run)
    command = " ".join(["deshi", stage.command, *overrides])
    if further_rank(config):  # the first rank of the training says all
        if not arguments.dry_run:
            run_checked(stage, config)
        return 0
    print(f"# {command}\n# resolved configuration:\n{render(config)}\n", flush=True)
    if arguments.dry_run:
        from deshi.stages import dry_run

        _print_result(dry_run(stage, config))
        return 0
    with _log_on_stderr():
        result = run_checked(stage, config)
    _print_result(result)
    return int(getattr(result, "exit_code", 0))


@contextmanager
def _log_on_stderr() -> Iterator[None]:
    """Show what deshi logs, warnings marked as such; other libraries stay as they are."""
    logger, handler = logging.getLogger("deshi"), logging.StreamHandler()
    handler.setFormatter(_Formatter())
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)


class _Formatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        level = f"{record.levelname.lower()}: " if record.levelno > logging.INFO else ""
        return level + record.getMessage()


def _print_result(result: Any) -> None:
    from rich.console import Console

    Console(width=None if sys.stdout.isatty() else TABLE_WIDTH).print(result)


def read(words: Sequence[str]) -> Arguments:
    """Take the command line apart.

    Raises:
        DeshiError: for an option that doesn't exist.
    """
    arguments = Arguments()
    remaining = iter(words)
    for word in remaining:
        option, _, value = word.partition("=")
        if word in ("-h", "--help", "help"):
            arguments.help = True
        elif word in ("-V", "--version"):
            arguments.version = True
        elif word == "--dry-run":
            arguments.dry_run = True
        elif option == "--config-dir":
            arguments.config_dir = _folder(value or next(remaining, ""))
        elif word.startswith("-"):
            key = option.lstrip("-").replace("-", "_")
            raise DeshiError(
                f"There is no option {option}. The options are --help, --dry-run, --config-dir and --version; "
                f"settings are written key=value, e.g. {key}={value or 'VALUE'}."
            )
        elif arguments.stage is None and "=" not in word:
            arguments.stage = word
        elif "=" not in word and f"{arguments.stage}_{word}" in STAGES:
            arguments.stage = f"{arguments.stage}_{word}"
        elif "=" not in word:
            arguments.subject.append(word)
        else:
            arguments.overrides.append(word)
    if arguments.stage is None and arguments.overrides:
        commands = ", ".join(stage.command for stage in STAGES.values())
        raise DeshiError(f"Got {arguments.overrides[0]} but no stage. Name one first: {commands}.")
    return arguments


def _folder(text: str) -> Path:
    path = Path(text).expanduser()
    if not text or not path.is_dir():
        raise DeshiError(f"--config-dir got {text!r}, expected a folder that holds GROUP/NAME.yaml files.")
    return path


def _what_next(resume: str, words: Sequence[str]) -> str:
    if resume:
        return f"Go on with: {resume}"
    return f"Nothing half done is left behind. Start again with: deshi {' '.join(words)}"


def general_help() -> str:
    """What ``deshi --help`` prints."""
    width = max(len(stage.command) for stage in STAGES.values())
    stages = "\n".join(f"  {stage.command:<{width}}  {stage.summary}" for stage in STAGES.values())
    examples = "\n".join(f"  {stage.examples[0][0]}" for stage in STAGES.values())
    return (
        "deshi distils an LLM recommender into a small, fast one, and measures every step.\n\n"
        f"{USAGE}\n\nStages, in the order of the work:\n{stages}\n\n"
        f"A first run, from nothing to a table of results:\n{examples}\n\n"
        "In Python the stages are functions: deshi.fit('ml-100k', student='gru4rec')."
    )


def stage_help(stage: Stage, config_dir: Path | None = None) -> str:
    """What ``deshi STAGE --help`` prints: purpose, groups with their choices, keys with defaults, examples."""
    from deshi.configuration.show import group_help, key_help

    width = max(len(command) for command, _ in stage.examples)
    examples = "\n".join(f"  {command:<{width}}  # {meaning}" for command, meaning in stage.examples)
    groups = "\n".join(group_help(stage.name, config_dir))
    keys = "\n".join(key_help(stage.name, stage.schema))
    return (
        f"deshi {stage.command}: {stage.summary}\n\n{stage.purpose}\n\n"
        f"Groups (GROUP=NAME chooses a file, GROUP.KEY=VALUE changes a value in it; * is the default):\n{groups}\n\n"
        f"Keys with their defaults:\n{keys}\n\nExamples:\n{examples}\n\n"
        f"Arguments of what a group chooses are listed by: deshi {stage.command} --dry-run ..."
    )
