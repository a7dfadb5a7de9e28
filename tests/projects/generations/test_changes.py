"""Generations that change a project's files."""

from django.contrib.auth.models import User

from chef.jobs.models import Status
from projects.actions import add_revision
from projects.environment import Secret, set_environment
from projects.files.paths import NewFile
from projects.generations.actions import GenerationOptions, request_edit
from projects.models import Project
from tests.projects.engine.apps import patch, replacement
from tests.projects.generations.runs import HTML, code_of, run
from tests.scripted_model import KEY, ScriptedModel


def test_an_edit_makes_a_new_revision_with_a_diff(model: ScriptedModel, project: Project, owner: User) -> None:
    change = replacement("index.html", "<title>Todo</title>", "<title>Done</title>")
    model.says("patch", patch(summary="Another title.", replacements=[change]))

    generation = run(request_edit(project, by=owner, prompt="Call it Done", options=GenerationOptions()))

    revision = generation.revision
    assert revision
    assert (revision.number, revision.origin, revision.strategy) == (2, "generation", {"runtime": "static"})
    assert {file.path: file.executable for file in revision.files.all()} == {"index.html": False, "run.sh": True}
    assert bytes(revision.files.get(path="index.html").content) == HTML.replace("Todo", "Done").encode()
    assert generation.diff.splitlines()[-2:] == [f"-{HTML}", f"+{HTML.replace('Todo', 'Done')}"] or generation.diff
    assert generation.message == "Another title."


def test_a_project_of_a_runtime_without_generated_apps_can_be_edited(
    model: ScriptedModel, project: Project, owner: User
) -> None:
    strategy = {"runtime": "bun", "version": "1"}
    files = [NewFile("index.html", HTML.encode()), NewFile("bun.lock", b'{"lockfileVersion": 1}')]
    add_revision(project, files=files, dependencies={}, strategy=strategy)
    change = replacement("index.html", "<title>Todo</title>", "<title>Done</title>")
    model.says("patch", patch(summary="Another title.", replacements=[change]))

    generation = run(request_edit(project, by=owner, prompt="Call it Done", options=GenerationOptions()))

    assert generation.revision, generation.error
    assert generation.revision.strategy == strategy
    sent = str([exchange.messages for exchange in generation.exchanges.all()])
    assert HTML[:20] in sent
    assert "lockfileVersion" not in sent


def test_an_edit_of_an_outdated_revision_is_not_stored(model: ScriptedModel, project: Project, owner: User) -> None:
    change = replacement("index.html", "<title>Todo</title>", "<title>Done</title>")
    model.says("patch", patch(replacements=[change]))
    generation = request_edit(project, by=owner, prompt="Call it Done", options=GenerationOptions())
    add_revision(project, files=[NewFile("index.html", b"new")], dependencies={}, strategy={})

    generation = run(generation)

    assert (generation.status, code_of(generation)) == (Status.FAILED, "project_changed")
    assert project.revisions.count() == 2


def test_an_edit_that_does_not_apply_leaves_nothing_behind(model: ScriptedModel, project: Project, owner: User) -> None:
    bad = patch(replacements=[replacement("index.html", "not there", "x")])
    model.says("patch", bad, bad)

    generation = run(request_edit(project, by=owner, prompt="Call it Done", options=GenerationOptions()))

    assert (generation.status, code_of(generation)) == (Status.FAILED, "patch_failed")
    assert project.revisions.count() == 1


def test_project_secrets_are_not_in_exchanges(model: ScriptedModel, project: Project, owner: User) -> None:
    set_environment(project, env={}, secrets={"API_PASSWORD": Secret("correct-horse-battery")})
    add_revision(
        project,
        files=[NewFile("index.html", b"<!-- correct-horse-battery --><title>Todo</title>")],
        dependencies={},
        strategy={},
    )
    change = replacement("index.html", "Todo", f"correct-horse-battery {KEY}")
    model.says("patch", patch(replacements=[change]))

    generation = run(request_edit(project, by=owner, prompt="x", options=GenerationOptions()))

    row = generation.exchanges.get()
    assert "correct-horse" not in str(row.messages) + row.answer
    assert KEY not in str(row.messages) + row.answer
    assert "[secret API_PASSWORD]" in row.answer
