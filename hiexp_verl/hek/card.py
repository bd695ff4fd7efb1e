"""The README.md of a version: what a person sees who opens the folder."""

from hiexp_verl.types import LEVELS

_MEANING = {"e1": "cases: one decision or pitfall", "e2": "patterns: a kind of task", "e3": "strategies: a rule for all"}
_EXAMPLES = 3


def card(hek: "HEK") -> str:
    """Return Markdown: how it was made, counts, thresholds, some examples of each level."""
    header = hek.header
    lines = ["# Hierarchical experience knowledge", ""]
    lines += [f"- distiller: {header.distiller or 'unknown'}", f"- policies: {', '.join(header.models) or 'unknown'}"]
    lines += [f"- encoder: {header.encoder.name} ({header.encoder.dimensions} dimensions, sha256 {header.encoder.sha256[:12]})"]
    lines += [f"- thresholds: {', '.join(f'{k} {v:g}' for k, v in sorted(header.thresholds.items())) or 'none'}"]
    lines += [f"- content hash: {header.content_hash}", ""]
    for level in reversed(LEVELS):
        entries = [entry for entry in hek.entries if entry.level == level]
        lines += [f"## {level.upper()}: {len(entries)} ({_MEANING[level]})", ""]
        lines += [f"- **{entry.title}** {entry.description}" for entry in entries[:_EXAMPLES]] + [""]
    return "\n".join(lines)
