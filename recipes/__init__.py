"""Recipes: complete runs with their settings, and the demo's data. The library does not import them."""
