"""Several campaigns and several terms of one client in Node and Go: `make languages`."""

import asyncio
import signal
import subprocess
from pathlib import Path

import pytest

from ops.local.servers import RedisServer
from tests.sidecar.wrapper.programs import BECOME
from tests.support.hostile_sidecar import NAME, fake_sidecar
from tests.support.processes import ROOT, Process, RealSidecar, killed_at_exit
from tests.support.waiting import eventually

FOLDER = ROOT / "tests" / "languages" / "program"
LEASES = [f"lease_{number}" for number in range(10, 26)]
"""Names of the leases: so many that Go's race detector finds a missing lock of the client in every run."""


class Program(Process):
    """The program of `FOLDER`, whose only client campaigns for each of the leases."""

    def __init__(self, folder: Path, url: str, command: list[str], *leases: str, **environment: str) -> None:
        super().__init__(folder / "log", ["-c", BECOME, *command, *leases], SIDECAR_URL=url, **environment)

    def said(self, first: str) -> list[list[str]]:
        """The words of each line of output that begins with the word `first`."""
        return [line.split() for line in self.output.splitlines() if line.startswith(f"{first} ")]


@pytest.fixture(scope="session")
def go_program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The program in Go, compiled with Go's race detector."""
    target = tmp_path_factory.mktemp("go") / "program"
    subprocess.run(["go", "build", "-race", "-o", target, "."], cwd=FOLDER, check=True)
    return target


@pytest.fixture(params=["node", "go"])
def program(request: pytest.FixtureRequest) -> list[str]:
    """The command of the program."""
    if request.param == "node":
        return ["node", str(FOLDER / "main.mjs")]
    return [str(request.getfixturevalue("go_program"))]


async def test_a_second_campaign_for_a_lease_is_refused_and_the_first_one_continues(
    tmp_path: Path, program: list[str]
) -> None:
    async with fake_sidecar() as fake:
        one = Program(tmp_path, fake.url, program, NAME, NAME)
        with killed_at_exit(one):
            one.start()
            await eventually(lambda: one.said("error"))
            await fake.elect(7)
            await eventually(lambda: one.said("begin"))
            count = len(fake.polls)
            await eventually(lambda: len(fake.polls) > count + 1)
            assert [words[:3] for words in one.said("begin")] == [["begin", NAME, "7"]]
            assert "already active" in one.output
            assert fake.events == [], "the refused campaign resigns nothing"
            assert await asyncio.to_thread(one.stop, signal.SIGTERM) == 0
            assert fake.events == ["resign"]


async def test_work_that_reports_the_end_of_its_term_begins_again_under_the_next_term(
    tmp_path: Path, program: list[str]
) -> None:
    async with fake_sidecar() as fake:
        fake.grant, fake.reelect = 1.0, True
        one = Program(tmp_path, fake.url, program, NAME, WORK="spins")
        with killed_at_exit(one):
            await fake.elect(1)
            one.start()
            await eventually(lambda: one.said("begin"))
            fake.misbehave = fake.silence
            await eventually(lambda: "resign" in fake.events)
            fake.misbehave = None
            await eventually(lambda: len(one.said("begin")) == 2 or not one.is_running)
            assert [words[2] for words in one.said("begin")] == ["1", "2"]
            assert one.said("error") == []


async def test_no_listener_of_the_stop_signal_is_left_behind_by_a_term(tmp_path: Path) -> None:
    async with fake_sidecar() as fake:
        one = Program(tmp_path, fake.url, ["node", str(FOLDER / "main.mjs")], NAME)
        with killed_at_exit(one):
            one.start()
            for token in (1, 2, 3):
                await eventually(lambda: len(fake.polls) > 0)
                await fake.elect(token)
                await eventually(lambda: len(one.said("begin")) == token)  # noqa: B023 - awaited in this round
            assert len({words[3] for words in one.said("begin")}) == 1


async def test_campaigns_for_many_leases_share_a_client_without_a_data_race(
    redis_server: RedisServer, tmp_path: Path, go_program: Path
) -> None:
    sidecar = RealSidecar(tmp_path, redis_server, "task-a", LEASES=",".join(LEASES))
    one = Program(tmp_path, sidecar.url, [str(go_program)], *LEASES)
    with killed_at_exit(sidecar, one):
        sidecar.start()
        one.start()
        await eventually(lambda: {words[1] for words in one.said("begin")} == {*LEASES}, within=60)
        assert await asyncio.to_thread(one.stop, signal.SIGTERM) == 0
        assert {words[1] for words in one.said("end")} == {*LEASES}
        assert "DATA RACE" not in one.output
