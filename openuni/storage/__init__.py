"""Where files lie: one interface for what is read and written below a folder that this process did not just create.

    store = LocalStore(root)
    store.put("dataset.json", data, run)       # whole or not at all, never through a link
    store.read("dataset.json", at_most=DOCUMENT)
    store.read_range("shards/000000.rgb.tar", offset, size)

A name is relative, of plain parts separated by `/`. Reads take regular files only and know the size first. `Store` is
what an object store can do as well: create-only puts, ranged reads, listings, no rename.
"""

from openuni.storage.base import DOCUMENT, Store, check_name
from openuni.storage.cache import Cache
from openuni.storage.claim import check_ours, claim
from openuni.storage.full import DISK_ERRORS, disk_sentence, naming, system_sentence
from openuni.storage.local import (
    MARKER,
    LocalStore,
    RegularFile,
    new_folder,
    open_regular,
    publish,
    sync_folder,
    sync_tree,
    temporary_file,
    temporary_folder,
    write_atomic,
)
from openuni.storage.objects import is_object_url
from openuni.storage.remote import open_store

__all__ = [
    "DISK_ERRORS",
    "DOCUMENT",
    "MARKER",
    "Cache",
    "LocalStore",
    "RegularFile",
    "Store",
    "check_name",
    "check_ours",
    "claim",
    "disk_sentence",
    "is_object_url",
    "naming",
    "new_folder",
    "open_regular",
    "open_store",
    "publish",
    "sync_folder",
    "sync_tree",
    "system_sentence",
    "temporary_file",
    "temporary_folder",
    "write_atomic",
]
