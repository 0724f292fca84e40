"""Read a dataset in torch's loader, stop in the middle of an epoch, and go on with exactly what is left."""

import sys

import numpy as np
import torch
from torchdata.stateful_dataloader import StatefulDataLoader

import openuni
from openuni.sample import Sample
from openuni.torch import IterableDataset


def mean_motion(sample: Sample) -> torch.Tensor:
    """What a training script would make of a sample; here its mean speed in pixels a frame."""
    return torch.tensor(np.nanmean(abs(sample.flow.forward)))  # NaN where a slow source repeats a frame


def loader(path: str) -> StatefulDataLoader:
    data = openuni.open(path).select(["rgb", "flow"])
    return StatefulDataLoader(IterableDataset(data, mean_motion, seed=0, batch_size=1), batch_size=1)


def main(path: str) -> None:
    whole = [float(batch) for batch in loader(path)]
    first = loader(path)
    seen = [float(next(iter(first)))]
    state = first.state_dict()  # keep it beside the weights

    resumed = loader(path)
    resumed.load_state_dict(state)
    seen += [float(batch) for batch in resumed]
    print(f"{len(whole)} samples; stopped after 1 and resumed: {'the same' if seen == whole else 'NOT the same'}")


if __name__ == "__main__":
    main(sys.argv[1])
