"""AUROC of a supervised classifier: not a contender, an upper reference for the others."""

from __future__ import annotations

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from benchmarks._recovery.protocol import Task, auroc
from benchmarks._recovery.rivals import Section
from stcsm.space import log_normalise, spot_components


def ceiling(task: Task, section: Section) -> float:
    """AUROC of a cross-validated classifier on 20 smoothed principal components, mean over tissue layers."""
    n = min(20, min(section.counts.shape) - 1)
    smoother = section.filter(section.best_width) if section.best_width else None
    features = spot_components(log_normalise(section.counts), n, smoother, seed=section.seed)
    labelled = task.labels != ""
    values = []
    for layer in task.layers:
        inside = (task.labels == layer)[labelled]
        folds = StratifiedKFold(min(5, int(inside.sum())), shuffle=True, random_state=section.seed)
        model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000))
        scores = cross_val_predict(model, features[labelled], inside, cv=folds, method="decision_function")
        values.append(auroc(scores, inside))
    return float(np.mean(values))
