"""De-identify: what identifies people leaves headers and pixels; pseudonyms, profile and audit."""
