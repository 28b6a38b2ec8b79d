"""The layers of the package, read from its import statements: nothing looks upwards."""

import ast
import subprocess
import sys

import pytest

from lab.paths import ROOT

# A module imports from earlier rows only: neither from a later one nor from its own.
LAYERS = [
    "paths registry atomic share shapes reading collapse corpus report",
    "collapse.maps collapse.membership",
    "collapse.filter_rate",
    "cluster manifest stats.weighted stats.significance stats.mixed_model losses training store",
    "store.shards store.hashing",
    "stats.score stats.across corpus.sources corpus.resources",
    "corpus.rows corpus.plan",
    "corpus.output corpus.ledger corpus.children",
    "stats.paired stats.seeds",
    "pooling projections stats stats.power stats.jackknife results.reported data.sources "
    "data.templates data.layouts store.state_store",
    "poolers.pooler",
    "poolers.attention poolers.weights poolers.budget",
    "poolers",
    "anisotropy.measure anisotropy.moments repairs.checks collapse.products",
    "anisotropy.rows anisotropy.spectrum repairs.estimator",
    "collapse.legibility",
    "anisotropy.neighbours anisotropy.pairs anisotropy.tokens anisotropy.stream",
    "repairs.affine repairs.ranks repairs.flows anisotropy.report anisotropy.state",
    "repairs.clusters anisotropy",
    "corpus.accumulators",
    "repairs",
    "data.hub data.readers data.haystack",
    "data.dataset",
    "data.synthetic",
    "data probes results",
    "training.pairs",
    "long_context collapse.bins collapse.overlap collapse.phenomenon",
    "models.architecture models.texts models.layer_mix models.checkpoints models.trained_pooling",
    "training.adapters training.masking training.heads training.callbacks",
    "training.recipe training.batches",
    "training.checkpoints training.guards training.session",
    "training.loop",
    "training.trainer",
    "training.mntp training.simcse",
    "models.states models.attention models.interception",
    "models.temperature models.positions",
    "models.moved_positions models.self_extend",
    "models.extension",
    "models.encoder",
    "models.verification models.embedding_model",
    "models.attention_maps models.heads",
    "models.origins",
    "models.loading",
    "models",
    "store.fingerprint",
    "store.reuse",
    "readout",
    "corpus.columns",
    "corpus.worker",
    "corpus.actors corpus.process",
    "corpus.executors",
    "corpus.embedding",
    "corpus.command collapse.cutting collapse.learning collapse.candidates study.plan "
    "training.wanted training.llm2vec",
    "training.hidden_states study.material study.reading",
    "training.frozen study.stored",
    "study.bench",
    "study.cells",
    "collapse.mechanism",
    "collapse.summary",
    "grid anisotropy.occurrences repairs.module",
    "study.record",
    "study",
    "anisotropy.contextual spaces",
    "collapse.trials",
    "collapse.remedies",
    "plotting.columns plotting.fitting plotting.picture",
    "plotting.style plotting.parts",
    "plotting.record plotting.stills",
    "plotting.figures plotting.interactive",
    "plotting.ranks plotting.head_layout plotting.clouds plotting.similarity plotting.bars "
    "plotting.map_styles",
    "plotting.maps",
    "plotting.heads",
    "plotting explore",
    "plotting.redrawing export.page explore.patience",
    "explore.faces explore.cloud_readings explore.head_readings explore.passes explore.readings "
    "explore.map_points explore.map_space explore.live_figure",
    "explore.background explore.map_figure explore.upload",
    "explore.attention_view explore.length_cloud explore.bench_controls explore.map_export "
    "explore.map_words explore.map_controls",
    "explore.bench explore.map_live",
    "explore.embedding_map",
    "runner.processes",
    "runner.claims runner.execution runner.notebooks runner.parameters",
    "runner",
    "series series.console series.formats series.locks series.schema",
    "series.plan",
    "series.gpus series.pools series.records",
    "series.ray_cluster",
    "series.executors",
    "series.clean series.status series.sweep series.tables series.verify",
    "series.between",
    "series.finished",
    "series.commands",
    "export.folder",
    "export.cards",
    "export.overview",
    "export",
    "export.crate",
    "report.defects report.lines report.labels report.lengths report.example",
    "report.judge report.delimited report.measures",
    "report.rows",
    "report.survey",
    "report.health",
    "report.findings report.drawing",
    "report.page",
    "report.command explore.your_panel",
    "explore.your_data",
    "publish student",
    "doctor",
    "cli",
]
ROW = {f"lab.{name}": row for row, names in enumerate(LAYERS) for name in names.split()}
HEAVY = ("torch", "transformers", "sentence_transformers", "umap", "ray", "mteb")
BANNED = {"utils", "util", "helpers", "common", "misc", "manager", "tools", "base"}
FILES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
    for path in sorted((ROOT / "lab").rglob("*.py"))
}


