"""From a configuration back to its command: what is printed for repeating a step by hand must repeat it."""

from __future__ import annotations

import pytest

from deshi.configuration.command import command_of, words_of
from deshi.configuration.validation import resolved
from deshi.stages import compose

TERM = "distill.terms={x: {_target_: deshi.distillation.listwise.ListwiseKL, temperature: 2}}"
EXAMPLES = [
    ("prepare", ["data=ml-1m", "data.filters.min_rating=4"]),
    ("fit", ["experiment=ml-100k", "seed=2", "name=x"]),
    ("fit", ["student=gru4rec", "loss=bce", "split=temporal", "paths.root=/tmp/a", "paths.cache=/tmp/c d"]),
    ("fit", ["data=tabular", "data.source.path=a b.csv", "student=sasrec-original", "train.gradient_clip=null"]),
    ("teach", ["teacher=ilora", "teacher.student=abc"]),
    ("teach", ["train.max_epochs=3", "teacher.embeddings.template='{title}. {text}'"]),
    ("teach", ["teacher=ensemble", "teacher.members=[20250101-000000_a,b]", "cross_fit=2"]),
    ("distill", ["soft_labels=[a,b]", "distill=table", TERM]),
    ("distill", ["soft_labels=[a]", "distill=null"]),
]


@pytest.mark.parametrize(("stage", "words"), EXAMPLES)
def test_the_command_makes_the_configuration(stage: str, words: list[str]) -> None:
    """Groups, nested classes, added terms, strings with spaces and moved folders come back as they were."""
    config = compose(stage, words, {})
    assert resolved(compose(stage, words_of(stage, config), {})) == resolved(config)


def test_the_command_is_short() -> None:
    """Choices are named and defaults left out: it is read by people."""
    config = compose("fit", ["student=gru4rec", "data=ml-1m", "train.max_epochs=3"], {})
    assert command_of("fit", config) == "deshi fit data=ml-1m train.max_epochs=3 student=gru4rec"
    assert "train=teach" in command_of("fit", compose("fit", ["train=fit", *_teaching()], {}))


def _teaching() -> list[str]:
    return [
        "train.max_epochs=40", "train.patience=40", "train.schedule=cosine", "train.augment.item_drop=0.3",
    ]  # fmt: skip


def test_runs_are_named_as_a_user_names_them() -> None:
    """`deshi gap RUN` and `deshi compare RUN RUN`; the words stand for keys that the stage requires."""
    assert command_of("gap", compose("gap", ["run=abc", "steps=2"], {})) == "deshi gap abc steps=2"
    compared = compose("compare", ["runs=[a,b]", "labels=[plain,'x y']"], {})
    assert command_of("compare", compared) == "deshi compare a b 'labels=[plain,'\"'\"'x y'\"'\"']'"
    asked = compose("label", ["run=abc", "augment.item_drop=0.3"], {})
    assert command_of("label", asked) == "deshi label abc augment.item_drop=0.3"
