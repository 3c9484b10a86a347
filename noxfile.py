"""The tests on every Python that is at hand: `nox`, or `nox -s tests-3.12`."""

import nox

nox.options.default_venv_backend = "venv"
nox.options.error_on_missing_interpreters = False


@nox.session(python=["3.10", "3.11", "3.12", "3.13", "3.14"])
def tests(session: nox.Session) -> None:
    """Install the package and run its tests, or those that are named after ``--``."""
    session.install("--upgrade", "pip>=25.1")
    session.install("--editable", ".", "--group", "test")
    session.run(
        "pytest",
        "-q",
        "-n",
        "auto",
        "--dist",
        "loadfile",
        "--no-loadscope-reorder",
        *session.posargs,
    )
