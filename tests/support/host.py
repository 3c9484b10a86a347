"""Functions in place of those of the operating system."""

import os
from collections.abc import Callable


def raiser(number: int) -> Callable[..., int]:
    """Give a function that fails like a call of the operating system."""

    def fail(*_arguments: object, **_options: object) -> int:
        raise OSError(number, os.strerror(number))

    return fail
