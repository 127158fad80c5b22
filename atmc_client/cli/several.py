"""Options that take several values: `--bits 8 4`, or `--bits 8,4`, or `--bits 8 --bits 4`."""

from collections.abc import Callable, Sequence
from typing import Any

import click


class Several(click.Option):
    """An option whose value is a list, each value read by `read`; give it no `type`."""

    def __init__(self, *args: Any, read: Callable[[str], Any], **attributes: Any) -> None:
        super().__init__(*args, **attributes | {"multiple": True})
        self.read = read

    def belongs(self, word: str) -> bool:
        """Whether a word after the option's values is another one of them."""
        try:
            self._values(word)
        except ValueError:
            return False
        return True

    def process_value(self, context: click.Context, value: Any) -> Any:
        """Return the list of values, or None where the option was not given."""
        given: Sequence[str] = super().process_value(context, value)
        try:
            return [each for text in given for each in self._values(text)] or None
        except ValueError as error:
            raise click.BadParameter(str(error), context, self) from error

    def _values(self, text: str) -> list[Any]:
        return [self.read(each.strip()) for each in text.split(",")]


class WithSeveral(click.Command):
    """A command that has such options: their further values are found before click reads them."""

    def parse_args(self, context: click.Context, args: list[str]) -> list[str]:
        """Repeat the option's name before each further value."""
        options = {
            name: each
            for each in self.get_params(context)
            if isinstance(each, Several)
            for name in each.opts
        }
        spread: list[str] = []
        current: str | None = None
        previous = ""
        for place, word in enumerate(args):
            if word == "--":
                spread += args[place:]
                break
            name, equals, _ = word.partition("=")
            if name in options:
                current = name
            elif word.startswith("-"):
                current = None
            elif current is not None and previous != current:
                if options[current].belongs(word):
                    spread.append(current)
                else:
                    current = None
            spread.append(word)
            previous = "" if equals else word
        return super().parse_args(context, spread)
