"""From annotation files of any tool to one canonical record per film, and back to VIA projects.

Beside the records stand tables of quality findings, of the agreement between annotators and of the
films to annotate next.

Coordinates everywhere are continuous image coordinates in pixels of the full-size film: x to the
right, y down, the origin at the outer corner of the top-left pixel, so that the pixel in row r and
column c covers [c, c + 1) x [r, r + 1). VIA and COCO use the same.
"""
