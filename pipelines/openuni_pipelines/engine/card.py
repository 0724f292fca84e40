"""The data card: what a dataset folder holds, for the person who finds it."""

from __future__ import annotations

import posixpath
from collections import Counter
from collections.abc import Mapping, Sequence

from openuni import experts, printable
from openuni.choosing import Step
from openuni.errors import OpenUniError
from openuni.experts import known_answers, sets
from openuni.shards import layout
from openuni.shards.layout import Manifest
from openuni.shards.reader import Dataset
from openuni_pipelines.engine.counting import count


def render(data: Dataset, *, is_on_hub: bool = False) -> str:
    """`README.md` of a dataset, from its manifest and index. On the hub it also tells its viewer what to show."""
    manifest = data.manifest
    found = count(data)
    samples = found.samples
    configuration = manifest.configuration
    hashed = "shards/NNN/NNNNNN.COLUMN.HASH.tar"
    tars = {
        None: "shards/NNNNNN.COLUMN.tar",
        layout.FOLDERS: "shards/NNNNNN.COLUMN.tar, from 001000 on shards/NNN/NNNNNN.COLUMN.tar",
        layout.HASHED: hashed,
        layout.HASHED_FOLDERS: hashed,
    }[layout.naming(manifest)]
    lines = [
        "---",
        "task_categories: [text-to-video, depth-estimation, image-segmentation]",
        "tags: [webdataset, video, depth, optical-flow]",
        *(_viewer(manifest) if is_on_hub else ()),
        "---",
        f"# {printable.markdown(posixpath.basename(data.url))}",
        "",
        f"An OpenUni dataset (schema {manifest.schema}), built by openuni {printable.markdown(manifest.openuni)} "
        f"from source {printable.markdown(str(configuration.get('source')))}.",
        "",
        f"- {printable.count(samples, 'clip')}, {printable.count(found.frames, 'frame')}, {found.hours:.2f} hours",
        f"- subsets: {_counts(Counter(found.subsets))}",
        f"- splits (by source video): {_counts(Counter(found.splits))}",
        f"- licenses of the clips: {_counts(Counter(found.licenses))}",
        f"- source rows left out: {_counts(Counter(manifest.skipped)) or 'none'}",
        "",
        "| column | clips that have it | made by | compared with what is published |",
        "|---|---|---|---|",
    ]
    for column, fingerprint in manifest.columns.items():
        told = _validated(fingerprint, manifest.columns)
        lines.append(f"| {column} | {found.columns[column].present:,} of {samples:,} | `{fingerprint}` | {told} |")
    lines += ["", *_chosen(found.funnel), *_licenses(manifest.columns), ""]
    lines += [
        "Annotations are predictions of the models named above, not ground truth; each has a confidence in the index.",
        "",
        f"Each column is plain WebDataset: `{tars}`, the same keys in the same order in every column.",
        "Read it with `openuni.open(path)[key].depth`, or with any WebDataset pipeline.",
        "",
    ]
    return "\n".join(lines)


def _viewer(manifest: Manifest) -> list[str]:
    """What the hub's viewer and `datasets.load_dataset` offer: the table of clips first, then each column's tars."""
    lines = ["configs:", "- config_name: clips", "  default: true", '  data_files: "facts.*.parquet"']
    for column in manifest.columns:
        patterns = ", ".join(f'"{pattern}"' for pattern in tar_patterns(manifest, column))
        lines += [f"- config_name: {column}", f"  data_files: [{patterns}]"]
    return lines


def tar_patterns(manifest: Manifest, column: str) -> list[str]:
    """What the tars of a column match, in a dataset that lies as in a folder."""
    folders = ["shards", "shards/*"] if layout.naming(manifest) == layout.FOLDERS else ["shards"]
    return [f"{folder}/*.{column}.tar" for folder in folders]


def _chosen(funnel: Sequence[Step]) -> list[str]:
    """How the clips were chosen from the source's rows, where they were."""
    if not funnel:
        return []
    lines = ["How the rows of the source became clips:", "", "| step | rows left |", "|---|---|"]
    return [*lines, *(f"| {printable.markdown(step.what)} | {step.left:,} |" for step in funnel), ""]


def _counts(counter: Counter[str]) -> str:
    """Licenses and reasons are whatever the source's rows say."""
    return ", ".join(f"{printable.markdown(name)} {count:,}" for name, count in counter.most_common())


def _licenses(columns: Mapping[str, str]) -> list[str]:
    """A table of the terms of every model that a column was made with: its expert, and those that this one builds on.

    A column may come from an expert that is not installed here, and RGB from none.
    """
    lines = [
        "Terms of the models (not of the clips), as their publishers state them:",
        "",
        "| column | model | code | weights | training data |",
        "|---|---|---|---|---|",
    ]
    for column, fingerprint in columns.items():
        try:
            models = list(sets.with_required(fingerprint.rsplit("-", 2)[0]))
        except OpenUniError:
            continue
        for model in models[::-1]:
            terms = model.licenses()
            told = "; pinned commit, checksum told by the hub" if model.told() else ""
            lines.append(f"| {column} | `{model.name}` | {terms.code} | {terms.weights}{told} | {terms.data} |")
    return lines


def _validated(fingerprint: str, columns: Mapping[str, str]) -> str:
    """Whether the network that made a column answers as its published weights do, as far as this machine knows."""
    try:
        expert = experts.get(fingerprint.rsplit("-", 2)[0])
    except OpenUniError:
        return "–"
    # Other weights or another version than those here may have made it.
    made = {expert.fingerprint(columns, keep_doubtful=kept) for kept in (False, True)}
    return known_answers.verdict(expert) if fingerprint in made else known_answers.UNVALIDATED
