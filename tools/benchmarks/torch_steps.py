"""Training steps in PyTorch, for comparison. Run by the interpreter of an environment with torch, never imported.

  python torch_steps.py '{"model": "resnet_like", "options": {"inner_size": 1024, "dropout": 0.4}, "batch_size": 512,
      "frames": 1, "threads": 2, "compile": false}'

When it is ready, it writes a line of JSON with the number of weights and the version of PyTorch. Then it reads lines
from standard input, each with a number of steps, runs them, and answers with the seconds that they took. The models are
those of `yt8m_tf.models` in the sizes of the benchmark, in idiomatic PyTorch: without masks, because no clip of the
benchmark is padded, and with probabilities instead of logits if the last layer mixes them.
"""

from __future__ import annotations

import json
import sys
import time

if len(sys.argv) != 2:
    raise SystemExit("not a command; run python tools/benchmark.py train --against=torch")

import torch
from torch import nn
from torch.nn import functional as F

CLASSES, RGB, AUDIO = 3862, 1024, 128


class Block(nn.Module):
    """Linear, batch normalisation, leaky ReLU, dropout."""

    def __init__(self, inputs: int, outputs: int, dropout: float):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(inputs, outputs, bias=False), nn.BatchNorm1d(outputs), nn.LeakyReLU(0.01), nn.Dropout(dropout)
        )

    def forward(self, x):
        return self.layers(x)


class Residual(nn.Module):
    """A block with a residual connection."""

    def __init__(self, width: int, inner: int, dropout: float):
        super().__init__()
        self.block, self.outer = Block(width, inner, dropout), nn.Linear(inner, width)

    def forward(self, x):
        return F.leaky_relu(x + self.outer(self.block(x)), 0.01)


class ResNetLike(nn.Module):
    """A block and a residual block for each feature, then a residual block and a block after their concatenation."""

    def __init__(self, size: int, dropout: float = 0.4):
        super().__init__()
        self.rgb = nn.Sequential(Block(RGB, size, dropout), Residual(size, size, dropout))
        self.audio = nn.Sequential(Block(AUDIO, size, dropout), Residual(size, size, dropout))
        self.joint = nn.Sequential(Residual(2 * size, size, dropout), Block(2 * size, size, dropout))
        self.logits = nn.Linear(size, CLASSES)

    def forward(self, rgb, audio):
        return self.logits(self.joint(torch.cat([self.audio(audio), self.rgb(rgb)], dim=1)))

    def loss(self, outputs, targets):
        return F.binary_cross_entropy_with_logits(outputs, targets)


class AttentiveLSTM(nn.Module):
    """Linear, ReLU, a bidirectional LSTM of the result, and attention pooling of both, concatenated."""

    def __init__(self, size: int):
        super().__init__()
        self.linear = nn.Linear(size, size)
        self.lstm = nn.LSTM(size, size, batch_first=True, bidirectional=True)
        self.attention = nn.Linear(3 * size, 1, bias=False)

    def forward(self, frames):
        x = F.relu(self.linear(frames))
        x = torch.cat([x, self.lstm(x)[0]], dim=2)
        return (torch.softmax(self.attention(x), dim=1) * x).sum(dim=1)


class LSTMBiAttention(nn.Module):
    """`AttentiveLSTM` of each feature, batch normalisation, two hidden layers."""

    def __init__(self, hidden: int):
        super().__init__()
        self.rgb, self.audio = AttentiveLSTM(RGB), AttentiveLSTM(AUDIO)
        pooled = 3 * (RGB + AUDIO)
        self.top = nn.Sequential(
            *(nn.BatchNorm1d(pooled), nn.Linear(pooled, hidden), nn.ReLU(), nn.Linear(hidden, hidden), nn.ReLU()),
            nn.Linear(hidden, CLASSES),
        )

    def forward(self, rgb, audio):
        return self.top(torch.cat([self.rgb(rgb), self.audio(audio)], dim=1))

    def loss(self, outputs, targets):
        return F.binary_cross_entropy_with_logits(outputs, targets)


