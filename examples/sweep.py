"""Search temperature and weight of distillation with Optuna: each trial is an ordinary fit.

Run it: ``python examples/sweep.py``, with the extra ``sweep`` installed.
"""

import argparse

import lightning as L
import optuna
from digits import Classifier, Digits, convolutional, quiet_trainer, trained_teacher
from torch import nn
from typing_extensions import override

from lightning_kd.recipes import kd


class Reporter(L.Callback):
    """Tells Optuna the accuracy after each epoch, and ends a trial that others have left behind.

    Args:
        trial: The trial that this fit is.
    """

    def __init__(self, trial: optuna.Trial) -> None:
        self.trial = trial

    @override
    def on_validation_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if trainer.sanity_checking:
            return
        self.trial.report(trainer.callback_metrics["accuracy"].item(), trainer.current_epoch)
        if self.trial.should_prune():
            raise optuna.TrialPruned


def accuracy_of(trial: optuna.Trial, teacher: nn.Module, epochs: int) -> float:
    """Distil a student with the values that the trial suggests.

    Args:
        trial: Suggests them.
        teacher: One for all trials: it never learns.
        epochs: How long.

    Returns:
        Accuracy on the validation images, from 0 to 1.
    """
    temperature = trial.suggest_float("temperature", 1.0, 16.0, log=True)
    share = trial.suggest_float("share", 0.1, 0.9)
    L.seed_everything(1)
    distillation = kd(teacher, path="net", temperature=temperature, share=share)
    trainer = quiet_trainer(epochs, [distillation, Reporter(trial)])
    trainer.fit(Classifier(convolutional(width=4)), Digits())
    return trainer.callback_metrics["accuracy"].item()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--fast", action="store_true", help="few and short trials: shows that it runs")
    fast = parser.parse_args().fast
    trials, epochs = (3, 3) if fast else (20, 15)
    teacher = trained_teacher(epochs)
    study = optuna.create_study(
        direction="maximize",
        sampler=optuna.samplers.TPESampler(seed=0),
        pruner=optuna.pruners.MedianPruner(n_startup_trials=5),
    )
    study.optimize(lambda trial: accuracy_of(trial, teacher, epochs), n_trials=trials)
    pruned = sum(trial.state == optuna.trial.TrialState.PRUNED for trial in study.trials)
    print(f"trials:        {len(study.trials)}, of which {pruned} ended early")
    print(f"best accuracy: {study.best_value:.3f}")
    print(f"best values:   {', '.join(f'{name} {value:.2f}' for name, value in study.best_params.items())}")


if __name__ == "__main__":
    main()
