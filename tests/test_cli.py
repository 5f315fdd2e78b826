"""The command line: it teaches, it refuses what is wrong, and it never shows a traceback to a user."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from deshi.cli import main
from deshi.configuration.groups import choices, stage_groups
from deshi.configuration.run_folders import save_config
from deshi.configuration.stage import Stage
from deshi.hardware import training_device
from deshi.stages import STAGES
from deshi.types import DeshiError


class Recorder:
    """Stands in for a stage's work and keeps the configuration it got."""

    def __init__(self, error: BaseException | None = None) -> None:
        self.configs: list[Any] = []
        self.error = error

    def __call__(self, config: Any) -> str:
        self.configs.append(config)
        if self.error is not None:
            raise self.error
        return "the result"


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> Any:
    def install(stage: str, error: BaseException | None = None) -> Recorder:
        recorder = Recorder(error)
        original = Stage.run
        # no work needs nothing: a test must not fetch a model for it
        monkeypatch.setattr("deshi.stages._preflight.refuse_missing", lambda stage, config: None)
        monkeypatch.setattr("deshi.stages._auto.decided", lambda stage, config, *more: config)  # nor data
        monkeypatch.setattr(
            Stage, "run", lambda self, cfg: recorder(cfg) if self.name == stage else original(self, cfg)
        )
        return recorder

    return install


def test_help_lists_every_stage_with_a_line_and_a_command(capsys: pytest.CaptureFixture[str]) -> None:
    """Whoever types `deshi --help` should be able to go on without a manual."""
    assert main(["--help"]) == 0
    text = capsys.readouterr().out
    for stage in STAGES.values():
        assert f"  {stage.command} " in text and stage.summary in text and stage.examples[0][0] in text


def test_no_stage_is_wrong_use_but_still_helps(capsys: pytest.CaptureFixture[str]) -> None:
    """A script that forgets the stage must not look successful."""
    assert main([]) == 2
    assert "Stages, in the order of the work" in capsys.readouterr().out


@pytest.mark.parametrize("stage", STAGES)
def test_stage_help_teaches_groups_choices_keys_and_examples(stage: str, capsys: pytest.CaptureFixture[str]) -> None:
    """The help is made from the files and the schema, so a new choice shows up by itself."""
    assert main([*stage.split("_"), "--help"]) == 0
    text = capsys.readouterr().out
    for group in stage_groups(stage):
        for choice in choices(group) if group != "paths" else ():
            assert f" {choice} " in text
    for command, _ in STAGES[stage].examples:
        assert command in text
    assert "paths.root=. " in text


def test_stage_help_shows_the_defaults_in_force(capsys: pytest.CaptureFixture[str]) -> None:
    """A default in the help that isn't the one used is worse than none."""
    main(["fit", "--help"])
    text = capsys.readouterr().out
    assert "train.max_epochs=50 " in text and " * sasrec " in text and "eval.ks=[1, 5, 10, 20, 50]" in text


def test_stage_help_lists_choices_of_ones_own(capsys: pytest.CaptureFixture[str], config_dir: Path) -> None:
    """A preset that the help doesn't list looks as if it weren't found."""
    assert main(["prepare", "--config-dir", str(config_dir), "--help"]) == 0
    assert "tiny             The tiny data set of the tests." in capsys.readouterr().out


