"""Creating a project in each of the three ways, without JavaScript, and every way that it is refused."""

import io
import json
import tarfile
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.test import Client
from django.utils import timezone
from pytest_django import DjangoAssertNumQueries, Settings

from builds.models import Build
from builds.pages.forms import runtime_choices
from projects.engine.request import WRITTEN_RUNTIMES
from projects.environment import environment_for
from projects.files.uploads import KEPT_OF_OWNER, forget_old_uploads
from projects.models import Generation, Project, Revision, Upload
from tests.builds.pages.sending import NODE, choices_of, folder

pytestmark = pytest.mark.once


def archive(files: dict[str, str], *, link: str = "") -> io.BytesIO:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as tar:
        for path, text in files.items():
            info = tarfile.TarInfo(path)
            info.size = len(text.encode())
            tar.addfile(info, io.BytesIO(text.encode()))
        if link:
            info = tarfile.TarInfo(link)
            info.type, info.linkname = tarfile.SYMTYPE, "elsewhere"
            tar.addfile(info)
    packed.seek(0)
    packed.name = "shop-main.tar.gz"
    return packed


# --- Files -------------------------------------------------------------------------------------------------------


def test_a_folder_is_inspected_then_built(browser: Client) -> None:
    ignored = {"node_modules/left/index.js": "x", ".git/HEAD": "x", "dist/index.html": "x", ".DS_Store": "x"}
    sent = folder(browser, {f"shop/{path}": text for path, text in {**NODE, **ignored}.items()})

    step = browser.get(sent.headers["Location"])
    page = step.content.decode()
    assert "Node, because there is a package.json." in page
    assert "<code>node_modules</code> (1)" in page
    assert "<code>.git</code> (1)" in page
    assert "<code>dist</code> (1)" in page
    assert Build.objects.count() == 0

    built = browser.post(step.request["PATH_INFO"], choices_of(step))
    build = Build.objects.get()
    assert built.headers["Location"] == f"/builds/{build.pk}"
    assert build.project.name == "shop"
    assert set(build.revision.files.values_list("path", flat=True)) == set(NODE)
    assert build.revision.strategy == {}  # nothing was changed: the build detects everything again
    assert not Upload.objects.exists()


def test_the_detected_strategy_can_be_changed(browser: Client) -> None:
    step = browser.get(folder(browser, {f"shop/{path}": text for path, text in NODE.items()}).headers["Location"])
    changes = {
        "name": "The shop",
        "runtime": "node/20",
        "build_command": "npm run build -- --fast",
        "install_command": "",
        "outputs": "dist\nextra",
        "env": "MODE=production\nEMPTY=",
        "secrets": "API_KEY=a long secret=value",
    }

    browser.post(step.request["PATH_INFO"], {**choices_of(step), **changes})

    build = Build.objects.get()
    assert build.project.name == "The shop"
    assert build.revision.strategy["runtime"] == "node"
    assert build.revision.strategy["version"] == "20"
    assert build.revision.strategy["buildCommand"] == "npm run build -- --fast"
    assert build.revision.strategy["outputs"] == ["dist", "extra"]
    environment = environment_for(build.project)
    assert dict(environment.build) == {"MODE": "production", "EMPTY": "", "API_KEY": "a long secret=value"}
    assert "API_KEY" not in environment.installation


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("name", " ", "This field is required"),
        ("root_dir", "../up", "leaves the project"),
        ("root_dir", "nowhere", "there are no files in strategy.rootDir nowhere"),
        ("outputs", "/abs", "The path is absolute"),
        ("env", "no sign", "Line 1 has no =: write NAME=value."),
        ("env", "PATH=x", "PATH cannot be set here"),
        ("secrets", "S=short", "A secret needs at least 8 characters"),
    ],
)
def test_an_invalid_choice_is_reported_and_the_input_is_kept(
    browser: Client, field: str, value: str, message: str
) -> None:
    step = browser.get(folder(browser, {f"shop/{path}": text for path, text in NODE.items()}).headers["Location"])

    again = browser.post(step.request["PATH_INFO"], {**choices_of(step), "build_command": "make it <b>", field: value})

    page = again.content.decode()
    assert again.status_code == 422
    assert message in page.replace("&#x27;", "'")
    assert 'value="make it &lt;b&gt;"' in page
    assert Build.objects.count() == 0
    assert Upload.objects.count() == 1


