"""The command ``lab embed``."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from lab import share
from lab.corpus.resources import Event, Listen

LINE_EVERY = 5.0  # seconds between two lines of a log


def embed(
    corpus: Annotated[
        Path, typer.Argument(help="A .parquet, .jsonl or .jsonl.gz file, or a folder of them.")
    ],
    model: Annotated[str, typer.Option(help="A checkpoint, a folder or a hub id.")],
    out: Annotated[Path, typer.Option(help="A new folder, or one that was begun like this.")],
    text_column: Annotated[str, typer.Option(help="Where the texts are.")] = "text",
    id_column: Annotated[
        str | None, typer.Option(help="Where ids are; default: the row's number in the corpus.")
    ] = None,
    on_bad: Annotated[
        str, typer.Option(help="A row that cannot be embedded: stop, or skip and list it.")
    ] = "stop",
    pooling: Annotated[
        list[str] | None,
        typer.Option(help="A read-out; more than one may be given. Default: as encode does."),
    ] = None,
    layer: Annotated[
        list[str] | None,
        typer.Option(help="A hidden state (-1: last) or a layer mix; more may be given."),
    ] = None,
    prompt: Annotated[str | None, typer.Option(help="Before every text.")] = None,
    attention: Annotated[
        str | None, typer.Option(help="native, causal, bidirectional or prefix.")
    ] = None,
    temperature: Annotated[
        str | None, typer.Option(help="A number, one a layer with commas, or log-n/512.")
    ] = None,
    extension: Annotated[
        str | None, typer.Option(help="How long texts are read, such as grouped/512.")
    ] = None,
    sink: Annotated[str | None, typer.Option(help="A token every text begins with.")] = None,
    template: Annotated[str | None, typer.Option(help="What is encoded, with {text}.")] = None,
    pool_template: Annotated[
        bool | None, typer.Option(help="Whether its tokens are pooled.")
    ] = None,
    padding_side: Annotated[str | None, typer.Option(help="left or right.")] = None,
    max_length: Annotated[int | None, typer.Option(help="Tokens after which texts end.")] = None,
    dtype: Annotated[
        str | None, typer.Option(help="Of the weights: float32, bfloat16 or float16.")
    ] = None,
    attn_implementation: Annotated[str | None, typer.Option(help="sdpa, eager, ...")] = None,
    revision: Annotated[str | None, typer.Option(help="Commit of a hub repository.")] = None,
    trust_remote_code: Annotated[bool, typer.Option(help="Allow code of a hub model.")] = False,
    seed: Annotated[int | None, typer.Option(help="Of random: weights.")] = None,
    store: Annotated[str, typer.Option(help="float32 or float16.")] = "float32",
    shard_rows: Annotated[int, typer.Option(help="Rows of a shard.")] = 10_000,
    measures: Annotated[
        str, typer.Option(help="Of anisotropy: all, directions (O(d) of memory) or none.")
    ] = "all",
    jobs: Annotated[int, typer.Option("-j", "--jobs", help="Workers, a model each.")] = 1,
    threads: Annotated[
        int | None, typer.Option(help="Of each worker; default: cores / jobs.")
    ] = None,
    device: Annotated[str | None, typer.Option(help="cpu, cuda, ...; default: a GPU.")] = None,
    token_budget: Annotated[int | None, typer.Option(help="Padded tokens a batch.")] = None,
    executor: Annotated[str, typer.Option(help="processes, serial or ray.")] = "processes",
    gpus: Annotated[float, typer.Option(help="Of each Ray actor; 0.5: two share one.")] = 0.0,
    shard: Annotated[str, typer.Option(help="i/n: every n-th shard from the i-th on.")] = "1/1",
    verify: Annotated[bool, typer.Option(help="Check finished files first.")] = True,
) -> None:
    """Embed a corpus of any size: one Parquet file a shard, gone on with after a kill."""
    from lab.corpus import embedding
    from lab.corpus.plan import Request
    from lab.corpus.resources import Resources

    settings = {
        "attention": attention,
        "temperature": _temperature(temperature),
        "extension": extension,
        "sink": sink,
        "template": template,
        "pool_template": pool_template,
        "padding_side": padding_side,
        "max_length": max_length,
        "dtype": dtype,
        "attn_implementation": attn_implementation,
        "revision": revision,
        "trust_remote_code": trust_remote_code or None,
        "seed": seed,
    }
    request = Request(
        model=model,
        settings={name: value for name, value in settings.items() if value is not None},
        poolings=pooling or (),
        layers=[_layer(one) for one in layer or ()],
        prompt=prompt,
        text_column=text_column,
        id_column=id_column,
        on_bad=on_bad,
        store=store,
        shard_rows=shard_rows,
        measures=measures,
    )
    resources = Resources(jobs, threads, device, token_budget, gpus)
    with progress() as listen:
        summary = embedding.embed(
            corpus,
            out,
            request,
            resources,
            executor=executor,
            share=share.read(shard),
            verify=verify,
            listen=listen,
        )
    left = "" if summary else "; other shares are not done yet, so there is no summary"
    sys.stdout.write(f"{out}{left}\n")


def _layer(text: str) -> int | str:
    """A number where it is one, else the name of a layer mix."""
    return int(text) if text.lstrip("-").isdigit() else text


def _temperature(text: str | None) -> float | list[float] | str | None:
    """A number, a list of them, or a rule such as log-n/512."""
    try:
        numbers = [float(part) for part in text.split(",")] if text else []
    except ValueError:
        return text
    return numbers if len(numbers) > 1 else (numbers[0] if numbers else None)


@contextmanager
def progress() -> Iterator[Listen]:
    """A listener: a bar in a terminal, elsewhere a line now and then and one for every trouble."""
    count = Count()
    if not sys.stdout.isatty():

        def plain(event: Event) -> None:
            if text := count.hear(event):
                sys.stdout.write(f"{count.seconds:8.1f} s  {text}\n")
                sys.stdout.flush()

        yield plain
        return
    from rich.progress import BarColumn, Progress, TextColumn

    columns = (BarColumn(), TextColumn("{task.description}", markup=False))
    with Progress(*columns) as bar:
        task = bar.add_task("starting", total=None)

        def live(event: Event) -> None:
            if (text := count.hear(event)) and event["event"] not in ("plan", "done"):
                bar.console.print(text, markup=False)
            bar.update(task, total=count.rows, completed=count.done, description=count.rate)

        yield live


class Count:
    """What has been done since the start: rows, tokens, how fast, how long it will take."""

    def __init__(self) -> None:
        self.begun = time.monotonic()
        self.working = self.said = self.begun
        self.rows = self.done = self.tokens = self.shards = self.finished = 0

    @property
    def seconds(self) -> float:
        """Since the start."""
        return time.monotonic() - self.begun

    @property
    def rate(self) -> str:
        """Shards, texts and tokens a second, and the time that is left."""
        took = time.monotonic() - self.working
        if not self.done or not took:
            return f"shard {self.finished}/{self.shards}"
        left = (self.rows - self.done) * took / self.done
        return (
            f"shard {self.finished}/{self.shards}  {self.done / took:.0f} texts/s  "
            f"{self.tokens / took:.0f} tokens/s  {left:.0f} s left"
        )

    def hear(self, event: dict[str, Any]) -> str:
        """What to say of an event, if anything."""
        match event:
            case {"event": "plan", "shards": shards, "waiting": waiting, "rows": rows}:
                self.rows, self.shards, self.finished = rows, shards, shards - waiting
                texts = f"{event['corpus_rows']} rows in {event['files']} files, {shards} shards"
                return f"{texts}, {shards - waiting} of them done" if shards > waiting else texts
            case {"event": "ready"}:
                self.working = time.monotonic() if not self.done else self.working
            case {"event": "done"}:
                self.finished += 1
                self.done += event["rows"] + event["skipped"]
                self.tokens += event["tokens"]
                if time.monotonic() - self.said > LINE_EVERY or self.finished == self.shards:
                    self.said = time.monotonic()
                    return self.rate
            case {"event": "damaged"}:
                return f"shard {event['shard']} is embedded again: {event['why']}"
            case {"event": "died"}:
                return f"a worker died at shard {event['shard']}: {event['how']}"
            case {"event": "summary"}:
                said = f"{event['rows']} texts embedded"
                more = {
                    "left out": event["skipped"],
                    "cut at the model's length": event["truncated"],
                }
                return said + "".join(f", {count} {what}" for what, count in more.items() if count)
        return ""
