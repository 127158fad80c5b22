"""Where a child works, with the child; a spare one waits for the next job."""

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from worker.folder import RunFolder
from worker.process import ChildProcess
from worker.shelter import Shelter


class Workplace:
    """A place and the child that works in it; a context manager that clears both up."""

    def __init__(self, command: Sequence[str], shelter: Shelter, *, together: bool) -> None:
        """`command` starts a child that waits for a folder's name on its standard input.

        It gets the restrictions of the place as its last argument. `together` says whether the
        child starts others that train together.
        """
        self._stack = ExitStack()
        self._place = self._stack.enter_context(shelter.place(together=together))
        self._command = (*command, self._place.restrictions.to_argument())
        self._child: ChildProcess | None = None

    def __enter__(self) -> "Workplace":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def folder(self) -> RunFolder:
        """The run folder, which is this workplace's alone."""
        return self._place.folder

    @property
    def cgroup(self) -> Path | None:
        """The cgroup of the child, if it has one of its own."""
        return None if self._place.cgroup is None else self._place.cgroup.path

    @property
    def waits(self) -> bool:
        """Whether there is a child, which lives."""
        return self._child is not None and not self._child.exited()

    def warm_up(self, log: Path | None = None) -> ChildProcess:
        """Start the child, which loads the method and waits. Raises OSError."""
        self._child = ChildProcess(self._command, log, self.folder.temporary)
        return self._child

    def begin(self) -> ChildProcess:
        """Have the child, or a new one, work on what lies in the folder. Raises OSError."""
        self.folder.log.touch()
        self._place.hand_over()
        line = str(self.folder.path)
        if self._child is not None and self._child.tell(line):
            return self._child
        if self._child is not None:
            self._child.reap()
        child = self.warm_up(self.folder.log)
        child.tell(line)
        return child

    def end(self) -> int:
        """End the child and all that it started; returns its exit status."""
        assert self._child is not None
        self._child.end()
        status = self._child.reap()
        self._place.take_back()
        return status

    def close(self) -> None:
        """End the child, if it has not ended, and remove the folder."""
        if self._child is not None:
            self._child.reap()
        self._stack.close()


class ChildFactory:
    """Keeps a spare child that has loaded the method already, so that a job starts at once.

    Each child is used for one job only, so no job sees the memory of another.
    """

    def __init__(self, command: Sequence[str], shelter: Shelter) -> None:
        """As in `Workplace`."""
        self._command, self._shelter = command, shelter
        self._spare: Workplace | None = None

    def warm_up(self) -> None:
        """Start the spare child, unless there is one."""
        if self._spare is None or not self._spare.waits:
            self.close()
            self._spare = Workplace(self._command, self._shelter, together=False)
            self._spare.warm_up()

    def take(self, *, together: bool) -> Workplace:
        """Return the spare child's workplace, or a new one, which the caller has to close.

        Of those `together` there is no spare: it starts new interpreters anyway.
        """
        spare = self._spare
        if together or spare is None or not spare.waits:
            return Workplace(self._command, self._shelter, together=together)
        self._spare = None
        return spare

    def close(self) -> None:
        """End the spare child."""
        if self._spare is not None:
            self._spare.close()
            self._spare = None
