"""Synthetic lateral lumbar radiographs with their reference outlines, as an archive of DX objects.

:mod:`anatomy` draws a patient's spine, :mod:`film` turns it into a radiograph, :mod:`dicom` wraps
the radiograph in a DX object full of (invented) identifying data, :mod:`cohort` writes many.
"""