def test_an_ambiguous_project_is_built_once_its_root_folder_is_chosen(browser: Client) -> None:
    files = {"all/one/package.json": NODE["package.json"], "all/two/package.json": "{}", "all/one/page.html": "x"}
    step = browser.get(folder(browser, files).headers["Location"])
    assert "several projects" in step.content.decode()

    browser.post(step.request["PATH_INFO"], {**choices_of(step), "root_dir": "one"})

    assert Build.objects.get().revision.strategy == {"rootDir": "one"}


def test_an_archive_with_links_in_node_modules_is_accepted(browser: Client) -> None:
    sent = archive({"node_modules/x/i.js": "x", **NODE}, link="node_modules/.bin/x")

    step = browser.get(browser.post("/new", {"way": "upload", "archive": sent}).headers["Location"])

    assert step.context["upload"].name == "shop-main"
    assert step.context["upload"].file_count == 2
    assert step.context["upload"].left_out == {"node_modules": 2}


def test_files_left_out_by_the_browser_are_reported_too(browser: Client) -> None:
    left = json.dumps({"node_modules": 3, "bad": "x", "<b>": 2})
    step = browser.get(folder(browser, {"index.html": "hi"}, left_out=left).headers["Location"])

    assert sum(step.context["upload"].left_out.values()) == 5
    assert "<code>&lt;b&gt;</code> (2)" in step.content.decode()


def test_pasted_texts_become_files(browser: Client) -> None:
    typed = {"way": "paste", "name": "Pasted", "path": ["index.html", ""], "content": ["<h1>\r\nhi</h1>", ""]}
    step = browser.get(browser.post("/new", typed).headers["Location"])

    browser.post(step.request["PATH_INFO"], choices_of(step))

    build = Build.objects.get()
    assert bytes(build.revision.files.get().content) == b"<h1>\nhi</h1>"
    assert build.project.name == "Pasted"


def test_adding_rows_without_javascript_keeps_the_input(browser: Client) -> None:
    answer = browser.post("/new", {"way": "paste", "path": ["a.txt"], "content": ["<typed>"], "more": "1"})

    assert answer.status_code == 200
    assert answer.context["rows"][0] == ("a.txt", "<typed>")
    assert len(answer.context["rows"]) == 4
    assert "&lt;typed&gt;</textarea>" in answer.content.decode()


@pytest.mark.parametrize(
    ("typed", "message"),
    [
        ({"way": "paste", "path": [""], "content": ["text"]}, "A text has no path"),
        ({"way": "paste", "path": ["../up"], "content": ["text"]}, "The path leaves the project"),
        ({"way": "paste", "path": [""], "content": [""]}, "There is nothing to build"),
        ({"way": "upload"}, "Choose a folder or an archive first"),
        ({"way": "upload", "archive": io.BytesIO(b"no archive")}, "not a tar, tar.gz or zip archive"),
        ({"way": "prompt", "prompt": ""}, "This field is required"),
    ],
)
def test_invalid_input_is_reported(browser: Client, typed: dict[str, Any], message: str) -> None:
    answer = browser.post("/new", typed)

    assert answer.status_code == 422
    assert message in answer.content.decode()
    assert not Project.objects.exists()
    assert not Upload.objects.exists()


def test_files_over_a_limit_are_reported_by_name(browser: Client, settings: Settings) -> None:
    settings.MAX_FILE_BYTES, settings.MAX_FILES = 100, 3
    answer = folder(browser, {"a/large.bin": b"x" * 101, **{f"a/{n}.txt": "x" for n in range(3)}})

    page = answer.content.decode()
    assert "large.bin: The file has 101 bytes" in page
    assert "4 files, more than the 3 allowed" in page


