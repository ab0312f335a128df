"""A trainer whose `train()` makes one optimizer step at a time, so that several trainers can take turns in one process.

    turns = Turns(trainer)
    turns.step()   # up to and including what the trainer does between two optimizer steps: logging, the data loader
    turns.close()

The trainer's own loop runs, in a thread that waits at the begin of every step. Only one thread ever runs.
"""

from __future__ import annotations

import threading
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from transformers import PrinterCallback, TrainerCallback


class _StopTraining(Exception):  # noqa: N818 - it ends a loop and is no error
    pass


class Turns:
    """Hands the turn to a trainer, step by step.

    Args:
        trainer: Not yet training; its `max_steps` is a number that is not reached.
    """

    def __init__(self, trainer: Any) -> None:
        self._trainer = trainer
        self._go, self._back = threading.Semaphore(0), threading.Semaphore(0)
        self._around: AbstractContextManager[Any] | None = None
        self._closing = False
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._train, daemon=True)
        trainer.remove_callback(PrinterCallback)
        trainer.add_callback(_Gate(self))

    def step(self, around: AbstractContextManager[Any] | None = None) -> None:
        """One optimizer step; what comes before the first step is done first, outside `around`.

        Args:
            around: Entered before and left after the step, in the trainer's own thread: dispatch modes are a thread's.

        Raises:
            Whatever training raised.
        """
        if not self._thread.is_alive():
            self._thread.start()
            self._wait()
        self._around = around or nullcontext()
        self._go.release()
        self._wait()

    def close(self) -> None:
        """End training without a further step."""
        if self._thread.is_alive():
            self._closing = True
            self._go.release()
            self._thread.join()

    def at_begin_of_step(self) -> None:
        """Called in the trainer's thread: give the turn back, and wait for the next."""
        if self._around is not None:
            self._around.__exit__(None, None, None)
        self._back.release()
        self._go.acquire()
        if self._closing:
            raise _StopTraining
        assert self._around is not None
        self._around.__enter__()

    def _wait(self) -> None:
        self._back.acquire()
        if self._failure is not None:
            raise self._failure

    def _train(self) -> None:
        try:
            self._trainer.train()
        except _StopTraining:
            pass
        except BaseException as error:  # noqa: BLE001 - it is raised in the other thread
            self._failure = error
        self._back.release()


class _Gate(TrainerCallback):
    def __init__(self, turns: Turns) -> None:
        self._turns = turns

    def on_step_begin(self, *_: Any, **__: Any) -> None:
        self._turns.at_begin_of_step()
