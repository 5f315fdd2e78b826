"""Student, training and recipe by the shape of the data: ``experiment=auto``. docs/run.md states the rules."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from deshi.configuration.groups import stage_groups
from deshi.configuration.needs import Packages
from deshi.configuration.schemas import LearningConfig, PrepareConfig, StageConfig
from deshi.configuration.targets import build
from deshi.data.bundle import MANIFEST, Bundle
from deshi.data.splits import Split
from deshi.types import TEXT, TITLE

log = logging.getLogger(__name__)

AUTO = "experiment=auto"
SHORT = 30
"""Mean length of histories below which they are called short."""
DENSE = 30
"""Events of an item, on average, from which short histories are trained on with little dropout."""
LARGE = 500_000
"""Events from which long histories are trained on with less dropout and one window a user."""
MANY_EVENTS = 50_000_000
"""Events that all epochs of a training may have together; fewer epochs for more data."""
MANY_SCORES = 1_000_000_000_000
"""Scores of the full softmax in all epochs of a training, above which items are sampled: hours on two cores."""
RECIPES = ("counts-words", "counts", "counts-ids")
"""What the data choose between: for texts and short histories, for texts and longer ones, without texts."""
OVER_TEXTS = (*RECIPES[:2], "counts-smollm2")
"""Recipes of counts with a text teacher."""
WITH_TEXT = 0.8
"""Share of items with a title or a text from which a text teacher is worth training."""
REPEATS = 0.05
"""Share of validation targets that their user had before, from which seen items stay in lists: where a run warns."""
_MOOT = {
    "student.max_length=": "soft_labels.lists.min_context=",  # windows may be shorter than the rule thinks
    "loss=": "loss",  # another loss hasn't the settings of the one that the rule takes
}
"""Beginnings of typed words, and of the rules' words that mean nothing beside them."""


@dataclass(frozen=True)
class Shape:
    """What the rules look at.

    Attributes:
        users: number of users.
        items: number of items.
        events: number of events.
        long_histories: the length that one history of twenty exceeds.
        texts: share of items with a title or a text.
        repeats: share of validation targets that their user had before.
    """

    users: int
    items: int
    events: int
    long_histories: float
    texts: float
    repeats: float = 0.0

    @classmethod
    def of(cls, bundle: Bundle, split: Split) -> Shape:
        """The shape of a bundle; of its validation events how many are repeats."""
        import numpy as np
        import polars as pl

        lengths = np.diff(bundle.offsets)
        table = bundle.item_table()
        columns = [pl.col(name).cast(pl.String).fill_null("") != "" for name in (TITLE, TEXT) if name in table.columns]
        texts = float(table.select(pl.any_horizontal(columns).mean()).item()) if columns and table.height else 0.0
        validation = split.examples(bundle, "validation")
        repeats = float(validation.seen_targets(bundle.items).mean()) if len(validation) else 0.0
        long_histories = float(np.quantile(lengths, 0.95))
        return cls(bundle.n_users, bundle.n_items, bundle.n_interactions, long_histories, texts, repeats)

    @property
    def mean_length(self) -> float:
        """Events of a user."""
        return self.events / self.users

    @property
    def short(self) -> bool:
        """Whether histories are short."""
        return self.mean_length < SHORT

    @property
    def large(self) -> bool:
        """Whether there are many events in long histories."""
        return not self.short and self.events >= LARGE

    @property
    def dense(self) -> bool:
        """Whether histories are short and an item has many events."""
        return self.short and self.events >= DENSE * self.items


def is_auto(stage: str, texts: Sequence[str]) -> bool:
    """Whether a command's words leave the experiment to the data."""
    # a saved configuration has decided, and the experiments' settings are those of the default student
    if any(text.startswith(("resume=", "config=", "student=")) and not text.endswith("=null") for text in texts):
        return False
    chosen = [text for text in texts if text.startswith("experiment=")]
    return (chosen[-1] if chosen else f"experiment={stage_groups(stage).get('experiment')}") == AUTO


def open_recipes(stage: str, texts: Sequence[str]) -> list[str]:
    """The recipes, as words, among which ``experiment=auto`` will choose; none where the words leave it no choice."""
    chooses = stage == "run" and _typed_recipe(texts) is None and is_auto(stage, texts)
    return [f"recipe={name}" for name in RECIPES] if chooses else []


def _typed_recipe(texts: Sequence[str]) -> str | None:
    names = [text.removeprefix("recipe=") for text in texts if text.startswith("recipe=")]
    return names[-1] if names else None


