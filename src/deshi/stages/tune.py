"""The command ``deshi tune``."""

from __future__ import annotations

from deshi.configuration.stage import Stage
from deshi.pipeline.schema import TuneConfig

STAGE = Stage(
    name="tune",
    schema=TuneConfig,
    work="deshi.stages._tune:run",
    subject="data",
    summary="search for the best values of any keys of fit, teach or distill",
    purpose="Trains a stage again and again with values that Optuna proposes, judged by NDCG@10 on validation; the\n"
    "first trial is the configuration as it is given. Leaves runs/tune/TIME_NAME with a table, best first,\n"
    "and a run folder for each trial. deshi tune resume=latest goes on; with trials=N it adds some.",
    examples=(
        ('deshi tune space.train.learning_rate="log(1e-4,1e-2)"', "20 learning rates of SASRec"),
        (
            'deshi tune trials=30 space.student.dim="choice(64,128)" space.student.dropout="interval(0,0.5)"',
            "two keys at a time",
        ),
        (
            'deshi tune stage=distill soft_labels=[STORE] space.distill.terms.kl.weight="log(0.1,10)"',
            "a distilled student; give the plain one as many trials",
        ),
    ),
)
