"""The plugin for verl: the only package that imports verl."""
