"""Sources, inputs and outputs on an S3 server (moto's, on this machine)."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import polars as pl
import pytest

import deshi
from deshi.types import DeshiError
from tiny_exports import serving

__all__ = ["serving"]


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    """The address of the server, for a module."""
    pytest.importorskip("moto")
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def bucket(server: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A new bucket ``shop``, as its client, with the usual variables in the environment."""
    import boto3

    for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    variables = {
        "AWS_ENDPOINT_URL": server, "AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_DEFAULT_REGION": "us-east-1", "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_CONFIG_FILE": "/dev/null", "AWS_SHARED_CREDENTIALS_FILE": "/dev/null",
    }  # fmt: skip
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    client = boto3.client("s3")
    client.create_bucket(Bucket="shop")
    yield client
    for entry in client.list_objects_v2(Bucket="shop").get("Contents", []):
        client.delete_object(Bucket="shop", Key=entry["Key"])
    client.delete_bucket(Bucket="shop")


FORMS = {"parquet": "parquet", "csv": "csv", "jsonl": "ndjson"}


def events(users: int = 20) -> pl.DataFrame:
    rows = [(f"u{user}", f"i{(user + 3 * step) % 17}", 1000 * step) for user in range(users) for step in range(6)]
    return pl.DataFrame(rows, schema=["user_id", "item_id", "timestamp"], orient="row")


def prepared(root: Path, path: str, *words: str) -> Any:
    source = {"path": path, "time_unit": "s"}
    return deshi.prepare("tabular", f"paths.root={root}", *words, data={"name": "shop", "source": source})


@pytest.mark.parametrize(
    ("address", "form"),
    [("s3://shop/in/*.parquet", "parquet"), ("s3://shop/in", "csv"), ("s3://shop/in/part-0.jsonl", "jsonl")],
)
def test_a_source_in_a_bucket_is_prepared_as_files_are(bucket: Any, address: str, form: str, tmp_path: Path) -> None:
    """A pattern, a folder and one object; the same events in the same order give the same fingerprint."""
    parts = [events()] if form == "jsonl" else [events()[:50], events()[50:]]
    (tmp_path / "in").mkdir()
    for number, part in enumerate(parts):
        path = tmp_path / "in" / f"part-{number}.{form}"
        getattr(part, f"write_{FORMS[form]}")(path)
        bucket.upload_file(str(path), "shop", f"in/{path.name}")
    bucket.put_object(Bucket="shop", Key="in/_SUCCESS", Body=b"")
    local = prepared(tmp_path / "local", str(tmp_path / "in")).bundle
    remote = prepared(tmp_path / "remote", address)
    assert remote.bundle.fingerprint == local.fingerprint and remote.bundle.n_interactions == 120
    hashes = [source["sha256"] for source in remote.bundle.manifest["sources"]]
    assert hashes == [source["sha256"] for source in local.manifest["sources"]]
    assert remote.files[0].origin == f"s3://shop/in/part-0.{form}"


def test_a_changed_or_new_object_makes_the_bundle_anew_and_nothing_is_read_to_see_that(
    bucket: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By size and etag; where the store can't be reached, the bundle that is there counts as right."""
    bucket.put_object(Bucket="shop", Key="in/a.csv", Body=events().write_csv().encode())
    prepared(tmp_path, "s3://shop/in")
    assert prepared(tmp_path, "s3://shop/in").reused
    changed = events().write_csv().replace("u7,", "u8,").encode()
    bucket.put_object(Bucket="shop", Key="in/a.csv", Body=changed)
    again = prepared(tmp_path, "s3://shop/in")
    assert not again.reused and "s3://shop/in has changed" in again.message
    bucket.put_object(Bucket="shop", Key="in/b.csv", Body=events().write_csv().encode())
    assert not prepared(tmp_path, "s3://shop/in").reused
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    assert prepared(tmp_path, "s3://shop/in").reused


def test_histories_come_from_a_bucket_and_lists_go_there(bucket: Any, serving: Path, tmp_path: Path) -> None:
    """The object is the file that would have been written."""
    frame = pl.DataFrame({"user_id": ["ann", "ann", "bob"], "item_id": ["3", "14", "9"]})
    frame.write_csv(tmp_path / "in.csv")
    bucket.upload_file(str(tmp_path / "in.csv"), "shop", "in.csv")
    deshi.recommend(bundle=str(serving), input=str(tmp_path / "in.csv"), output=str(tmp_path / "out.parquet"))
    result = deshi.recommend(bundle=str(serving), input="s3://shop/in.csv", output="s3://shop/day/out.parquet")
    assert result.output == "s3://shop/day/out.parquet" and result.output in str(result)
    body = bucket.get_object(Bucket="shop", Key="day/out.parquet")["Body"].read()
    assert body == (tmp_path / "out.parquet").read_bytes()
    with pytest.raises(DeshiError, match=r"input and output are both s3://shop/in\.csv"):
        deshi.recommend(bundle=str(serving), input="s3://shop/in.csv", output="s3://shop/in.csv", format="csv")


def test_what_is_missing_is_said(bucket: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An object, a bucket, an archive, credentials, a server, and the package."""
    bucket.put_object(Bucket="shop", Key="in/a.zip", Body=b"PK")
    for address, message in (
        ("s3://shop/none.csv", r"s3://shop/none\.csv does not exist"),
        ("s3://none/in", r"s3://none/in does not exist"),
        ("s3://shop/in/*.parquet", r"s3://shop/in/\*\.parquet does not exist: no object has this key"),
        ("s3://shop/in/a.zip", r"is an archive, expected its files"),
    ):
        with pytest.raises(DeshiError, match=message):
            prepared(tmp_path, address)
    with monkeypatch.context() as patch:
        patch.delenv("AWS_ACCESS_KEY_ID")
        with pytest.raises(DeshiError, match=r"s3://shop/in can't be reached.*Give credentials in the environment"):
            prepared(tmp_path, "s3://shop/in")
    with monkeypatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
        patch.setenv("AWS_MAX_ATTEMPTS", "1")
        with pytest.raises(DeshiError, match=r"s3://shop/in can't be reached"):
            prepared(tmp_path, "s3://shop/in")
    monkeypatch.setitem(sys.modules, "s3fs", None)
    with pytest.raises(DeshiError, match=r"Objects on s3:// need: pip install 'deshi\[s3\]'"):
        prepared(tmp_path, "s3://shop/in")
