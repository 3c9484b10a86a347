"""`examples/kubernetes/`: the job as Kubernetes would accept it, and its pods in a clean root."""

import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.container import Container, container_from_base, read_steps
from tests.support.fleet import EXPORTS, NEWEST, RAW, assert_all_are_right, write_exports
from tests.support.packages import build_wheel
from tests.support.paths import ROOT
from tests.support.peers import needs_module
from tests.support.schemas import validator_of

EXAMPLES = ROOT / "examples" / "kubernetes"
TABLE = (ROOT / "docs" / "exit-codes.md").read_text(encoding="utf-8")
STEPS = read_steps(EXAMPLES / "Containerfile")
FIRST_VERSION = "1.29"
"""The first Kubernetes with `backoffLimitPerIndex` switched on."""
CORRUPT = 5
"""The exit code of a damaged disk."""


@pytest.fixture(scope="module")
def job() -> dict[str, Any]:
    yaml = needs_module("yaml")
    loaded: dict[str, Any] = yaml.safe_load((EXAMPLES / "job.yaml").read_text(encoding="utf-8"))
    return loaded


def container_of(job: dict[str, Any]) -> dict[str, Any]:
    [container] = job["spec"]["template"]["spec"]["containers"]
    assert isinstance(container, dict)
    return container


def step(name: str) -> str:
    """Give the words of the only step of a kind."""
    [words] = (step.words for step in STEPS if step.name == name)
    return words


# -- the job ------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", [FIRST_VERSION, "latest"])
def test_job_fits_the_schema_of_kubernetes(job: dict[str, Any], version: str) -> None:
    schemas = needs_module("kubernetes_validate")
    number = schemas.latest_version() if version == "latest" else version
    schemas.validate(job, number, strict=True)
    misspelled = job | {"spec": job["spec"] | {"backoffLimitPerIndexes": 3}}
    with pytest.raises(schemas.ValidationError, match="backoffLimitPerIndexes"):
        schemas.validate(misspelled, number, strict=True)


def test_what_no_schema_says_holds_too(job: dict[str, Any]) -> None:
    """What the server asks of an indexed job with a policy for failures."""
    spec = job["spec"]
    assert spec["completionMode"] == "Indexed"
    assert spec["template"]["spec"]["restartPolicy"] == "Never"
    assert 0 < spec["maxFailedIndexes"] <= spec["completions"]
    assert spec["backoffLimitPerIndex"] > 0
    names = {container_of(job)["name"]}
    rules = [rule["onExitCodes"] for rule in spec["podFailurePolicy"]["rules"][1:]]
    assert {rule["containerName"] for rule in rules} == names
    for rule in rules:
        assert rule["values"] == sorted(set(rule["values"]))
        assert 0 not in rule["values"]


def test_only_what_would_fail_again_ends_an_index(job: dict[str, Any]) -> None:
    """By the table of exit codes."""
    rows = re.findall(r"^\| ([\d, ]+) \|.*?\| (yes|no|) \|", TABLE, re.MULTILINE)
    again = {int(code): word for codes, word in rows for code in codes.split(", ")}
    assert {again[code] for code in (8, 9, 143)} == {"yes"}
    ignore, fail = job["spec"]["podFailurePolicy"]["rules"]
    assert ignore["action"] == "Ignore"
    assert fail["action"] == "FailIndex"
    assert fail["onExitCodes"]["operator"] == "In"
    assert fail["onExitCodes"]["values"] == sorted(code for code in again if again[code] == "no")


def test_pods_have_no_privilege(job: dict[str, Any]) -> None:
    pod, own = job["spec"]["template"]["spec"], container_of(job)["securityContext"]
    assert pod["securityContext"]["runAsNonRoot"]
    user = f"{pod['securityContext']['runAsUser']}:{pod['securityContext']['runAsGroup']}"
    assert user == step("USER")
    assert own == {
        "readOnlyRootFilesystem": True,
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
    }
    assert not pod["automountServiceAccountToken"]
    mounts = {mount["name"]: mount for mount in container_of(job)["volumeMounts"]}
    assert mounts["exports"]["readOnly"]
    assert mounts.keys() == {volume["name"] for volume in pod["volumes"]}


