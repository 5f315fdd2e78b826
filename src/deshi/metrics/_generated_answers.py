"""Metrics of generated answers among a few candidates, counted as LLaRA and iLoRA do."""

from __future__ import annotations

from collections.abc import Sequence

from deshi.types import DeshiError


def answer_metrics(
    answers: Sequence[str], targets: Sequence[str], candidates: Sequence[Sequence[str]]
) -> dict[str, float]:
    """HitRatio@1, valid ratio and their product of generated texts.

    An answer is *valid* if it contains the name of exactly one of its candidates, whatever the case of the letters. As
    in LLaRA's program (arXiv 2312.02445, https://github.com/ljy0ustc/LLaRA) HitRatio@1 counts hits among valid answers
    only, so that a model may be helped by answering rarely; the product is the share of hits among all answers.
    Two candidates of the same name, or a name inside another one ("Alien", "Aliens"), make an answer invalid, as they
    do there. Deviation: without a valid answer HitRatio@1 is NaN, not 0.

    Args:
        answers: ``A`` generated texts.
        targets: ``A`` names of the items that are right.
        candidates: ``A`` lists of names, the target's among them.

    Returns:
        ``hit_ratio@1``, ``valid_ratio`` and ``hit_ratio_of_all@1`` (the product), each 0 .. 1, NaN where there is
        nothing to count.

    Raises:
        DeshiError: if the three have different lengths, or a target isn't among its candidates.
    """
    if not len(answers) == len(targets) == len(candidates):
        raise DeshiError(
            f"Got {len(answers)} answers, {len(targets)} targets and {len(candidates)} candidate lists, expected one "
            f"of each for every example."
        )
    examples = zip(answers, targets, candidates, strict=True)
    judgements = [judge_answer(answer, target, names) for answer, target, names in examples]
    hits, valid = sum(hit for _, hit in judgements), sum(valid for valid, _ in judgements)
    return answer_ratios(hits, valid, len(judgements))


def judge_answer(answer: str, target: str, candidates: Sequence[str]) -> tuple[bool, bool]:
    """Whether one answer is valid, and whether it is right, by the rule of :func:`answer_metrics`.

    Raises:
        DeshiError: if the target isn't among the candidates.
    """
    target_name, names = _plain(target), [_plain(name) for name in candidates]
    if target_name not in names:
        raise DeshiError(f"The target {target!r} is not among its {len(names)} candidates: no answer is right.")
    contained = [name for name in names if name in _plain(answer)]
    return len(contained) == 1, contained == [target_name]


def answer_ratios(hits: float, valid: int, answers: int) -> dict[str, float]:
    """The three figures of :func:`answer_metrics` from the numbers of hits, of valid answers and of answers."""
    nan = float("nan")
    return {
        "hit_ratio@1": hits / valid if valid else nan,
        "valid_ratio": valid / answers if answers else nan,
        "hit_ratio_of_all@1": hits / answers if answers else nan,
    }


def _plain(text: str) -> str:
    return text.strip().lower()
