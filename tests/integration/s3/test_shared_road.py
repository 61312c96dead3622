"""The command on a shared store: what one home made is a hit in another, and every verb answers from the bucket."""

import json

from project import TINY, Project, digests, statuses


def test_a_second_home_hits_everything_and_can_tell_where_it_came_from(s3, tmp_path):
    project = Project(tmp_path / "project", code=True)
    command = ("run", "tiny", "--file", str(TINY), "--until", "teacher", "--json")

    def vitops(home: str, *arguments: str) -> dict:
        done = project.vitops(*arguments, VITOPS_STORE=s3.url, VITOPS_HOME=str(tmp_path / home))
        assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
        return json.loads(done.stdout)

    first = vitops("one", *command)
    assert statuses(first)["teacher"] == "executed"
    planned = vitops("two", "plan", "tiny", "--file", str(TINY), "--until", "teacher", "--json")
    assert {stage["status"] for stage in planned["stages"]} == {"hit"}
    second = vitops("two", *command)
    assert set(statuses(second).values()) == {"hit"}
    assert digests(second) == digests(first)
    teacher = digests(first)["teacher"]
    assert vitops("three", "show", teacher[:12], "--json")["digest"] == teacher
    assert teacher in {artifact["digest"] for artifact in vitops("three", "ls", "--json")["artifacts"]}
    assert vitops("three", "lineage", teacher[:12], "--json")["sources"]
    assert vitops("three", "verify", "--json")["verified"]
    assert not (tmp_path / "project/.vitops/ledger").exists()
