"""`visa-proxy data mini`: VCR-mini, a data set of rewriting triplets that needs no annotator."""

from __future__ import annotations

import hashlib
import itertools
import json
import platform
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from visa_proxy import __version__
from visa_proxy.cli.data_file import write_lines, write_rows
from visa_proxy.cli.train_instruments import FOLDER, SEED
from visa_proxy.yaml_problems import visible


@click.command("mini")
@click.option("--data", type=FOLDER, required=True, help="Folder with dolly/.")
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), required=True, help="The file to write, JSON Lines.")
@click.option(
    "--size", type=click.IntRange(1, 1_000_000), default=20_000, show_default=True, help="Triplets besides those written by hand."
)
@click.option("--seed", type=SEED, default=0, show_default=True)
def mini(data: Path, out: Path, size: int, seed: int) -> None:
    """Write triplets (answer, target values, rewrite) over natural prose, synthetic ones and those written by hand, whole topics held out.

    The same data, size and seed give the same file. OUT.json beside it says what it holds, with its SHA-256.
    """
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from visa_proxy.training.triplets import written
    from visa_proxy.training.vcr.mini import Counts, Mini, texts

    sources, by_hand = texts(data), written()
    counts = Counts()
    columns = (TextColumn("writing"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as progress:
        task = progress.add_task("writing", total=size + len(by_hand))

        def rows() -> Iterator[dict[str, Any]]:
            for triplet in counts.counted(itertools.chain(Mini(sources, seed).triplets(size), by_hand)):
                progress.advance(task)
                yield triplet.to_dict()

        count = write_rows(rows(), out)
    about = {
        "file": out.name,
        "sha256": hashlib.sha256(out.read_bytes()).hexdigest(),
        "seed": seed,
        "size": size,
        "texts": len(sources),
        "texts_sha256": hashlib.sha256(repr(sources).encode()).hexdigest(),
        "versions": {"visa-proxy": __version__, "python": platform.python_version()},
        **counts.to_dict(),
    }
    write_lines([json.dumps(about, indent=2)], out.with_name(out.name + ".json"))
    parts = ", ".join(f"{part} {number}" for part, number in counts.parts.most_common())
    click.echo(f"wrote {visible(str(out))}: {count} triplets ({parts})")
