"""Evaluation of a model: examples, candidates, exact ranks, and everything that is measured on them."""

from __future__ import annotations

from deshi.evaluation._best_baseline import KEYS, Ranks, example_values, kept, not_beating, unbeaten
from deshi.evaluation._candidates import (
    CandidateRule,
    FromFile,
    Llara,
    Sampled,
    candidate_sets,
    candidates_frame,
    draw_candidates,
)
from deshi.evaluation._generated_answers import (
    AnswerGenerator,
    GeneratedAnswers,
    answer_generator,
    generate_answers,
)
from deshi.evaluation._leaks import leak_warnings, leaked_targets
from deshi.evaluation._measurement import (
    EvaluationSet,
    Measurement,
    RankedExamples,
    history_popularity,
    measure_model,
)
from deshi.evaluation._population import Population, about_seen, population
from deshi.evaluation._rank_collector import CollectedRanks, RankCollector
from deshi.evaluation._ranking import Ranking, evaluate_ranks, summarise
from deshi.evaluation._result import EvaluateResult, headline_k
from deshi.evaluation._seen_targets import (
    FEW,
    SeenTargets,
    few_candidates,
    seen_targets,
)
from deshi.evaluation._slices import LENGTH, POPULARITY, length_groups, popularity_groups, slice_frame

__all__ = [
    "FEW",
    "KEYS",
    "LENGTH",
    "POPULARITY",
    "AnswerGenerator",
    "CandidateRule",
    "CollectedRanks",
    "EvaluateResult",
    "EvaluationSet",
    "FromFile",
    "GeneratedAnswers",
    "Llara",
    "Measurement",
    "Population",
    "RankCollector",
    "RankedExamples",
    "Ranking",
    "Ranks",
    "Sampled",
    "SeenTargets",
    "about_seen",
    "answer_generator",
    "candidate_sets",
    "candidates_frame",
    "draw_candidates",
    "evaluate_ranks",
    "example_values",
    "few_candidates",
    "generate_answers",
    "headline_k",
    "history_popularity",
    "kept",
    "leak_warnings",
    "leaked_targets",
    "length_groups",
    "measure_model",
    "not_beating",
    "popularity_groups",
    "population",
    "seen_targets",
    "slice_frame",
    "summarise",
    "unbeaten",
]
