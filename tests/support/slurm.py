"""A Slurm cluster of one node on loopback (munge, slurmctld, slurmd), as long as it is used."""

import os
import re
import secrets
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from tests.support.peers import needs_program, needs_superuser

TIMEOUT = 60
ENDED = ("COMPLETED", "FAILED")
FACT = re.compile(r"(\w+)=(\S*)")
CONFIGURATION = """\
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket,cred_expire=5
SlurmUser=root
SlurmdUser=root
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
ProctrackType=proctrack/pgid
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
MpiDefault=none
KillWait=5
SchedulerParameters=sched_interval=1
NodeName={host} NodeAddr=127.0.0.1 CPUs=4 State=UNKNOWN
SlurmdParameters=config_overrides
PartitionName=all Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""
"""A job that is queued again has to wait until the credentials of its first run have expired."""


@contextmanager
def slurm_cluster() -> Iterator[dict[str, str]]:
    """Give the environment in which sbatch and the others find the cluster."""
    needs_superuser()  # else a daemon of Slurm can start nothing for another user
    munged, controller, node = map(needs_daemon, ("munged", "slurmctld", "slurmd"))
    needs_program("sbatch")
    with ExitStack() as stack:
        folder = Path(stack.enter_context(TemporaryDirectory(prefix="slurm")))  # not too long
        for name in ("state", "spool", "munge"):
            (folder / name).mkdir(mode=0o700)
        (folder / "munge/key").write_bytes(secrets.token_bytes(1024))
        (folder / "munge/key").chmod(0o400)
        configuration = folder / "slurm.conf"
        configuration.write_text(
            CONFIGURATION.format(
                host=socket.gethostname().partition(".")[0], folder=folder, ports=free_ports(2)
            )
        )
        names = {"key-file": "key", "pid-file": "pid", "log-file": "log", "seed-file": "seed"}
        places = [f"--{option}={folder}/munge/{name}" for option, name in names.items()]
        log = stack.enter_context((folder / "log").open("w+"))
        environment = os.environ | {"SLURM_CONF": str(configuration)}
        commands: tuple[list[str | Path], ...] = (
            [munged, "--foreground", "--force", f"--socket={folder}/munge.socket", *places],
            [controller, "-D", "-f", configuration],
            [node, "-D", "-f", configuration],
        )
        for command in commands:
            process = subprocess.Popen(command, stdout=log, stderr=log, env=environment)
            stack.callback(end, process)
        wait_until_ready(environment, folder / "log")
        yield environment


def needs_daemon(name: str) -> str:
    return needs_program(name, path=f"{os.environ['PATH']}:/usr/sbin:/sbin")


def free_ports(count: int) -> list[int]:
    """Give ports of loopback that nobody listens on."""
    with ExitStack() as stack:
        sockets = [
            stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)
        ]
        return [each.getsockname()[1] for each in sockets]


def end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(TIMEOUT)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def wait_until_ready(environment: dict[str, str], log: Path) -> None:
    """Wait for a node that takes jobs."""
    deadline = time.monotonic() + TIMEOUT
    while time.monotonic() < deadline:
        command = ["sinfo", "--noheader", "--format=%T"]
        asked = subprocess.run(
            command, env=environment, capture_output=True, text=True, check=False
        )
        if asked.stdout.strip() == "idle":
            return
        time.sleep(0.2)
    pytest.fail(f"the cluster has no node that is idle: {asked}\n{log.read_text()[-4000:]}")


def run_job(environment: dict[str, str], folder: Path, *words: str | Path) -> dict[int, int]:
    """Run a job array to its end; give the exit code of each task.

    `sbatch --wait` looks too seldom.
    """
    job = ask(environment, folder, "sbatch", "--parsable", *words)
    deadline = time.monotonic() + TIMEOUT
    while time.monotonic() < deadline:
        time.sleep(0.2)
        tasks = ask(environment, folder, "scontrol", "--oneliner", "show", "job", job).splitlines()
        facts = [dict(FACT.findall(task)) for task in tasks]
        if all(task["JobState"] in ENDED for task in facts):
            return {
                int(task["ArrayTaskId"]): int(task["ExitCode"].partition(":")[0]) for task in facts
            }
    pytest.fail(f"the job has not ended: {tasks}")


def ask(environment: dict[str, str], folder: Path, *command: str | Path) -> str:
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()
