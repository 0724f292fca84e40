"""Errors a user can act on. Each message says what, where and the remedy; the command line prints it and exits 1."""

from __future__ import annotations


class OpenUniError(Exception):
    """Base of every error that is the input's or the machine's fault rather than a bug."""


class BadVideoError(OpenUniError):
    """A video that cannot be read, or is not what it claims to be."""


class InvalidAnnotationError(OpenUniError):
    """An annotation that is nonsense: wrong shape, type, range or ids."""


class AbsentModalityError(OpenUniError):
    """A modality that the sample does not have; the message says why."""


class AssetError(OpenUniError):
    """A model file that is missing, cannot be fetched, or has the wrong hash."""


class CorruptDataError(OpenUniError):
    """Stored bytes that do not match the index: a flipped bit, a cut file, a foreign member."""


class PlanError(OpenUniError):
    """A plan, configuration or dataset folder that cannot be used as asked."""
