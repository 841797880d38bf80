#!/usr/bin/env python3
"""Time a training step of HuBERT base in PyTorch: forward, backward, AdamW.

The same work as `cargo bench --bench training_step`: 95 M parameters, every one trained,
clips of `--seconds` seconds, dropout off, the mean square of the output as loss.
Prints one JSON object; `seconds` is the median.

  python3 -m venv .venv && . .venv/bin/activate
  pip install torch transformers
  python benches/torch_training_step.py --threads 2
"""
import argparse, json, statistics, time

parser = argparse.ArgumentParser()
parser.add_argument("--seconds", type=float, default=10.0)
parser.add_argument("--batch", type=int, default=4)
parser.add_argument("--threads", type=int, default=2)
parser.add_argument("--repeat", type=int, default=5)
parser.add_argument("--bf16", action="store_true", help="autocast to bfloat16")
args = parser.parse_args()

import torch
from transformers import HubertConfig, HubertModel

torch.set_num_threads(args.threads)
torch.manual_seed(1)
config = HubertConfig(
    apply_spec_augment=False, hidden_dropout=0.0, attention_dropout=0.0, activation_dropout=0.0,
    feat_proj_dropout=0.0, layerdrop=0.0, attn_implementation="sdpa",
)
model = HubertModel(config).train()
optimiser = torch.optim.AdamW(model.parameters(), lr=1e-4, weight_decay=0.01)
wave = torch.randn(args.batch, int(16000 * args.seconds)) * 0.1


def step():
    start = time.perf_counter()
    optimiser.zero_grad()
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=args.bf16):
        output = model(wave).last_hidden_state
    output.float().square().mean().backward()
    optimiser.step()
    return time.perf_counter() - start


step()
times = [step() for _ in range(args.repeat)]
print(json.dumps({
    "torch": torch.__version__, "batch": args.batch, "clip_s": args.seconds, "threads": args.threads,
    "bf16": args.bf16, "seconds": round(statistics.median(times), 3), "best": round(min(times), 3),
}))
