import os

import pytest

from exporters.threads import available_threads, check_threads


def test_counts_the_processors_of_this_process():
    assert available_threads() == len(os.sched_getaffinity(0))
    assert check_threads(None) == available_threads()
    assert check_threads(1) == 1


@pytest.mark.parametrize("threads", [0, -1, 100_000, 1.0, True, "2"])
def test_refuses_what_cannot_be(threads):
    with pytest.raises(ValueError, match=f"from 1 to {available_threads()} .*, got {threads!r}"):
        check_threads(threads)
