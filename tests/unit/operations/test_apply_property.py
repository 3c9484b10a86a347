"""The definition of apply: converting a chain in steps gives what converting it at once gives."""

from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.properties import cases
from tests.support.random_chains import RandomChain, chains
from vhdx2raw import convert
from vhdx2raw.operations.apply import ApplyOptions, apply_checkpoint
from vhdx2raw.operations.state import default_state_path


@pytest.mark.slow
@cases(50)
@given(chain=chains(), data=st.data())
def test_any_split_into_convert_and_applies_equals_the_disk(
    chain: RandomChain, data: st.DataObject
) -> None:
    # From the root (the last) to the top (0): the layers at which the image is made whole.
    steps = [len(chain.specs) - 1]
    while steps[-1]:
        following = [
            index
            for index in range(steps[-1])
            if chain.specs[index].virtual_disk_size >= chain.specs[steps[-1]].virtual_disk_size
        ]
        if not following:
            break
        steps.append(data.draw(st.sampled_from(following)))
    with TemporaryDirectory() as name:
        folder = Path(name)
        paths = [folder / f"{spec.tag}.vhdx" for spec in chain.specs]
        for path, spec in zip(paths, chain.files, strict=True):
            spec.write(path)
        image = folder / "disk.img"
        convert(paths[steps[0]], image, state=default_state_path(image))
        for before, step in pairwise(steps):
            paths[before].rename(folder / "away")  # what the image holds need not be there
            apply_checkpoint(paths[step], image, ApplyOptions(verify=True))
            (folder / "away").rename(paths[before])
        spec = chain.specs[steps[-1]]
        is_right = image.read_bytes() == spec.expected_disk(0, spec.virtual_disk_size)
        assert is_right, steps
