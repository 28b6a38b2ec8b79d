"""What happens between the steps of a run."""

from typing import Any

from tqdm.auto import tqdm
from transformers import TrainerCallback


class Intervals(TrainerCallback):
    """The intervals of this run, where a resumed one would keep those in its checkpoint."""

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Take them from the arguments."""
        state.compute_steps(args, state.max_steps)


class Progress(TrainerCallback):
    """A bar over the steps, for runs of more than two seconds."""

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Open the bar where the run begins or goes on."""
        self.bar = tqdm(
            total=state.max_steps, initial=state.global_step, desc="training", unit="step", delay=2
        )

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Move on by one step."""
        self.bar.update()

    def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Close the bar."""
        self.bar.close()