def imported(tree):
    """Every module or name that a file imports, in functions too; not for type checkers only."""
    for node in ast.iter_child_nodes(tree):
        match node:
            case ast.If(test=ast.Name(id="TYPE_CHECKING")):
                continue
            case ast.Import(names=names):
                yield from (alias.name for alias in names)
            case ast.ImportFrom(level=level, module=module, names=names):
                assert level == 0, f"a relative import in line {node.lineno}: write it out"
                yield from (f"{module}.{alias.name}" for alias in names)
            case _:
                yield from imported(node)


def module_of(name):
    """`lab.stats.Score` -> `lab.stats`; None for another library's."""
    parts = name.split(".")
    prefixes = [".".join(parts[:length]) for length in range(len(parts), 0, -1)]
    return next((prefix for prefix in prefixes if prefix in FILES), None)


NAMES = {
    module: set(imported(ast.parse(path.read_text(encoding="utf-8"))))
    for module, path in FILES.items()
}
OURS = {m: {module_of(name) for name in names} - {None} for m, names in NAMES.items()}


def reaches(start):
    """Every module of the lab that `start` imports, directly or not."""
    seen, waiting = set(), [start]
    while waiting:
        module = waiting.pop()
        if module not in seen:
            seen.add(module)
            package = module.rpartition(".")[0]  # its __init__ is executed first
            waiting += [*OURS[module], *([package] if package else [])]
    return seen


def libraries(start):
    """The top-level names of every library that `start` imports, directly or not."""
    return {name.split(".")[0] for module in reaches(start) for name in NAMES[module]}


def below(package):
    return [module for module in FILES if f"{module}.".startswith(f"{package}.")]


def test_every_module_has_a_place_in_the_layering():
    assert set(FILES) - {"lab"} == set(ROW)
    assert sum(len(names.split()) for names in LAYERS) == len(ROW), "a module stands in two rows"


@pytest.mark.parametrize("module", ROW)
def test_a_module_imports_from_earlier_rows_only(module):
    assert {other for other in OURS[module] if ROW[other] >= ROW[module]} == set()


def test_the_package_itself_imports_nothing():
    assert NAMES["lab"] == {"os"}


@pytest.mark.parametrize("module", ["lab.pooling", *below("lab.stats"), "lab.probes"])
def test_arithmetic_never_sees_transformers(module):
    assert libraries(module).isdisjoint({"transformers", "sentence_transformers", "mteb"})


@pytest.mark.parametrize("module", below("lab.plotting"))
def test_figures_never_see_torch(module):
    assert libraries(module).isdisjoint({"torch", "transformers", "sentence_transformers"})


@pytest.mark.parametrize("module", below("lab.runner"))
def test_the_runner_never_sees_a_model(module):
    assert reaches(module).isdisjoint(below("lab.models"))
    assert libraries(module).isdisjoint(HEAVY)


def test_only_what_is_part_of_a_model_imports_the_model_libraries():
    users = {m for m, names in NAMES.items() if any(n.startswith(HEAVY[1:3]) for n in names)}
    inside = {module for module in users if module.startswith("lab.models.")}
    assert inside, "the search finds what it looks for"
    others = {module for module in users - inside if not module.startswith("lab.training.")}
    assert others == {
        "lab.repairs.module", "lab.losses", "lab.collapse.learning", "lab.study.bench",
    }  # fmt: skip


def test_no_module_imports_a_notebook_a_test_or_a_benchmark():
    outside = {"notebooks", "tests", "benchmarks", "nbimporter", "tiny", "conftest"}
    assert {m for m, names in NAMES.items() if {n.split(".")[0] for n in names} & outside} == set()


def test_no_module_is_named_after_nothing():
    assert {m for m in FILES if m.rpartition(".")[2].strip("_") in BANNED} == set()


@pytest.mark.parametrize(
    "what",
    [
        "import lab",
        "import lab.models, lab.plotting, lab.runner, lab.probes, lab.results",
        "import lab.cli; sys.argv = ['lab', '--help']; lab.cli.main()",
    ],
    ids=["lab", "the quick modules", "lab --help"],
)
def test_what_must_be_quick_imports_nothing_slow(what):
    code = (
        "import atexit, sys\n"
        f"loaded = lambda: [name for name in {HEAVY} if name in sys.modules]\n"
        "atexit.register(lambda: sys.stderr.write(str(loaded())))\n"
        f"{what}\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)
    assert (done.returncode, done.stderr) == (0, "[]")
