"""Plan -> prompts in prefix order, bucket by bucket, prepared beside the judge's work."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress

import numpy as np

from steelyard.core.batches import PromptBatch
from steelyard.judge.base import NOTHING_READY
from steelyard.prompts.maker import PreparedBucket, PromptMaker
from steelyard.store.plan.buckets import BucketTexts
from steelyard.store.plan.files import Manifest, unique_of

# The judge takes prompts in small batches, so that it can stop soon: what it took, it reads.
BATCH_PROMPTS = 32
PATIENCE = 0.002  # seconds to wait for the next bucket while the engine may have work


def feed(
    bucket_texts: BucketTexts,
    manifest: Manifest,
    maker: PromptMaker,
    done: Callable[[int], set[bytes]],
) -> Iterator[PreparedBucket]:
    """All buckets of the plan with prompts that are not yet read, in their order.

    Args:
        bucket_texts: gives out the texts of the plan.
        manifest: the plan.
        maker: makes prompts of texts.
        done: keys of a bucket that are read already.
    """
    for bucket, prompts in enumerate(manifest.unique):
        read = done(bucket)
        if len(read) >= prompts:
            continue
        texts = bucket_texts.texts(bucket)
        unique = unique_of(texts)
        unread = np.asarray(
            [index for index, key in enumerate(unique.keys) if key not in read], dtype=np.int64
        )
        prepared = maker.prepare(bucket, texts, unique, unread)
        if prepared is not None:
            yield prepared


def batches(bucket: PreparedBucket) -> Iterator[PromptBatch]:
    """A bucket's prompts in small batches, in their order."""
    offsets, truncated = bucket.rows.offsets, bucket.truncated
    for start in range(0, len(bucket.keys), BATCH_PROMPTS):
        end = min(start + BATCH_PROMPTS, len(bucket.keys))
        yield PromptBatch(
            bucket=bucket.number,
            keys=bucket.keys[start:end],
            tokens=bucket.rows.tokens[offsets[start] : offsets[end]],
            offsets=offsets[start : end + 1] - offsets[start],
            truncated=truncated[start:end],
            images=bucket.images[start:end],
        )


class BucketPrefetcher:
    """Prepares buckets in a thread of its own: the next one while one is being read.

    Gives out prompts without a break between buckets. Where the thread is behind, NOTHING_READY is
    given out, so that an engine with work in its queue can go on with it. An error in the thread
    is raised where the user takes the next item. Once `stop` is set, nothing more is given out.

    Args:
        buckets: runs in the thread.
        open_bucket: called in the thread with every bucket before its first prompt is given out.
        stop: ends it.
    """

    def __init__(
        self,
        buckets: Iterator[PreparedBucket],
        open_bucket: Callable[[PreparedBucket], None],
        stop: threading.Event,
    ) -> None:
        self._queue: queue.Queue[PreparedBucket | BaseException | None] = queue.Queue()
        self._room = threading.Semaphore(2)  # one being read, one ready
        self._stopped, self._closed = stop, False
        self._thread = threading.Thread(
            target=self._work, args=(buckets, open_bucket), name="prompt-maker", daemon=True
        )
        self._thread.start()

    def __iter__(self) -> Iterator[PromptBatch]:
        while not self._stopped.is_set():
            try:
                item = self._queue.get(timeout=PATIENCE)
            except queue.Empty:
                yield NOTHING_READY
                continue
            if isinstance(item, BaseException):
                raise item
            if item is None:
                return
            for batch in batches(item):
                if self._stopped.is_set():
                    return
                yield batch
            del item
            self._room.release()

    def close(self) -> None:
        """End the thread, at the latest when the bucket in work is ready."""
        self._closed = True
        self._room.release()
        self._thread.join()

    def _work(
        self,
        buckets: Iterator[PreparedBucket],
        open_bucket: Callable[[PreparedBucket], None],
    ) -> None:
        try:
            while True:
                self._room.acquire()
                if self._closed:
                    return
                bucket = next(buckets, None)
                if bucket is None or self._closed:
                    self._queue.put(None)
                    return
                open_bucket(bucket)
                self._queue.put(bucket)
                del bucket
        except BaseException as error:
            self._queue.put(error)
        finally:
            with suppress(Exception):
                buckets.close()  # type: ignore[attr-defined]
