"""Tools of this repository's own development; not part of the package."""
