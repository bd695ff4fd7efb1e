"""`hiexp edit`, `remove`, `merge` and `calibrate`: a HEK changes as a new version with a reason."""

import argparse
from dataclasses import asdict
from pathlib import Path
from typing import Any, get_args

from hiexp_verl.cli.options import DOMAIN_HELP, ENCODER_HELP, add_hek, add_verb, print_result, say
from hiexp_verl.distil.cluster import Linkage
from hiexp_verl.distil.counts import table_of
from hiexp_verl.distil.merge import merge_heks
from hiexp_verl.distil.thresholds import Criterion, calibrate_height, plot, recalibrate
from hiexp_verl.distil.validate import tells
from hiexp_verl.domains import domain_for
from hiexp_verl.errors import HiExpError
from hiexp_verl.hek.edit import edit, remove, to_change
from hiexp_verl.hek.opening import find_encoder, open_encoder, remember_encoder
from hiexp_verl.hek.preconditions import HELP as PRECONDITIONS
from hiexp_verl.hek.schema import read_vectors
from hiexp_verl.hek.store import HEK, current_version, root_of
from hiexp_verl.hek.text_view import inspect_entry
from hiexp_verl.ledger.rows import LEDGER, add_ledger
from hiexp_verl.types import KINDS

_EDIT = 'example: hiexp edit hek e1-0003 --description "Search the country first." --reason "named the wrong hop"'
_REMOVE = 'example: hiexp remove hek e1-0003 e1-0007 --reason "tell an answer"'
_MERGE = """\
Near-duplicate entries are united and keep the sources of both; clusters are not recomputed. Where thresholds
differ, the stricter is kept: the higher minimum score, the lower Ward height.

example: hiexp merge hek_hotpot hek_wiki --out hek_both"""
_DOMAIN = f"of the HEK: {DOMAIN_HELP} (default: as the HEK says)"
_CALIBRATE = """\
criteria:  size        clusters of about --cluster-size entries (default)
           silhouette  the height at which entries are closest to their own cluster
           stability   the height at which clusters of four fifths of the entries agree best with those of all
           percentile  the height of a pair that is closer than 99 in 100 random pairs

With a HEK, minimum scores and heights are stored in a new version, beside the encoder they hold for.
With --vectors, the heights are only shown.

example: hiexp calibrate hek --by stability --plot calibration.svg"""


def add(verbs: Any) -> None:
    """Add the verbs."""
    parser = add_verb(verbs, "calibrate", run_calibrate, "Choose the thresholds of a HEK from its own data.", _CALIBRATE)
    add_hek(parser, encoder=True, json=True, nargs="?")
    parser.add_argument("--vectors", type=Path, metavar="FILE.npy", help="float32 matrix of unit vectors, instead of a HEK")
    parser.add_argument("--by", default="size", choices=get_args(Criterion), help="how heights are chosen, see below (default size)")
    parser.add_argument("--cluster-size", type=float, default=4.0, help="for --by size (default 4)")
    parser.add_argument("--linkage", default="ward", choices=get_args(Linkage), help="of the clusters (default ward)")
    percentile = "the minimum score is this percentile of the cosines between queries and titles of other questions (default 95)"
    parser.add_argument("--percentile", type=float, default=95.0, help=percentile)
    parser.add_argument("--domain", help=_DOMAIN)
    parser.add_argument("--plot", type=Path, metavar="FILE", help="draw scores over heights (.svg, .png, .pdf)")

    parser = add_verb(verbs, "edit", run_edit, "Change the words of one entry, as a new version.", _EDIT)
    add_hek(parser, encoder=True)
    parser.add_argument("entry", metavar="ENTRY", help="id of an entry, as `hiexp inspect` shows it")
    parser.add_argument("--title", help="when the advice applies; what queries are compared with")
    parser.add_argument("--description", help="the advice")
    parser.add_argument("--kind", choices=KINDS, help="guide: do this; pitfall: beware of this")
    when = f"of an E1: show it only at a search where all of these hold: {PRECONDITIONS}; none: at every search"
    parser.add_argument("--when", nargs="*", metavar="PRECONDITION", help=when)
    parser.add_argument("--reason", required=True, metavar="WHY", help="kept with the new version")
    parser.add_argument("--domain", help=_DOMAIN)
    parser.add_argument("--force", action="store_true", help="allow new words that contain an answer that the HEK knows")

    parser = add_verb(verbs, "remove", run_remove, "Remove entries from a HEK, as a new version.", _REMOVE)
    add_hek(parser)
    parser.add_argument("entries", nargs="+", metavar="ENTRY", help="ids of entries, as `hiexp inspect` shows them")
    parser.add_argument("--reason", required=True, metavar="WHY", help="kept with the new version")
    parser.add_argument("--with-orphans", action="store_true", help="also remove what would lose all its children")

    parser = add_verb(verbs, "merge", run_merge, "Merge two HEKs that have the same encoder.", _MERGE)
    parser.add_argument("a", type=Path, metavar="A", help="a HEK; its encoder, thresholds and ids stay")
    parser.add_argument("b", type=Path, metavar="B", help="a HEK with the same encoder")
    parser.add_argument("--out", type=Path, required=True, metavar="C", help="directory; the merged HEK becomes its next version")
    parser.add_argument("--other-domain", action="store_true", help="unite HEKs of two domains; that of A stays")
    parser.add_argument("--prefix", default="", help="put before ids of B's questions or trajectories where they mean others in A")
    parser.add_argument("--encoder", help=ENCODER_HELP)