def test_each_index_is_a_part_of_all(job: dict[str, Any]) -> None:
    words = container_of(job)["args"]
    part = words[words.index("--shard") + 1]
    assert part == f"$(JOB_COMPLETION_INDEX)/{job['spec']['completions']}"


# -- the image ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Container]:
    """Give a root after all steps of the Containerfile, which cannot be written to any more."""
    folder = tmp_path_factory.mktemp("image")
    with container_from_base(folder) as container:
        (folder / "dist").mkdir()
        build_wheel(folder / "dist")
        for each in STEPS:
            if each.name == "RUN":
                container.build(each, folder)
        yield container


def test_image_is_one_layer_that_nobody_has_to_write_to() -> None:
    assert [each.name for each in STEPS] == ["FROM", "RUN", "USER", "WORKDIR", "ENTRYPOINT"]
    assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", step("USER"))
    assert json.loads(step("ENTRYPOINT")) == ["vhdx2raw"]


def test_layer_has_the_program_compiled_and_nothing_to_spare(image: Container) -> None:
    files = image.files_of_layer()
    assert any(
        re.search(r"/vhdx2raw/cli/__pycache__/app\.cpython-\d+\.pyc$", name) for name in files
    )
    assert "bin/vhdx2raw" in files
    assert not [name for name in files if name.endswith(".whl") or "/pip/" in name]


class Pods:
    """Starts pods of the job one after the other, as its policy for failures has it."""

    def __init__(self, image: Container, job: dict[str, Any]) -> None:
        self._image, self._job = image, job
        self._program = json.loads(step("ENTRYPOINT"))
        _, fail = job["spec"]["podFailurePolicy"]["rules"]
        self._final = fail["onExitCodes"]["values"]

    def run(self, *words: str, index: int = 0) -> subprocess.CompletedProcess[str]:
        known = {"JOB_COMPLETION_INDEX": str(index)}
        words = tuple(re.sub(r"\$\((\w+)\)", lambda name: known[name[1]], word) for word in words)
        return self._image.run([*self._program, *words], known, user=step("USER"))

    def run_index(self, index: int) -> list[int]:
        """Run an index until it is done or has failed; give the exit code of each pod."""
        codes: list[int] = []
        while len(codes) <= self._job["spec"]["backoffLimitPerIndex"]:
            codes.append(self.run(*container_of(self._job)["args"], index=index).returncode)
            if codes[-1] == 0 or codes[-1] in self._final:
                break
        return codes


@pytest.fixture
def folder(image: Container, tmp_path: Path) -> Path:
    """Give a folder with the volumes of the pods: the exports and an empty place for raw images."""
    write_exports(tmp_path)
    (tmp_path / RAW).mkdir()
    shutil.chown(tmp_path / RAW, *map(int, step("USER").split(":")))
    image.bind(tmp_path / EXPORTS, "/exports", "ro")
    image.bind(tmp_path / RAW, "/raw")
    image.make_read_only()
    return tmp_path


def test_pods_convert_every_disk(image: Container, job: dict[str, Any], folder: Path) -> None:
    assert image.run(["touch", "/file"], {}).returncode, "not even the superuser may write"
    pods, indexes = Pods(image, job), range(job["spec"]["completions"])
    plan = pods.run("batch", "--plan", "-q", "/exports", "--output-dir", "/raw")
    assert (plan.returncode, plan.stderr) == (0, "")
    assert len(plan.stdout.splitlines()) == len(NEWEST)
    (folder / RAW / "disks.jsonl").write_text(plan.stdout)
    broken = folder / EXPORTS / "mail.vhdx"
    whole = broken.read_bytes()
    os.truncate(broken, 3 << 20)
    codes = {index: pods.run_index(index) for index in indexes}
    [failed] = (index for index in indexes if codes[index] == [CORRUPT])
    assert codes == {index: [0] for index in indexes} | {failed: [CORRUPT]}
    broken.write_bytes(whole)
    assert pods.run_index(failed) == [0]
    lines = (folder / RAW / "results.jsonl").read_text().splitlines()
    results = [json.loads(line) for line in lines]
    for line in results:
        validator_of("batch-results").validate(line)
    statuses = sorted(line["status"] for line in results)
    assert statuses == ["converted"] * len(NEWEST) + ["failed"]
    for name in ("results.jsonl", "disks.jsonl"):
        (folder / RAW / name).unlink()
    assert_all_are_right(folder)
