"""Tasks that take several words: `invoke check a.yaml b.yaml`, as a shell expands `*.yaml`.

Invoke fills a positional argument with one word and takes the next one for a task. Here a positional list takes every word that
is neither a flag nor a task's name.
"""

from __future__ import annotations

from invoke.parser.parser import ParseMachine


def take_lists() -> None:
    """Have Invoke fill positional lists. Called before it parses, which is when it imports the tasks."""
    before = ParseMachine.handle

    def handle(self: ParseMachine, word: str) -> None:
        # The core's own pass over the command line only looks for its flags.
        if self.current_state == "context" and not self.ignore_unknown and self.context and not self.waiting_for_flag_value:
            listed = next((one for one in self.context.positional_args if one.kind is list), None)
            is_flag = word.startswith("-") and word != "-"
            if listed and not is_flag and word not in self.contexts:
                listed.value = word
                return
        before(self, word)

    ParseMachine.handle = handle  # type: ignore[method-assign,assignment]
