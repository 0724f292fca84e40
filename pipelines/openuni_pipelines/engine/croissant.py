"""`croissant.json`: what a dataset on the hub holds, in the vocabulary of MLCommons, for search engines and loaders.

The table of clips is described field by field and can be read as records (`mlcroissant.Dataset(…).records("clips")`).
The tars of each column are named as file sets: their samples are WebDataset's.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from openuni import printable
from openuni.errors import OpenUniError
from openuni.shards import layout
from openuni.shards.reader import Dataset
from openuni_pipelines.engine.card import tar_patterns
from openuni_pipelines.engine.counting import count

FILE = "croissant.json"
_REPOSITORY = "repository"
_TABLE = "facts"
_UNHASHED = "https://github.com/mlcommons/croissant/issues/80"
"""What Croissant files say where a whole repository, which has no hash, is meant."""


def render(data: Dataset, url: str, files: Mapping[str, Path], table: str) -> bytes:
    """The document of a dataset in the repository at `url`, where `files[table]` is its table of clips.

    Raises OpenUniError where mlcroissant is not installed.
    """
    try:
        import mlcroissant as mlc
    except ImportError as error:
        raise OpenUniError("mlcroissant is not installed; run: pip install 'openuni[build]'") from error
    found = count(data)
    repository = mlc.FileObject(
        id=_REPOSITORY,
        name=_REPOSITORY,
        content_url=f"{url}/tree/main",
        encoding_formats=["git+https"],
        sha256=_UNHASHED,
    )
    clips = mlc.FileObject(
        id=_TABLE,
        name=_TABLE,
        description="One row a clip: its record, and of each column whether it is there, its expert and its confidence",
        content_url=f"{url}/resolve/main/{table}",
        encoding_formats=["application/x-parquet"],
        sha256=layout.file_record(files[table]).sha256,
    )
    tars = [
        mlc.FileSet(
            id=f"tars-{column}",
            name=f"tars-{column}",
            description=f"WebDataset tars of {column}, made by {fingerprint}; the same keys in the same order as RGB's",
            contained_in=[_REPOSITORY],
            encoding_formats=["application/x-tar"],
            includes=tar_patterns(data.manifest, column),
        )
        for column, fingerprint in data.manifest.columns.items()
    ]
    metadata = mlc.Metadata(
        name=url.rpartition("/")[2],
        description=f"An OpenUni dataset: {printable.count(found.samples, 'clip')} of video with annotations. "
        "Annotations are predictions of models, not ground truth; each has a confidence.",
        license=sorted(found.licenses),
        url=url,
        version=f"{data.manifest.schema}.0.0",
        distribution=[repository, clips, *tars],
        record_sets=[mlc.RecordSet(id="clips", name="clips", fields=_fields(mlc, pq.read_schema(files[table])))],
    )
    return (json.dumps(metadata.to_json(), indent=1, ensure_ascii=False, sort_keys=True) + "\n").encode()


def _fields(mlc: Any, schema: pa.Schema) -> list[Any]:
    """A field for each column of the table that holds single values."""
    kinds = [
        (pa.types.is_string, mlc.DataType.TEXT),
        (pa.types.is_boolean, mlc.DataType.BOOL),
        (pa.types.is_integer, mlc.DataType.INTEGER),
        (pa.types.is_floating, mlc.DataType.FLOAT),
    ]
    types = {field.name: next((kind for fits, kind in kinds if fits(field.type)), None) for field in schema}
    return [
        mlc.Field(
            id=f"clips/{name}",
            name=name,
            data_types=[kind],
            source=mlc.Source(file_object=_TABLE, extract=mlc.Extract(column=name)),
        )
        for name, kind in types.items()
        if kind is not None
    ]
