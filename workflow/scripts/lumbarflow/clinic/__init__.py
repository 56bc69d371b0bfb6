"""Clinic: what was found on a film as DICOM objects that an archive and a viewer understand."""
