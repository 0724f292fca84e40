"""The learned measures of VBench's dimensions, as far as their weights are at hand; and why each other one is not."""

from __future__ import annotations

from collections.abc import Mapping

from unibench.metrics.video import Measures

_WANTED: Mapping[str, str] = {
    "subject_consistency": "DINO ViT-B/16",
    "background_consistency": "CLIP ViT-B/32",
    "temporal_flickering": "RAFT (Things), for the static filter",
    "motion_smoothness": "AMT-S",
    "dynamic_degree": "RAFT (Things)",
    "dynamic_degree_motion": "RAFT (Things)",
    "aesthetic_quality": "CLIP ViT-L/14 and LAION's linear head",
    "imaging_quality": "MUSIQ (SPAQ)",
    "overall_consistency": "ViCLIP",
}


def load() -> tuple[Measures, dict[str, str]]:
    """What is there, and for each column of the task `video` that cannot be measured, the reason."""
    reasons = {
        f"video/{column}": f"unvalidated: {model} has no weights in the asset catalogue; see docs/scoring.md"
        for column, model in _WANTED.items()
    }
    reasons["video/quality_score"] = "needs all seven quality dimensions"
    return Measures(), reasons
