"""Lumbarflow: from lateral lumbar radiographs to compared networks and measured vertebrae.

One subpackage a stage: :mod:`acquire`, :mod:`annotate`, :mod:`prepare`, :mod:`train`,
:mod:`predict`, :mod:`evaluate`, :mod:`report`; :mod:`networks` holds the five networks and
:mod:`synthetic` the embedded cohort. The package is imported by the thin scripts beside it.
"""
