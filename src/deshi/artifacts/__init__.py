"""Files that stages leave behind: written as a whole, read with care, identified by hashes and fingerprints."""

from deshi.artifacts._atomic import atomic_file, atomic_folder, new_run_folder, replace_folder
from deshi.artifacts._files import (
    read_array,
    read_json,
    read_parquet,
    read_tensors,
    write_array,
    write_json,
    write_parquet,
    write_tensors,
)
from deshi.artifacts._objects import Objects, ObjectState, local_file, object_address, written_object
from deshi.artifacts._provenance import environment, file_sha256, fingerprint

__all__ = [
    "atomic_file",
    "atomic_folder",
    "environment",
    "file_sha256",
    "fingerprint",
    "local_file",
    "new_run_folder",
    "object_address",
    "Objects",
    "ObjectState",
    "read_array",
    "read_json",
    "read_parquet",
    "read_tensors",
    "replace_folder",
    "write_array",
    "write_json",
    "write_parquet",
    "write_tensors",
    "written_object",
]
