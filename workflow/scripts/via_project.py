import os
from pathlib import Path

import pandas as pd

from lumbarflow.annotate.exporting import FILE_ATTRIBUTES, project_films, write_via_project
from lumbarflow.annotate.mapping import SUBSET
from lumbarflow.annotate.ranking import best_model, rank
from lumbarflow.annotate.records import read_records
from lumbarflow.files import write_table
from lumbarflow.jobs import job

with job(snakemake) as log:
    manifest = pd.read_parquet(snakemake.input.manifest)
    pictures = Path(snakemake.input.manifest).parent / "png"
    accepted = manifest[manifest["status"] == "accepted"]
    folder = snakemake.input.get("records")
    records = [
        record
        for record in (read_records(folder) if folder else [])
        if record["image_id"] in set(accepted["image_id"])
    ]
    predictions = {Path(path).stem: pd.read_parquet(path) for path in snakemake.input.predictions}
    ranking = rank(
        accepted,
        [record["image_id"] for record in records],
        predictions,
        snakemake.params.foreground,
    )
    best = best_model({model: snakemake.params.runs[model] for model in predictions})
    films = project_films(
        pictures,
        ranking,
        predictions.get(best),
        best,
        records if snakemake.params.settings["annotated_films"] else [],
    )
    project = Path(snakemake.output.via)
    write_table(snakemake.output.ranking, ranking)
    write_via_project(
        project,
        films,
        classes=snakemake.params.classes,
        class_attribute=snakemake.params.annotations["class_attribute"],
        level_attribute=snakemake.params.annotations["level_attribute"],
        default_filepath=Path(os.path.relpath(pictures, project.parent)).as_posix() + "/",
        file_attributes=[*FILE_ATTRIBUTES, SUBSET],
        review=True,
    )
    log.info(
        "%d films to annotate%s, %d with annotations: open %s in VIA",
        len(ranking),
        f" with predictions of {best}" if best else "",
        len(films) - len(ranking),
        project,
    )