class VLADPooling(nn.Module):
    """Normalised frames, their soft assignment to clusters, sums of residuals, normalised to unit length."""

    def __init__(self, size: int, clusters: int):
        super().__init__()
        self.frames, self.assigned = nn.BatchNorm1d(size), nn.BatchNorm1d(clusters)
        self.assign = nn.Linear(size, clusters, bias=False)
        self.centres = nn.Parameter(torch.randn(clusters, size) * size**-0.5)

    def forward(self, frames):
        batch, length, size = frames.shape
        flat = self.frames(frames.reshape(batch * length, size))
        weights = torch.softmax(self.assigned(self.assign(flat)), dim=1).view(batch, length, -1)
        sums = weights.transpose(1, 2) @ flat.view(batch, length, size)
        residuals = sums - weights.sum(dim=1)[:, :, None] * self.centres
        return F.normalize(F.normalize(residuals, dim=2).flatten(1), dim=1)


class NetVLAD(nn.Module):
    """VLAD of each feature, a gated hidden layer, two experts per class with a gated probability."""

    def __init__(self, clusters: int, hidden: int):
        super().__init__()
        self.rgb, self.audio = VLADPooling(RGB, clusters), VLADPooling(AUDIO, clusters // 2)
        self.hidden = nn.Linear(clusters * RGB + clusters // 2 * AUDIO, hidden)
        self.gate, self.gate_norm = nn.Linear(hidden, hidden, bias=False), nn.BatchNorm1d(hidden)
        self.gates, self.experts = nn.Linear(hidden, 3 * CLASSES, bias=False), nn.Linear(hidden, 2 * CLASSES)
        self.class_gate = nn.Linear(CLASSES, CLASSES)

    def forward(self, rgb, audio):
        x = self.hidden(torch.cat([self.rgb(rgb), self.audio(audio)], dim=1))
        x = x * torch.sigmoid(self.gate_norm(self.gate(x)))
        shares = torch.softmax(self.gates(x).view(-1, CLASSES, 3), dim=2)[:, :, :2]
        p = (shares * torch.sigmoid(self.experts(x).view(-1, CLASSES, 2))).sum(dim=2)
        return p * torch.sigmoid(self.class_gate(p))

    def loss(self, outputs, targets):
        squares = self.gates.weight.square().sum() + self.experts.weight.square().sum()
        return F.binary_cross_entropy(outputs.clamp(1e-7, 1 - 1e-7), targets) + 1e-6 * squares


def build(job: dict) -> tuple[nn.Module, tuple[int, ...]]:
    """Returns the model, and the shape of a batch without the sizes of features."""
    options, batch = job["options"], job["batch_size"]
    if job["model"] == "resnet_like":
        return ResNetLike(options["inner_size"], options["dropout"]), (batch,)
    if job["model"] == "lstm_bi_attention":
        return LSTMBiAttention(options["hidden_sizes"][0]), (batch, job["frames"])
    return NetVLAD(options["cluster_size"], options["hidden_size"]), (batch, job["frames"])


def main(job: dict) -> None:
    """Runs the requested steps until standard input ends."""
    torch.manual_seed(0)
    torch.set_num_threads(job["threads"])
    model, shape = build(job)
    if len(shape) == 2:  # uint8 frames, as they are read
        rgb, audio = (torch.randint(0, 256, (*shape, size), dtype=torch.uint8) for size in (RGB, AUDIO))
    else:
        rgb, audio = torch.rand(*shape, RGB) * 4 - 2, torch.rand(*shape, AUDIO) * 4 - 2
    targets = torch.zeros(shape[0], CLASSES).scatter_(1, torch.randint(0, CLASSES, (shape[0], 3)), 1.0)

    def loss() -> torch.Tensor:
        inputs = [x if len(shape) == 1 else x * (4 / 255) + (4 / 512 - 2) for x in (rgb, audio)]
        return model.loss(model(*inputs), targets)

    function = torch.compile(loss) if job["compile"] else loss
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3, eps=1e-8)

    def step() -> float:
        optimizer.zero_grad(set_to_none=True)
        value = function()
        value.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 10.0)
        optimizer.step()
        return float(value.detach())

    weights = sum(parameter.numel() for parameter in model.parameters())
    print(json.dumps({"weights": weights, "version": torch.__version__}), flush=True)
    for line in sys.stdin:
        start = time.perf_counter()
        for _ in range(int(line)):
            value = step()
        print(json.dumps({"seconds": time.perf_counter() - start, "loss": value}), flush=True)


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