def decided(stage: str, config: StageConfig, config_dir: Path | None, prepare: bool = True) -> StageConfig:
    """The configuration with what the data decide, and the words that say it in ``overrides``.

    Args:
        stage: its name.
        config: composed with ``experiment=auto``, or any other, which is returned as it is.
        config_dir: the folder of the user's own groups.
        prepare: whether ``deshi run`` prepares data that aren't there; else they decide nothing yet.

    Raises:
        DeshiError: as ``deshi prepare``.
    """
    from deshi.stages import compose, find_stage, run_checked

    texts = config.overrides
    if not isinstance(config, LearningConfig) or not is_auto(stage, texts):
        return config
    folder = config.paths.data / config.data.name
    typed_recipe = _typed_recipe(texts)
    if not (folder / MANIFEST).is_file():
        if not prepare or stage != "run":
            return config
        _refuse_missing(config, undecided=typed_recipe is None)
        run_checked(find_stage("prepare"), PrepareConfig(paths=config.paths, data=config.data))
    bundle = Bundle.load(folder)
    shape = Shape.of(bundle, build(config.split)(bundle))
    words = [*rules(shape, str(config.data.name)), *(teaching(shape, typed_recipe) if stage == "run" else ())]
    for typed, moot in _MOOT.items():
        if any(text.startswith(typed) for text in texts):
            words = [word for word in words if not word.startswith(moot)]
    log.info("%s chose %s", AUTO, " ".join(words))
    chosen: StageConfig = compose(stage, [*words, *(text for text in texts if text != AUTO)], {}, config_dir)
    return chosen


def _refuse_missing(config: LearningConfig, undecided: bool) -> None:
    """Refuse what can't be done before the data are prepared; the packages of a recipe that they choose come later."""
    from deshi.stages import find_stage
    from deshi.stages._preflight import needs_before, refuse

    needs = needs_before(find_stage("run"), config)
    refuse(find_stage("run"), [n for n in needs if not (undecided and isinstance(n, Packages))], config.paths.cache)


def rules(shape: Shape, data: str) -> list[str]:
    """The words about student and training that a shape of data asks for.

    Args:
        shape: of the data.
        data: name of the data set, for the log.
    """
    experiment = "short-histories" if shape.short else "long-histories-large" if shape.large else "long-histories"
    log.info(
        "%s: %s events of %s users (%.1f each) and %s items, %.0f %% of them with a text",
        data, f"{shape.events:,}", f"{shape.users:,}", shape.mean_length, f"{shape.items:,}", 100 * shape.texts,
    )  # fmt: skip
    words = [f"experiment={experiment}"]
    if shape.repeats >= REPEATS:  # lists without seen items would miss all of these targets
        log.info("%s: %.0f %% of validation targets were consumed before by the same user", data, 100 * shape.repeats)
        words.append("eval.filter_seen=false")
    if shape.dense:  # enough events to learn an item from: half of the features dropped would cost a fifth of NDCG@10
        words.append("student.dropout=0.2")
    if shape.short and shape.long_histories > 60:
        words.append("student.max_length=100")
    epochs = 30 if shape.short else 40
    if shape.events * epochs > MANY_EVENTS:
        epochs = max(4, MANY_EVENTS // shape.events)
        words.append(f"train.max_epochs={epochs}")
    if shape.events * epochs * shape.items > MANY_SCORES:
        words += ["loss=sampled_softmax", "loss.strategy=mixed"]
    return words


def teaching(shape: Shape, typed: str | None = None) -> list[str]:
    """The words about the teacher and what is learnt from it.

    Args:
        shape: of the data.
        typed: the recipe that the user chose, which has the settings that the data give it if it is one of counts, and
            those of its file otherwise; None leaves the choice to the data.
    """
    with_texts = RECIPES[0] if shape.short else RECIPES[1]
    recipe = typed or (with_texts if shape.texts >= WITH_TEXT and not shape.large else RECIPES[2])
    if recipe not in {*RECIPES, *OVER_TEXTS}:
        return []
    words, texts = [] if typed else [f"recipe={recipe}"], recipe in OVER_TEXTS
    if texts and shape.short:
        words += ["teachers.text.teacher.feed_forward=2.0", "teachers.text.train.learning_rate=3.0e-3"]
    if shape.short:
        words.append(f"distilled.student.dropout={0.1 if shape.dense else 0.3}")
        if texts:  # lists of text + counts teach more than the events, which counts know without memorising them
            words.append("distill.hard_loss_weight=0.3")
    else:  # rows beyond a window of 200 events are answered in overlapping windows, not one by one
        words.append("soft_labels.lists.min_context=100")
    if shape.large:
        words.append("distilled.student.dropout=0.0")
    return words
