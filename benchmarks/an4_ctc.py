"""Word and character error rate of a small CTC network on AN4: alone, and distilled with each selection of frames.

The teacher, a convolutional network of seven times the parameters, is trained once on the same 948 utterances. Then the
same student is trained by a real Trainer alone and with every method; initial weights and order of the data depend on
the seed only. ``share`` is the weight of the distillation term, the rest is that of the student's CTC loss: with 1 no
transcript is seen. All terms have temperature 2, as published; nothing was tuned.

Error rates are in per cent of the words and characters of the 130 test utterances, whose speakers are not in training,
after the last epoch and by the best path, without a language model. ``blank`` is the share of frames at which the
student says blank; ``spike_agreement`` that of the teacher's spikes at whose frame the student says the same.
"""

import argparse
import copy
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import lightning as L
import torch
import torch.nn.functional as F
from _an4 import BLANK, SOURCE, Recogniser, Shape, Utterances, collate, decode, read_an4
from _common import (
    RESULTS,
    deliver,
    machine,
    options,
    print_table,
    silent_trainer,
    versions,
    without_lightning_advice,
    write_json,
)
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn
from torch.utils.data import DataLoader

from lightning_kd import KnowledgeDistillation, recipes
from lightning_kd.decoding import greedy_search
from lightning_kd.frames import lengths_to_mask
from lightning_kd.losses import (
    AllFrames,
    EliminateBlanks,
    KeepAround,
    RandomBlanks,
    ThresholdBlanks,
    TrimBlanks,
    spiking_frames,
)
from lightning_kd.speech.text import character_errors, word_errors

BATCH, LEARNING_RATE, WEIGHT_DECAY = 8, 3e-3, 0.01
OPTIMISER = f"AdamW, lr {LEARNING_RATE}, weight decay {WEIGHT_DECAY}, one cycle, batch {BATCH}, clipped at 1"
ALONE, WITH_LABELS = "alone", 0.9
TEACHER, STUDENT = Shape(96, 4), Shape(48, 3)
SELECTIONS = {
    "all": AllFrames(),
    "eliminate": EliminateBlanks(),
    "keep 1 before": KeepAround(1, 0),
    "symmetric 1": KeepAround(1, 1),
    "symmetric 2": KeepAround(2, 2),
    "trim": TrimBlanks(),
    "threshold 0.05": ThresholdBlanks(0.05),
    "random 1": RandomBlanks(1.0),
}
WITHOUT_LABELS = ("all", "eliminate", "symmetric 1")


@dataclass(frozen=True, slots=True, kw_only=True)
class Sizes:
    """How much is trained.

    Attributes:
        teacher: Shape of the teacher.
        student: Shape of the student.
        teacher_epochs: Epochs of the teacher.
        student_epochs: Epochs of each student.
        utterances: Utterances of each part; ``None`` for all.
    """

    teacher: Shape = TEACHER
    student: Shape = STUDENT
    teacher_epochs: int = 24
    student_epochs: int = 14
    utterances: int | None = None


QUICK = Sizes(teacher=Shape(16, 1), student=Shape(8, 1), teacher_epochs=1, student_epochs=1, utterances=16)


class Training(L.LightningModule):
    """An ordinary LightningModule with a CTC loss.

    Args:
        net: The network.
    """

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def training_step(self, batch: tuple[Tensor, Tensor, Tensor]) -> Tensor:
        """Return the CTC loss, per label."""
        frames, lengths, labels = batch
        logits = self.net(frames, lengths)
        scores = F.log_softmax(logits, dim=-1).transpose(0, 1)
        counts = (labels != BLANK).sum(dim=1)
        return F.ctc_loss(scores, labels, self.net.frame_lengths(lengths), counts, blank=BLANK, zero_infinity=True)

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """AdamW with one cycle over the whole training."""
        optimizer = torch.optim.AdamW(self.net.parameters(), lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY)
        steps = int(self.trainer.estimated_stepping_batches)
        cycle = torch.optim.lr_scheduler.OneCycleLR(optimizer, LEARNING_RATE, total_steps=steps, pct_start=0.2)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": cycle, "interval": "step"}}


def methods() -> dict[str, Mapping[str, Any] | None]:
    """Options of each method's recipe, by name; ``None`` for the student alone."""
    rows: dict[str, Mapping[str, Any] | None] = {ALONE: None}
    rows |= {name: {"selection": rule, "share": WITH_LABELS} for name, rule in SELECTIONS.items()}
    rows |= {f"{name}, no labels": {"selection": SELECTIONS[name], "share": 1.0} for name in WITHOUT_LABELS}
    rows["best transcript, no labels"] = {"share": 1.0}
    rows["guided CTC"] = {}
    return rows


def callback(name: str, teacher: nn.Module) -> KnowledgeDistillation:
    """The recipe of a method."""
    chosen: Mapping[str, Any] = methods()[name] or {}
    recipe = recipes.ctc_kd
    if name == "best transcript, no labels":
        recipe = recipes.ctc_sequence
    elif name == "guided CTC":
        recipe = recipes.guided_ctc
    return recipe(teacher, path="net", blank=BLANK, lengths="lengths", **chosen)


