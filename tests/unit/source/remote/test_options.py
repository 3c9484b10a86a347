"""The numbers of how URLs are read."""

import pytest

from vhdx2raw.disk.chain import OpenOptions
from vhdx2raw.source.remote.options import RemoteOptions

OUT_OF_RANGE = {
    "connections must be 1 to 16, not 0": {"connections": 0},
    "connections must be 1 to 16, not 17": {"connections": 17},
    "retries must be 0 to 100, not -1": {"retries": -1},
    "retries must be 0 to 100, not 101": {"retries": 101},
    "timeout must be 0.1 to 3600 seconds, not 0": {"timeout": 0},
    "timeout must be 0.1 to 3600 seconds, not 3601": {"timeout": 3601},
}


@pytest.mark.parametrize("problem", OUT_OF_RANGE)
@pytest.mark.parametrize("kind", [RemoteOptions, OpenOptions])
def test_number_out_of_range_is_refused(kind: type[RemoteOptions], problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        kind(**OUT_OF_RANGE[problem])  # type: ignore[arg-type]


@pytest.mark.parametrize("numbers", [(1, 0, 0.1), (16, 100, 3600)])
def test_bounds_are_allowed(numbers: tuple[int, int, float]) -> None:
    connections, retries, timeout = numbers
    options = RemoteOptions(connections=connections, retries=retries, timeout=timeout)
    assert (options.connections, options.retries, options.timeout) == numbers
