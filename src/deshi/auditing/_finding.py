"""Findings of an audit, and the registry of all checks."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from itertools import islice
from typing import Any, Literal, get_args

from deshi.types import DeshiError

Severity = Literal["error", "warning", "note"]
SEVERITIES: tuple[Severity, ...] = get_args(Severity)
"""From the worst to the mildest. An error makes a figure wrong, a warning doubtful; a note explains one."""

LOCATIONS = 5
"""The most locations that a finding names."""


@dataclass(frozen=True)
class Check:
    """A thing that the audit looks for.

    Attributes:
        name: in kebab-case, unique.
        severity: of its findings, unless the evidence on a subject is weaker (then it is lower).
        meaning: one line.
    """

    name: str
    severity: Severity
    meaning: str


def _checks(severity: Severity, **meanings: str) -> list[Check]:
    return [Check(key.replace("_", "-"), severity, meaning) for key, meaning in meanings.items()]


_ALL = (
    # the bundle
    *_checks(
        "error",
        bundle_changed="the bundle's files are not those that were prepared",
        history_unsorted="a history goes back in time",
        history_shuffled="the histories hold the events in another order than the table of interactions",
        timestamps_mixed_units="some timestamps are in seconds, others in milliseconds",
        item_collides_with_padding="an item is read as padding",
        history_of_another_user="a history holds events of another user",
        item_out_of_range="an item index lies outside of the vocabulary",
        vocabulary_shifted="indices name the neighbour of the item that they stand for",
        vocabulary_permuted="indices name other items than they stand for",
        item_table_misaligned="titles and texts belong to other items than their rows say",
    ),
    # the split
    *_checks(
        "error",
        validation_target_trained_on="what the model is selected on is among its training targets",
        test_target_trained_on="what the model is tested on is among its training targets",
        training_range_short="the last training target of each history is never trained on",
        target_in_history="the history of an example holds its target",
        history_short="the newest event before a target is withheld from the model",
        duplicate_across_parts="the same event (user, item, time) is trained on and a target",
    ),
    *_checks(
        "warning",
        seen_targets="targets that their user had before, which lists without seen items can't hold",
        few_candidates="examples that are ranked among so few items that any model looks good",
    ),
    *_checks(
        "note",
        cold_targets="targets that nobody has in the training part, which the model cannot know",
        future_in_training="training holds events that are later than what is tested",
        order_of_targets_tied="targets share their timestamp with the event before: their order is arbitrary",
    ),
    # the student
    *_checks(
        "error",
        sees_the_future="outputs change when later items change: a missing causal mask",
        reads_padding="outputs change with the amount of padding",
        nan_scores="scores are NaN",
        constant_scores="all items get the same score",
        item_table_shifted="the model's item table is shifted against the vocabulary",
        item_table_permuted="the model's item table is in another order than the vocabulary",
    ),
    *_checks(
        "warning",
        not_deterministic="the same history gets different answers",
        depends_on_batch="outputs depend on the other users of the batch",
    ),
    # the ranks and the figures
    *_checks(
        "error",
        user_evaluated_twice="some examples are counted more than once",
        user_not_evaluated="some examples are missing",
        wrong_target="ranks are of other targets than the split's",
        seen_target_ranked="targets are ranked that the seen-item filter takes out of every list",
        target_filtered_out="the seen-item filter removes targets from the lists",
        candidates_without_target="candidate sets that lack their target",
        candidates_with_duplicates="candidate sets that hold an item more than once",
        ties_counted_as_hits="equal scores are ranked in favour of the target",
        rank_impossible="ranks that no list of that length can have",
        rank_not_reproduced="the run's own weights give other ranks",
        metrics_not_reproduced="the run's own weights give other figures than it has recorded",
        selected_on_test="the model was selected on the test part",
    ),
    *_checks(
        "warning",
        selected_epoch_not_best="the selected epoch is not the best on validation",
    ),
    # what the run was made from
    *_checks(
        "error",
        made_on_another_bundle="a run, soft-label store or checkpoint belongs to another bundle",
        not_finite="stored weights, scores or embeddings hold NaN or infinity",
        embeddings_shifted="item embeddings are shifted against the vocabulary",
    ),
    # a pair of files from any tool
    *_checks(
        "error",
        ids_written_differently="the files write the same ids in different ways, such as 1 and 1.0",
        items_shifted="predicted items are the neighbours, by number, of those that are meant",
        items_permuted="predicted item ids stand for items in another order of the vocabulary",
        users_shifted="lists are stored under the neighbouring user's id",
        users_permuted="lists are stored under user ids in another order",
        scores_reversed="lists are sorted the wrong way round",
        predicts_earlier_event="the lists fit an event before the target: the predictions were made too early",
        too_good="the target is nearly always on top: it was in the input",
        worse_than_chance="random lists would hit the targets more often",
        averaged_by_batch="figures are means of batch means",
        last_batch_dropped="figures leave out the last batch",
        claim_not_reproduced="a figure that was printed elsewhere does not follow from the files",
    ),
    *_checks(
        "warning",
        malformed_rows="rows that could not be read were left out",
        unknown_users="predictions for users that the interactions don't have",
        unknown_items="predicted items that the interactions don't have",
        events_repeated="the interactions hold the same event more than once",
        predictions_repeated="lists that name an item more than once",
        infinite_scores="scores are infinite",
        ties_around_target="the figures depend on how equal scores are ordered",
        ranks_not_from_one="ranks don't count from 1",
        score_and_rank_disagree="scores and ranks order the items differently",
        seen_items_recommended="lists spend places on items that the user already has",
        no_better_than_chance="random lists would hit the targets as often",
        sampled_candidates="the lists are small candidate sets: figures that full ranking can't be compared with",
    ),
    *_checks(
        "note",
        users_not_trained="users with a target have no events in the training file",
        same_list_for_all="all users get the same list",
    ),
)

CHECKS: dict[str, Check] = {check.name: check for check in _ALL}
"""Every check by name, in the order of the documentation's table."""


