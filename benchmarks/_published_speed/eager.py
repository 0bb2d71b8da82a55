"""The published model as a plain PyTorch loop: network layers, an optimizer and batches.

    python eager.py IMAGES.npy EPOCHS

Prints one line of JSON: loss, CPU seconds and wall seconds of each epoch.
"""

import json
import os
import sys
import time

import numpy as np
import torch
from torch import nn
from torch.nn import functional

LATENT, KL_WEIGHT, BATCH = 20, 0.5e-4, 64


def norm(layer, channels):
    return layer(channels, eps=1e-3, momentum=0.01)


def encoder():
    layers, before = [], 1
    for channels in (16, 32, 64):
        layers += [nn.Conv2d(before, channels, 4, 2, 1), nn.ReLU(), norm(nn.BatchNorm2d, channels)]
        before = channels
    layers.append(nn.Flatten())
    for width in (1024, 256):
        layers += [nn.Linear(width, 256), nn.ReLU(), norm(nn.BatchNorm1d, 256)]
    return nn.Sequential(*layers, nn.Linear(256, 2 * LATENT))


def decoder():
    layers = [nn.Linear(LATENT, 1024), nn.ReLU(), nn.Unflatten(1, (64, 4, 4)), norm(nn.BatchNorm2d, 64)]
    before = 64
    for channels in (64, 32, 16):
        layers += [nn.ConvTranspose2d(before, channels, 4, 2, 1), nn.ReLU(), norm(nn.BatchNorm2d, channels)]
        before = channels
    return nn.Sequential(*layers, nn.ZeroPad2d((1, 2, 1, 2)), nn.Conv2d(16, 1, 4))


def main():
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "2")))
    torch.manual_seed(0)
    images = torch.from_numpy(np.load(sys.argv[1]))[:, None]
    encode, decode = encoder(), decoder()
    for layer in [*encode, *decode]:
        if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)
    parameters = [*encode.parameters(), *decode.parameters()]
    optimizer = torch.optim.Adam(parameters, lr=5e-4, eps=1e-7)
    out = {"loss": [], "cpu_s": [], "wall_s": []}
    for _ in range(int(sys.argv[2])):
        cpu, wall, total = time.process_time(), time.perf_counter(), 0.0
        for rows in torch.randperm(len(images)).split(BATCH):
            x = images[rows]
            mean, log_var = encode(x).chunk(2, dim=1)
            logits = decode(mean + log_var.exp() * torch.randn_like(mean))
            divergence = (1 + log_var - mean**2 - log_var.exp()).mean()
            loss = functional.binary_cross_entropy_with_logits(logits, x) - KL_WEIGHT * divergence
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            total += loss.item() * len(x)
        out["loss"].append(total / len(images))
        out["cpu_s"].append(time.process_time() - cpu)
        out["wall_s"].append(time.perf_counter() - wall)
    out["version"] = f"torch {torch.__version__}"
    out["n_parameters"] = sum(p.numel() for p in parameters)
    print(json.dumps(out))


if __name__ == "__main__":
    main()
