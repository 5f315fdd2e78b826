"""How sharp are a teacher's lists, and at which temperature is the item that really came next likeliest on them?

    python benchmarks/list_temperature.py /tmp/deshi-bench/soft_labels/STORE /tmp/deshi-bench/data/BUNDLE

Leave-one-out. At training rows and at those before the validation targets whose next item is listed: its mean negative
log-likelihood in nats under the softmax of the list's scores divided by each temperature, and the entropy of that
softmax. Test targets aren't looked at. Prints Markdown.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from deshi.data.bundle import Bundle
from deshi.data.splits import LeaveOneOut
from deshi.soft_labels import SoftLabels, row_targets, sharpness
from deshi.types import PAD, ScoreKind

TEMPERATURES = (0.25, 0.5, 0.7, 0.8, 0.9, 1.0, 1.2, 1.5, 2.0)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("store", type=Path, help="folder of a soft-label store of logits")
    parser.add_argument("bundle", type=Path, help="folder of its data bundle")
    arguments = parser.parse_args()
    bundle = Bundle.load(arguments.bundle)
    soft_labels = SoftLabels.load(arguments.store, bundle)
    kind = soft_labels.manifest["score_kind"]
    if kind != "logit":
        parser.error(f"{arguments.store} has scores of the kind {kind!r}, expected 'logit'.")
    found = row_targets(soft_labels.histories(bundle), bundle, LeaveOneOut()(bundle))
    print(f"| rows | listed | | {' | '.join(map(str, TEMPERATURES))} |\n{'| --- ' * (len(TEMPERATURES) + 3)}|")
    for one in (one for one in found if one.name in ("train", "validation")):
        items, scores = soft_labels.rows(one.rows)
        hit = items == one.items[:, None]
        listed = hit.any(1)
        items, scores, place = items[listed], scores[listed].astype(np.float64), hit[listed].argmax(1)
        surprise, entropy = [], []
        for temperature in TEMPERATURES:
            logits = np.where(items == PAD, -np.inf, scores / temperature)
            total = np.logaddexp.reduce(logits, axis=1)
            surprise.append(float((total - logits[np.arange(len(place)), place]).mean()))
            entropy.append(float(np.mean(sharpness(items, logits.astype(np.float32), ScoreKind.LOGIT)[0])))
        for what, values in (("-log likelihood, nats", surprise), ("entropy, nats", entropy)):
            print(f"| {one.name} | {listed.mean():.3f} | {what} | {' | '.join(f'{value:.3f}' for value in values)} |")


if __name__ == "__main__":
    main()
