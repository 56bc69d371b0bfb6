from lumbarflow.acquire.embedded_archive import serving
from lumbarflow.acquire.plan import summary_text
from lumbarflow.acquire.retrieve import query
from lumbarflow.acquire.selection import Selection
from lumbarflow.jobs import job

with job(snakemake) as log:
    settings = snakemake.params.archive
    selection = Selection.of(settings)
    with serving(snakemake.input.get("truth"), settings) as archive:
        log.info("%s", summary_text(query(archive, selection, log)))
