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
OVER_TEXTS = ("counts-words", "counts", "counts-smollm2")
"""Those with a text teacher; their settings follow the data, typed or chosen, as those of ``counts-ids`` do."""
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


def is_auto(stage: str, texts: Sequence[str]) -> bool:
    """Whether a command's words leave the experiment to the data."""
    # a saved configuration has decided, and the experiments' settings are those of the default student
    if any(text.startswith(("resume=", "config=", "student=")) and not text.endswith("=null") for text in texts):
        return False
    chosen = [text for text in texts if text.startswith("experiment=")]
    return (chosen[-1] if chosen else f"experiment={stage_groups(stage).get('experiment')}") == AUTO


def open_recipes(stage: str, texts: Sequence[str]) -> tuple[str, ...]:
    """The recipes that ``experiment=auto`` may still take: several, the one that is typed, none if it is another's."""
    if stage != "run" or not is_auto(stage, texts):
        return ()
    typed = [text.removeprefix("recipe=") for text in texts if text.startswith("recipe=")]
    return RECIPES if not typed else tuple(name for name in typed[-1:] if name in {*RECIPES, *OVER_TEXTS})


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
    recipes = open_recipes(stage, texts)
    if not (folder / MANIFEST).is_file():
        if not prepare or stage != "run":
            return config
        _refuse_missing(config, undecided=len(recipes) > 1)
        run_checked(find_stage("prepare"), PrepareConfig(paths=config.paths, data=config.data))
    bundle = Bundle.load(folder)
    shape = Shape.of(bundle, build(config.split)(bundle))
    words = rules(shape, recipes, str(config.data.name))
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


def rules(shape: Shape, recipes: Sequence[str], data: str) -> list[str]:
    """The words that a shape of data asks for.

    Args:
        shape: of the data.
        recipes: of :func:`open_recipes`: all to choose between, one whose settings follow the data, or none.
        data: name of the data set, for the log.
    """
    short = shape.mean_length < SHORT
    large = not short and shape.events >= LARGE
    experiment = "short-histories" if short else "long-histories-large" if large else "long-histories"
    log.info(
        "%s: %s events of %s users (%.1f each) and %s items, %.0f %% of them with a text",
        data, f"{shape.events:,}", f"{shape.users:,}", shape.mean_length, f"{shape.items:,}", 100 * shape.texts,
    )  # fmt: skip
    words = [f"experiment={experiment}"]
    if shape.repeats >= REPEATS:  # lists without seen items would miss all of these targets
        log.info("%s: %.0f %% of validation targets were consumed before by the same user", data, 100 * shape.repeats)
        words.append("eval.filter_seen=false")
    dense = short and shape.events >= DENSE * shape.items
    if dense:  # enough events to learn an item from: half of the features dropped would cost a fifth of NDCG@10
        words.append("student.dropout=0.2")
    if short and shape.long_histories > 60:
        words.append("student.max_length=100")
    epochs = 30 if short else 40
    if shape.events * epochs > MANY_EVENTS:
        epochs = max(4, MANY_EVENTS // shape.events)
        words.append(f"train.max_epochs={epochs}")
    if shape.events * epochs * shape.items > MANY_SCORES:
        words += ["loss=sampled_softmax", "loss.strategy=mixed"]
    if recipes:
        with_texts = RECIPES[0] if short else RECIPES[1]
        chosen = with_texts if shape.texts >= WITH_TEXT and not large else RECIPES[2]
        texts = (recipes[0] if len(recipes) == 1 else chosen) in OVER_TEXTS
        words += [f"recipe={chosen}"] * (len(recipes) > 1)
        if texts and short:
            words += ["teachers.text.teacher.feed_forward=2.0", "teachers.text.train.learning_rate=3.0e-3"]
        if short:
            words.append(f"distilled.student.dropout={0.1 if dense else 0.3}")
            if texts:  # lists of text + counts teach more than the events, which counts know without memorising them
                words.append("distill.hard_loss_weight=0.3")
        else:  # rows beyond a window of 200 events are answered in overlapping windows, not one by one
            words.append("soft_labels.lists.min_context=100")
        if large:
            words.append("distilled.student.dropout=0.0")
    return words
