"""Real test users for the service's page, with a teacher's stored lists: one JSON file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from deshi.artifacts import write_json
from deshi.types import ITEM, PAD, USER, DeshiError

if TYPE_CHECKING:
    from deshi.data.bundle import Bundle
    from deshi.data.splits import Examples

FORMAT = 1


class DemoUser(BaseModel):
    """A test user.

    Attributes:
        user_id: in the data.
        history: item ids before the target, oldest first.
        truth: the item id that came next.
        teacher: item ids that the teacher recommends after the history, best first; None where its store has no row.
    """

    model_config = ConfigDict(extra="forbid", strict=True)

    user_id: str
    history: list[str] = Field(min_length=1)
    truth: str
    teacher: list[str] | None = None


class Demo(BaseModel):
    """The test users and the teacher of the page.

    Attributes:
        format: of the file.
        data: name of the data set.
        teacher: its name, or None if there is none.
        users: in the order in which they are offered.
    """

    model_config = ConfigDict(extra="forbid", strict=True)

    format: int = FORMAT
    data: str = ""
    teacher: str | None = None
    users: list[DemoUser] = []

    @classmethod
    def load(cls, path: Path) -> Demo:
        """Read a file of :func:`write_demo`.

        Raises:
            DeshiError: if it can't be read or is something else.
        """
        try:
            demo = cls.model_validate_json(path.read_bytes())
        except OSError as error:
            raise DeshiError(
                f"{path} can't be read: {error}. Write it with deshi.serving.http.demo.write_demo."
            ) from error
        except ValidationError as error:
            first = error.errors()[0]
            key = ".".join(map(str, first["loc"]))
            raise DeshiError(
                f"{path} is no file of deshi.serving.http.demo.write_demo: {key}: {first['msg']}."
            ) from error
        if demo.format != FORMAT:
            raise DeshiError(f"{path} has format {demo.format}, expected {FORMAT}. Write it again.")
        return demo


def write_demo(
    path: str | Path,
    data: str | Path,
    soft_labels: str | Path | None = None,
    users: int = 100,
    k: int = 20,
    split: Any = None,
    seed: int = 0,
) -> Path:
    """Write test users of a data bundle, drawn at random, with a teacher's stored lists.

    Args:
        path: the JSON file.
        data: the data bundle's folder, ``data/NAME``.
        soft_labels: a store that the teacher has written on that bundle with ``held_out`` positions, or None.
        users: how many, at most. Users whose row the store covers come first.
        k: longest list of the teacher that is kept.
        split: a rule of :mod:`deshi.data.splits`; None is leave-one-out.
        seed: of the draw.

    Raises:
        DeshiError: if the bundle or the store is missing or damaged, or they don't belong together.
    """
    from deshi.data.bundle import Bundle
    from deshi.data.splits import LeaveOneOut
    from deshi.soft_labels import SoftLabels

    bundle = Bundle.load(data)
    store = None if soft_labels is None else SoftLabels.load(soft_labels, bundle)
    if store is not None and store.augmented:
        raise DeshiError(f"{soft_labels} is about augmented histories, expected a store about the users' own.")
    examples = (split or LeaveOneOut())(bundle).examples(bundle, "test")
    lists = np.full((len(examples), 0), PAD) if store is None else store.rows(examples.ends - 1)[0][:, :k]
    order = np.random.default_rng(seed).permutation(len(examples))
    if store is not None:
        order = order[np.argsort(lists[order, 0] == PAD, kind="stable")]
    chosen = [_user(bundle, examples, example, lists[example]) for example in order[:users].tolist()]
    demo = Demo(data=bundle.name, teacher=None if store is None else store.teacher, users=chosen)
    write_json(Path(path), demo.model_dump())
    return Path(path)


def _user(bundle: Bundle, examples: Examples, example: int, listed: np.ndarray) -> DemoUser:
    ids = bundle.vocabulary[ITEM]

    def named(indices: np.ndarray) -> list[str]:
        return [str(item_id) for item_id in ids.gather(np.asarray(indices, dtype=np.int64))]

    target = examples.target_rows[examples.target_offsets[example]]
    listed = listed[listed != PAD]
    return DemoUser(
        user_id=str(bundle.users[USER][int(examples.users[example])]),
        history=named(bundle.items[examples.starts[example] : examples.ends[example]]),
        truth=named(bundle.items[target : target + 1])[0],
        teacher=named(listed) if len(listed) else None,
    )