def train(net: nn.Module, data: Utterances, *, seed: int, epochs: int, callbacks: list[L.Callback]) -> float:
    """Train a network; return the seconds it took."""
    order = torch.Generator().manual_seed(seed)
    whole = len(data) > BATCH
    loader = DataLoader(data, BATCH, shuffle=True, collate_fn=collate, generator=order, drop_last=whole)
    start = time.perf_counter()
    with without_lightning_advice():
        torch.manual_seed(seed)
        trainer = silent_trainer(accelerator="cpu", max_epochs=epochs, callbacks=callbacks, gradient_clip_val=1.0)
        trainer.fit(Training(net), loader)
    return time.perf_counter() - start


@torch.no_grad()
def logits_of(net: nn.Module, data: Utterances) -> list[tuple[Tensor, Tensor]]:
    """Logits and frame mask of every batch."""
    net.eval()
    batches = [(frames, lengths) for frames, lengths, _ in DataLoader(data, 32, collate_fn=collate)]
    outputs = [(net(frames, lengths), net.frame_lengths(lengths)) for frames, lengths in batches]
    return [(logits, lengths_to_mask(lengths, logits.shape[1])) for logits, lengths in outputs]


def evaluate(net: nn.Module, data: Utterances, teacher: nn.Module) -> dict[str, Any]:
    """Error rates, per cent, and what the network says at which frames."""
    outputs = logits_of(net, data)
    texts = [decode(h.labels) for logits, mask in outputs for h in greedy_search(logits, mask, blank=BLANK)]
    said = torch.cat([logits.argmax(-1)[mask] for logits, mask in outputs])
    taught = torch.cat([logits.argmax(-1)[mask] for logits, mask in logits_of(teacher, data)])
    spikes = torch.cat([spiking_frames(logits, mask, blank=BLANK)[mask] for logits, mask in logits_of(teacher, data)])
    same = (said == taught)[spikes]
    return {
        "word_error_rate": round(word_errors(references(data), texts).percent, 2),
        "character_error_rate": round(character_errors(references(data), texts).percent, 2),
        "blank": round(float((said == BLANK).float().mean()), 4),
        "spike_agreement": round(float(same.float().mean()), 4) if len(same) else None,
    }


def references(data: Utterances) -> list[str]:
    return [" ".join(text.split()) for text in data.texts]


def parameters(net: nn.Module) -> int:
    return sum(parameter.numel() for parameter in net.parameters())


def measure(arguments: argparse.Namespace, sizes: Sizes) -> dict[str, Any]:
    """Train the teacher, then the student with every method, writing the result file after each."""
    start = time.perf_counter()
    train_data, test_data = (part.first(sizes.utterances) for part in read_an4(arguments.file))
    result: dict[str, Any] = {"benchmark": "an4_ctc", "machine": machine(), "versions": versions()}
    result |= {"sizes": asdict(sizes), "optimiser": OPTIMISER, "source": SOURCE, "rows": []}
    result |= {"utterances": {"train": len(train_data), "test": len(test_data)}}
    L.seed_everything(arguments.seed, verbose=False)
    teacher = Recogniser(sizes.teacher)
    seconds = train(teacher, train_data, seed=arguments.seed, epochs=sizes.teacher_epochs, callbacks=[])
    result["teacher"] = {"parameters": parameters(teacher), "wall_s": round(seconds, 1)}
    result["teacher"] |= evaluate(teacher, test_data, teacher)
    print(f"teacher: {result['teacher']}", flush=True)
    for name in arguments.methods:
        L.seed_everything(arguments.seed, verbose=False)
        student = Recogniser(sizes.student)
        callbacks = [] if name == ALONE else [callback(name, copy.deepcopy(teacher))]
        seconds = train(student, train_data, seed=arguments.seed, epochs=sizes.student_epochs, callbacks=callbacks)
        share = (methods()[name] or {}).get("share", 0.0)
        row = {"method": name, "share": share, "seed": arguments.seed, "parameters": parameters(student)}
        result["rows"].append(row | {"wall_s": round(seconds, 1), **evaluate(student, test_data, teacher)})
        result["wall_s"] = round(time.perf_counter() - start)
        print(result["rows"][-1], flush=True)
        if arguments.output is not None:
            write_json(arguments.output, result)
    return result


def report(result: Mapping[str, Any]) -> None:
    """Print the rows as a table."""
    columns = ["method", "share", "words wrong, %", "characters wrong, %", "blank", "spikes like the teacher's", "s"]
    keys = ("share", "word_error_rate", "character_error_rate", "blank", "spike_agreement", "wall_s")
    rows = [[row["method"], *(str(row[key]) for key in keys)] for row in result["rows"]]
    teacher = result["teacher"]
    title = f"AN4, teacher {teacher['word_error_rate']} % of words, {teacher['character_error_rate']} % of characters"
    print_table(title, columns, rows)


def main() -> None:
    parser = options(__doc__)
    names = list(methods())
    parser.add_argument("--methods", nargs="+", choices=names, default=names, metavar="METHOD", help=", ".join(names))
    parser.add_argument("--seed", type=int, default=0, help="of weights and order (%(default)s)")
    parser.add_argument("--file", type=Path, help="an4_mfcc.npz, or a file in its form")
    arguments = parser.parse_args()
    sizes = QUICK if arguments.quick else Sizes()
    if arguments.output is None and not arguments.quick:
        arguments.output = RESULTS / "an4_ctc.json"
    result = measure(arguments, sizes)
    report(result)
    deliver(result, arguments, default=None)


if __name__ == "__main__":
    main()