@dataclass(frozen=True)
class Finding:
    """One problem, or a fact that explains a figure.

    Attributes:
        name: of a check in :data:`CHECKS`.
        severity: ``error``, ``warning`` or ``note``.
        what: one sentence with counts.
        where: up to five locations: user id, position, item; or row, line, file.
        effect: how much it distorts the figures, measured on this subject where that is possible.
        fix: what to do.
    """

    name: str
    severity: Severity
    what: str
    where: tuple[str, ...]
    effect: str
    fix: str

    def __post_init__(self) -> None:
        if self.severity not in SEVERITIES:
            raise DeshiError(f"severity is {self.severity!r}, expected one of {', '.join(SEVERITIES)}.")

    def to_json(self) -> dict[str, Any]:
        """The finding as JSON-able values."""
        return asdict(self) | {"where": list(self.where)}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Finding:
        """Read :meth:`to_json`'s answer.

        Raises:
            DeshiError: if a field is missing or unknown.
        """
        names = {field.name for field in fields(cls)}
        if set(value) != names:
            raise DeshiError(f"A finding has the fields {', '.join(sorted(value))}, expected {', '.join(names)}.")
        return cls(**{**value, "where": tuple(value["where"])})


def finding(
    name: str, what: str, where: Iterable[str], effect: str, fix: str, severity: Severity | None = None
) -> Finding:
    """A finding of a check, of its severity unless ``severity`` is set, with the first few locations of ``where``."""
    check = CHECKS.get(name)
    if check is None:
        raise DeshiError(f"There is no check {name!r}. Register it in deshi.auditing first.")
    return Finding(name, severity or check.severity, what, tuple(islice(where, LOCATIONS)), effect, fix)


def location(**parts: object) -> str:
    """A location such as ``user 17, position 3, item 50``: the parts in order, without those that are None."""
    return ", ".join(f"{name} {value}" for name, value in parts.items() if value is not None)


def count(number: int, total: int, noun: str) -> str:
    """A count such as ``12 of 943 users (1.3 %)``."""
    share = 100 * number / total if total else 0.0
    return f"{number:,} of {total:,} {noun} ({share:.3g} %)"


def in_order(findings: Iterable[Finding]) -> list[Finding]:
    """The worst first, then in the registry's order."""
    position = {name: number for number, name in enumerate(CHECKS)}
    return sorted(findings, key=lambda problem: (SEVERITIES.index(problem.severity), position[problem.name]))


def exit_code(findings: Sequence[Finding]) -> int:
    """1 if one of the findings is an error, else 0."""
    return int(any(problem.severity == "error" for problem in findings))
