"""Acquire: films from an archive or a folder, de-identified before anything is written."""
