"""From records to what networks train on: patient-grouped splits, masks and COCO files."""
