"""Command lines that are refused."""

from hiexp_verl.cli import main


def refusal(arguments, capsys):
    """Run a command that must be refused; return its line."""
    assert main(arguments) == 2
    text = capsys.readouterr().err.strip().splitlines()[-1]
    assert text.startswith("hiexp: ")
    return text
