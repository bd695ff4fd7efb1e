"""A HEK that is tested and replaced while the policy learns."""
