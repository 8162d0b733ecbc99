"""A store in an object store: s3:// and gs://, through pyarrow.fs.

Guarantees bounded waiting: connections time out and few requests are retried, so that an
address where nobody answers is an error within seconds. Credentials come from the
environment or the provider's own files, never from the URI, which is shown and recorded.
Does not create buckets. Deleting leaves an empty folder marker, as pyarrow does on S3.
"""

from __future__ import annotations

import datetime
import difflib
import os
from collections.abc import Iterator
from typing import Any
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

import pyarrow.fs as pafs

from raycl.errors import StoreError
from raycl.store.location import Location, StoredFile

CONNECT_SECONDS = 5.0
ATTEMPTS = 3
_TEXT_OPTIONS = {
    "s3": ("region", "endpoint_override", "scheme", "tls_ca_file_path"),
    "gs": ("endpoint_override", "scheme", "project_id"),
}
_FLAG_OPTIONS = {"s3": ("anonymous", "force_virtual_addressing"), "gs": ("anonymous",)}


class Bucket(Location):
    """Named objects below a prefix of a bucket that exists."""

    def __init__(self, uri: str) -> None:
        parts = urlsplit(uri)
        _refuse_credentials(parts)
        self.uri = uri
        self._bucket = parts.netloc
        folders = [part for part in unquote(parts.path).split("/") if part]
        self._root = "/".join([parts.netloc, *folders])
        try:
            self._fs = _file_system(parts)
            kind = self._fs.get_file_info(self._bucket).type
        except (OSError, ValueError) as error:
            raise _explain(error, "opening the store", uri) from error
        if kind == pafs.FileType.NotFound:
            raise StoreError(
                "there is no such bucket",
                got=self._bucket,
                do="create the bucket, or check its name and the endpoint",
            )

    def _at(self, path: str) -> str:
        return f"{self._root}/{path}"

    def read(self, path: str) -> bytes | None:
        for attempt in range(ATTEMPTS):
            try:
                with self._fs.open_input_stream(self._at(path)) as stream:
                    return bytes(stream.read())
            except FileNotFoundError:
                return None
            except OSError as error:
                # A read is two requests, and the object may change or go between them.
                if self.size(path) is None:
                    return None
                if attempt == ATTEMPTS - 1:
                    raise _explain(error, "reading the store", self._at(path)) from error
        raise AssertionError("unreachable")

    def write(self, path: str, data: bytes | memoryview) -> None:
        try:
            with self._fs.open_output_stream(self._at(path)) as stream:
                stream.write(data)
        except OSError as error:
            raise _explain(error, "writing to the store", self._at(path)) from error

    def delete(self, path: str) -> None:
        try:
            self._fs.delete_file(self._at(path))
        except FileNotFoundError:
            return
        except OSError as error:
            raise _explain(error, "deleting from the store", self._at(path)) from error

    def size(self, path: str) -> int | None:
        try:
            info = self._fs.get_file_info(self._at(path))
        except OSError as error:
            raise _explain(error, "reading the store", self._at(path)) from error
        return int(info.size) if info.type == pafs.FileType.File else None

    def tidy(self, under: str) -> None:
        # Removing a folder marker would take along what another process writes below it.
        return

    def files(self, under: str) -> Iterator[StoredFile]:
        selector = pafs.FileSelector(self._at(under), allow_not_found=True, recursive=True)
        try:
            found = self._fs.get_file_info(selector)
        except OSError as error:
            raise _explain(error, "listing the store", self._at(under)) from error
        for info in found:
            if info.type == pafs.FileType.File:
                modified = info.mtime.timestamp() if info.mtime else 0.0
                yield StoredFile(info.path[len(self._root) + 1 :], int(info.size), modified)


def _refuse_credentials(parts: SplitResult) -> None:
    if "@" in parts.netloc:
        raise StoreError(
            "a store address must not carry credentials: it is shown and recorded",
            do="set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (or the provider's own files)",
        )
    if not parts.netloc:
        raise StoreError(
            "a store address names a bucket",
            got=parts.geturl(),
            do=f"write {parts.scheme}://bucket/folder",
        )


def _file_system(parts: SplitResult) -> Any:
    options = _options(parts)
    if parts.scheme == "gs":
        limit = datetime.timedelta(seconds=CONNECT_SECONDS * ATTEMPTS)
        return pafs.GcsFileSystem(retry_time_limit=limit, **options)
    return pafs.S3FileSystem(
        region=options.pop("region", None) or _region(parts.netloc, options),
        connect_timeout=CONNECT_SECONDS,
        retry_strategy=pafs.AwsStandardS3RetryStrategy(max_attempts=ATTEMPTS),
        # A small object is then one PUT, where it would be three requests.
        allow_delayed_open=True,
        **options,
    )


def _region(bucket: str, options: dict[str, Any]) -> str | None:
    known = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION")
    elsewhere = options.get("endpoint_override") or os.environ.get("AWS_ENDPOINT_URL")
    if known or elsewhere:
        return known
    return str(pafs.resolve_s3_region(bucket))


def _options(parts: SplitResult) -> dict[str, Any]:
    texts, flags = _TEXT_OPTIONS[parts.scheme], _FLAG_OPTIONS[parts.scheme]
    out: dict[str, Any] = {}
    for name, value in parse_qsl(parts.query, keep_blank_values=True):
        if name in texts:
            out[name] = value
        elif name in flags:
            out[name] = value.lower() in ("1", "true", "yes")
        else:
            close = difflib.get_close_matches(name, (*texts, *flags), n=1)
            raise StoreError(
                f"a {parts.scheme}:// address has no such option",
                got=name,
                do=f"did you mean {close[0]!r}?" if close else f"use {', '.join(texts + flags)}",
            )
    return out


_ADVICE = (
    (("NETWORK_CONNECTION", "curlCode", "UNAVAILABLE", "CURL error"),
     "nobody answers there: check the endpoint and the network"),
    (("ACCESS_DENIED", "HTTP status 403", "PERMISSION_DENIED", "INVALID_ACCESS_KEY",
      "SIGNATURE_DOES_NOT_MATCH", "UNAUTHENTICATED"),
     "the credentials in the environment are missing or may not do this: check them"),
    (("NO_SUCH_BUCKET", "NOT_FOUND"), "create the bucket, or check its name"),
    (("HTTP status 301", "PERMANENT_REDIRECT"), "the bucket is elsewhere: add ?region=…"),
)  # fmt: skip


def _explain(error: Exception, doing: str, where: str) -> StoreError:
    if isinstance(error, StoreError):
        return error
    text = str(error)
    advice = [do for marks, do in _ADVICE if any(mark in text for mark in marks)]
    do = advice[0] if advice else "check the address and its options"
    return StoreError(f"{doing} failed: {text.splitlines()[0][:300]}", got=where, do=do)
