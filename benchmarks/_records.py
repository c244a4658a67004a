"""What reading a cache costs: records per second, bytes per record, and the memory of the process that reads.

Run by `teacher_cost.py`; run by itself, it reads a cache and prints how far the process's memory grew, in bytes.
"""

import json
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch

from lightning_kd.step import Step
from lightning_kd.taps import Inputs
from lightning_kd.teachers import TeacherCache
from lightning_kd.teachers.cache.contract import Contract, agree
from lightning_kd.teachers.cache.dataset import pack
from lightning_kd.teachers.cache.fingerprint import describe, versions
from lightning_kd.teachers.cache.record import RecordFormat
from lightning_kd.teachers.cache.replay import SeededReplay
from lightning_kd.teachers.cache.shards import ShardReader, write_shard
from lightning_kd.teachers.cache.storage import Storage

CLASSES, TOP_K, BATCH = 1000, 10, 256
SHARD_RECORDS = 32768
READS = 100_000


def random_cache(folder: Path | str, samples: int) -> Contract:
    """Write a cache of one view with random records, without asking a teacher."""
    replay, storage, generator = SeededReplay(), Storage(folder), np.random.default_rng(0)
    form = RecordFormat(replay=replay.fields, class_count=CLASSES, top_k=TOP_K)
    contract = Contract(
        teacher={},
        transform={},
        replay=describe(replay),
        record=form,
        samples=samples,
        views=1,
        shard_records=min(SHARD_RECORDS, samples),
        versions=versions(),
    )
    agree(storage, contract)
    for shard in range(contract.shards_per_view):
        records = np.zeros(contract.shard_length(shard), form.dtype)
        records["seed"] = generator.integers(2**31, size=len(records))
        records["classes"] = (generator.integers(CLASSES, size=(len(records), 1)) + np.arange(TOP_K)) % CLASSES
        records["probabilities"] = generator.random((len(records), TOP_K)) / TOP_K
        write_shard(storage, 0, shard, records)
    return contract


def measure_reading(samples: int, repeats: int) -> dict[str, Any]:
    """Records per second from a warm page cache on one core, in three forms, and bytes per record."""
    with tempfile.TemporaryDirectory() as folder:
        contract = random_cache(folder, samples)
        cache = TeacherCache(folder)
        for _ in cache.reader.verify():  # which also warms the page cache
            pass
        indices = np.random.default_rng(1).integers(samples, size=READS)
        batches, alone = np.split(indices, range(BATCH, READS, BATCH)), indices.tolist()

        def in_batches() -> None:
            for batch in batches:
                cache.reader.rows(0, batch.tolist())

        def one_by_one() -> None:
            for index in alone:
                cache.reader.rows(0, [index])

        def as_logits() -> None:
            for batch in batches:
                rows = cache.reader.rows(0, batch.tolist())
                packed = torch.stack(pack(rows[:, None], np.ones((len(rows), 1))).unbind())
                cache.observe(Inputs(), step=Step(batch=(packed, packed)))

        rates = {work.__name__: _rate(work, repeats) for work in (in_batches, one_by_one, as_logits)}
        size_bytes = sum(path.stat().st_size for path in Path(folder).rglob("*.npy"))
    return {
        "records": samples,
        "records_per_second": rates,
        "bytes_per_sample": {
            "record": contract.record.size_bytes,
            "arithmetic": 4 + 4 * TOP_K,
            "with_headers": round(size_bytes / samples, 4),
        },
    }


def _rate(work: Callable[[], None], repeats: int) -> dict[str, float]:
    """Median, least and most reads per second of ``repeats`` runs after one that warms up."""
    rates = []
    for _ in range(repeats + 1):
        start = time.perf_counter()
        work()
        rates.append(round(READS / (time.perf_counter() - start)))
    return {"median": median(rates[1:]), "low": min(rates[1:]), "high": max(rates[1:])}


def measure_memory(sizes: list[int]) -> list[dict[str, int]]:
    """By how much the peak memory of a process grows while it reads 100,000 records of caches of these sizes."""
    rows = []
    for samples in sizes:
        with tempfile.TemporaryDirectory() as folder:
            contract = random_cache(folder, samples)
            command = [sys.executable, __file__, folder]
            run = subprocess.run(command, capture_output=True, text=True, check=True)
        grown = json.loads(run.stdout)
        rows.append(
            {"records": samples, "cache_bytes": samples * contract.record.size_bytes, "peak_growth_bytes": grown}
        )
    return rows


def peak_growth(folder: str) -> int:
    """Growth of this process's peak memory between its first record and the last of 100,000, in bytes."""
    reader = ShardReader(Storage(folder))
    draw = random.Random(0).randrange  # noqa: S311 - places, no secret
    reader.rows(0, [0])
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for _ in range(READS // BATCH):
        reader.rows(0, [draw(reader.contract.samples) for _ in range(BATCH)])
    return (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024


if __name__ == "__main__":
    print(peak_growth(sys.argv[1]))
