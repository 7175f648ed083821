"""Saving, and never anything that is not to be trusted."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType

from kind_jax.errors import UserError
from kind_jax.train import history
from kind_jax.train.lock import check_present
from kind_jax.train.opening import Opened
from kind_jax.train.state import TrainState


class Keeper:
    """The checkpoints of a run under way; a context manager, which finishes saves under way whatever ends the run.

    Attributes:
      saved: step of the last checkpoint, 0 if there is none.
    """

    def __init__(self, directory: Path, opened: Opened) -> None:
        self._directory, self._opened = directory, opened
        self._begun = self.saved = int(opened.state.step)

    def __enter__(self) -> Keeper:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._opened.checkpoints.close()

    def look(self, *, wait: bool = False) -> None:
        """Raise what a save, or the reading of the checkpoint that the run goes on from, has met in the background.

        Args:
          wait: until that checkpoint is verified.
        """
        self._opened.checkpoints.check()
        unverified = self._opened.unverified
        if unverified is not None and (problem := unverified.problem(wait=wait)) is not None:
            aside = history.set_aside(self._opened.checkpoints.directory, self._begun)
            raise UserError(
                f"{problem} It was read while the run went on from it, and nothing was saved since; it is now "
                f"{aside.name}, and the same command goes back to the checkpoint before it."
            )

    def save(self, state: TrainState, step: int) -> None:
        """Save a state whose numbers are finite."""
        check_present(self._directory)
        self.look(wait=True)
        self._opened.checkpoints.save(self._opened.bank.gather(state), self._opened.data, self._opened.meta)
        self.saved = step