def test_help_loads_nothing_heavy() -> None:
    """Half a minute of imports for a help text drives people away."""
    code = (
        "import sys; from deshi.cli import main; main(['fit', '--help']);"
        "sys.exit(any(name in sys.modules for name in ('torch', 'hydra', 'polars', 'lightning')))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True).returncode == 0


def test_module_and_command_are_the_same() -> None:
    """`python -m deshi` works where the command isn't on the path."""
    done = subprocess.run([sys.executable, "-m", "deshi", "--version"], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("deshi 0.")


def test_a_reader_that_stops_reading_is_no_traceback() -> None:
    """`deshi fit --help | head` closes the pipe while deshi writes to it."""
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run([sys.executable, "-m", "deshi", "--help"], stdout=write, stderr=subprocess.PIPE, text=True)
    os.close(write)
    assert (done.returncode, done.stderr) == (141, "")


def test_a_stage_gets_the_resolved_configuration_and_its_result_is_printed(
    stand_in: Any, capsys: pytest.CaptureFixture[str], config_dir: Path
) -> None:
    """What is printed before the work is what the work gets."""
    recorder = stand_in("fit")
    assert main(["fit", "--config-dir", str(config_dir), "data=tiny", "train.max_epochs=3"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("# deshi fit data=tiny train.max_epochs=3\n")
    assert "max_epochs: 3  # <- train.max_epochs=3" in out and out.endswith("the result\n")
    assert recorder.configs[0].train.max_epochs == 3
    assert recorder.configs[0].overrides == ["data=tiny", "train.max_epochs=3"]


def test_dry_run_checks_and_prints_but_does_not_work(stand_in: Any, capsys: pytest.CaptureFixture[str]) -> None:
    """A long job's arguments can be looked over first."""
    recorder = stand_in("fit")
    assert main(["fit", "--dry-run", "student=gru4rec"]) == 0
    assert "deshi.models.gru4rec.GRU4Rec" in capsys.readouterr().out and not recorder.configs


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["fti"], "There is no stage 'fti'. Did you mean fit?"),
        (["launch"], "The stages are run, prepare, fit, teach"),
        (["fit", "--max-epochs=3"], "settings are written key=value, e.g. max_epochs=3"),
        (["data=ml-100k"], "no stage"),
        (["fit", "train.max_epoch=3"], "Nearest valid keys: train.max_epochs"),
        (["fit", "--config-dir", "/nowhere"], "expected a folder"),
        (["fit", "--config-dir"], "expected a folder"),
        (["evaluate", "run=latest", "paths.root=/nowhere"], "run `deshi fit` first"),
        (["evaluate", "latest", "paths.root=/nowhere"], "run `deshi fit` first"),
        (["evaluate", "one", "two"], "works on one run, but got 2: one, two"),
        (["prepare", "ml-100"], "there is no data 'ml-100'. Nearest valid choices: ml-100k"),
        (["label", "inspect", "a", "b"], "deshi label inspect works on one store, but got 2"),
    ],
)
def test_wrong_use_is_explained_without_a_traceback(
    words: list[str], expected: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit code 2, the reason on stderr, nothing else."""
    assert main(words) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and expected in error and "Traceback" not in error


def test_a_stages_own_errors_are_messages_too(
    stand_in: Any, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Errors that the user can fix come without a traceback, unless it is asked for."""
    stand_in("fit", DeshiError("There is no data bundle."))
    assert main(["fit"]) == 2
    assert capsys.readouterr().err == "error: There is no data bundle.\n"
    monkeypatch.setenv("DESHI_TRACEBACK", "1")
    with pytest.raises(DeshiError):
        main(["fit"])


def test_bugs_are_not_hidden(stand_in: Any) -> None:
    """Only errors meant for the user lose their traceback."""
    stand_in("fit", RuntimeError("a bug"))
    with pytest.raises(RuntimeError):
        main(["fit"])


def _interrupted_exit() -> SystemExit:
    error = SystemExit(1)
    error.__context__ = KeyboardInterrupt("deshi fit resume=runs/fit/x")
    return error


@pytest.mark.parametrize("error", [KeyboardInterrupt("deshi fit resume=runs/fit/x"), _interrupted_exit()])
def test_an_interruption_says_how_to_go_on(
    error: BaseException, stand_in: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    """Ctrl-C is no failure; 130 is the shell's code for it. Lightning turns it into an exit on the way."""
    stand_in("fit", error)
    assert main(["fit"]) == 130
    assert capsys.readouterr().err == "\ninterrupted. Go on with: deshi fit resume=runs/fit/x\n"


def test_an_interruption_with_nothing_to_resume_says_so(stand_in: Any, capsys: pytest.CaptureFixture[str]) -> None:
    """Stages write atomically, so starting again is safe."""
    stand_in("prepare", KeyboardInterrupt())
    assert main(["prepare", "data=ml-1m"]) == 130
    assert "Start again with: deshi prepare data=ml-1m" in capsys.readouterr().err


def test_other_exits_pass(stand_in: Any) -> None:
    """A SystemExit that no Ctrl-C has caused isn't an interruption."""
    stand_in("fit", SystemExit(3))
    with pytest.raises(SystemExit, match="3"):
        main(["fit"])


@pytest.mark.parametrize("stage", STAGES)
def test_every_example_of_the_help_is_valid(
    stage: str, stand_in: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """An example that doesn't run is the worst teacher."""
    from deshi.stages import compose

    for name, given in (("fit", []), ("distill", ["soft_labels=[lists]"])):
        folder = tmp_path / "runs" / name / "20250101-000000_x"
        folder.mkdir(parents=True)
        save_config(folder, compose(name, given, {}))
    monkeypatch.chdir(tmp_path)
    recorder = stand_in(stage)
    for command, _ in STAGES[stage].examples:
        assert main(command.split()[1:]) == 0, capsys.readouterr().err
    assert len(recorder.configs) == len(STAGES[stage].examples)


@pytest.mark.slow
def test_ctrl_c_while_training_can_be_resumed(config_dir: Path, tmp_path: Path) -> None:
    """The whole way: a signal to the process, exit code 130, the command on stderr, and that command finishes."""
    deshi = [sys.executable, "-m", "deshi"]
    common = ["data=tiny", f"paths.root={tmp_path}"]
    options = ["--config-dir", str(config_dir)]
    subprocess.run([*deshi, "prepare", *options, *common], check=True, capture_output=True)
    long = [*deshi, "fit", *options, *common, "train.max_epochs=400", "train.patience=400", "train.progress=false"]
    process = subprocess.Popen([*long, "train.threads=1"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 120
    while not list(tmp_path.glob("runs/fit/*/checkpoints/*")) and time.monotonic() < deadline:
        time.sleep(0.1)
    time.sleep(1)
    process.send_signal(signal.SIGINT)
    _, error = process.communicate(timeout=60)
    assert process.returncode == 130, error
    command = error.strip().splitlines()[-1].partition("Go on with: ")[2]
    assert command.startswith("deshi fit resume=")
    done = subprocess.run([*deshi, *shlex.split(command)[1:]], capture_output=True, text=True)
    assert done.returncode == 0 and "selected epoch" in done.stdout, done.stderr


@pytest.mark.parametrize("place", ["/dev/null/x", "/proc/no/x"])
def test_what_the_system_refuses_is_one_line(place: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A path that can't be written is no bug of deshi's, and exit code 1 means that an audit has found an error."""
    (tmp_path / "e.csv").write_text("user_id,item_id,time\n" + "".join(f"u{n % 3},i{n % 5},{n}\n" for n in range(30)))
    source = ["data.source.path=" + str(tmp_path / "e.csv"), "data.source.timestamp=null", "data.source.time_unit=row"]
    code = main(["prepare", "data=tabular", "data.name=x", *source, f"paths.root={place}"])
    error = capsys.readouterr().err
    assert code == 2 and place.rpartition("/")[0] in error and "Traceback" not in error
    assert error.splitlines()[-1].startswith("error: ")


def test_a_device_that_is_not_there_is_refused_before_work(capsys: pytest.CaptureFixture[str]) -> None:
    """Lightning's own error comes late, as a traceback."""
    for name in ("tpu", *(() if torch.cuda.is_available() else ("cuda", "gpu"))):
        with pytest.raises(DeshiError, match=f"train.accelerator is '{name}'"):
            training_device(name)


@pytest.mark.parametrize("says", ["[enforce fail] DefaultCPUAllocator: can't allocate memory", "CUDA out of memory."])
def test_too_little_memory_is_one_line(
    says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """PyTorch says it by a RuntimeError, which is a bug only where it says anything else."""

    def fail(*_: object) -> None:
        raise RuntimeError(says)

    monkeypatch.setattr("deshi.stages._compare.run", fail)
    command = ["compare", "a", "b", f"paths.root={tmp_path}"]
    assert main(command) == 2
    assert "not enough memory" in capsys.readouterr().err.splitlines()[-1]
    says = "a bug"
    with pytest.raises(RuntimeError, match="a bug"):
        main(command)