def test_a_form_accepts_hundreds_of_files(browser: Client) -> None:
    answer = folder(browser, {f"site/{n}.html": f"{n}" for n in range(400)})

    upload = Upload.objects.get()
    assert answer.headers["Location"] == f"/new/{upload.pk}"
    assert upload.file_count == 400


def test_a_form_without_a_valid_csrf_token_is_refused(owner: User) -> None:
    client = Client(enforce_csrf_checks=True)
    client.force_login(owner)

    answer = folder(client, {"index.html": "x"})

    assert answer.status_code == 403
    assert "This form is too old" in answer.content.decode()
    assert not Upload.objects.exists()


def test_an_upload_that_is_not_built_expires(browser: Client, owner: User, other: User) -> None:
    for number in range(KEPT_OF_OWNER + 2):
        folder(browser, {"index.html": f"{number}"})
    assert Upload.objects.filter(owner=owner).count() == KEPT_OF_OWNER
    kept = Upload.objects.latest("created_at")
    stranger = Client()
    stranger.force_login(other)
    assert stranger.get(f"/new/{kept.pk}").headers["Location"] == "/new"

    Upload.objects.exclude(pk=kept.pk).update(created_at=timezone.now() - timedelta(hours=3))
    assert forget_old_uploads() == KEPT_OF_OWNER - 1
    browser.post(f"/new/{kept.pk}", {"do": "forget"})
    assert not Upload.objects.exists()
    assert "not kept any more" in browser.get(f"/new/{kept.pk}", follow=True).content.decode()


def test_a_full_queue_is_reported_and_the_upload_is_kept(browser: Client, settings: Settings) -> None:
    settings.OWNER_MAX_QUEUED = 1
    for _ in range(2):
        step = browser.get(folder(browser, {"index.html": "x"}).headers["Location"])
        answer = browser.post(step.request["PATH_INFO"], choices_of(step))

    assert answer.status_code == 422
    assert "You have 1 builds waiting" in answer.content.decode()
    assert (Build.objects.count(), Upload.objects.count(), Project.objects.count()) == (1, 1, 1)


def test_names_with_markup_stay_text(browser: Client) -> None:
    name = "<script>alert(1)</script>"
    answer = browser.post("/new", {"way": "paste", "path": [f"{name}.html"], "content": ["x"], "name": name})

    page = browser.get(answer.headers["Location"]).content.decode()

    assert "<script>alert" not in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page


# --- A prompt ----------------------------------------------------------------------------------------------------


def test_a_prompt_becomes_a_generation(browser: Client) -> None:
    typed = {"way": "prompt", "prompt": "A list\r\nof birds", "name": "Birds", "runtime": "static/12", "tests": "on"}
    answer = browser.post("/new", typed)

    generation = Generation.objects.get()
    assert (generation.prompt, generation.project.name) == ("A list\nof birds", "Birds")
    assert generation.strategy == {"runtime": "static", "version": "12"}
    assert (generation.tests, generation.auto_fix) == (True, False)
    assert answer.headers["Location"] == f"/generations/{generation.pk}"


def test_an_app_is_only_written_for_the_runtimes_that_the_engine_knows(browser: Client) -> None:
    offered = {value.partition("/")[0] for value, _ in runtime_choices(WRITTEN_RUNTIMES)}
    answer = browser.post("/new", {"way": "prompt", "prompt": "A list", "runtime": "bun/1"})

    assert offered == set(WRITTEN_RUNTIMES)
    assert {value.partition("/")[0] for value, _ in runtime_choices()} > offered
    assert "bun/1 is not one of the available choices" in answer.content.decode()
    assert not Generation.objects.exists()


def test_the_two_steps_take_few_queries(browser: Client, django_assert_max_num_queries: DjangoAssertNumQueries) -> None:
    address = folder(browser, {f"a/{n}.html": "x" for n in range(300)}).headers["Location"]

    with django_assert_max_num_queries(6):
        browser.get("/new")
    with django_assert_max_num_queries(6):
        browser.get(address)
    assert Revision.objects.count() == 0
