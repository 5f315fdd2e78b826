"""Every YAML file that ships is discovered, composed and checked: none can rot unseen."""

from __future__ import annotations

from pathlib import Path

import pytest

from deshi.configuration.groups import ROOT, choices, description, stage_groups
from deshi.configuration.targets import ConfigError
from deshi.stages import STAGES, compose

FILES = sorted(ROOT.rglob("*.yaml"))
NAMES = [str(path.relative_to(ROOT).with_suffix("")) for path in FILES]
IMPORTED = ["source=dllm2rec", "source.data=folder", "source.tocf=folder"]
EXTRA = {
    "audit": ["data=tiny"],
    "compare": ["runs=[latest]"],
    "distill": ["data=tiny", "soft_labels=[lists]"],
    "evaluate": ["baseline=popularity", "data=tiny"],
    "export": ["run=latest"],
    "fit": ["data=tiny"],
    "gap": ["run=latest"],
    "label": ["run=latest"],
    "label_import": ["store=lists", "data=tiny", *IMPORTED],
    "label_inspect": ["store=lists"],
    "prepare": ["data=tiny"],
    "recommend": ["bundle=latest", "input=events.csv"],
    "report": ["runs=[latest]"],
    "run": ["data=tiny"],
    "serve": ["bundle=latest"],
    "teach": ["data=tiny"],
    "tune": ["data=tiny", "space.train.learning_rate=log(1e-4,1e-2)"],
}
"""What a stage needs besides its defaults to have something to do."""
MISSING = {
    "data/tabular": ["data.source.path=events.csv"],
    "data/sql": ["data.source.query=SELECT 1"],
    "data/recbole": ["data.source.path=folder"],
    "candidates/file": ["candidates.path=sets.csv"],
    "source/dllm2rec": ["source.data=folder", "source.tocf=folder"],
    "source/bigrec": ["source.examples=test.json", "source.names=id2name.txt"],
    "source/llara": ["source.frame=Test_data.df", "source.answers=test.csv", "source.names=id2name.txt"],
    "profiles/asked": [
        "profiles.path=profiles.parquet",
        "profiles.endpoint.url=http://localhost:1/v1",
        "profiles.endpoint.model=m",
    ],
    "profiles/texts": ["profiles.path=profiles.csv"],
    "profiles/vectors": ["profiles.path=profiles.parquet"],
    "selection/coreset": ["selection.student=latest"],
    "selection/disagreement": ["selection.student=latest"],
    "selection/error": ["selection.student=latest"],
    "selection/uncertainty": ["selection.student=latest"],
    "teacher/ensemble": ["teacher.members=[latest,latest]"],
    "teacher/ilora": ["teacher.student=latest"],
    "teacher/rerank": [
        "teacher.first=latest",
        "teacher.endpoint.url=http://localhost:1/v1",
        "teacher.endpoint.model=m",
    ],
    "teacher/files": ["teacher.path=lists.csv"],
    "teacher/files-vectors": ["teacher.path=vectors.npy"],
    "teacher/files-matrix": ["teacher.path=scores.npy", "teacher.users=users.txt", "teacher.items=items.txt"],
}
"""Values that a file leaves to the user (``???``)."""


@pytest.mark.parametrize("name", NAMES)
def test_every_file_composes_and_passes_the_check(name: str, config_dir: Path) -> None:
    """A misspelt argument in a preset that nobody runs today is an error for somebody tomorrow."""
    group, _, choice = name.partition("/")
    if not choice:
        compose(group, EXTRA[group], {}, config_dir)
        return
    users = [stage for stage in STAGES if group in stage_groups(stage)]
    assert users, f"no stage has the group {group}: {name}.yaml is dead"
    for stage in users:
        others = [word for word in EXTRA[stage] if not word.startswith(f"{group}.")]
        compose(stage, [*others, f"{group}={choice}", *MISSING.get(name, [])], {}, config_dir)


@pytest.mark.parametrize("name", MISSING)
def test_what_a_file_leaves_to_the_user_is_asked_for(name: str) -> None:
    """`???` is Hydra's mark for it and must never be taken for a value; training doesn't need the source again."""
    choice = name.replace("/", "=")
    key = MISSING[name][0].partition("=")[0]
    stages = {
        "data": ("prepare", []),
        "teacher": ("teach", []),
        "source": ("label_import", ["store=lists", "data=ml-1m"]),
        "selection": ("label", ["run=latest"]),
        "profiles": ("label", ["run=latest"]),
    }
    stage, given = stages.get(name.partition("/")[0], ("evaluate", ["baseline=popularity", "data=ml-1m"]))
    with pytest.raises(ConfigError, match=f"{key}: is missing: give {key}=VALUE"):
        compose(stage, [*given, choice], {})
    if stage == "prepare":
        compose("fit", [choice], {})


def test_every_stage_has_its_file_and_every_file_its_stage() -> None:
    """A stage without a primary configuration can't start; one without a stage is dead."""
    assert {name for name in NAMES if "/" not in name} == set(STAGES)


@pytest.mark.parametrize("stage", STAGES)
def test_groups_and_their_defaults_exist(stage: str) -> None:
    """The defaults list is text: a typo in it would show only at run time."""
    for group, choice in stage_groups(stage).items():
        assert choice is None or choice in choices(group), f"{stage}: {group}={choice}"


@pytest.mark.parametrize("path", FILES, ids=NAMES)
def test_every_file_says_what_it_is(path: Path) -> None:
    """The first comment is the file's line in `deshi STAGE --help`."""
    assert 10 < len(description(path)) <= 140


@pytest.mark.parametrize("stage", STAGES)
def test_no_key_has_the_name_of_a_group_that_the_stage_does_not_have(stage: str) -> None:
    """Hydra takes `train=FILE` for a choice of the group `train`, so that such a key could never be set."""
    groups = {path.name for path in ROOT.iterdir() if path.is_dir()}
    assert groups & set(STAGES[stage].schema.model_fields) <= set(stage_groups(stage))
