"""`empathy-kit publish`: upload a trained or exported model to the Hugging Face hub, with a card made from its record."""

from __future__ import annotations

from pathlib import Path

import click

from empathy_kit.cli import terminal


@click.command()
@click.argument("model", type=click.Path(path_type=Path), metavar="MODEL")
@click.argument("name", metavar="USER/NAME")
@click.option("--private", is_flag=True, help="make a new repository private")
@click.option("--revision", metavar="BRANCH", help="the branch, created if it does not exist  [main]")
@click.option("--license", "licence", metavar="ID", help="the hub's identifier, such as mit  [the card names none]")
@click.option(
    "--evaluation",
    "evaluations",
    type=click.Path(path_type=Path),
    multiple=True,
    metavar="FILE.json",
    help="show in the card what `evaluate MODEL DATA --json` printed; may be repeated",
)
@click.option("--without-seen", is_flag=True, help="do not publish the hashes of the training posts; see docs/leakage.md")
@click.option("--token-file", type=click.Path(path_type=Path), help="file with the access token  [the token of `hf auth login`]")
@click.option("--dry-run", "out", type=click.Path(path_type=Path), metavar="FOLDER", help="write a folder, upload nothing")
def publish(
    model: Path,
    name: str,
    private: bool,
    revision: str | None,
    licence: str | None,
    evaluations: tuple[Path, ...],
    without_seen: bool,
    token_file: Path | None,
    out: Path | None,
) -> None:
    """Publish MODEL, a run's folder or an exported one, with a model card; anybody may load it as hub:USER/NAME."""
    from empathy_kit.inference import upload
    from empathy_kit.inference.hub import check_name
    from empathy_kit.runs.record import refuse_inside

    check_name(name, revision)
    held = upload.contents(model, name, licence=licence, seen=not without_seen, evaluations=evaluations)
    if out is not None:
        refuse_inside("--dry-run", out, model)
        upload.write(held, out)
        terminal.line(f"{len(held)} files in {out}; nothing was uploaded")
        return
    token = None if token_file is None else upload.read_token(token_file)
    commit = upload.publish(held, name, private=private, revision=revision, token=token)
    terminal.line(f"published hub:{name}@{commit}")