def run_edit(arguments: argparse.Namespace) -> int:
    """Save the edited HEK as the next version."""
    root = root_of(arguments.hek)
    since = to_change(arguments.hek, root)
    hek = HEK.load(arguments.hek)
    if arguments.when and domain_for(hek.header.domain, arguments.domain).tool is None:
        raise HiExpError(f"preconditions are of searches, and episodes of the domain {hek.header.domain} have none; leave --when out")
    encoder = open_encoder(hek, arguments.hek, arguments.encoder) if arguments.title else None
    edited = edit(
        hek,
        arguments.entry,
        arguments.reason,
        title=arguments.title,
        description=arguments.description,
        kind=arguments.kind,
        when=arguments.when,
        encoder=encoder,
    )
    new_words = f"{arguments.title or ''}\n{arguments.description or ''}"
    if new_words.strip() and not arguments.force:
        own, redact = set(hek.entry(arguments.entry).questions), domain_for(hek.header.domain, arguments.domain).redact
        leaks = [s for s in hek.sources if s.correct and s.question_id in own and tells(new_words, s.question, [s.prediction], redact)]
        if leaks:
            leak = f"the answer {leaks[0].prediction!r} to {leaks[0].question!r}"
            raise HiExpError(f"the new words tell {leak}; leave it out, or give --force")
    version = edited.save(root, since)
    say(f"{inspect_entry(edited, arguments.entry)}\nin {version}")
    return 0


def run_remove(arguments: argparse.Namespace) -> int:
    """Save the HEK without the entries as the next version."""
    root = root_of(arguments.hek)
    since = to_change(arguments.hek, root)
    left = remove(HEK.load(arguments.hek), arguments.entries, arguments.reason, arguments.with_orphans)
    version = left.save(root, since)
    say(f"{left.header.reason}\n{', '.join(f'{count} {level.upper()}' for level, count in left.levels.items())} left in {version}")
    return 0


def run_merge(arguments: argparse.Namespace) -> int:
    """Merge, save, and print what came of it."""
    if arguments.out.exists() and not arguments.out.is_dir():
        raise HiExpError(f"--out {arguments.out} is a file; give a directory for the HEK")
    since = current_version(arguments.out)
    a, b = HEK.load(arguments.a), HEK.load(arguments.b)
    merged = merge_heks(a, b, open_encoder(a, arguments.a, arguments.encoder), arguments.prefix, arguments.other_domain)
    version = merged.save(arguments.out, since)
    remember_encoder(arguments.out, find_encoder(a.header, arguments.a, arguments.encoder))
    for path, hek in ((arguments.a, a), (arguments.b, b)):
        add_ledger(arguments.out, root_of(path), hek.content_hash()[:8])
    runs = len(list((arguments.out / LEDGER).glob("*.jsonl")))
    say("\n".join(table_of(merged.header.counts)))
    say(merged.header.reason)
    if runs:
        say(f"the ledgers of {runs} runs are in {arguments.out / LEDGER}")
    say(f"{', '.join(f'{count} {level.upper()}' for level, count in merged.levels.items())} in {version}")
    return 0


def run_calibrate(arguments: argparse.Namespace) -> int:
    """Calibrate a HEK and save the new version, or look at vectors."""
    if (arguments.hek is None) == (arguments.vectors is None):
        raise HiExpError("give either a HEK or --vectors FILE.npy")
    if arguments.vectors is not None:
        todo = "give a .npy file of a float32 matrix (entries, dimensions) with rows of length 1"
        vectors_E_D = read_vectors(arguments.vectors, todo)
        calibrations = {"vectors": calibrate_height(vectors_E_D, arguments.by, arguments.cluster_size, arguments.linkage)}
        if arguments.plot is not None:
            plot(calibrations, arguments.plot)
        value: dict[str, Any] = {"height": calibrations["vectors"].height}
        text = ""
    else:
        root = root_of(arguments.hek)
        since = to_change(arguments.hek, root)
        hek = HEK.load(arguments.hek)
        encoder = open_encoder(hek, arguments.hek, arguments.encoder)
        done = recalibrate(
            hek,
            encoder,
            by=arguments.by,
            cluster_size=arguments.cluster_size,
            linkage=arguments.linkage,
            percentile=arguments.percentile,
            domain=arguments.domain,
        )
        calibrations = done.heights
        if arguments.plot is not None:  # before anything is saved: it may fail
            plot(calibrations, arguments.plot)
        version = done.hek.save(root, since)
        thresholds = done.hek.header.thresholds
        value = {
            "thresholds": thresholds,
            "encoder": hek.header.encoder.name,
            "tool_fire_rate": done.tool_fire_rate,
            "version": str(version),
        }
        stored = "\n".join(f"{name:>22} {number:g}" for name, number in sorted(thresholds.items()))
        text = f"{stored}\n{done.tool_fire_rate:.0%} of its own searches would get an E1 of another question\nsaved as {version}"
    tables = [f"{name}\n{calibration.table()}\n" for name, calibration in calibrations.items()]
    value["levels"] = {name: asdict(calibration) for name, calibration in calibrations.items()}
    print_result(arguments.json, value, "\n".join([*tables, text]).rstrip())
    return 0
